package tcp

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pentrough/pentrough/transports"
	"github.com/pentrough/pentrough/transports/device"
	"github.com/pentrough/pentrough/transports/protocol"
)

// This file lets devices prove their names with tokens: the table auth.
//
// The frame that names the device must have the token. The host checks the token before it calls
// Registry.Connect. So a connection without the right token replaces no session, publishes
// nothing and gets no command. What the device expects in return for its frame is written after
// the check.
//
// Nothing that leaves the host has the token, except the request to the auth server:
//   - Dialog.Decode overwrites the token in the frame.
//   - Errors and problems that quote a frame aren't shown before the session, and later not if the
//     text may have the token.
//   - A recording begins behind the frame with the token, and later occurrences are overwritten.

// auth is the table auth.
type auth struct {
	By          string                       `toml:"by" required:"true" doc:"What checks the token. inventory: the inventory has hashes of each device's tokens. http: a server decides." enum:"inventory,http" example:"\"inventory\""`
	URL         transports.Secret            `toml:"url" doc:"The URL of the server. The host sends it a POST request for each connection." schemes:"http,https" example:"\"https://auth.example.com/devices\""`
	Headers     map[string]transports.Secret `toml:"headers" doc:"Headers of every request to the server." example:"{ Authorization = \"Bearer ${AUTH_TOKEN}\" }"`
	TLS         *transports.TLS              `toml:"tls" doc:"TLS to the server, if the system's certificate authorities don't suffice." example:"{ ca = \"/etc/pentrough/ca.pem\" }"`
	Timeout     time.Duration                `toml:"timeout" doc:"How long a request to the server may take. It must be less than identity.timeout, which ends the connection." min:"1ms" example:"\"5s\""`
	Concurrent  int                          `toml:"concurrent" doc:"Most requests to the server at a time. Further connections wait until identity.timeout ends them." min:"1" max:"10000" example:"32"`
	Unreachable string                       `toml:"unreachable" doc:"What happens to devices that connect while the server can't be reached: there is no connection, no answer within timeout, or an answer with status 5xx. refuse: the host refuses them. cached: the host accepts a device that the server has accepted with the same token, and the same certificate, within the time in cache." enum:"refuse,cached" example:"\"cached\""`
	Cache       time.Duration                `toml:"cache" doc:"How long the host remembers that the server accepted a device, for unreachable = cached. The host remembers up to 100,000 devices, until it stops." min:"1s" example:"\"24h\""`
}

// SetDefaults sets the defaults of the table.
func (a *auth) SetDefaults() {
	a.Timeout, a.Concurrent, a.Unreachable, a.Cache = 5*time.Second, 32, unreachableRefuse, 24*time.Hour
}

// The values of auth.
const (
	authInventory     = "inventory"
	authHTTP          = "http"
	unreachableRefuse = "refuse"
	unreachableCached = "cached"
)

// tokenGroup is the group of identity.pattern that matches the token.
const tokenGroup = "token"

// validateAuth returns the problems of the table auth.
func (c *Config) validateAuth() (problems []error) {
	invalid := func(field, format string, args ...any) {
		problems = append(problems, transports.Invalid(field, format, args...))
	}
	a := c.Auth
	if a == nil {
		return nil
	}
	switch by := c.identifiedBy(); by {
	case byFirstFrame:
		if first, err := compilePattern(c.Identity.Pattern); err == nil && first.token <= 0 {
			invalid("identity.pattern", "needs a group named token for auth, as in '^(?P<device>\\S+) (?P<token>\\S+)$'")
		}
	case byProtocol:
		if c.Protocol == nil {
			break
		}
		if p, err := c.protocol(); err == nil {
			if t, ok := p.(protocol.Tokens); !ok || !t.HasTokens() {
				invalid("protocol", "its frames have no token, which auth needs; with rules, match has a group named token")
			}
		}
	default:
		invalid("auth", "needs frames with a token: identity.by = %q or %q, not %q", byFirstFrame, byProtocol, by)
	}
	if c.Identity.Attach > 0 && device.Takeover(c.Takeover) == device.TakeoverNewest {
		invalid("takeover", "%q lets an attached device replace the session of a device that has proved its name with auth; use %q or %q", c.Takeover, device.TakeoverAuthenticated, device.TakeoverIdle)
	}
	switch a.By {
	case authInventory:
		for field, set := range map[string]bool{"auth.url": a.URL != "", "auth.headers": len(a.Headers) > 0, "auth.tls": a.TLS != nil} {
			if set {
				invalid(field, "is only used with auth.by = %q", authHTTP)
			}
		}
	case authHTTP:
		problems = append(problems, c.validateServer()...)
	default:
		invalid("auth.by", "%q is not known; allowed: %s, %s", a.By, authInventory, authHTTP)
	}
	return problems
}

