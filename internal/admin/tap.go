package admin

import (
	"context"
	"encoding/json"
	"iter"
	nethttp "net/http"
	"time"
	"unicode/utf8"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/pentrough/pentrough/internal/listen"
	"github.com/pentrough/pentrough/internal/printable"
)

// Tapped is one line of a tap, as JSON.
type Tapped struct {
	UUID     string            `json:"uuid"`
	Metadata map[string]string `json:"metadata"`
	// Payload has the payload if it is UTF-8. Otherwise PayloadBase64 has it.
	Payload       *string `json:"payload,omitempty"`
	PayloadBase64 []byte  `json:"payload_base64,omitempty"`
}

// Line returns a message as a line of a tap.
func Line(msg *message.Message) ([]byte, error) {
	t := Tapped{UUID: msg.UUID, Metadata: msg.Metadata}
	if utf8.Valid(msg.Payload) {
		text := string(msg.Payload)
		t.Payload = &text
	} else {
		t.PayloadBase64 = msg.Payload
	}
	line, err := json.Marshal(t)
	return append(printable.JSON(line), '\n'), err
}

// tap streams a topic's messages.
func (s *Server) tap(w nethttp.ResponseWriter, r *nethttp.Request) {
	ref := r.URL.Query().Get("topic")
	if ref == "" {
		writeError(w, nethttp.StatusBadRequest, "the topic is missing; add ?topic=transport:topic")
		return
	}
	s.stream(w, r, func(ctx context.Context) (iter.Seq2[[]byte, error], error) {
		msgs, err := s.config.Tap(ctx, ref)
		return func(yield func([]byte, error) bool) {
			for msg := range msgs {
				if !yield(Line(msg)) {
					return
				}
			}
		}, err
	})
}

// record streams the recording of a device's connection.
func (s *Server) record(w nethttp.ResponseWriter, r *nethttp.Request) {
	name, transport, ok := deviceQuery(w, r)
	if !ok {
		return
	}
	ask := RecordRequest{Device: name, Transport: transport, Next: r.URL.Query().Get("next") == "true"}
	s.stream(w, r, func(ctx context.Context) (iter.Seq2[[]byte, error], error) {
		lines, err := s.config.Record(ctx, ask)
		return func(yield func([]byte, error) bool) {
			for l := range lines {
				text, err := l.Append(nil)
				if !yield(printable.JSON(text), err) {
					return
				}
			}
		}, err
	})
}

// stream answers with lines of JSON. It ends with the lines, when the client or the host ends it,
// or when a newer stream takes its place. It sends the head of the response as soon as begin has
// returned. The context of begin ends with the stream.
func (s *Server) stream(w nethttp.ResponseWriter, r *nethttp.Request, begin func(context.Context) (iter.Seq2[[]byte, error], error)) {
	if r.Method == nethttp.MethodHead {
		w.Header().Set("Content-Type", "application/jsonl")
		return
	}
	ctx, end := context.WithCancel(r.Context())
	defer end()
	lines, err := begin(ctx)
	if err != nil {
		writeError(w, nethttp.StatusNotFound, s.redact(err.Error()))
		return
	}
	// A stream takes the place of another one only after the host has accepted its request.
	tap := s.taps.addTap(r, end)
	defer s.taps.endTap(tap)
	control := nethttp.NewResponseController(w)
	// The read deadline would end the request. The write deadline is set for each line.
	if err := control.SetReadDeadline(time.Time{}); err != nil {
		writeError(w, nethttp.StatusInternalServerError, s.redact(err.Error()))
		return
	}
	h := w.Header()
	h.Set("Content-Type", "application/jsonl")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(nethttp.StatusOK)
	if control.Flush() != nil {
		return
	}
	for line, err := range lines {
		if err != nil {
			s.config.Logger.Error("encoding a line", "path", r.URL.Path, "err", err)
			continue
		}
		if control.SetWriteDeadline(time.Now().Add(writeTimeout)) != nil {
			return
		}
		if _, err := w.Write(line); err != nil {
			return
		}
		s.taps.markActive(tap)
		if control.Flush() != nil {
			return
		}
	}
}

func writeError(w nethttp.ResponseWriter, status int, reason string) {
	if status == nethttp.StatusForbidden {
		listen.CloseAfter(w)
	}
	writeJSON(w, status, map[string]string{"error": reason})
}
