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
	// Payload is the payload if it is UTF-8, otherwise PayloadBase64 is.
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

// tap streams a topic's messages as lines of JSON until the client or the host ends it, or a
// newer tap takes its place. The head of the response goes out as soon as the tap is in place.
func (s *Server) tap(w nethttp.ResponseWriter, r *nethttp.Request) {
	ref := r.URL.Query().Get("topic")
	if ref == "" {
		refuse(w, nethttp.StatusBadRequest, "say which topic: ?topic=transport:topic")
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
		refuse(w, nethttp.StatusNotFound, s.redact(err.Error()))
		return
	}
	// One that is refused takes no other's place.
	tap := s.taps.begin(r, end)
	defer s.taps.ended(tap)
	control := nethttp.NewResponseController(w)
	// The deadline of a read would end the request; that of a write is each line's.
	if err := control.SetReadDeadline(time.Time{}); err != nil {
		refuse(w, nethttp.StatusInternalServerError, s.redact(err.Error()))
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
		s.taps.shown(tap)
		if control.Flush() != nil {
			return
		}
	}
}

func refuse(w nethttp.ResponseWriter, status int, reason string) {
	if status == nethttp.StatusForbidden {
		listen.CloseAfter(w)
	}
	answerJSON(w, status, map[string]string{"error": reason})
}
