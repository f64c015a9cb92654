package serve

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/google/go-cmp/cmp"

	"github.com/pentrough/pentrough/handlers"
	"github.com/pentrough/pentrough/internal/plugin"
	"github.com/pentrough/pentrough/internal/testenv/await"
)

// door is a handler's configuration. Its fields have the behaviour that a test needs.
type door struct {
	Greeting string              `toml:"greeting" doc:"What stands first." enum:"hello,bye"`
	Wait     time.Duration       `toml:"wait" doc:"How long." max:"1m"`
	Share    float64             `toml:"share" doc:"How much."`
	Secret   string              `toml:"token" doc:"A secret." secret:"true"`
	Devices  handlers.DevicesRef `toml:"devices" doc:"Devices."`
	Topics   []handlers.TopicRef `toml:"topics" doc:"Topics."`
	Frame    struct {
		Wood string `toml:"wood" doc:"Of what." required:"true"`
	} `toml:"frame" doc:"Its frame."`

	build  func(env handlers.Env) (handlers.Handler, error)
	ledger string
}

func (d *door) New(env handlers.Env) (handlers.Handler, error) { return d.build(env) }
func (d *door) NeedsLedger() string                            { return d.ledger }
func (d *door) Validate() error {
	if d.Frame.Wood == "tin" {
		return errors.Join(handlers.Invalid("frame.wood", "is no wood"), handlers.InvalidAt("greeting", d.Greeting, 1, "is wrong here"))
	}
	return nil
}

// function is a handler.
type function func(msg *message.Message) ([]*message.Message, error)

func (f function) Handle(msg *message.Message) ([]*message.Message, error) { return f(msg) }

// host is the host's side of a session.
type host struct {
	t     *testing.T
	in    *io.PipeWriter
	lines *bufio.Reader
	over  chan error
}

// begin starts a session with the handler "door", and sends hello with a config.
func begin(t *testing.T, d door, config string) *host {
	t.Helper()
	set := plugin.Registered().Bare()
	set.Register(handlerKind, plugin.Info{Name: "door", Summary: "Opens.", New: func() any { fresh := d; return &fresh }})
	in, write := io.Pipe()
	read, out := io.Pipe()
	h := &host{t: t, in: write, lines: bufio.NewReader(read), over: make(chan error, 1)}
	s := newSession("door", set, in, out)
	go func() {
		err := s.run(t.Context())
		out.Close()
		h.over <- err
	}()
	t.Cleanup(func() {
		write.Close()
		// A test may leave lines unread.
		go func() { _, _ = io.Copy(io.Discard, read) }()
		await.Receive(t, "the session's end", h.over)
		read.Close()
	})
	h.send(`{"type":"hello","versions":[1],"host":{"name":"h"},"pipeline":"p","config":` + config + `,"window":8,"max_line":65536,"log_level":"info"}`)
	return h
}

func (h *host) send(line string) {
	h.t.Helper()
	if _, err := io.WriteString(h.in, line+"\n"); err != nil {
		h.t.Fatal(err)
	}
}

func (h *host) request(id int, remaining time.Duration) {
	h.send(fmt.Sprintf(`{"type":"request","id":%d,"remaining_ms":%d,"message":{"id":"m%[1]d","payload":"open","metadata":{"device":"d"}}}`, id, remaining.Milliseconds()))
}

// receive returns the next line as a JSON object.
func (h *host) receive() map[string]any {
	h.t.Helper()
	text, err := h.lines.ReadString('\n')
	if err != nil {
		h.t.Fatal(err)
	}
	var line map[string]any
	if err := json.Unmarshal([]byte(text), &line); err != nil {
		h.t.Fatalf("%s: %v", text, err)
	}
	return line
}

// wants compares the next line with JSON.
func (h *host) wants(text string) {
	h.t.Helper()
	var want map[string]any
	if err := json.Unmarshal([]byte(text), &want); err != nil {
		h.t.Fatal(err)
	}
	if diff := cmp.Diff(want, h.receive()); diff != "" {
		h.t.Fatal(diff)
	}
}

// ready receives hello and ready.
func (h *host) ready() *host {
	h.t.Helper()
	if l := h.receive(); l["type"] != "hello" || l["name"] != "door" || l["version"] != 1.0 {
		h.t.Fatalf("%v", l)
	}
	h.wants(`{"type":"ready"}`)
	return h
}

const rightConfig = `{"frame":{"wood":"oak"}}`

// serving starts a session with the handler f.
func serving(t *testing.T, f func(env handlers.Env) handlers.Handler) *host {
	t.Helper()
	return begin(t, door{build: func(env handlers.Env) (handlers.Handler, error) { return f(env), nil }}, rightConfig).ready()
}