// validateServer returns the problems of the settings of the auth server.
func (c *Config) validateServer() (problems []error) {
	a := c.Auth
	invalid := func(field, format string, args ...any) {
		problems = append(problems, transports.Invalid(field, format, args...))
	}
	if _, err := a.target(); err != nil {
		invalid("auth.url", "%v", err)
	}
	for _, err := range transports.CheckHeaders(a.Headers) {
		invalid("auth.headers", "%v", err)
	}
	if a.TLS.Validate() != nil {
		invalid("auth.tls", "cert and key belong together: give both or none")
	} else if _, err := a.TLS.Config(); err != nil {
		invalid("auth.tls", "%v", err)
	}
	if a.Timeout <= 0 || a.Timeout >= c.Identity.Timeout {
		invalid("auth.timeout", "%v must be more than 0 and less than identity.timeout, %v", a.Timeout, c.Identity.Timeout)
	}
	if a.Concurrent < 1 {
		invalid("auth.concurrent", "%d must be at least 1", a.Concurrent)
	}
	if a.Unreachable != unreachableRefuse && a.Unreachable != unreachableCached {
		invalid("auth.unreachable", "%q is not known; allowed: %s, %s", a.Unreachable, unreachableRefuse, unreachableCached)
	} else if a.Unreachable == unreachableCached && a.Cache <= 0 {
		invalid("auth.cache", "needs a time, because auth.unreachable is %q", unreachableCached)
	}
	return problems
}

// target parses the URL.
func (a *auth) target() (*url.URL, error) {
	if a.URL == "" {
		return nil, fmt.Errorf("is missing; auth.by = %q needs the URL of a server", authHTTP)
	}
	return transports.ParseWebURL(a.URL)
}

// risk returns why tokens may be read on their way to the server, or "".
func (a *auth) risk() string {
	if a == nil || a.By != authHTTP {
		return ""
	}
	if u, err := a.target(); err != nil || u.Scheme == "https" || transports.Loopback(u.Hostname()) {
		return ""
	}
	return "tokens are sent in the clear, as the URL isn't https and isn't on a loopback address"
}

// needsInventory reports whether tokens are checked with the inventory.
func (a *auth) needsInventory() bool { return a != nil && a.By == authInventory }

// Errors of devices that don't prove their names.
var (
	errNoToken    = errors.New("the frame that names the device has no token")
	errNotListed  = errors.New("the inventory has no token of the device")
	errWrongToken = errors.New("the device's token is wrong")
	errDenied     = errors.New("the auth server refuses the device")
	errAuthLate   = errors.New("the auth server didn't decide within identity.timeout")
	errLeft       = errors.New("the connection ended before the auth server decided")
)

// claim is what a connection says about its device.
type claim struct {
	device string
	token  []byte
	peer   netip.AddrPort
	cert   *x509.Certificate
}

// secret has the token in the frame that named the device of a connection. The token doesn't
// change after the session has begun. unrecorded has bytes that may be the beginning of another
// occurrence of the token.
type secret struct{ token, unrecorded []byte }

// keepToken keeps the token of a frame. It is empty if the frame has none.
func (c *conn) keepToken(token []byte) {
	c.secret = nil
	if len(token) > 0 {
		c.secret = &secret{token: token}
	}
}

// token returns the token of the connection, or nil.
func (c *conn) token() []byte {
	if c.secret == nil {
		return nil
	}
	return c.secret.token
}

// needsToken reports whether the device has to prove its name with a token. The operator has said
// where a dialed device is, so it needs none.
func (c *conn) needsToken() bool { return c.transport.config.Auth != nil && c.target == nil }

// authenticate checks the token of the device, and then writes the response to the frame that
// named it. It does nothing for a connection that needs no token. After an error, it returns the
// reason of the refusal, too.
func (c *conn) authenticate(name string) (refusal string, err error) {
	t := c.transport
	a := t.config.Auth
	if !c.needsToken() {
		return "", nil
	}
	switch token := c.token(); {
	case len(token) == 0:
		err = errNoToken
	case a.By == authInventory:
		err = t.checkListedToken(name, token)
	default:
		err = c.askServer(&claim{device: name, token: token, peer: c.peerAddr(), cert: c.certificate()})
	}
	switch {
	case errors.Is(err, errNoToken), errors.Is(err, errNotListed), errors.Is(err, errWrongToken), errors.Is(err, errDenied):
		return refusedToken, fmt.Errorf("checking the token of %q: %w", name, err)
	case err != nil:
		return refusedAuthServer, fmt.Errorf("checking the token of %q: %w", name, err)
	}
	if err := c.respondNow(c.verdict); err != nil {
		return refusedAuth, err
	}
	t.recorders.BeginLate(&c.recordable)
	c.recordRead(c.rest)
	return "", nil
}

