package http

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/pentrough/pentrough/transports"
)

func messageOf(typ, payload string) *message.Message {
	msg := message.NewMessage("", []byte(payload))
	if typ != "" {
		msg.Metadata[transports.Type] = typ
	}
	return msg
}

func TestOutcomes(t *testing.T) {
	why := errors.New("the reason")
	for _, c := range []struct {
		name    string
		outcome transports.Outcome
		status  int
		body    string
	}{
		{"handled", transports.Outcome{Code: 200}, 200, `{"id":"id-1"}`},
		{"described id", transports.Outcome{Code: 200, ID: "id-2"}, 200, `{"id":"id-2"}`},
		{"dropped", transports.Outcome{Code: 200, Err: why}, 200, `{"id":"id-1"}`},
		{"permanent", transports.Outcome{Code: 400, Err: why, ID: "id-2"}, 400, `{"id":"id-2","error":"the reason"}`},
		{"retryable", transports.Outcome{Code: 500, Err: why}, 500, `{"id":"id-1","error":"the reason"}`},
		{"unavailable", transports.Outcome{Code: 503, Err: why}, 503, `{"id":"id-1","error":"undecided: repeat with the same id: the reason"}`},
		{"swallowed", transports.Outcome{Code: 400, Err: why, Published: true}, 400, `{"id":"id-1","error":"the reason"}`},
		{"error without a code", transports.Outcome{Err: why}, 500, `{"id":"id-1","error":"the reason"}`},
		{"odd code", transports.Outcome{Code: 1000, Err: why}, 500, `{"id":"id-1","error":"the reason"}`},
		{"encoding", transports.Outcome{Code: 400, Err: fmt.Errorf("reading: %w", transports.ErrEncoding)}, 415, `{"id":"id-1","error":"reading: allowed are gzip and identity"}`},
		{"a gzip bomb", transports.Outcome{Code: 400, Err: transports.ErrTooLarge}, 413, `{"id":"id-1","error":"it has more than 16777216 bytes"}`},
		{"produced", transports.Outcome{Code: 200, Messages: []*message.Message{messageOf("", "one"), messageOf("", "two")}}, 200, "one"},
		{"published", transports.Outcome{Code: 200, Published: true, Messages: []*message.Message{messageOf("command", "{}")}}, 202, `{"id":"id-1"}`},
		{"result", transports.Outcome{Code: 200, Messages: []*message.Message{messageOf("result", `{"code":503,"state":"offline"}`)}}, 503, `{"code":503,"state":"offline"}`},
		{"published result", transports.Outcome{Code: 200, Published: true, Messages: []*message.Message{messageOf("result", `{"code":410}`)}}, 410, `{"code":410}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := start(t, nil)
			handle(t, s, &c.outcome)
			res := <-async(t.Context(), s, "/x", "a")
			if res.err != nil {
				t.Fatal(res.err)
			}
			if res.StatusCode != c.status || strings.TrimSpace(res.body) != c.body {
				t.Errorf("%d %s, want %d %s", res.StatusCode, res.body, c.status, c.body)
			}
			if (res.Header.Get("Retry-After") != "") != (c.status == 503) {
				t.Errorf("Retry-After %q", res.Header.Get("Retry-After"))
			}
			if got := testutil.ToFloat64(s.requests); got != 1 {
				t.Errorf("counted %v requests", got)
			}
		})
	}
}

func TestResultCodes(t *testing.T) {
	for result, want := range map[string]int{
		`{"code":200}`: 200, `{"code":202}`: 202, `{"code":404}`: 404, `{"code":429}`: 429, `{"code":504}`: 504, `{"code":520}`: 520,
		`{"code":599}`: 599, `{"code":102}`: 202, `{"code":204}`: 200, `{"code":304}`: 200, `{"code":600}`: 200, `{"code":-1}`: 200,
		`{}`: 200, `{"code":"x"}`: 200, `[]`: 200, `text`: 200, ``: 200, `null`: 200,
	} {
		if got := codeOf([]byte(result)); got != want {
			t.Errorf("the result %s has the status %d, want %d", result, got, want)
		}
	}
}

func TestContentType(t *testing.T) {
	for _, c := range []struct{ set, payload, want string }{
		{"text/csv", "a,b", "text/csv"},
		{"", `{"a":1}`, "application/json"},
		{"", "a,b", "application/octet-stream"},
	} {
		msg := messageOf("", c.payload)
		if c.set != "" {
			msg.Metadata[transports.ContentType] = c.set
		}
		if got := messageAnswer(msg, 200).contentType; got != c.want {
			t.Errorf("the payload %s has the type %s, want %s", c.payload, got, c.want)
		}
	}
}

func TestWaitForAnswer(t *testing.T) {
	answered := make(chan *message.Message, 1)
	answered <- messageOf("", `{"code":504,"state":"no-reply"}`)
	ended := make(chan *message.Message)
	close(ended)
	for _, c := range []struct {
		name   string
		answer <-chan *message.Message
		wait   string
		status int
		body   string
	}{
		{"answered", answered, "20s", 504, `{"code":504,"state":"no-reply"}`},
		{"not in time", make(chan *message.Message), "10ms", 202, `{"id":"id-1"}`},
		{"capped", make(chan *message.Message), "1h", 202, `{"id":"id-1"}`},
		{"no answer will come", ended, "20s", 202, `{"id":"id-1"}`},
		{"none expected", nil, "20s", 202, `{"id":"id-1"}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := start(t, func(config *Config) {
				if c.name == "capped" {
					config.MaxWait = 10 * time.Millisecond
				}
			})
			handle(t, s, &transports.Outcome{Code: 200, Published: true, Answer: c.answer})
			res := <-async(t.Context(), s, "/x?wait="+c.wait, "a")
			if res.err != nil || res.StatusCode != c.status || strings.TrimSpace(res.body) != c.body {
				t.Errorf("%+v, want %d %s", res, c.status, c.body)
			}
		})
	}
}

func TestWaitReachesTheRouter(t *testing.T) {
	s := start(t, nil)
	out := subscribe(t, s)
	res := async(t.Context(), s, "/x?wait=5s", "a")
	d := <-out
	if d.Wait != 5*time.Second {
		t.Errorf("the delivery waits %v", d.Wait)
	}
	d.Settle(handled)
	<-res
}

func TestCloseEndsTheWait(t *testing.T) {
	s := start(t, nil)
	out := subscribe(t, s)
	res := async(t.Context(), s, "/x?wait=1m", "a")
	(<-out).Settle(&transports.Outcome{Code: 200, Published: true, Answer: make(chan *message.Message)})
	if err := s.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	// It was confirmed, whether or not the request had got as far as waiting.
	(<-res).expect(t, 202, "")
}