func TestConfigIsDecodedAsInTOML(t *testing.T) {
	d := door{Greeting: "hello"}
	d.build = func(handlers.Env) (handlers.Handler, error) { return function(nil), nil }
	set := plugin.Registered().Bare()
	set.Register(handlerKind, plugin.Info{Name: "door", Summary: "Opens.", New: func() any { fresh := d; return &fresh }})
	in := strings.NewReader(`{"type":"hello","versions":[1],"config":{"wait":"5s","share":2,"topics":"a:b","frame":{"wood":"oak"}},"max_line":65536}` + "\n")
	s := newSession("door", set, in, io.Discard)
	if err := s.run(t.Context()); err != nil {
		t.Fatal(err)
	}
	decoder := plugin.Decoder{Set: set}
	c := decoder.Alone(handlerKind, "door", s.host.config()).(*door)
	if c.Greeting != "hello" || c.Wait != 5*time.Second || c.Share != 2 || c.Frame.Wood != "oak" || !reflect.DeepEqual(c.Topics, []handlers.TopicRef{"a:b"}) {
		t.Errorf("%+v", c)
	}
}

func TestWrongConfigsAreRefused(t *testing.T) {
	d := door{build: func(handlers.Env) (handlers.Handler, error) { return function(nil), nil }}
	for config, want := range map[string]string{
		`{"greting":"hello","frame":{"wood":"oak"}}`:                       `[{"key":"greting","text":"unknown key; allowed: greeting, wait, share, token, devices, topics, frame; did you mean \"greeting\"?"}]`,
		`{"wait":5,"frame":{"wood":"oak"}}`:                                `[{"key":"wait","text":"an integer is not a duration; allowed: a number with a unit, such as \"5s\", \"100ms\" or \"1h30m\"; did you mean \"5s\"?"}]`,
		`{"wait":"2h","share":"much","greeting":7,"frame":{"wood":"oak"}}`: `[{"key":"greeting","text":"an integer can't stand here; allowed: a string"},{"key":"wait","text":"\"2h\" is too large; allowed: from 0s to 1m"},{"key":"share","text":"a string can't stand here; allowed: a finite number"}]`,
		`{"frame":{}}`: `[{"key":"frame.wood","text":"missing: Of what"}]`,
		`{"frame":{"wood":"tin"},"greeting":"bye"}`: `[{"key":"frame.wood","text":"is no wood"},{"key":"greeting","text":"is wrong here\n    bye\n     ^"}]`,
		`{"frame":{"wood":"oak"},"devices":"all"}`:  `[{"key":"devices","text":"the handler needs the devices \"all\"; this works only in a handler that is compiled into the host: see ` + "`pentrough build`" + `"}]`,
	} {
		h := begin(t, d, config)
		h.receive()
		h.wants(`{"type":"refuse","problems":` + want + `}`)
		if err := <-h.over; err != nil {
			t.Error(err)
		}
		h.over <- nil
	}
}

// holder is a handler that holds messages.
type holder struct{ function }

func (holder) Ready(string) bool         { return true }
func (holder) Watch(func(awaits string)) {}

func TestWhatOnlyAHostHasIsRefusedByName(t *testing.T) {
	const only = "; this works only in a handler that is compiled into the host: see `pentrough build`"
	for want, d := range map[string]door{
		"mode = \"at-most-once\" needs a ledger" + only: {ledger: `mode = "at-most-once"`},
		"building: the handler needs the devices \"all\"" + only: {build: func(env handlers.Env) (handlers.Handler, error) {
			_, err := env.Devices("all")
			return nil, fmt.Errorf("building: %w", err)
		}},
		"the handler holds messages in the ledger" + only: {build: func(handlers.Env) (handlers.Handler, error) { return holder{}, nil }},
		"opening [redacted] with a key":                   {build: func(handlers.Env) (handlers.Handler, error) { return nil, errors.New("opening hush-hush with a key") }},
	} {
		h := begin(t, d, `{"token":"hush-hush","frame":{"wood":"oak"}}`)
		h.receive()
		if l := h.receive(); l["type"] != "refuse" || l["text"] != want {
			t.Errorf("%v, want %s", l, want)
		}
	}
}

func TestOtherHostsAndHandlersAreRefused(t *testing.T) {
	for hello, want := range map[string]string{
		`{"type":"hello","versions":[2,3],"config":{}}`:                 "this is gate, which speaks version 1 of the protocol; the host speaks 2, 3",
		`{"type":"hello","versions":[1],"config":{},"max_line":100000}`: "the program has no handler \"gate\"; its handlers: (there is none). Does it import the handler's package?",
	} {
		var out strings.Builder
		s := newSession("gate", plugin.Registered().Bare(), strings.NewReader(hello+"\n"), &out)
		if err := s.run(t.Context()); err != nil {
			t.Error(err)
		}
		var l map[string]any
		if err := json.Unmarshal([]byte(out.String()), &l); err != nil || l["type"] != "refuse" || l["text"] != want {
			t.Errorf("%s: %v", out.String(), err)
		}
	}
}

