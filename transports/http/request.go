package http

import (
	"errors"
	"fmt"
	"maps"
	nethttp "net/http"
	"net/textproto"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/pentrough/pentrough/internal/printable"
	"github.com/pentrough/pentrough/transports"
)

// shown is how many bytes of a wrong value an error quotes.
const shown = 64

// waitParameter is the only parameter that a query may have.
const waitParameter = "wait"

// mapped has the headers that set metadata of another name.
var mapped = map[string]string{
	"Idempotency-Key":  transports.MessageID,
	"X-Correlation-Id": transports.CorrelationID,
	"Content-Type":     transports.ContentType,
	"Content-Encoding": transports.ContentEncoding,
	"Traceparent":      transports.TraceParent,
	"Tracestate":       transports.TraceState,
}

// singleValued has the headers that may have only one value. The same value twice counts as one.
var singleValued = []string{"Idempotency-Key", "X-Correlation-Id", "Content-Type", "Traceparent"}

// omitted has the headers that aren't metadata, because they concern the connection or the
// caller's credentials.
var omitted = []string{
	"Authorization", "Connection", "Content-Length", "Cookie", "Expect", "Keep-Alive", "Proxy-Authenticate",
	"Proxy-Authorization", "Proxy-Connection", "Te", "Trailer", "Transfer-Encoding", "Upgrade",
}

// metadataOf makes the metadata from the head of a request. Header names keep their canonical
// case. The metadata has an id only if the caller gave one.
func metadataOf(r *nethttp.Request, now time.Time) (message.Metadata, error) {
	md := message.Metadata{transports.Timestamp: now.UTC().Format(time.RFC3339Nano)}
	var hop []string // the headers that concern only this connection
	for _, line := range r.Header["Connection"] {
		for name := range strings.SplitSeq(line, ",") {
			hop = append(hop, textproto.CanonicalMIMEHeaderKey(strings.TrimSpace(name)))
		}
	}
	for name, values := range r.Header {
		if slices.Contains(omitted, name) || slices.Contains(hop, name) {
			continue
		}
		if slices.Contains(singleValued, name) {
			if values = slices.Compact(slices.Clone(values)); len(values) > 1 {
				return nil, fmt.Errorf("the header %s is given twice, as %.*q and as %.*q", name, shown, values[0], shown, values[1])
			}
		}
		key, ok := mapped[name]
		if !ok {
			key = transports.HeaderPrefix + name
		}
		value := strings.Join(values, ", ")
		if !utf8.ValidString(value) {
			return nil, fmt.Errorf("the header %s is not UTF-8", name)
		}
		if (key == transports.MessageID || key == transports.CorrelationID) && len(value) > printable.MaxName {
			return nil, fmt.Errorf("the header %s has %d bytes, %.*q...; at most %d are allowed", name, len(value), shown, value, printable.MaxName)
		}
		if key == transports.MessageID && value != "" {
			if err := printable.CheckName(value); err != nil {
				return nil, fmt.Errorf("the header %s, %q, %w", name, value, err)
			}
		}
		md[key] = value
	}
	return md, nil
}

// waitOf returns the time of ?wait=, at most limit. It returns an error for any other parameter,
// so that a misspelt wait isn't ignored.
func waitOf(r *nethttp.Request, limit time.Duration) (time.Duration, error) {
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return 0, fmt.Errorf("reading the query: %w", err)
	}
	for _, name := range slices.Sorted(maps.Keys(query)) {
		if name != waitParameter {
			return 0, fmt.Errorf("unknown query parameter %.*q; allowed: wait, as in ?wait=10s", shown, name)
		}
	}
	given := query[waitParameter]
	switch len(given) {
	case 0:
		return 0, nil
	case 1:
	default:
		return 0, errors.New("wait is given more than once")
	}
	wait, err := time.ParseDuration(given[0])
	switch _, bare := strconv.ParseUint(given[0], 10, 32); {
	case err == nil && wait >= 0:
		return min(wait, limit), nil
	case bare == nil:
		return 0, fmt.Errorf("wait=%q has no unit; did you mean %q?", given[0], given[0]+"s")
	default:
		return 0, fmt.Errorf("wait=%.*q is not a time such as 10s", shown, given[0])
	}
}

// bodyOf reads the body. If it can't, it returns the answer that refuses the request. given is the
// message's id, if the caller gave one. The caller of bodyOf gives taken back to the budget of
// bodies when the request is answered.
func (s *server) bodyOf(w nethttp.ResponseWriter, r *nethttp.Request, given string) (body []byte, taken int, refused *answer) {
	budget := s.env.Memory.Bodies
	tooLarge := fmt.Sprintf("the body is larger than %d bytes", s.config.MaxBody)
	switch {
	case r.ContentLength > int64(s.config.MaxBody):
		return nil, 0, refusalAnswer(nethttp.StatusRequestEntityTooLarge, "", tooLarge)
	case r.ContentLength > transports.SmallBody && !budget.Fits(int(r.ContentLength)):
		return nil, 0, notTaken(given, noRoom)
	}
	control := nethttp.NewResponseController(w)
	body, taken, err := budget.ReadAll(transports.BodySource{
		Reader: nethttp.MaxBytesReader(w, r.Body, int64(s.config.MaxBody)), Expected: r.ContentLength,
		// It fails if the connection is closed.
		Interrupt: func() { _ = control.SetReadDeadline(time.Unix(1, 0)) },
	}, s.config.MaxBody)
	_, large := errors.AsType[*nethttp.MaxBytesError](err)
	switch {
	case large:
		refused = refusalAnswer(nethttp.StatusRequestEntityTooLarge, "", tooLarge)
	case errors.Is(err, transports.ErrNoRoom):
		refused = notTaken(given, noRoom)
	case errors.Is(err, os.ErrDeadlineExceeded):
		refused = refusalAnswer(nethttp.StatusRequestTimeout, "", fmt.Sprintf("the body didn't arrive within %v", s.config.ReadTimeout))
	case err != nil:
		refused = refusalAnswer(nethttp.StatusBadRequest, "", fmt.Sprintf("reading the body: %v", err))
	}
	return body, taken, refused
}
