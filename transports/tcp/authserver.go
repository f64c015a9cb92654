package tcp

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/pentrough/pentrough/internal/outage"
	"github.com/pentrough/pentrough/transports"
	"github.com/pentrough/pentrough/transports/device"
)

// authServer asks the server of auth.by = "http".
//
// An answer has one of the following results. Only allowed lets the device connect:
//   - allowed and denied: the server has decided about the device.
//   - wrong: the answer isn't a decision, for example because url is wrong.
//   - unreachable: there is no answer, or one with status 5xx. Then a remembered decision may
//     count.
type authServer struct {
	settings *auth
	env      transports.Env
	names    func(*claim) []string // of the certificate
	target   *url.URL
	http     http.Client
	// places has a place for each request.
	places  chan struct{}
	outage  *outage.Outage
	results *prometheus.CounterVec

	// key makes the keys of allowed from claims, so that a copy of the memory shows no tokens.
	key     [sha256.Size]byte
	mu      sync.Mutex
	allowed map[[sha256.Size]byte]time.Time // until when the server's decision counts
}

const (
	// maxAllowed is how many decisions are remembered.
	maxAllowed = 100_000
	// maxAnswer is the largest body of an answer.
	maxAnswer = 64 << 10
)

// The results of requests in the metric.
const (
	resultAllowed     = "allowed"
	resultDenied      = "denied"
	resultWrong       = "wrong"
	resultUnreachable = "unreachable"
	resultCached      = "cached"
)

// errUndecided is the error if an answer isn't a decision.
var errUndecided = errors.New(`the answer must be {"allow": true} or {"allow": false}`)

// newAuthServer returns nil unless auth.by is http. names returns the names of a claim's
// certificate.
func newAuthServer(a *auth, env transports.Env, names func(*claim) []string) (*authServer, error) {
	if a == nil || a.By != authHTTP {
		return nil, nil
	}
	target, err := a.target()
	if err != nil {
		return nil, fmt.Errorf("auth.url %w", err)
	}
	s := &authServer{
		settings: a, env: env, names: names, target: target, places: make(chan struct{}, a.Concurrent), outage: outage.New(env.Logger, "the auth server"),
		results: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: "pentrough", Subsystem: "tcp", Name: "auth_results_total",
			Help: "Results of requests to the auth server: allowed, denied, wrong (an answer that isn't a decision), or unreachable. cached counts the devices that were accepted because of an earlier decision.",
		}, []string{"result"}),
		allowed: map[[sha256.Size]byte]time.Time{},
	}
	_, _ = rand.Read(s.key[:]) // it never fails
	s.http.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	if env.Registerer != nil {
		if err := env.Registerer.Register(s.results); err != nil {
			return nil, fmt.Errorf("registering the metrics of the auth server: %w", err)
		}
	}
	return s, nil
}

// open reads the files of auth.tls. It is called before the first check.
func (s *authServer) open() error {
	if s == nil {
		return nil
	}
	encrypted, err := s.settings.TLS.Config()
	if err != nil {
		return fmt.Errorf("auth.tls: %w", err)
	}
	// There is no proxy, because it would get the tokens.
	s.http.Transport = &http.Transport{
		TLSClientConfig: encrypted, MaxIdleConns: s.settings.Concurrent, MaxIdleConnsPerHost: s.settings.Concurrent,
		IdleConnTimeout: time.Minute, MaxResponseHeaderBytes: maxAnswer, DisableCompression: true,
	}
	return nil
}

// close closes the connections to the server. No check is running any more.
func (s *authServer) close() {
	if s != nil {
		s.http.CloseIdleConnections()
	}
}

// note describes an outage of the server, or returns "".
func (s *authServer) note() string {
	if s == nil {
		return ""
	}
	if err := s.outage.Err(); err != nil {
		return "the auth server doesn't work, so devices that connect may be refused: " + err.Error()
	}
	return ""
}

// check returns nil if the device may connect. The error is errDenied if the server says that it
// may not.
func (s *authServer) check(ctx context.Context, c *claim) error {
	key := s.keyOf(c)
	cached := s.settings.Unreachable == unreachableCached && s.isRemembered(key)
	result, err := s.request(ctx, c, cached)
	err = hideTokenIn(err, c.token) // net/http quotes parts of an answer
	if ctx.Err() != nil {
		return errLeft // the server isn't the cause
	}
	s.results.WithLabelValues(result).Inc()
	switch result {
	case resultAllowed:
		s.remember(key)
		s.outage.Report(nil)
		return nil
	case resultDenied:
		s.forget(key)
		s.outage.Report(nil)
		return errDenied
	case resultUnreachable:
		s.outage.Report(err)
		if cached {
			s.results.WithLabelValues(resultCached).Inc()
			return nil
		}
	default:
		s.outage.Report(err)
	}
	return err
}

