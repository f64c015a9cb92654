package httprequest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	nethttp "net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/pentrough/pentrough/handlers"
	"github.com/pentrough/pentrough/internal/printable"
	"github.com/pentrough/pentrough/transports"
)

const (
	// maxQuoted is the most bytes of the endpoint's text in an error.
	maxQuoted = 300
	// maxDrained is the most bytes that are read of a body that the handler doesn't need. Reading
	// the body lets the connection be reused.
	maxDrained = 64 << 10
	// maxShortString is the longest AMQP property, in bytes.
	maxShortString = 255
)

// keyStatus is the metadata key of the answer's status, "200".
const keyStatus = "http.status"

// answer is an endpoint's response.
type answer struct {
	target *url.URL
	from   string // the target without secrets
	code   int
	header nethttp.Header
	// location is the target of a redirect; empty: the answer isn't one.
	location string
	// body is the whole body if it becomes a message, and otherwise its beginning, for the error
	// text.
	body []byte
}

// noAnswer is the class of a request without an answer.
const noAnswer = "none"

func newAnswers() *prometheus.CounterVec {
	return prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "pentrough_http_request_answers_total", Help: "Requests by the class of their answer, such as 2xx, or none.",
	}, []string{"status"})
}

func (a *answer) class() string { return strconv.Itoa(a.code/100) + "xx" }

func (a *answer) status() string {
	return strings.TrimSpace(strconv.Itoa(a.code) + " " + nethttp.StatusText(a.code))
}

func (a *answer) ok() bool { return a.code >= 200 && a.code < 300 }

// readAnswer reads as much of a response as is needed.
func (h *hook) readAnswer(ctx context.Context, target *url.URL, resp *nethttp.Response) (*answer, error) {
	a := &answer{target: target, from: origin(target), code: resp.StatusCode, header: resp.Header}
	if slices.Contains([]int{301, 302, 303, 307, 308}, a.code) {
		a.location = resp.Header.Get("Location")
	}
	if !a.ok() || h.config.Output != outputResponse {
		// The status is enough: an error while reading the body changes nothing.
		a.body, _ = io.ReadAll(io.LimitReader(resp.Body, maxDrained))
		return a, nil
	}
	most := int64(h.config.MaxResponse)
	if resp.ContentLength > most {
		return nil, h.tooLarge(a)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, most+1))
	if err != nil {
		return nil, fmt.Errorf("reading the answer of %s, %s: %w", a.from, a.status(), shorten(ctx, err))
	}
	if int64(len(body)) > most {
		return nil, h.tooLarge(a)
	}
	a.body = body
	return a, nil
}

func (h *hook) tooLarge(a *answer) error {
	return handlers.Permanent(fmt.Errorf("%s answered %s with more than max_response, %d bytes", a.from, a.status(), h.config.MaxResponse))
}

// errorOf returns the error that an answer means, or nil if the hook has handled the message.
func (h *hook) errorOf(a *answer) error {
	if a.ok() {
		return nil
	}
	text := a.from + " answered " + a.status()
	if reason := strings.TrimSpace(string(a.body)); reason != "" {
		text += ": " + clip(reason)
	}
	err := errors.New(text)
	switch {
	case slices.Contains(h.config.OutageStatus, a.code):
		return handlers.RetryAfter(h.newOutage(err), a.retryAfter(h.env.Now()))
	case a.code == nethttp.StatusRequestTimeout, a.code == nethttp.StatusTooEarly, a.code >= 500:
		return handlers.RetryAfter(err, a.retryAfter(h.env.Now()))
	default:
		return handlers.Permanent(err)
	}
}

// retryAfter returns the wait that the answer's Retry-After asks for, as seconds or a date. 0: it
// asks for none.
func (a *answer) retryAfter(now time.Time) time.Duration {
	const longest = 24 * time.Hour
	value := strings.TrimSpace(a.header.Get("Retry-After"))
	if seconds, err := strconv.ParseUint(value, 10, 64); err == nil {
		return time.Duration(min(seconds, uint64(longest/time.Second))) * time.Second
	}
	if at, err := nethttp.ParseTime(value); err == nil {
		return min(max(at.Sub(now), 0), longest)
	}
	return 0
}

// makeOutput returns the messages that a handled message becomes.
func (h *hook) makeOutput(msg *message.Message, a *answer) []*message.Message {
	switch h.config.Output {
	case outputNone:
		return nil
	case outputMessage:
		return []*message.Message{handlers.Forward(msg)}
	}
	out := handlers.NewMessage(a.body)
	out.Metadata[keyStatus] = strconv.Itoa(a.code)
	if kind := a.header.Get("Content-Type"); fitsProperty(kind) {
		if _, _, err := mime.ParseMediaType(kind); err == nil {
			out.Metadata[transports.ContentType] = kind
		}
	}
	if encoding := a.header.Get("Content-Encoding"); fitsProperty(encoding) {
		out.Metadata[transports.ContentEncoding] = encoding
	}
	if device := msg.Metadata[transports.Device]; device != "" {
		out.Metadata[transports.Device] = device
	}
	return []*message.Message{out}
}

// fitsProperty reports whether every transport can send a header's value as a property of a
// message.
func fitsProperty(value string) bool {
	return value != "" && len(value) <= maxShortString && utf8.ValidString(value) && transports.FitsHeader(value)
}

// clip returns the beginning of a text from outside, without unprintable characters.
func clip(s string) string {
	cut := len(s) > maxQuoted
	s = strings.ToValidUTF8(s[:min(len(s), maxQuoted)], "")
	s = strings.Map(func(r rune) rune {
		if !printable.Rune(r) {
			return ' '
		}
		return r
	}, s)
	if cut {
		s += "..."
	}
	return s
}
