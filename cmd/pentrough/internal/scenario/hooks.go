package scenario

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/pentrough/pentrough/configs"
)

// hooks are the servers that handlers call. A server exists only if a step gives an answer for it.
type hooks struct {
	record *record

	mu  sync.Mutex
	all map[string]*configs.TestHook
}

func newHooks(r *record) *hooks { return &hooks{record: r, all: map[string]*configs.TestHook{}} }

func (h *hooks) set(to *configs.TestHook) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.all[address(to.URL)] = to
}

// address returns a URL without the parts that are secret or change with each request.
func address(text string) string {
	u, err := url.Parse(text)
	if err != nil || text == configs.AnyHook {
		return text
	}
	path := u.EscapedPath()
	if path == "" {
		path = "/"
	}
	return u.Scheme + "://" + strings.ToLower(u.Host) + path
}

// RoundTrip implements http.RoundTripper.
func (h *hooks) RoundTrip(r *http.Request) (*http.Response, error) {
	var body []byte
	if r.Body != nil {
		defer r.Body.Close()
		var err error
		if body, err = io.ReadAll(r.Body); err != nil {
			return nil, err
		}
	}
	at := address(r.URL.String())
	h.mu.Lock()
	answers, ok := h.all[at]
	if !ok {
		answers, ok = h.all[configs.AnyHook]
	}
	h.mu.Unlock()
	switch {
	case !ok:
		return nil, fmt.Errorf("a test calls no real server, and no step gives an answer for this one; add a step such as hook = { url = %q, status = 200 }", at)
	case answers.Away:
		return nil, errors.New("the server doesn't run")
	}
	if trace := httptrace.ContextClientTrace(r.Context()); trace != nil && trace.GotConn != nil {
		trace.GotConn(httptrace.GotConnInfo{})
	}
	h.record.add(hookSubject(at), &seen{payload: body, metadata: described(r)})
	if err := pass(r.Context(), answers.Delay); err != nil {
		return nil, err
	}
	said, err := bodyOf(answers)
	if err != nil {
		return nil, err
	}
	response := &http.Response{
		Status: fmt.Sprintf("%d %s", answers.Status, http.StatusText(answers.Status)), StatusCode: answers.Status, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: http.Header{}, Body: io.NopCloser(bytes.NewReader(said)), ContentLength: int64(len(said)), Request: r,
	}
	if answers.JSON != nil {
		response.Header.Set("Content-Type", "application/json")
	}
	for name, value := range answers.Headers {
		response.Header.Set(name, value)
	}
	return response, nil
}

// described returns the properties of a request as metadata, without the body.
func described(r *http.Request) message.Metadata {
	m := message.Metadata{"method": r.Method, "query": r.URL.RawQuery}
	for name, values := range r.Header {
		m[name] = strings.Join(values, ", ")
	}
	return m
}

func bodyOf(h *configs.TestHook) ([]byte, error) {
	if h.JSON != nil {
		return []byte(jsonText(h.JSON)), nil
	}
	return configs.DecodePayload(h.Encoding, h.Payload)
}

// pass waits for a time. It returns an error if ctx ends before.
func pass(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
