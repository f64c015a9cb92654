package listen

import (
	"context"
	"crypto/tls"
	"log"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"

	"golang.org/x/time/rate"
)

// lastWords is for how long a server reads what a refused peer still sends: a connection that is
// closed with unread bytes is reset, and the answer may be lost.
const lastWords = 500 * time.Millisecond

type connKey struct{}

// Serve serves HTTP/1.1 on the listener until it is closed, over TLS if there is a configuration
// for it. A connection becomes spare when a request was answered. The server's handler says by
// the [Conn] of a request when the caller is identified.
func (l *Listener) Serve(srv *http.Server, certificate *tls.Config) error {
	srv.Protocols = new(http.Protocols)
	srv.Protocols.SetHTTP1(true)
	srv.ErrorLog = log.New(&errorLog{log: l.gate.log, limit: rate.Sometimes{First: 10, Interval: time.Second}}, "", 0)
	srv.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
		return context.WithValue(ctx, connKey{}, connOf(c))
	}
	srv.ConnState = func(c net.Conn, state http.ConnState) {
		switch state {
		case http.StateNew:
			l.gate.served.Add(1)
		case http.StateIdle:
			connOf(c).Spare()
		case http.StateClosed:
			l.gate.served.Done()
		}
	}
	var accepting net.Listener = l
	if certificate != nil {
		accepting = tls.NewListener(l, certificate)
	}
	return srv.Serve(accepting)
}

// Wait returns when all connections of Serve have ended.
func (g *Gate) Wait() { g.served.Wait() }

// ConnOf returns the connection on which a request came, or nil if that isn't one of Serve's.
func ConnOf(r *http.Request) *Conn {
	c, _ := r.Context().Value(connKey{}).(*Conn)
	return c
}

// CloseAfter has the server close the connection when it has answered the request. Call it before
// the answer is written.
func CloseAfter(w http.ResponseWriter) {
	w.Header().Set("Connection", "close")
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(lastWords)) // without one, the server's own deadline ends it
}

// connOf returns the admitted connection below TLS, if there is that.
func connOf(c net.Conn) *Conn {
	if encrypted, ok := c.(*tls.Conn); ok {
		c = encrypted.NetConn()
	}
	return c.(*Conn)
}

// errorLog takes what a server logs. Strangers can cause it, by a broken TLS handshake, so not
// every line is logged.
type errorLog struct {
	log   *slog.Logger
	limit rate.Sometimes
}

func (e *errorLog) Write(line []byte) (int, error) {
	e.limit.Do(func() { e.log.Warn(strings.TrimSuffix(string(line), "\n")) })
	return len(line), nil
}
