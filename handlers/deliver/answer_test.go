package deliver

import (
	"strings"
	"testing"
	"time"

	"github.com/pentrough/pentrough/handlers/handlertest"
	"github.com/pentrough/pentrough/transports/device"
)

func TestRequests(t *testing.T) {
	tagged := &Answer{Command: `#(\d+)$`, Frame: `^(\d+):`, MaxOpen: 4}
	for _, c := range []struct {
		name    string
		reply   bool
		answer  *Answer
		body    string
		timeout time.Duration // 0: it isn't a request
		open    int
		yes, no string // frames that do and don't answer; empty: all do
		detail  string // of its rejection
	}{
		{name: "none", body: `{"device":"d","cmd":"x"}`},
		{name: "asked", body: `{"device":"d","cmd":"x","reply":true}`, timeout: 7 * time.Second, open: 1},
		{name: "asked with a time of its own", body: `{"device":"d","cmd":"x","reply":true,"timeout":3}`, timeout: 3 * time.Second, open: 1},
		{name: "a timeout without a request", body: `{"device":"d","cmd":"x","timeout":3}`},
		{name: "always asked", reply: true, body: `{"device":"d","cmd":"x"}`, timeout: 7 * time.Second, open: 1},
		{name: "always asked but for this", reply: true, body: `{"device":"d","cmd":"x","reply":false}`},
		{name: "tagged", answer: tagged, body: `{"device":"d","cmd":"get #12","reply":true}`, timeout: 7 * time.Second, open: 4, yes: "12: 21.5", no: "1: 21.5"},
		{name: "tagged, in vain", answer: tagged, body: `{"device":"d","cmd":"get","reply":true}`, detail: "reply: cmd has no part that its answer could repeat"},
		{name: "recognised", answer: &Answer{Match: "^(OK|ERR)"}, body: `{"device":"d","cmd":"get","reply":true}`, timeout: 7 * time.Second, open: 1, yes: "OK 3", no: "temp=3"},
		{name: "named by the protocol", answer: &Answer{MaxOpen: 3}, body: `{"device":"d","cmd":"get","reply":true}`, timeout: 7 * time.Second, open: 3},
		{name: "not asked", answer: tagged, body: `{"device":"d","cmd":"get"}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			h, d := newHost(t)
			handler := h.Build(&Config{Devices: "devices", Reply: c.reply, Timeout: 7 * time.Second, Answer: c.answer, MinGap: time.Second})
			out, err := handlertest.Handle(t.Context(), handler, newMessage("m", c.body))
			r := only(t, out, err)
			if c.detail != "" {
				if r.State != device.StateRejected || !strings.HasPrefix(r.Detail, c.detail) || len(d.Frames()) > 0 {
					t.Errorf("%+v", r)
				}
				return
			}
			o := d.Frames()[0].Options
			if o.Gap != time.Second || (o.Request != nil) != (c.timeout > 0) {
				t.Fatalf("enqueued with %+v", o)
			}
			if o.Request == nil {
				return
			}
			if distinct := c.answer == tagged; o.Request.Distinct != distinct {
				t.Errorf("distinct is %v, want %v", o.Request.Distinct, distinct)
			}
			if q := o.Request; q.Timeout != c.timeout || q.MaxOpen != c.open || (q.Matches != nil) != (c.yes != "") {
				t.Errorf("asked %+v", q)
			} else if q.Matches != nil && (!q.Matches([]byte(c.yes)) || q.Matches([]byte(c.no)) || q.Matches(nil)) {
				t.Errorf("takes another answer than %q", c.yes)
			}
		})
	}
}

func TestAnswers(t *testing.T) {
	for _, c := range []struct {
		written device.Written
		state   device.State
		reply   string
		as      device.Encoding
	}{
		{device.Written{Fate: device.Answered, Epoch: 9, Reply: "21.5"}, device.StateAnswered, "21.5", device.Text},
		{device.Written{Fate: device.Answered, Epoch: 9, Reply: "\xff\x00"}, device.StateAnswered, "\xff\x00", device.Base64},
		{device.Written{Fate: device.Answered, Epoch: 9}, device.StateAnswered, "", device.Text},
		{device.Written{Fate: device.NoReply, Epoch: 9, Detail: "no answer came within 5s"}, device.StateNoReply, "", ""},
	} {
		h, d := newHost(t)
		d.EnqueueFunc = func(string, []byte, device.EnqueueOptions) (device.Write, error) {
			return handlertest.Ended(c.written), nil
		}
		out, err := handlertest.Handle(t.Context(), h.Build(&Config{Devices: "devices"}), newMessage("m", `{"device":"d","cmd":"x","reply":true}`))
		r := only(t, out, err)
		if r.State != c.state || string(r.Reply) != c.reply || r.Encoding != c.as || r.Epoch != 9 || r.Detail != c.written.Detail {
			t.Errorf("%+v became %+v", c.written, r)
		}
	}
}

func TestAnswersAreConfigured(t *testing.T) {
	for _, c := range []struct {
		answer Answer
		want   string
	}{
		{Answer{Command: `#(\d+)`, Frame: `(\d+)`}, ""},
		{Answer{Match: `^OK`}, ""},
		{Answer{MaxOpen: 4}, ""},
		{Answer{}, "answer.match: is missing; answer needs it"},
		{Answer{Match: `(`}, "answer.match: the regular expression is wrong"},
		{Answer{Match: `OK`, MaxOpen: 2}, "answer.max_open: must be 1 with match"},
		{Answer{Match: `OK`, Command: `(.)`, Frame: `(.)`}, "answer.command: can't be used with match"},
		{Answer{Frame: `(\d+)`}, "answer.command: is missing; frame needs it"},
		{Answer{Command: `(\d+)`}, "answer.frame: is missing; command needs it"},
		{Answer{Command: `#(\d+`, Frame: `(\d+)`}, "answer.command: the regular expression is wrong: missing closing )"},
		{Answer{Command: `#(\d+)`, Frame: `^(\d{1,1000}.{1,1000})`}, "answer.frame: the regular expression has a size of 4"},
		{Answer{Command: `#(\d+)`, Frame: `\d+`}, "answer.frame: has 0 groups, must have one"},
		{Answer{Command: `#(\d+)`, Frame: `(\d+)`, MaxOpen: 2000}, "answer.max_open: 2000 is not from 1 to 1000"},
	} {
		config := defaults
		config.Devices, config.Answer = "devices", &c.answer
		if err := config.Validate(); (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v", c.answer, err)
		}
	}
	config := defaults
	config.Devices, config.Timeout, config.MinGap = "devices", time.Hour, time.Hour
	if err := config.Validate(); err == nil || !strings.Contains(err.Error(), "timeout: ") || !strings.Contains(err.Error(), "min_gap: ") {
		t.Error(err)
	}
}
