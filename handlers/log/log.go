// Package log is the handler that writes what passes through a pipeline to the host's log, and sends it on.
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
		Summary: "Writes messages to the host's log, and sends them on.",
		Description: "Writes a line to the host's log for each message, or for every `every`-th: its id, its size, the metadata that `metadata` names and it has, and the beginning of its payload, as `payload` " +
			"if it is text, else as `payload_hex`. `[host] log` says from which level on lines are written, and how; a line below it costs next to nothing. A line is bounded: `max_payload` bytes of the payload, 256 of each of the metadata; " +
			"what is cut off is told by `...`.\n\n" +
			"Messages are then sent on as they came, as by `passthrough`; without a `to` that is the end of them. Only what `metadata` names is written, but payloads are, and may hold secrets: `max_payload = 0` leaves them out.",
		Config: func() handlers.Config { return defaults() },
	})
}

// maxValue is how much of a metadata's value is written.
const maxValue = 256

// Config is the configuration of log.
type Config struct {
	Level      string   `toml:"level" doc:"The lines' level." enum:"debug,info,warn,error"`
	Text       string   `toml:"text" doc:"What the lines say." example:"\"an order came\""`
	Metadata   []string `toml:"metadata" doc:"The metadata that are written." example:"[\"device\", \"header.X-Tenant\"]"`
	MaxPayload int      `toml:"max_payload" doc:"How much of a payload is written; 0 leaves it out." unit:"bytes" min:"0" max:"65536"`
	Every      int      `toml:"every" doc:"Of how many messages one is written, beginning with the first." unit:"messages" min:"1"`
}

var levels = map[string]slog.Level{"debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn, "error": slog.LevelError}

// defaults returns a configuration with every default set.
func defaults() *Config {
	return &Config{
		Level: "info", Text: "message", MaxPayload: 256, Every: 1,
		Metadata: []string{transports.Device, transports.Type, transports.CorrelationID, transports.ContentType},
	}
}

// Validate reports all problems.
func (c *Config) Validate() error {
	var errs []error
	if _, ok := levels[c.Level]; !ok {
		errs = append(errs, handlers.Invalid("level", "is %q, must be debug, info, warn or error", c.Level))
	}
	if c.Text == "" {
		errs = append(errs, handlers.Invalid("text", "is empty; it is what the lines say"))
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

// Handle writes about msg and produces a copy of it.
func (l *logger) Handle(msg *message.Message) ([]*message.Message, error) {
	if ctx := msg.Context(); l.log.Enabled(ctx, l.level) && (l.seen.Add(1)-1)%uint64(l.Every) == 0 {
		transports.Traced(l.log, msg.Metadata).LogAttrs(ctx, l.level, l.Text, l.about(msg)...)
	}
	return []*message.Message{handlers.Forward(msg)}, nil
}

// about tells of a message.
func (l *logger) about(msg *message.Message) []slog.Attr {
	id := handlers.Described(msg.Context()).ID
	if id == "" {
		id = msg.UUID
	}
	about := []slog.Attr{slog.String("id", clip(id, maxValue)), slog.Int("bytes", len(msg.Payload))}
	for _, key := range l.Metadata {
		if value, ok := msg.Metadata[key]; ok {
			about = append(about, slog.String(key, clip(value, maxValue)))
		}
	}
	if l.MaxPayload == 0 || len(msg.Payload) == 0 {
		return about
	}
	if text, ok := textOf(msg.Payload, l.MaxPayload); ok {
		return append(about, slog.String("payload", text))
	}
	n := min(len(msg.Payload), l.MaxPayload)
	return append(about, slog.String("payload_hex", hex.EncodeToString(msg.Payload[:n])+dots(n < len(msg.Payload))))
}

// textOf returns the beginning of a payload, if that is text: what is cut off isn't looked at.
func textOf(payload []byte, most int) (string, bool) {
	text := clip(string(payload[:min(len(payload), most+utf8.UTFMax)]), most)
	return text, utf8.ValidString(text) && !strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) && !unicode.IsSpace(r) })
}

// clip returns at most so many bytes of s, whole runes.
func clip(s string, most int) string {
	if len(s) <= most {
		return s
	}
	n := most
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n] + dots(true)
}

func dots(cut bool) string {
	if cut {
		return "..."
	}
	return ""
}
