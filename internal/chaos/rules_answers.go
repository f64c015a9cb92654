package chaos

import (
	"fmt"
	"time"

	"github.com/pentrough/pentrough/transports/device"
)

// judgeAnswers checks what results say about answers.
func judgeAnswers(e *evidence) []finding {
	var found []finding
	for i := range e.Commands {
		c := &e.Commands[i]
		for _, place := range e.lives[i].outcomes {
			r := &e.Results[place]
			what := ""
			switch r.State {
			case device.StateAnswered, device.StateNoReply:
				switch {
				case !c.WantsAnswer:
					what = fmt.Sprintf("its result is %s, and it isn't a request", r.State)
				case r.State == device.StateAnswered && !e.isRightAnswer(i, r):
					what = fmt.Sprintf("its result is answered with %q, which isn't the device's answer to it", r.Reply)
				}
			case device.StateSent:
				if c.WantsAnswer {
					what = "its result is sent, and it is a request"
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

// maxAnswerDelay is how long an answer may take from a device to the host.
const maxAnswerDelay = 500 * time.Millisecond

// isRightAnswer reports whether the result of the command at that place has the device's answer to
// that command.
//
// Without a pattern, the result may have the answer to an earlier command. That happens if the
// earlier answer came after the host's timeout, when the next request was already written. From
// then on the host takes each answer for the answer to the next request, until the device has
// nothing to answer for a while. The loop follows that chain back to its first late answer.
func (e *evidence) isRightAnswer(place int, r *Result) bool {
	seen := map[int]bool{}
	for {
		to, said := e.commandByAnswer[commandKey{string(r.Reply), r.Device}]
		switch {
		case !said:
			return false
		case to == place && len(seen) == 0:
			return true
		case e.Answering.Pattern || seen[to]:
			return false
		}
		seen[to] = true
		other := e.onlyOutcome(to)
		switch {
		case other == nil:
			return true // the other has no result or several, which is for another rule
		case other.State == device.StateUnknown || other.Attempt > 1:
			return true // its first attempt may have ended without an answer in the host's crash
		case other.Epoch != r.Epoch:
			return false
		case other.State == device.StateNoReply:
			answers := e.lives[to].answers
			return e.Answers[answers[len(answers)-1]].Time.After(other.Time.Add(e.Answering.Timeout - maxAnswerDelay))
		case other.State != device.StateAnswered:
			return false
		}
		r = other
	}
}
