package http

import (
	"crypto/sha256"
	"crypto/subtle"
	nethttp "net/http"
	"strings"

	"github.com/pentrough/pentrough/internal/hostnames"
)

// access decides which requests are allowed.
type access struct {
	token  *[sha256.Size]byte // nil: no token is needed
	origin *nethttp.CrossOriginProtection
	hosts  hostnames.Names
}

func newAccess(c *Config, host string) *access {
	a := &access{origin: nethttp.NewCrossOriginProtection(), hosts: hostnames.New(c.Listen, append([]string{host}, c.Hosts...)...)}
	if c.Token != "" {
		sum := sha256.Sum256([]byte(c.Token))
		a.token = &sum
	}
	return a
}

// checkAccess returns 0 if the request is allowed, and otherwise the status and the reason of the
// refusal.
func (a *access) checkAccess(r *nethttp.Request) (status int, reason string) {
	if a.token != nil {
		scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
		sum := sha256.Sum256([]byte(strings.TrimSpace(token)))
		if !strings.EqualFold(scheme, "Bearer") || subtle.ConstantTimeCompare(sum[:], a.token[:]) != 1 {
			return nethttp.StatusUnauthorized, "a bearer token is needed"
		}
	} else if !a.hosts.Allow(r.Host) {
		return nethttp.StatusForbidden, "this host name isn't in `hosts`"
	}
	if err := a.origin.Check(r); err != nil {
		return nethttp.StatusForbidden, "requests from other sites are refused"
	}
	return 0, ""
}
