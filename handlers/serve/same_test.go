package serve

import (
	"bufio"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/google/go-cmp/cmp"

	"github.com/pentrough/pentrough/handlers"
	_ "github.com/pentrough/pentrough/handlers/expr"
	"github.com/pentrough/pentrough/handlers/handlertest"
	_ "github.com/pentrough/pentrough/handlers/passthrough"
	_ "github.com/pentrough/pentrough/handlers/route"
	_ "github.com/pentrough/pentrough/handlers/split"
	"github.com/pentrough/pentrough/internal/plugin"
)

// outcome is the result of a handler for a message.
type outcome struct {
	Produced   []made
	Kind, Text string
	RetryAfter int64
}

type made struct {
	ID, Payload, To string
	Metadata        map[string]string
}

// compiledIn returns the outcome in a host.
func compiledIn(t *testing.T, name, config string, msg *message.Message) outcome {
	t.Helper()
	var hello hostHello
	dec := json.NewDecoder(strings.NewReader(`{"config":` + config + `}`))
	dec.UseNumber()
	if err := dec.Decode(&hello); err != nil {
		t.Fatal(err)
	}
	d := plugin.Decoder{Set: plugin.Registered()}
	c := d.Alone(handlerKind, name, hello.config()).(handlers.Config)
	if len(d.Problems) > 0 {
		t.Fatal(d.Problems)
	}
	out, err := handlertest.Handle(t.Context(), handlertest.NewHost(t).Build(c), msg)
	if err != nil {
		return outcome{Kind: handlers.KindOf(err).String(), Text: err.Error(), RetryAfter: handlers.RetryAfterOf(err).Milliseconds()}
	}
	var o outcome
	for _, m := range out {
		o.Produced = append(o.Produced, made{m.UUID, string(m.Payload), string(handlers.Destination(m)), m.Metadata})
	}
	return o
}

// asProcess returns the outcome in a process.
func asProcess(t *testing.T, name, config string, msg *message.Message) outcome {
	t.Helper()
	in, write := io.Pipe()
	read, out := io.Pipe()
	over := make(chan error, 1)
	go func() {
		err := newSession(name, plugin.Registered(), in, out).run(t.Context())
		out.Close()
		over <- err
	}()
	request, err := json.Marshal(map[string]any{"type": "request", "id": 1, "remaining_ms": 60000, "message": map[string]any{
		"id": msg.UUID, "payload_b64": base64.StdEncoding.EncodeToString(msg.Payload), "metadata": msg.Metadata,
	}})
	if err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewReader(read)
	h := &host{t: t, in: write, lines: lines}
	h.send(`{"type":"hello","versions":[1],"config":` + config + `,"max_line":4194304}`)
	h.receive()
	h.wants(`{"type":"ready"}`)
	h.send(string(request))
	text, err := lines.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	write.Close()
	if err := <-over; err != nil {
		t.Error(err)
	}
	var r struct {
		Messages []struct {
			ID       string            `json:"id"`
			Payload  string            `json:"payload"`
			Base64   []byte            `json:"payload_b64"`
			To       string            `json:"to"`
			Metadata map[string]string `json:"metadata"`
		} `json:"messages"`
		Error struct {
			Kind       string `json:"kind"`
			Text       string `json:"text"`
			RetryAfter int64  `json:"retry_after_ms"`
		} `json:"error"`
	}
	if err := json.Unmarshal([]byte(text), &r); err != nil {
		t.Fatal(err)
	}
	o := outcome{Kind: r.Error.Kind, Text: r.Error.Text, RetryAfter: r.Error.RetryAfter}
	for _, m := range r.Messages {
		o.Produced = append(o.Produced, made{m.ID, m.Payload + string(m.Base64), m.To, m.Metadata})
	}
	return o
}

// A handler has the same outcomes compiled in and as a process.
func TestTheSameHandlerMakesTheSame(t *testing.T) {
	for _, c := range []struct{ name, config, payload string }{
		{"passthrough", `{}`, "open"},
		{"passthrough", `{}`, "\x00\xff any bytes"},
		{"passthrough", `{}`, ""},
		{"split", `{"items":"json.records"}`, `{"records":[{"t":21},"text",[1.50]]}`},
		{"split", `{"items":"json.records","max":1}`, `{"records":[1,2]}`},
		{"split", `{}`, `[]`},
		{"split", `{}`, `no json`},
		{"split", `{"items":"lines(text)"}`, "one\ntwo \"quoted\"\r\nthree é"},
		{"expr", `{"when":"json.t > 20"}`, `{"t":21}`},
		{"expr", `{"when":"json.t > 20"}`, `{"t":19}`},
		{"expr", `{"payload":"({ high: json.t })"}`, `{"t":21}`},
		{"expr", `{"when":"json.t > 20"}`, `{"t":"warm"}`},
		{"route", `{"routes":[{"when":"json.t > 20","to":"memory:warm"}],"else":"memory:cold"}`, `{"t":21}`},
		{"route", `{"routes":[{"when":"json.t > 20","to":"memory:warm"}],"else":"memory:cold"}`, `{"t":1}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			build := func() *message.Message {
				msg := message.NewMessage("order-17", []byte(c.payload))
				msg.Metadata = message.Metadata{"message_id": "order-17", "device": "10.0.0.7", "header.Own": "é \"", "redelivered": "true"}
				return msg
			}
			want := compiledIn(t, c.name, c.config, build())
			got := asProcess(t, c.name, c.config, build())
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error(diff)
			}
			if c.payload == `{"t":21}` && len(want.Produced) == 0 {
				t.Errorf("the example makes nothing: %+v", want)
			}
		})
	}
	for _, config := range []string{`{"items":"json +"}`, `{"max":0}`, `{"item":"json"}`} {
		d := plugin.Decoder{Set: plugin.Registered()}
		var hello hostHello
		if err := json.Unmarshal([]byte(`{"config":`+config+`}`), &hello); err != nil {
			t.Fatal(err)
		}
		d.Alone(handlerKind, "split", hello.config())
		var out strings.Builder
		in := strings.NewReader(`{"type":"hello","versions":[1],"config":` + config + `,"max_line":4194304}` + "\n")
		if err := newSession("split", plugin.Registered(), in, &out).run(t.Context()); err != nil {
			t.Error(err)
		}
		if len(d.Problems) == 0 || !strings.Contains(out.String(), fmt.Sprintf(`"problems":[{"key":%q,"text":`, d.Problems[0].Path)) {
			t.Errorf("%s: %v and %s", config, d.Problems, out.String())
		}
	}
}
