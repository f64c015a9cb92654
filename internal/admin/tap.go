package admin

import (
	"context"
	"encoding/json"
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

// tap streams a topic's messages as lines of JSON. It ends when the client or the host ends it, or
// a newer tap takes its place. It sends the head of the response as soon as the tap has begun.
func (s *Server) tap(w nethttp.ResponseWriter, r *nethttp.Request) {
	ref := r.URL.Query().Get("topic")
	if ref == "" {
		writeError(w, nethttp.StatusBadRequest, "the topic is missing; add ?topic=transport:topic")
		return
	}
	if r.Method == nethttp.MethodHead {
		w.Header().Set("Content-Type", "application/jsonl")
		return
	}
	ctx, end := context.WithCancel(r.Context())
	defer end()
	msgs, err := s.config.Tap(ctx, ref)
	if err != nil {
		writeError(w, nethttp.StatusNotFound, s.redact(err.Error()))
		return
	}
	// A tap takes the place of another one only after the host has accepted its topic.
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
	for msg := range msgs {
		line, err := Line(msg)
		if err != nil {
			s.config.Logger.Error("encoding a tapped message", "topic", ref, "err", err)
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
