// Package httprequest is the handler that calls a web hook with each message. It restricts where
// the calls may go.
//
// A call is a request and the redirects that follow. hook.go makes calls, answer.go decides what
// an answer means, client.go makes connections, and places.go has the rules on where they may go.
package httprequest

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	nethttp "net/http"
	"net/http/httptrace"
	"net/url"
	"sync/atomic"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/pentrough/pentrough/handlers"
	"github.com/pentrough/pentrough/transports"
)

type hook struct {
	config Config
	env    handlers.Env
	url    *url.URL
	places places
	client client
	// slots limits the number of requests at a time.
	slots   chan struct{}
	answers *prometheus.CounterVec
}

var _ io.Closer = (*hook)(nil)

// fromMessage has the headers that come from metadata of each message.
var fromMessage = []struct{ header, key string }{
	{"X-Correlation-Id", transports.CorrelationID},
	{"Content-Type", transports.ContentType},
	{"Content-Encoding", transports.ContentEncoding},
	{"Traceparent", transports.TraceParent},
	{"Tracestate", transports.TraceState},
}

// Handle calls the hook and returns what the configuration wants as output.
func (h *hook) Handle(msg *message.Message) ([]*message.Message, error) {
	ctx := msg.Context()
	head, err := h.newHeader(msg)
	if err != nil {
		return nil, handlers.Permanent(err)
	}
	select {
	case h.slots <- struct{}{}:
		defer func() { <-h.slots }()
	case <-ctx.Done():
		return nil, fmt.Errorf("waiting for a connection to %s: %w", origin(h.url), context.Cause(ctx))
	}
	limited, cancel := context.WithTimeoutCause(ctx, h.config.Timeout, fmt.Errorf("took longer than %v: %w", h.config.Timeout, context.DeadlineExceeded))
	defer cancel()
	a, err := h.call(limited, head, msg.Payload)
	switch {
	case err != nil && ctx.Err() != nil:
		return nil, fmt.Errorf("calling %s: %w", origin(h.url), context.Cause(ctx))
	case err != nil:
		return nil, err
	}
	return h.makeOutput(msg, a), nil
}

// Close closes the idle connections.
func (h *hook) Close() error {
	h.client.close()
	return nil
}

// newHeader makes the headers from msg. A request has them wherever it goes.
func (h *hook) newHeader(msg *message.Message) (nethttp.Header, error) {
	head := nethttp.Header{"User-Agent": {"pentrough"}}
	set := func(header, key, value string) error {
		if !transports.FitsHeader(value) {
			return fmt.Errorf("%s can't be the header %s: it contains a line end or another control character", key, header)
		}
		if value != "" {
			head.Set(header, value)
		}
		return nil
	}
	id := cmp.Or(handlers.Described(msg.Context()).ID, msg.Metadata[transports.MessageID], msg.UUID)
	errs := []error{set("Idempotency-Key", transports.MessageID, id)}
	for _, f := range fromMessage {
		errs = append(errs, set(f.header, f.key, msg.Metadata[f.key]))
	}
	for header, key := range h.config.Forward {
		errs = append(errs, set(header, key, msg.Metadata[key]))
	}
	return head, errors.Join(errs...)
}

// call makes the request and follows redirects. It returns an error unless the last answer means
// that the hook has handled the message.
func (h *hook) call(ctx context.Context, head nethttp.Header, body []byte) (*answer, error) {
	target := h.url
	for followed := 0; ; followed++ {
		a, err := h.exchange(ctx, target, head, body, followed > 0)
		if err != nil {
			h.answers.WithLabelValues(noAnswer).Inc()
			return nil, err
		}
		h.answers.WithLabelValues(a.class()).Inc()
		if a.location == "" {
			return a, h.errorOf(a)
		}
		if target, err = h.redirectTarget(a, followed); err != nil {
			return nil, handlers.Permanent(fmt.Errorf("%s answered %s: %w", a.from, a.status(), err))
		}
	}
}

