package log

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/google/go-cmp/cmp"

	"github.com/pentrough/pentrough/handlers"
	"github.com/pentrough/pentrough/handlers/handlertest"
	"github.com/pentrough/pentrough/transports"
)

// with returns the defaults, changed by f.
func with(f func(*Config)) *Config {
	c := defaults()
	f(c)
	return c
}

func example() *message.Message {
	msg := message.NewMessage("uuid", []byte("open"))
	msg.Metadata = message.Metadata{
		transports.MessageID: "id", transports.Device: "d", transports.Redelivered: "true", "header.Authorization": "secret",
		transports.TraceParent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
	}
	return msg
}

func TestDuties(t *testing.T) {
	handlertest.Run(t, func(t *testing.T) handlers.Handler { return handlertest.NewHost(t).Build(defaults()) }, example())
}

// lines handles messages and returns the log lines.
func lines(t *testing.T, c *Config, level slog.Level, msgs ...*message.Message) []map[string]any {
	t.Helper()
	var mu sync.Mutex
	var written bytes.Buffer
	env := handlertest.NewHost(t).Env()
	env.Logger = slog.New(slog.NewJSONHandler(&locked{&mu, &written}, &slog.HandlerOptions{Level: level}))
	h, err := c.New(env)
	if err != nil {
		t.Fatal(err)
	}
	for _, msg := range msgs {
		out, err := handlertest.Handle(t.Context(), h, msg)
		if err != nil || len(out) != 1 || !bytes.Equal(out[0].Payload, msg.Payload) || out[0].UUID != msg.UUID {
			t.Errorf("%v, %v", out, err)
		}
	}
	var all []map[string]any
	for line := range bytes.Lines(written.Bytes()) {
		var fields map[string]any
		if err := json.Unmarshal(line, &fields); err != nil {
			t.Fatal(err)
		}
		delete(fields, "time")
		all = append(all, fields)
	}
	return all
}

type locked struct {
	mu *sync.Mutex
	w  *bytes.Buffer
}

func (l *locked) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(p)
}

func TestALine(t *testing.T) {
	got := lines(t, defaults(), slog.LevelInfo, example())
	want := []map[string]any{{"level": "INFO", "msg": "message", "id": "id", "bytes": 4.0, "device": "d", "payload": "open", "trace": "0af7651916cd43dd8448eb211c80319c"}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	got = lines(t, with(func(c *Config) {
		c.Level, c.Text, c.Metadata, c.MaxPayload = "warn", "look", []string{"redelivered", "absent"}, 0
	}), slog.LevelInfo, message.NewMessage("uuid", nil), example())
	want = []map[string]any{
		{"level": "WARN", "msg": "look", "id": "uuid", "bytes": 0.0},
		{"level": "WARN", "msg": "look", "id": "id", "bytes": 4.0, "redelivered": "true", "trace": "0af7651916cd43dd8448eb211c80319c"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestPayloads(t *testing.T) {
	for _, c := range []struct{ name, payload, key, want string }{
		{"text", "a\tb\r\n ü", "payload", "a\tb\r\n ü"},
		{"as long as may be", strings.Repeat("x", 8), "payload", "xxxxxxxx"},
		{"longer", strings.Repeat("x", 9), "payload", "xxxxxxxx..."},
		{"cut inside of a rune", "xxxxxxxü", "payload", "xxxxxxx..."},
		{"cut after one", "xxxxxxüy", "payload", "xxxxxxü..."},
		{"text as far as it is shown", "xxxxxxxx\xff\x00", "payload", "xxxxxxxx..."},
		{"bytes", "\x00\xff", "payload_hex", "00ff"},
		{"many bytes", "\xff123456789", "payload_hex", "ff31323334353637..."},
		{"a terminal's commands", "\x1b[2J", "payload_hex", "1b5b324a"},
		{"a replacement character", "a\ufffd", "payload", "a\ufffd"},
		{"half a rune", "ab\xc3", "payload_hex", "6162c3"},
		{"long after a rune's half", "ab\xc3" + strings.Repeat("x", 100), "payload_hex", "6162c37878787878..."},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := lines(t, with(func(config *Config) { config.MaxPayload = 8 }), slog.LevelInfo, message.NewMessage("id", []byte(c.payload)))
			if len(got) != 1 || got[0][c.key] != c.want {
				t.Errorf("%v, want %s = %q", got, c.key, c.want)
			}
		})
	}
}

func TestLinesAreBounded(t *testing.T) {
	msg := message.NewMessage(strings.Repeat("u", 10_000), bytes.Repeat([]byte("x"), 10_000_000))
	msg.Metadata = message.Metadata{transports.Device: strings.Repeat("d", 10_000)}
	got := lines(t, defaults(), slog.LevelInfo, msg)
	for key, value := range got[0] {
		if text, ok := value.(string); ok && len(text) > 256+len("...") {
			t.Errorf("%s has %d bytes", key, len(text))
		}
	}
	if got[0]["bytes"] != 1e7 {
		t.Errorf("of %v bytes", got[0]["bytes"])
	}
}

func TestEvery(t *testing.T) {
	var msgs []*message.Message
	for i := range 7 {
		msgs = append(msgs, message.NewMessage(string(rune('0'+i)), nil))
	}
	var ids []any
	for _, line := range lines(t, with(func(c *Config) { c.Every = 3 }), slog.LevelInfo, msgs...) {
		ids = append(ids, line["id"])
	}
	if diff := cmp.Diff([]any{"0", "3", "6"}, ids); diff != "" {
		t.Error(diff)
	}
	if got := lines(t, with(func(c *Config) { c.Level = "debug" }), slog.LevelInfo, msgs...); len(got) != 0 {
		t.Errorf("below the log's level: %v", got)
	}
}

func TestValidate(t *testing.T) {
	err := (&Config{MaxPayload: -1}).Validate()
	for _, field := range []string{"level", "text", "max_payload", "every"} {
		if err == nil || !strings.Contains(err.Error(), field+": ") {
			t.Errorf("%v says nothing of %s", err, field)
		}
	}
	if err := defaults().Validate(); err != nil {
		t.Error(err)
	}
}