// request sends a request and returns its result. With a remembered decision, it waits for a place
// no longer than auth.timeout.
func (s *authServer) request(ctx context.Context, c *claim, remembered bool) (result string, err error) {
	var late <-chan time.Time
	if remembered {
		timer := time.NewTimer(s.settings.Timeout)
		defer timer.Stop()
		late = timer.C
	}
	select {
	case s.places <- struct{}{}:
	case <-late:
		return resultUnreachable, fmt.Errorf("all of the %d requests of auth.concurrent were in use for longer than auth.timeout", s.settings.Concurrent)
	case <-ctx.Done():
		return resultUnreachable, ctx.Err()
	}
	defer func() { <-s.places }()
	ctx, cancel := context.WithTimeoutCause(ctx, s.settings.Timeout, fmt.Errorf("there was no answer within auth.timeout, %v", s.settings.Timeout))
	defer cancel()
	if result, err = s.exchange(ctx, c); err != nil {
		err = fmt.Errorf("asking %s://%s: %w", s.target.Scheme, s.target.Host, err)
	}
	return result, err
}

// authRequest is the body of a request.
type authRequest struct {
	Host        string           `json:"host"`
	Transport   string           `json:"transport"`
	Device      string           `json:"device"`
	Token       string           `json:"token"`
	Encoding    device.Encoding  `json:"encoding,omitempty"` // of Token, if it isn't text
	RemoteAddr  string           `json:"remote_addr"`
	Certificate *authCertificate `json:"certificate,omitempty"`
}

// authCertificate is the verified certificate of the device.
type authCertificate struct {
	Names  []string `json:"names"`
	SHA256 string   `json:"sha256"` // of the certificate, in hexadecimal digits
}

func (s *authServer) exchange(ctx context.Context, c *claim) (result string, err error) {
	body := authRequest{Host: s.env.Host, Transport: s.env.Name, Device: c.device, Token: string(c.token), RemoteAddr: c.peer.String()}
	if !utf8.Valid(c.token) {
		body.Token, body.Encoding = base64.StdEncoding.EncodeToString(c.token), device.Base64
	}
	if c.cert != nil {
		sum := sha256.Sum256(c.cert.Raw)
		body.Certificate = &authCertificate{Names: s.names(c), SHA256: hex.EncodeToString(sum[:])}
	}
	text, err := json.Marshal(body)
	if err != nil {
		return resultWrong, fmt.Errorf("making the request: %w", err)
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, s.target.String(), bytes.NewReader(text))
	if err != nil {
		return resultWrong, errors.New("making the request") // err may quote the URL
	}
	r.Header.Set("User-Agent", "pentrough")
	r.Header.Set("Content-Type", "application/json")
	for name, value := range s.settings.Headers {
		r.Header.Set(name, string(value))
	}
	resp, err := s.http.Do(r)
	if err != nil {
		return resultUnreachable, plainError(ctx, err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	switch code := resp.StatusCode; {
	case code >= 500:
		return resultUnreachable, fmt.Errorf("it answered with status %d", code)
	case code == http.StatusUnauthorized, code == http.StatusForbidden:
		return resultDenied, nil
	case code < 200 || code > 299:
		return resultWrong, fmt.Errorf("it answered with status %d: %w", code, errUndecided)
	case err != nil:
		return resultUnreachable, plainError(ctx, fmt.Errorf("reading the answer: %w", err))
	case len(answer) > maxAnswer:
		return resultWrong, fmt.Errorf("it answered with more than %d bytes: %w", maxAnswer, errUndecided)
	}
	var decision map[string]any
	allow, ok := false, json.Unmarshal(answer, &decision) == nil
	if ok {
		allow, ok = decision["allow"].(bool)
	}
	switch {
	case !ok:
		return resultWrong, fmt.Errorf("it answered something else: %w", errUndecided)
	case allow:
		return resultAllowed, nil
	default:
		return resultDenied, nil
	}
}

// plainError returns the cause if ctx has ended, and otherwise the error without the URL.
func plainError(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if e, ok := errors.AsType[*url.Error](err); ok {
		return e.Err
	}
	return err
}

// keyOf returns the key under which a decision about a claim is remembered.
func (s *authServer) keyOf(c *claim) (key [sha256.Size]byte) {
	h := hmac.New(sha256.New, s.key[:])
	parts := [][]byte{[]byte(c.device), c.token, nil}
	if c.cert != nil {
		parts[2] = c.cert.Raw
	}
	for _, p := range parts {
		_, _ = h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(p)))) // it never fails
		_, _ = h.Write(p)
	}
	h.Sum(key[:0])
	return key
}

func (s *authServer) isRemembered(key [sha256.Size]byte) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.env.Now().Before(s.allowed[key])
}

// remember records that the server has accepted a claim. If there is no room, it forgets others:
// a few whose time is over, or any.
func (s *authServer) remember(key [sha256.Size]byte) {
	if s.settings.Unreachable != unreachableCached {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	now, looked := s.env.Now(), 0
	for k, until := range s.allowed {
		if looked++; len(s.allowed) < maxAllowed || looked > 8 {
			break
		}
		if looked == 8 || !now.Before(until) {
			delete(s.allowed, k)
		}
	}
	s.allowed[key] = now.Add(s.settings.Cache)
}

func (s *authServer) forget(key [sha256.Size]byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.allowed, key)
}