func TestErrorsKeepTheirKindAndTime(t *testing.T) {
	cause := errors.New("it is locked")
	errs := []error{cause, handlers.Permanent(cause), handlers.Drop(cause), handlers.RetryAfter(handlers.Unavailable(cause), 1500*time.Millisecond), fmt.Errorf("opening: %w", handlers.RetryAfter(cause, time.Second))}
	next := 0
	h := serving(t, func(handlers.Env) handlers.Handler {
		return function(func(*message.Message) ([]*message.Message, error) {
			next++
			return []*message.Message{message.NewMessage("x", nil)}, errs[next-1]
		})
	})
	for i, want := range []string{
		`{"kind":"retryable","text":"it is locked"}`, `{"kind":"permanent","text":"it is locked"}`, `{"kind":"drop","text":"it is locked"}`,
		`{"kind":"unavailable","text":"it is locked","retry_after_ms":1500}`, `{"kind":"retryable","text":"opening: it is locked","retry_after_ms":1000}`,
	} {
		h.request(i+1, time.Minute)
		h.wants(fmt.Sprintf(`{"type":"response","id":%d,"error":%s}`, i+1, want))
	}
}

func TestAPanicIsTheErrorOfItsMessage(t *testing.T) {
	h := serving(t, func(handlers.Env) handlers.Handler {
		return function(func(msg *message.Message) ([]*message.Message, error) {
			if msg.UUID == "m2" {
				return []*message.Message{nil}, nil
			}
			panic("no hinges")
		})
	})
	h.request(1, time.Minute)
	l := h.receive()
	fields, _ := l["fields"].(map[string]any)
	if stack, _ := fields["stack"].(string); l["type"] != "log" || l["level"] != "error" || fields["panic"] != "no hinges" || !strings.Contains(stack, "TestAPanic") {
		t.Errorf("%v", l)
	}
	h.wants(`{"type":"response","id":1,"error":{"kind":"retryable","text":"panic: no hinges"}}`)
	h.request(2, time.Minute)
	h.receive()
	if e, _ := h.receive()["error"].(map[string]any); e["kind"] != "retryable" {
		t.Errorf("a nil message became %v", e)
	}
}

func TestAGoroutineThatEndsIsTheErrorOfItsMessage(t *testing.T) {
	h := serving(t, func(handlers.Env) handlers.Handler {
		return function(func(msg *message.Message) ([]*message.Message, error) {
			if msg.UUID == "m1" {
				runtime.Goexit()
			}
			return nil, nil
		})
	})
	h.request(1, time.Minute)
	h.wants(`{"type":"response","id":1,"error":{"kind":"retryable","text":"the handler's goroutine ended"}}`)
	h.request(2, time.Minute)
	h.wants(`{"type":"response","id":2}`)
}

func TestContextsTellCancelFromDeadline(t *testing.T) {
	h := serving(t, func(handlers.Env) handlers.Handler {
		return function(func(msg *message.Message) ([]*message.Message, error) {
			ctx := msg.Context()
			child, stop := context.WithCancel(ctx)
			defer stop()
			<-child.Done()
			<-ctx.Done()
			return nil, fmt.Errorf("%w, cancelled: %v", ctx.Err(), handlers.Cancelled(ctx))
		})
	})
	h.request(1, time.Hour)
	h.send(`{"type":"cancel","id":1}`)
	h.wants(`{"type":"response","id":1,"error":{"kind":"retryable","text":"context canceled, cancelled: true"}}`)
	h.request(2, time.Millisecond)
	h.wants(`{"type":"response","id":2,"error":{"kind":"retryable","text":"context deadline exceeded, cancelled: false"}}`)
}

// describing is a handler that describes its messages.
type describing struct{ function }

func (describing) Describe(msg *message.Message) (handlers.Description, error) {
	return handlers.Description{Key: "k", ID: "i", Value: string(msg.Payload) + "ed"}, nil
}

