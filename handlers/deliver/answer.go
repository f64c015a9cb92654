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

// Answer says by what the answers of devices are known.
type Answer struct {
	Command string `toml:"command" doc:"A regular expression with one group: what an answer repeats of its command, such as a number." example:"\"#(\\\\d+)$\"" required:"true"`
	Frame   string `toml:"frame" doc:"A regular expression with one group: where a frame from a device repeats it." example:"\"^(\\\\d+):\"" required:"true"`
	Window  int    `toml:"window" doc:"How many questions a device may have open at once. Default: 1." unit:"questions" min:"1" max:"1000" example:"4"`
}

// mostWindow keeps what is looked through for each frame small.
const mostWindow = 1000

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
	if a.Window < 0 || a.Window > mostWindow {
		errs = append(errs, handlers.Invalid("answer.window", "%d is not from 1 to %d", a.Window, mostWindow))
	}
	return errs
}

// asker makes questions of commands.
type asker struct {
	timeout        time.Duration
	command, frame *regexp.Regexp // nil: the next frame answers
	window         int
}

func newAsker(c *Config) *asker {
	a := &asker{timeout: c.Timeout, window: 1}
	if c.Answer != nil {
		a.command, a.frame, a.window = regexp.MustCompile(c.Answer.Command), regexp.MustCompile(c.Answer.Frame), max(c.Answer.Window, 1)
	}
	return a
}

// question returns what the command asks. The error is for its sender.
func (a *asker) question(c *device.Command) (*device.Request, error) {
	q := &device.Request{Timeout: c.Timeout, MaxOpen: a.window}
	if q.Timeout == 0 {
		q.Timeout = a.timeout
	}
	if a.command == nil {
		return q, nil
	}
	found := a.command.FindSubmatch(c.Payload)
	if found == nil {
		return nil, fmt.Errorf("reply: cmd has nothing that its answer could repeat; it must match %s", a.command)
	}
	want := string(found[1])
	q.Matches = func(frame []byte) bool {
		found := a.frame.FindSubmatch(frame)
		return len(found) == 2 && string(found[1]) == want
	}
	return q, nil
}

// encoded is an answer as a result has it.
func encoded(reply string) ([]byte, device.Encoding) {
	if utf8.ValidString(reply) {
		return []byte(reply), device.Text
	}
	return []byte(reply), device.Base64
}
