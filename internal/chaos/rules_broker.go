package chaos

import "fmt"

// expiredAtBroker is RabbitMQ's reason for a message whose time was over.
const expiredAtBroker = "expired"

// judgeBroker checks the commands that the broker gave up. If a command's own time isn't over, the
// host is the cause. It may have given the command back more often than the queue allows.
func judgeBroker(e *evidence) []finding {
	var found []finding
	for i := range e.End.DeadLetters {
		d := &e.End.DeadLetters[i]
		what := ""
		switch p, ok := e.findCommand(d.ID, d.Device); {
		case !ok:
			what = "the broker gave up a command that was never published"
		case d.Reason != expiredAtBroker:
			what = "the broker gave it up: " + d.Reason
		case e.Commands[p].Expiration == 0:
			what = "the broker gave it up, expired, and its time has no end"
		case d.Read.Before(e.Commands[p].Sent.Add(e.Commands[p].Expiration)):
			what = fmt.Sprintf("the broker gave it up, expired, before %s", e.sinceStart(e.Commands[p].Sent.Add(e.Commands[p].Expiration)))
		default:
			continue
		}
		found = append(found, finding{id: d.ID, device: d.Device, what: what})
	}
	return found
}
