package listen

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"net/http"
	"time"

	"golang.org/x/time/rate"
)

// lingerTime is how long a server reads what a refused peer still sends. If the server closed the
// connection with unread bytes, the kernel would reset it, and the response might get lost.
const lingerTime = 500 * time.Millisecond

type connKey struct{}

// Serve serves HTTP/1.1 on the listener until the listener is closed. It uses TLS if certificate
// isn't nil. A connection becomes spare after each response. When the server's handler has
// identified the caller, it calls [Conn.Keep] on the connection that [ConnOf] returns for the
// request.
func (l *Listener) Serve(srv *http.Server, certificate *tls.Config) error {
	srv.Protocols = new(http.Protocols)
	srv.Protocols.SetHTTP1(true)
	errors := limitedHandler{l.gate.log.Handler(), &rate.Sometimes{First: 10, Interval: time.Second}}
	srv.ErrorLog = slog.NewLogLogger(errors, slog.LevelWarn)
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

// CloseAfter makes the server close the connection after the response. Call it before writing the
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

// limitedHandler limits the rate of a server's error log, because strangers can cause errors, for
// example with a broken TLS handshake.
type limitedHandler struct {
	slog.Handler
	limit *rate.Sometimes
}

// Handle implements slog.Handler.
func (h limitedHandler) Handle(ctx context.Context, r slog.Record) (err error) {
	h.limit.Do(func() { err = h.Handler.Handle(ctx, r) })
	return err
}
