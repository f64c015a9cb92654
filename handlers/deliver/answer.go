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

// Answer says which frames of a device are answers. With match, every frame that matches is an
// answer. With command and frame, an answer belongs to one request: the request and the answer
// contain the same text.
type Answer struct {
	Match   string `toml:"match" doc:"A regular expression for answers. A frame that doesn't match is data and answers no request." example:"\"^(OK|ERR)\""`
	Command string `toml:"command" doc:"A regular expression with one group: the part of a command that its answer repeats, such as a number." example:"\"#(\\\\d+)$\""`
	Frame   string `toml:"frame" doc:"A regular expression with one group: the same part in a frame from the device." example:"\"^(\\\\d+):\""`
	MaxOpen int    `toml:"max_open" doc:"How many open requests a device may have. Default: 1." unit:"requests" min:"1" max:"1000" example:"4" renamed:"window"`
}

// mostOpen is the largest max_open. Each frame of a device is compared with all its open requests.
const mostOpen = 1000

func (a *Answer) validate() (errs []error) {
	for name, text := range map[string]string{"answer.match": a.Match, "answer.command": a.Command, "answer.frame": a.Frame} {
		switch re, _, err := pattern.Compile(text); {
		case text == "":
			if partner := a.partnerOf(name); partner != "" {
				errs = append(errs, handlers.Invalid(name, "is missing; %s needs it", partner))
			}
		case err != nil:
			errs = append(errs, handlers.Invalid(name, "%v", err))
		case name == "answer.match":
		case a.Match != "":
			errs = append(errs, handlers.Invalid(name, "can't be used with match"))
		case re.NumSubexp() != 1:
			errs = append(errs, handlers.Invalid(name, "has %d groups, must have one", re.NumSubexp()))
		}
	}
	if a.Match != "" && a.MaxOpen > 1 {
		errs = append(errs, handlers.Invalid("answer.max_open", "must be 1 with match, which can't tell the answers of several requests apart"))
	}
	if a.MaxOpen < 0 || a.MaxOpen > mostOpen {
		errs = append(errs, handlers.Invalid("answer.max_open", "%d is not from 1 to %d", a.MaxOpen, mostOpen))
	}
	return errs
}

// partnerOf returns the setting that needs the missing one, or "".
func (a *Answer) partnerOf(missing string) string {
	switch {
	case missing == "answer.command" && a.Frame != "":
		return "frame"
	case missing == "answer.frame" && a.Command != "":
		return "command"
	case missing == "answer.match" && a.Command == "" && a.Frame == "" && a.MaxOpen == 0:
		return "answer"
	default:
		return ""
	}
}

// MatchesAnswers implements handlers.AnswerMatcher.
func (c *Config) MatchesAnswers() string {
	switch {
	case c.Answer == nil:
		return ""
	case c.Answer.Match != "":
		return "answer.match"
	case c.Answer.Command != "":
		return "answer.command"
	default:
		return ""
	}
}

// requestMaker makes requests from commands.
type requestMaker struct {
	timeout time.Duration
	match   *regexp.Regexp // nil: see command
	// command and frame are nil if the protocol says which frame is the answer, or if the next
	// frame is the answer.
	command, frame *regexp.Regexp
	maxOpen        int
}

func newRequestMaker(c *Config) *requestMaker {
	a := &requestMaker{timeout: c.Timeout, maxOpen: 1}
	if c.Answer == nil {
		return a
	}
	a.maxOpen = max(c.Answer.MaxOpen, 1)
	if c.Answer.Match != "" {
		a.match = regexp.MustCompile(c.Answer.Match)
	}
	if c.Answer.Command != "" {
		a.command, a.frame = regexp.MustCompile(c.Answer.Command), regexp.MustCompile(c.Answer.Frame)
	}
	return a
}

// newRequest returns the request of a command. Its error is the detail of a rejection.
func (a *requestMaker) newRequest(c *device.Command) (*device.Request, error) {
	q := &device.Request{Timeout: c.Timeout, MaxOpen: a.maxOpen}
	if q.Timeout == 0 {
		q.Timeout = a.timeout
	}
	switch {
	case a.match != nil:
		q.Matches = a.match.Match
		return q, nil
	case a.command == nil:
		return q, nil
	}
	found := a.command.FindSubmatch(c.Payload)
	if found == nil {
		return nil, fmt.Errorf("reply: cmd has no part that its answer could repeat; it must match %s", a.command)
	}
	want := string(found[1])
	q.Distinct = true
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
