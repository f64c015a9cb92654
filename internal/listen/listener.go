package listen

import (
	"errors"
	"net"
	"time"

	"github.com/pentrough/pentrough/internal/backoff"
)

// firstPause and longestPause bound the pause after a failed accept. An accept fails, for example,
// if no descriptor is free.
const (
	firstPause   = 5 * time.Millisecond
	longestPause = time.Second
)

// Listener accepts connections through a [Gate].
type Listener struct {
	net.Listener
	gate *Gate
}

// Guard returns a listener whose connections the gate bounds. A gate has one listener.
func (g *Gate) Guard(l net.Listener) *Listener { return &Listener{l, g} }

// Accept returns the next connection, a [*Conn]. After an error it tries again, unless the
// listener is closed. A connection beyond Limits.AcceptRate waits in the kernel. A refused
// connection doesn't count for that rate, so a flood of refused connections delays no other.
func (l *Listener) Accept() (net.Conn, error) {
	if turns := l.gate.accepts; turns != nil && turns.Wait(l.gate.life) != nil {
		return nil, net.ErrClosed
	}
	pauses := backoff.New(firstPause, longestPause)
	for {
		socket, err := l.Listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil, err
		}
		l.gate.accepting.Report(err)
		if err != nil {
			if !backoff.Sleep(l.gate.life, pauses.NextBackOff()) {
				return nil, net.ErrClosed
			}
			continue
		}
		if c := l.gate.admit(socket); c != nil {
			return c, nil
		}
	}
}

// Close closes the listener and ends Accept. Connections stay open.
func (l *Listener) Close() error {
	l.gate.close()
	return l.Listener.Close()
}
