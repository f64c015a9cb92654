package http

import (
	"errors"
	"fmt"
	"io"
	nethttp "net/http"
	"net/textproto"
	"os"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/google/uuid"

	"github.com/pentrough/pentrough/transports"
)

// maxID is the longest id; AMQP has no room for more.
const maxID = 255

// mapped are the headers that are metadata of their own.
var mapped = map[string]string{
	"Idempotency-Key":  transports.MessageID,
	"X-Correlation-Id": transports.CorrelationID,
	"Content-Type":     transports.ContentType,
	"Content-Encoding": transports.ContentEncoding,
	"Traceparent":      transports.TraceParent,
	"Tracestate":       transports.TraceState,
}

// left are the headers that belong to the connection or to the caller's credentials.
var left = []string{
	"Authorization", "Connection", "Content-Length", "Cookie", "Expect", "Keep-Alive", "Proxy-Authenticate",
	"Proxy-Authorization", "Proxy-Connection", "Te", "Trailer", "Transfer-Encoding", "Upgrade",
}

// metadataOf makes metadata of a request's head. Header names keep their canonical case.
func metadataOf(r *nethttp.Request, now time.Time) (message.Metadata, error) {
	md := message.Metadata{transports.Timestamp: now.UTC().Format(time.RFC3339Nano)}
	var hop []string // what the connection names as its own
	for _, line := range r.Header["Connection"] {
		for name := range strings.SplitSeq(line, ",") {
			hop = append(hop, textproto.CanonicalMIMEHeaderKey(strings.TrimSpace(name)))
		}
	}
	for name, values := range r.Header {
		if slices.Contains(left, name) || slices.Contains(hop, name) {
			continue
		}
		key, ok := mapped[name]
		if !ok {
			key = transports.HeaderPrefix + name
		}
		value := strings.Join(values, ", ")
		if !utf8.ValidString(value) {
			return nil, fmt.Errorf("the header %s is not UTF-8", name)
		}
		if (key == transports.MessageID || key == transports.CorrelationID) && len(value) > maxID {
			return nil, fmt.Errorf("the header %s has %d bytes; at most %d are allowed", name, len(value), maxID)
		}
		md[key] = value
	}
	if md[transports.MessageID] == "" {
		md[transports.MessageID] = uuid.NewString()
	}
	return md, nil
}

// waitOf returns what the caller says with ?wait=, within the limit.
func waitOf(r *nethttp.Request, limit time.Duration) (time.Duration, error) {
	text := r.URL.Query().Get("wait")
	if text == "" {
		return 0, nil
	}
	wait, err := time.ParseDuration(text)
	if err != nil || wait < 0 {
		return 0, fmt.Errorf("wait=%q is not a time such as 10s", text)
	}
	return min(wait, limit), nil
}

// bodyOf reads the body. It returns the status with which to refuse the request if that doesn't work.
func (s *server) bodyOf(w nethttp.ResponseWriter, r *nethttp.Request) (body []byte, status int, err error) {
	tooLarge := fmt.Errorf("the body is larger than %d bytes", s.config.MaxBody)
	if r.ContentLength > int64(s.config.MaxBody) {
		return nil, nethttp.StatusRequestEntityTooLarge, tooLarge
	}
	body, err = io.ReadAll(nethttp.MaxBytesReader(w, r.Body, int64(s.config.MaxBody)))
	if _, ok := errors.AsType[*nethttp.MaxBytesError](err); ok {
		return nil, nethttp.StatusRequestEntityTooLarge, tooLarge
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return nil, nethttp.StatusRequestTimeout, fmt.Errorf("the body didn't arrive within %v", s.config.ReadTimeout)
	}
	if err != nil {
		return nil, nethttp.StatusBadRequest, fmt.Errorf("reading the body: %w", err)
	}
	return body, 0, nil
}
