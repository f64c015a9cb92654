package deliver

import (
	"fmt"
	"regexp"
	"time"
	"unicode/utf8"

	"github.com/pentrough/pentrough/handlers"
	"github.com/pentrough/pentrough/internal/pattern"
	"github.com/pentrough/pentrough/transports/device"
)

// Answer says how an answer is matched to its request: both contain the same text.
type Answer struct {
	Command string `toml:"command" doc:"A regular expression with one group: the part of a command that its answer repeats, such as a number." example:"\"#(\\\\d+)$\"" required:"true"`
	Frame   string `toml:"frame" doc:"A regular expression with one group: the same part in a frame from the device." example:"\"^(\\\\d+):\"" required:"true"`
	MaxOpen int    `toml:"max_open" doc:"How many open requests a device may have. Default: 1." unit:"requests" min:"1" max:"1000" example:"4" renamed:"window"`
}

// mostOpen is the largest max_open. Each frame of a device is compared with all its open requests.
const mostOpen = 1000

func (a *Answer) validate() (errs []error) {
	for name, text := range map[string]string{"answer.command": a.Command, "answer.frame": a.Frame} {
		switch re, _, err := pattern.Compile(text); {
		case text == "":
			errs = append(errs, handlers.Invalid(name, "is missing"))
		case err != nil:
			errs = append(errs, handlers.Invalid(name, "%v", err))
		case re.NumSubexp() != 1:
			errs = append(errs, handlers.Invalid(name, "has %d groups, must have one", re.NumSubexp()))
		}
	}
	if a.MaxOpen < 0 || a.MaxOpen > mostOpen {
		errs = append(errs, handlers.Invalid("answer.max_open", "%d is not from 1 to %d", a.MaxOpen, mostOpen))
	}
	return errs
}

// requestMaker makes requests from commands.
type requestMaker struct {
	timeout        time.Duration
	command, frame *regexp.Regexp // nil: the next frame is the answer
	maxOpen        int
}

func newRequestMaker(c *Config) *requestMaker {
	a := &requestMaker{timeout: c.Timeout, maxOpen: 1}
	if c.Answer != nil {
		a.command, a.frame, a.maxOpen = regexp.MustCompile(c.Answer.Command), regexp.MustCompile(c.Answer.Frame), max(c.Answer.MaxOpen, 1)
	}
	return a
}

// newRequest returns the request of a command. Its error is the detail of a rejection.
func (a *requestMaker) newRequest(c *device.Command) (*device.Request, error) {
	q := &device.Request{Timeout: c.Timeout, MaxOpen: a.maxOpen}
	if q.Timeout == 0 {
		q.Timeout = a.timeout
	}
	if a.command == nil {
		return q, nil
	}
	found := a.command.FindSubmatch(c.Payload)
	if found == nil {
		return nil, fmt.Errorf("reply: cmd has no part that its answer could repeat; it must match %s", a.command)
	}
	want := string(found[1])
	q.Matches = func(frame []byte) bool {
		found := a.frame.FindSubmatch(frame)
		return len(found) == 2 && string(found[1]) == want
	}
	return q, nil
}

// encodeReply returns the reply and encoding of a result for an answer.
func encodeReply(reply string) ([]byte, device.Encoding) {
	if utf8.ValidString(reply) {
		return []byte(reply), device.Text
	}
	return []byte(reply), device.Base64
}
