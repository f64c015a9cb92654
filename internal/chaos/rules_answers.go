package chaos

import (
	"fmt"
	"time"

	"github.com/pentrough/pentrough/transports/device"
)

// answersRight judges what results say of answers.
func answersRight(e *evidence) []finding {
	var found []finding
	for i := range e.Commands {
		c := &e.Commands[i]
		for _, place := range e.lives[i].outcomes {
			r := &e.Results[place]
			what := ""
			switch r.State {
			case device.StateAnswered, device.StateNoReply:
				switch {
				case !c.Asks:
					what = fmt.Sprintf("its result is %s, and it didn't ask", r.State)
				case r.State == device.StateAnswered && !e.answeredRight(i, r):
					what = fmt.Sprintf("its result is answered with %q, which the device didn't say to it", r.Reply)
				}
			case device.StateSent:
				if c.Asks {
					what = "its result is sent, and it was to be answered"
				}
			default:
			}
			if what != "" {
				found = append(found, finding{id: c.ID, device: c.Device, what: what})
			}
		}
	}
	return found
}

// hurry is how long an answer may take from a device to the host.
const hurry = 500 * time.Millisecond

// answeredRight says whether the result of the command at that place has the device's answer to it. Without a pattern it may have the answer to
// another one, which the device gave later than is waited for: then the next question is out. The device is one answer behind from then on, until
// it has nothing to answer for a while.
func (e *evidence) answeredRight(place int, r *Result) bool {
	seen := map[int]bool{}
	for {
		to, said := e.spoken[commandKey{string(r.Reply), r.Device}]
		switch {
		case !said:
			return false
		case to == place && len(seen) == 0:
			return true
		case e.Asking.Pattern || seen[to]:
			return false
		}
		seen[to] = true
		other := e.outcome(to)
		switch {
		case other == nil:
			return true // the other has no result or several, which is for another rule
		case other.State == device.StateUnknown || other.Attempt > 1:
			return true // its first attempt may have ended without an answer, and that was lost with the host
		case other.Epoch != r.Epoch:
			return false
		case other.State == device.StateNoReply:
			answers := e.lives[to].answers
			return e.Answers[answers[len(answers)-1]].Time.After(other.Time.Add(e.Asking.Timeout - hurry))
		case other.State != device.StateAnswered:
			return false
		}
		r = other
	}
}
