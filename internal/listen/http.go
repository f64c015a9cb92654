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

// lingerTime is how long a server reads what a refused peer still sends. If the server closed the
// connection with unread bytes, the kernel would reset it, and the response might get lost.
const lingerTime = 500 * time.Millisecond

type connKey struct{}

// Serve serves HTTP/1.1 on the listener until the listener is closed. It uses TLS if certificate
// isn't nil. A connection becomes spare after each response. The server's handler calls
// [Conn.Keep] of the request's [ConnOf] when it has identified the caller.
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

// ConnOf returns the connection of a request, or nil if Serve didn't accept it.
func ConnOf(r *http.Request) *Conn {
	c, _ := r.Context().Value(connKey{}).(*Conn)
	return c
}

// CloseAfter has the server close the connection after the response. Call it before writing the
// response.
func CloseAfter(w http.ResponseWriter) {
	w.Header().Set("Connection", "close")
	// If this fails, the server's own deadline applies.
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(lingerTime))
}

// connOf returns the admitted connection of c, which may be a TLS connection.
func connOf(c net.Conn) *Conn {
	if encrypted, ok := c.(*tls.Conn); ok {
		c = encrypted.NetConn()
	}
	return c.(*Conn)
}

// errorLog logs the errors of a server. It limits their rate, because strangers can cause them,
// for example with a broken TLS handshake.
type errorLog struct {
	log   *slog.Logger
	limit rate.Sometimes
}

func (e *errorLog) Write(line []byte) (int, error) {
	e.limit.Do(func() { e.log.Warn(strings.TrimSuffix(string(line), "\n")) })
	return len(line), nil
}