// exchange makes one request and reads its answer. redirected says that a redirect led to the
// target.
func (h *hook) exchange(ctx context.Context, target *url.URL, head nethttp.Header, body []byte, redirected bool) (*answer, error) {
	transport := h.env.HTTP
	if transport == nil {
		client, err := h.client.roundTripper()
		if err != nil {
			return nil, h.newOutage(fmt.Errorf("calling %s: %w", origin(target), err))
		}
		transport = client
	}
	var reached atomic.Bool
	watched := httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { reached.Store(true) }})
	r, err := h.newRequest(watched, target, head, body)
	if err != nil {
		return nil, handlers.Permanent(err)
	}
	resp, err := transport.RoundTrip(r)
	if err != nil {
		err = shorten(ctx, err)
		_, refused := errors.AsType[*forbidden](err)
		switch {
		case refused && redirected:
			return nil, handlers.Permanent(fmt.Errorf("redirected to %s: %w", origin(target), err))
		case !reached.Load():
			return nil, h.newOutage(fmt.Errorf("reaching %s: %w", origin(target), err))
		default:
			return nil, fmt.Errorf("waiting for the answer of %s: %w", origin(target), err)
		}
	}
	defer resp.Body.Close()
	return h.readAnswer(ctx, target, resp)
}

// shorten returns the cause if ctx has ended, and otherwise err. It shortens a long text, because
// the other side may have written it.
func shorten(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if text := err.Error(); len(text) > maxQuoted {
		return errors.New(clip(text))
	}
	return err
}

// newRequest makes a request. Only a request to the origin of url gets the configured headers and
// user.
func (h *hook) newRequest(ctx context.Context, target *url.URL, head nethttp.Header, body []byte) (*nethttp.Request, error) {
	if h.config.Method == nethttp.MethodGet || h.config.Method == nethttp.MethodDelete {
		body = nil
	}
	r, err := nethttp.NewRequestWithContext(ctx, h.config.Method, target.String(), bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("making a request for %s: %w", origin(target), err)
	}
	r.Header = head.Clone()
	if body == nil {
		r.Header.Del("Content-Type")
		r.Header.Del("Content-Encoding")
	}
	home := origin(target) == origin(h.url)
	for name, value := range h.config.Headers {
		if name = nethttp.CanonicalHeaderKey(name); home || name == "Content-Type" {
			r.Header[name] = []string{string(value)}
		}
	}
	if user := target.User; user != nil && home && r.Header.Get("Authorization") == "" {
		password, _ := user.Password()
		r.SetBasicAuth(user.Username(), password)
	}
	return r, nil
}

// origin returns the scheme, host and port of a URL. Errors contain only these, because paths and
// queries may contain secrets.
func origin(u *url.URL) string {
	host := bracketed(canonical(u.Hostname()))
	if port := portOf(u); port != portOf(&url.URL{Scheme: u.Scheme}) {
		host += ":" + port
	}
	return u.Scheme + "://" + host
}

// redirectTarget returns the target of a redirect, or an error if it may not be followed.
func (h *hook) redirectTarget(a *answer, followed int) (*url.URL, error) {
	next, err := a.target.Parse(a.location)
	if err != nil {
		return nil, errors.New("it has no valid target")
	}
	switch {
	case a.code != nethttp.StatusTemporaryRedirect && a.code != nethttp.StatusPermanentRedirect && h.config.Method != nethttp.MethodGet:
		return nil, fmt.Errorf("following it would turn the %s into a GET; set url to the target", h.config.Method)
	case followed >= h.config.Redirects:
		return nil, fmt.Errorf("more than %d redirects (redirects)", h.config.Redirects)
	case next.Scheme != schemeHTTP && next.Scheme != schemeHTTPS || next.Hostname() == "":
		return nil, errors.New("it leads to no http or https URL")
	case a.target.Scheme == schemeHTTPS && next.Scheme == schemeHTTP:
		return nil, errors.New("it leads from https to http")
	case !h.places.allowsRedirect(next):
		return nil, fmt.Errorf("it leads to %s, which isn't the host of url and not in allow", clip(origin(next)))
	}
	next.User = nil
	if origin(next) == origin(h.url) {
		next.User = h.url.User
	}
	return next, nil
}

// newOutage makes the error for an endpoint that doesn't work.
func (h *hook) newOutage(err error) error {
	if h.config.OnOutage == outageUnavailable {
		return handlers.Unavailable(err)
	}
	return err
}
