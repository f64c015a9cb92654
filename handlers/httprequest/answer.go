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
	// maxQuoted is how much of what the endpoint says is told to people.
	maxQuoted = 300
	// maxDrained is how much of a body that nobody needs is read, so that its connection can be used again.
	maxDrained = 64 << 10
	// maxShortString is what AMQP has room for in a property.
	maxShortString = 255
)

// keyStatus is the metadata key of the answer's status, "200".
const keyStatus = "http.status"

// answer is what an endpoint said.
type answer struct {
	target *url.URL
	from   string // the target, as it may be told
	code   int
	header nethttp.Header
	// location is where to look instead; empty: it is no redirect.
	location string
	// body is the whole one of an answer that is passed on, otherwise as much as is quoted.
	body []byte
}

// noAnswer is the class of a request that got no answer.
const noAnswer = "none"

func newAnswers() *prometheus.CounterVec {
	return prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "pentrough_http_request_answers_total", Help: "Requests by what answered them: 2xx and so on, or none.",
	}, []string{"status"})
}

func (a *answer) class() string { return strconv.Itoa(a.code/100) + "xx" }

func (a *answer) status() string {
	return strings.TrimSpace(strconv.Itoa(a.code) + " " + nethttp.StatusText(a.code))
}

func (a *answer) good() bool { return a.code >= 200 && a.code < 300 }

// read reads an answer, as much of it as is needed.
func (h *hook) read(ctx context.Context, target *url.URL, resp *nethttp.Response) (*answer, error) {
	a := &answer{target: target, from: origin(target), code: resp.StatusCode, header: resp.Header}
	if slices.Contains([]int{301, 302, 303, 307, 308}, a.code) {
		a.location = resp.Header.Get("Location")
	}
	if !a.good() || h.config.Output != outputResponse {
		// The status has said all; that the rest doesn't come changes nothing.
		a.body, _ = io.ReadAll(io.LimitReader(resp.Body, maxDrained))
		return a, nil
	}
	most := int64(h.config.MaxResponse)
	if resp.ContentLength > most {
		return nil, h.tooLarge(a)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, most+1))
	if err != nil {
		return nil, fmt.Errorf("reading the answer of %s, %s: %w", a.from, a.status(), cutShort(ctx, err))
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

// judge returns nil if the message is handled, or the error that the answer means.
func (h *hook) judge(a *answer) error {
	if a.good() {
		return nil
	}
	text := a.from + " answered " + a.status()
	if said := strings.TrimSpace(string(a.body)); said != "" {
		text += ": " + clip(said)
	}
	err := errors.New(text)
	switch {
	case slices.Contains(h.config.OutageStatus, a.code):
		return handlers.RetryAfter(h.outage(err), a.retryAfter(h.env.Now()))
	case a.code == nethttp.StatusRequestTimeout, a.code == nethttp.StatusTooEarly, a.code >= 500:
		return handlers.RetryAfter(err, a.retryAfter(h.env.Now()))
	default:
		return handlers.Permanent(err)
	}
}

// retryAfter is what the answer says of when to come again: seconds, or a date. 0: nothing.
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

// produce makes what a handled message becomes.
func (h *hook) produce(msg *message.Message, a *answer) []*message.Message {
	switch h.config.Output {
	case outputNone:
		return nil
	case outputMessage:
		return []*message.Message{handlers.Forward(msg)}
	}
	out := handlers.NewMessage(a.body)
	out.Metadata[keyStatus] = strconv.Itoa(a.code)
	if kind := a.header.Get("Content-Type"); property(kind) {
		if _, _, err := mime.ParseMediaType(kind); err == nil {
			out.Metadata[transports.ContentType] = kind
		}
	}
	if encoding := a.header.Get("Content-Encoding"); property(encoding) {
		out.Metadata[transports.ContentEncoding] = encoding
	}
	if device := msg.Metadata[transports.Device]; device != "" {
		out.Metadata[transports.Device] = device
	}
	return []*message.Message{out}
}

// property reports whether a header's value can be a property of a message everywhere.
func property(value string) bool {
	return value != "" && len(value) <= maxShortString && utf8.ValidString(value) && fitsHeader(value)
}

// clip makes a short, printable text of what somebody else wrote.
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
