package serve

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"strconv"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/ThreeDotsLabs/watermill/message"
)

const (
	largestID    = 1<<53 - 1
	startMaxLine = 1 << 20
)

type hostHello struct {
	Versions []int `json:"versions"`
	Host     struct {
		Name string `json:"name"`
	} `json:"host"`
	Pipeline string         `json:"pipeline"`
	Config   map[string]any `json:"config"`
	MaxLine  int            `json:"max_line"`
	LogLevel string         `json:"log_level"`
}

func (h hostHello) level() slog.Level {
	level := slog.LevelDebug
	_ = level.UnmarshalText([]byte(strings.ToUpper(h.LogLevel))) // what isn't known is debug
	return level
}

// config is the config as a TOML file would have given it.
func (h hostHello) config() map[string]any {
	m, _ := plain(h.Config).(map[string]any)
	return m
}

func plain(v any) any {
	switch v := v.(type) {
	case json.Number:
		if i, err := v.Int64(); err == nil {
			return i
		}
		f, _ := strconv.ParseFloat(v.String(), 64)
		if math.IsInf(f, 0) {
			return v.String()
		}
		return f
	case map[string]any:
		for key, e := range v {
			v[key] = plain(e)
		}
	case []any:
		for i, e := range v {
			v[i] = plain(e)
		}
	}
	return v
}

type line struct {
	Type string `json:"type"`
	hostHello
	ID          int64     `json:"id"`
	RemainingMS int64     `json:"remaining_ms"`
	Message     inMessage `json:"message"`
}

type inMessage struct {
	ID         string            `json:"id"`
	Payload    string            `json:"payload"`
	PayloadB64 string            `json:"payload_b64"`
	Metadata   map[string]string `json:"metadata"`
}

func (m inMessage) message() (*message.Message, error) {
	data := []byte(m.Payload)
	if m.PayloadB64 != "" {
		var err error
		if data, err = base64.StdEncoding.DecodeString(m.PayloadB64); err != nil {
			return nil, err
		}
	}
	msg := message.NewMessage(m.ID, data)
	if m.Metadata != nil {
		msg.Metadata = m.Metadata
	}
	return msg, nil
}

type outMessage struct {
	ID         string            `json:"id,omitempty"`
	Payload    string            `json:"payload,omitempty"`
	PayloadB64 string            `json:"payload_b64,omitempty"`
	Metadata   map[string]string `json:"metadata,omitempty"`
	To         string            `json:"to,omitempty"`
}

type wireError struct {
	Kind         string `json:"kind"`
	Text         string `json:"text"`
	RetryAfterMS int64  `json:"retry_after_ms,omitempty"`
}

type response struct {
	Type     string       `json:"type"`
	ID       int64        `json:"id"`
	Messages []outMessage `json:"messages,omitempty"`
	Error    *wireError   `json:"error,omitempty"`
}

type pluginHello struct {
	Type          string   `json:"type"`
	Version       int      `json:"version"`
	Name          string   `json:"name"`
	PluginVersion string   `json:"plugin_version,omitempty"`
	Features      []string `json:"features"`
	Schema        any      `json:"schema"`
}

type problem struct {
	Key  string `json:"key"`
	Text string `json:"text"`
}

type refusal struct {
	Type     string    `json:"type"`
	Text     string    `json:"text,omitempty"`
	Problems []problem `json:"problems,omitempty"`
}

type pong struct {
	Type string `json:"type"`
	ID   int64  `json:"id"`
}

type bare struct {
	Type string `json:"type"`
}

type reader struct {
	r    *bufio.Reader
	most int
}

func newReader(r io.Reader) *reader { return &reader{bufio.NewReaderSize(r, 64<<10), startMaxLine} }

func (r *reader) limit(n int) { r.most = n }

func (r *reader) next() (l line, err error) {
	for {
		var raw []byte
		for {
			part, err := r.r.ReadSlice('\n')
			raw = append(raw, part...)
			if err == nil {
				break
			}
			if !errors.Is(err, bufio.ErrBufferFull) {
				return l, io.EOF
			}
			if len(raw) > r.most+1 {
				break
			}
		}
		raw = bytes.TrimSuffix(raw, []byte("\n"))
		if len(raw) > r.most {
			return l, fmt.Errorf("a line of more than %d bytes", r.most)
		}
		if len(bytes.Trim(raw, " \t\r")) == 0 {
			continue
		}
		if !utf8.Valid(raw) {
			return l, errors.New("a line that isn't UTF-8")
		}
		var kind struct {
			Type *string `json:"type"`
		}
		if err := json.Unmarshal(raw, &kind); err != nil || kind.Type == nil {
			return l, errors.New("a line that isn't a JSON object with a type")
		}
		switch *kind.Type {
		case "hello", "request", "cancel", "ping", "drain":
		default:
			continue
		}
		dec := json.NewDecoder(bytes.NewReader(raw))
		dec.UseNumber()
		l = line{}
		if err := dec.Decode(&l); err != nil {
			return l, fmt.Errorf("a %q: %w", *kind.Type, err)
		}
		return l, nil
	}
}

var errTooLong = errors.New("the response is longer than the host takes")

type writer struct {
	mu sync.Mutex
	w  io.Writer
}

func (w *writer) write(v any) error { return w.writeWithin(v, math.MaxInt) }

func (w *writer) writeWithin(v any, most int) error {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return err
	}
	if b.Len()-1 > most {
		return errTooLong
	}
	return w.raw(b.Bytes())
}

func (w *writer) raw(line []byte) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	_, err := w.w.Write(line)
	return err
}
