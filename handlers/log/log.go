// Package log is the handler that logs each message of a pipeline and sends it on.
package log

import (
	"encoding/hex"
	"errors"
	"log/slog"
	"strings"
	"sync/atomic"
	"unicode"
	"unicode/utf8"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/pentrough/pentrough/handlers"
	"github.com/pentrough/pentrough/transports"
)

func init() {
	handlers.Register(handlers.Plugin{
		Name:    "log",
		Summary: "Logs messages, and sends them on.",
		Description: "Logs each message in one line. With `every = 10` it logs only one of 10 messages. The " +
			"line has the message's id and size, the metadata that `metadata` names, and the " +
			"beginning of the payload. A payload that is text is logged as `payload`, any other as " +
			"`payload_hex`. `log` in `[host]` sets the format and the lowest level that is logged; " +
			"a line below that level costs almost nothing. A line has at most `max_payload` bytes " +
			"of the payload and 256 bytes of each metadata value. A shortened value ends with " +
			"`...`.\n\n" +
			"The handler then sends the message on unchanged, as `passthrough` does. Without a `to` " +
			"the message is acked and goes nowhere.\n\n" +
			"Payloads may contain secrets: `max_payload = 0` logs none. The handler logs only the " +
			"metadata that `metadata` names.",
		Config: func() handlers.Config { return defaults() },
	})
}

// maxValue is the most bytes of a metadata value that are logged.
const maxValue = 256

// Config is the configuration of log.
type Config struct {
	Level      string   `toml:"level" doc:"The level of the log lines." enum:"debug,info,warn,error"`
	Text       string   `toml:"text" doc:"The message of the log lines." example:"\"an order came\""`
	Metadata   []string `toml:"metadata" doc:"The metadata that are logged." example:"[\"device\", \"header.X-Tenant\"]"`
	MaxPayload int      `toml:"max_payload" doc:"The most bytes of a payload that are logged; 0 logs no payload." unit:"bytes" min:"0" max:"65536"`
	Every      int      `toml:"every" doc:"1 logs every message; 10 logs the first of every 10 messages." unit:"messages" min:"1"`
}

var levels = map[string]slog.Level{"debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn, "error": slog.LevelError}

// defaults returns the default configuration.
func defaults() *Config {
	return &Config{
		Level: "info", Text: "message", MaxPayload: 256, Every: 1,
		Metadata: []string{transports.Device, transports.Type, transports.CorrelationID, transports.ContentType},
	}
}

// Validate returns all problems of the configuration, joined.
func (c *Config) Validate() error {
	var errs []error
	if _, ok := levels[c.Level]; !ok {
		errs = append(errs, handlers.Invalid("level", "is %q, must be debug, info, warn or error", c.Level))
	}
	if c.Text == "" {
		errs = append(errs, handlers.Invalid("text", "is empty; it is the message of the log lines"))
	}
	if c.MaxPayload < 0 {
		errs = append(errs, handlers.Invalid("max_payload", "is %d, must be at least 0", c.MaxPayload))
	}
	if c.Every < 1 {
		errs = append(errs, handlers.Invalid("every", "is %d, must be at least 1", c.Every))
	}
	return errors.Join(errs...)
}

// New builds the handler.
func (c *Config) New(env handlers.Env) (handlers.Handler, error) {
	return &logger{Config: *c, log: env.Logger, level: levels[c.Level]}, nil
}

type logger struct {
	Config
	log   *slog.Logger
	level slog.Level
	seen  atomic.Uint64
}

// Handle logs msg and returns a copy of it.
func (l *logger) Handle(msg *message.Message) ([]*message.Message, error) {
	if ctx := msg.Context(); l.log.Enabled(ctx, l.level) && (l.seen.Add(1)-1)%uint64(l.Every) == 0 {
		transports.Traced(l.log, msg.Metadata).LogAttrs(ctx, l.level, l.Text, l.attributesOf(msg)...)
	}
	return []*message.Message{handlers.Forward(msg)}, nil
}

// attributesOf returns the attributes of the log line for a message.
func (l *logger) attributesOf(msg *message.Message) []slog.Attr {
	id := handlers.Described(msg.Context()).ID
	if id == "" {
		id = msg.UUID
	}
	attrs := []slog.Attr{slog.String("id", clip(id, maxValue)), slog.Int("bytes", len(msg.Payload))}
	for _, key := range l.Metadata {
		if value, ok := msg.Metadata[key]; ok {
			attrs = append(attrs, slog.String(key, clip(value, maxValue)))
		}
	}
	if l.MaxPayload == 0 || len(msg.Payload) == 0 {
		return attrs
	}
	if text, ok := textOf(msg.Payload, l.MaxPayload); ok {
		return append(attrs, slog.String("payload", text))
	}
	n := min(len(msg.Payload), l.MaxPayload)
	return append(attrs, slog.String("payload_hex", hex.EncodeToString(msg.Payload[:n])+ellipsis(n < len(msg.Payload))))
}

// textOf returns the beginning of a payload, and whether it is printable text. It doesn't check
// the part that isn't logged.
func textOf(payload []byte, most int) (string, bool) {
	text := clip(string(payload[:min(len(payload), most+utf8.UTFMax)]), most)
	return text, utf8.ValidString(text) && !strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) && !unicode.IsSpace(r) })
}

// clip returns the first bytes of s, at most the given number, without cutting a rune. If it
// shortens s, it appends "...".
func clip(s string, most int) string {
	if len(s) <= most {
		return s
	}
	n := most
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n] + ellipsis(true)
}

func ellipsis(cut bool) string {
	if cut {
		return "..."
	}
	return ""
}