func TestTheRunOfAMessage(t *testing.T) {
	h := serving(t, func(env handlers.Env) handlers.Handler {
		return describing{func(msg *message.Message) ([]*message.Message, error) {
			ctx := msg.Context()
			handlers.Enqueued(ctx)
			if msg.UUID == "m2" {
				handlers.OnConfirmed(ctx, func(context.Context) error { return nil })
				return nil, nil
			}
			if msg.UUID == "m3" {
				p, err := env.Publisher("broker:x")
				if err != nil {
					return nil, err
				}
				return nil, p.Publish("", msg)
			}
			env.Logger.Info("opening", "device", msg.Metadata["device"], "took", 1500*time.Millisecond, "err", errors.New("stiff"))
			env.Logger.Debug("nobody asked")
			out := message.NewMessage("", []byte(fmt.Sprintln(handlers.Described(ctx).Value, env.Pipeline, env.Host)))
			out.Metadata = nil
			handlers.SetDestination(out, "memory:x")
			return []*message.Message{out}, nil
		}}
	})
	h.request(1, time.Hour)
	h.wants(`{"type":"log","level":"info","text":"opening","fields":{"device":"d","took":"1.5s","err":"stiff"}}`)
	h.wants(`{"type":"response","id":1,"messages":[{"payload":"opened p h\n","to":"memory:x"}]}`)
	h.request(2, time.Hour)
	if e, _ := h.receive()["error"].(map[string]any); e["kind"] != "permanent" || !strings.Contains(fmt.Sprint(e["text"]), "confirms of its output") {
		t.Errorf("what can't be known became %v", e)
	}
	h.request(3, time.Hour)
	if e, _ := h.receive()["error"].(map[string]any); e["kind"] != "permanent" || !strings.Contains(fmt.Sprint(e["text"]), "publishes to \"broker:x\" itself") {
		t.Errorf("what can't be published became %v", e)
	}
}

// closing is a handler that logs when it is closed.
type closing struct {
	function
	env handlers.Env
}

func (c closing) Close() error {
	c.env.Logger.Warn("closed")
	return errors.New("the door is stuck")
}

func TestDrainClosesTheHandlerAfterItsLastMessage(t *testing.T) {
	release := make(chan struct{})
	h := serving(t, func(env handlers.Env) handlers.Handler {
		return closing{function(func(*message.Message) ([]*message.Message, error) { <-release; return nil, nil }), env}
	})
	h.request(1, time.Hour)
	h.send(`{"type":"drain"}`)
	h.send(`{"type":"ping","id":1}`)
	h.wants(`{"type":"pong","id":1}`)
	close(release)
	h.wants(`{"type":"response","id":1}`)
	h.wants(`{"type":"log","level":"warn","text":"closed"}`)
	h.wants(`{"type":"log","level":"error","text":"closing the handler","fields":{"err":"the door is stuck"}}`)
	h.wants(`{"type":"drained"}`)
}

func TestLongLinesForTheLogAreCut(t *testing.T) {
	h := serving(t, func(env handlers.Env) handlers.Handler {
		return function(func(*message.Message) ([]*message.Message, error) {
			env.Logger.Warn(strings.Repeat("long ", 100_000))
			return []*message.Message{message.NewMessage("x", make([]byte, 100_000))}, nil
		})
	})
	h.request(1, time.Hour)
	if l := h.receive(); l["level"] != "warn" || !strings.HasSuffix(fmt.Sprint(l["text"]), " bytes)") {
		t.Errorf("%v", l)
	}
	if e, _ := h.receive()["error"].(map[string]any); e["kind"] != "permanent" {
		t.Errorf("a response that is too long became %v", e)
	}
}

func TestHostsThatBreakTheProtocol(t *testing.T) {
	for line, want := range map[string]string{
		`{"type":"request","id":1,"remaining_ms":1}`:                                           "the message",
		`{"type":"request","id":1,"remaining_ms":1,"message":{"payload":"\ud83d"}}`:            "half of a surrogate pair",
		`{"type":"request","id":1,"remaining_ms":1,"message":{"payload":"","payload_b64":""}}`: "two payloads",
		`{"type":"request","id":1.5,"remaining_ms":1,"message":{}}`:                            "1.5",
		`{"type":"request","id":1,"message":{}}`:                                               "remaining_ms",
		`{"type":"request","id":0,"remaining_ms":1,"message":{}}`:                              "id",
		`{"type":"request","id":9007199254740992,"remaining_ms":1,"message":{}}`:               "id",
		`{"type":"request","id":1,"remaining_ms":1,"message":{"payload_b64":"%"}}`:             "the message's payload",
		`{"type":"hello","versions":[1]}`:                                                      "a second hello",
		`{"type":"request","id":1,"remaining_ms":60000,"message":{"id":"m"}}` + "\n" + `{"type":"drain"}` + "\n" + `{"type":"request","id":2,"remaining_ms":60000,"message":{}}`: "after drain",
		`{"type":"request","id":1,"remaining_ms":60000,"message":{"id":"m"}}` + "\n" + `{"type":"request","id":1,"remaining_ms":1,"message":{}}`:                                 "a second request",
	} {
		h := serving(t, func(handlers.Env) handlers.Handler {
			return function(func(msg *message.Message) ([]*message.Message, error) { <-msg.Context().Done(); return nil, nil })
		})
		go func() { _, _ = io.Copy(io.Discard, h.lines) }()
		_, _ = io.WriteString(h.in, line+"\n") // the session may end before it has read everything
		err := <-h.over
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", line, err)
		}
		h.over <- nil
	}
}