// checkListedToken compares a token with the hashes in the inventory.
func (t *transport) checkListedToken(name string, token []byte) error {
	hashes := t.known.Tokens(name)
	if len(hashes) == 0 {
		return errNotListed
	}
	matches := false
	for _, h := range hashes {
		matches = h.Matches(token) || matches
	}
	if !matches {
		return errWrongToken
	}
	return nil
}

// hasOwnToken reports whether the device has to prove its name on a connection of its own.
func (t *transport) hasOwnToken(name string) bool { return len(t.known.Tokens(name)) > 0 }

// askServer lets the auth server decide. It returns early if the connection ends. While it waits,
// nothing reads from the connection, so it looks at the connection's state.
func (c *conn) askServer(cl *claim) error {
	t := c.transport
	ctx, cancel := context.WithCancel(t.ctx)
	defer cancel()
	decided := make(chan error, 1)
	t.running.Go(func() { decided <- t.authServer.check(ctx, cl) })
	ticker := time.NewTicker(peerLook)
	defer ticker.Stop()
	for {
		select {
		case err := <-decided:
			return err
		case <-ticker.C:
		}
		if state := c.peerState(); state == peerConnected || state == peerClosed && t.config.HalfClose {
			continue
		}
		cancel()
		<-decided //nolint:errcheck // it is the error of ctx
		if c.timedOut.Load() {
			return errAuthLate
		}
		return errLeft
	}
}

// concealed is an error whose text isn't shown.
type concealed struct {
	error
	text string
}

func (e concealed) Error() string { return e.text }
func (e concealed) Unwrap() error { return e.error }

// hidden is shown instead of a text.
const hidden = "the text isn't shown, because it may have the device's token"

// frameError returns the error for a frame of a connection without a session. With auth, it
// doesn't show the frame, which may have a token.
func (c *conn) frameError(frame []byte, err error) error {
	if !c.needsToken() {
		return fmt.Errorf("reading the first frame %.100q: %w", frame, err)
	}
	return fmt.Errorf("reading the first frame, of %d bytes: %w", len(frame), concealFrame(err))
}

// concealFrame hides the text of an error that may quote a frame.
func concealFrame(err error) error {
	if errors.Is(err, errNoMatch) {
		return err
	}
	return concealed{err, hidden}
}

// hide returns a text for the log, or hidden if the text may have the token of the connection.
func (c *conn) hide(text string) string { return hideToken(text, c.token()) }

// hideError is hide for an error.
func (c *conn) hideError(err error) error { return hideTokenIn(err, c.token()) }

// hideToken returns the text, or hidden if the text may have the token. A text that quotes the
// beginning of a frame may have only a part of the token.
func hideToken(text string, token []byte) string {
	if len(token) == 0 {
		return text
	}
	part := min(4, len(token))
	for _, p := range [][]byte{token[:part], token[len(token)-part:]} {
		quoted := strconv.Quote(string(p))
		digits := hex.EncodeToString(p)
		for _, form := range []string{string(p), quoted[1 : len(quoted)-1], digits, strings.ToUpper(digits)} {
			if strings.Contains(text, form) {
				return hidden
			}
		}
	}
	return text
}

// hideTokenIn is hideToken for an error.
func hideTokenIn(err error, token []byte) error {
	if err == nil || hideToken(err.Error(), token) != hidden {
		return err
	}
	return concealed{err, hidden}
}

// recordRead records bytes that were read from the device. It overwrites the token. The end of the
// bytes may be the beginning of a token, so it is kept back until further bytes are read.
func (c *conn) recordRead(p []byte) {
	s := c.secret
	if s == nil || !c.recordable.IsRecorded() {
		c.recordable.AddRead(p)
		return
	}
	p = slices.Concat(s.unrecorded, p)
	device.Conceal(p, s.token)
	back := min(len(p), len(s.token)-1)
	for back > 0 && string(p[len(p)-back:]) != string(s.token[:back]) {
		back--
	}
	p, s.unrecorded = p[:len(p)-back], p[len(p)-back:]
	c.recordable.AddRead(p)
}

// recordRest records the bytes that recordRead has kept back. They may be a part of a token.
func (c *conn) recordRest() {
	if c.secret != nil {
		c.recordable.AddRead(bytes.Repeat([]byte("*"), len(c.secret.unrecorded)))
	}
}
