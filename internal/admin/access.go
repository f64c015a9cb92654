package admin

import (
	nethttp "net/http"

	"github.com/pentrough/pentrough/internal/hostnames"
	"github.com/pentrough/pentrough/internal/listen"
)

// ownHostOnly refuses requests with a foreign host name.
func (s *Server) ownHostOnly(next nethttp.Handler) nethttp.Handler {
	return nethttp.HandlerFunc(func(w nethttp.ResponseWriter, r *nethttp.Request) {
		if !s.hosts.Allow(r.Host) {
			writeError(w, nethttp.StatusForbidden, "this host name isn't one of the listener's; use its address, or list the name in admin_hosts of [host]")
			return
		}
		listen.ConnOf(r).Spare() // callers can't identify themselves here
		next.ServeHTTP(w, r)
	})
}

// ownOriginOnly refuses requests that a browser sends for a page of another site.
func ownOriginOnly(next nethttp.HandlerFunc) nethttp.HandlerFunc {
	return func(w nethttp.ResponseWriter, r *nethttp.Request) {
		if err := hostnames.ForeignOrigin(r); err != nil {
			writeForeignOrigin(w)
			return
		}
		next(w, r)
	}
}

func writeForeignOrigin(w nethttp.ResponseWriter) {
	writeError(w, nethttp.StatusForbidden, "requests from other sites are refused")
}
