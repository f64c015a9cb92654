package device

import (
	"crypto/x509"
	"fmt"
	"net/netip"
	"runtime/debug"
	"sync"
	"time"

	"github.com/pentrough/pentrough/transports/codec"
	"github.com/pentrough/pentrough/transports/protocol"
)

// Dialog is a protocol with its state of one connection. The connection's reader calls Split,
// Decode and Greet. Other goroutines encode commands and call Tick. mu serializes these calls. It
// is the innermost lock: a protocol calls nothing of the host. If a protocol panics, the call
// returns an error. So a strange frame ends one connection, and not the host.
type Dialog struct {
	protocol protocol.Protocol
	plain    bool // the protocol is only a framing, so the dialog has no state and needs no lock

	mu    sync.Mutex
	state protocol.State
	// verdict is the verdict of the latest call of Decode or Greet. Only the reader uses it.
	verdict protocol.Verdict
}

// noVerdict is the verdict of all frames of plain protocols. It is never changed.
var noVerdict protocol.Verdict

// NewDialog returns a dialog with the device at the other end of a connection. name is the name of
// the device if it is known without a frame.
func NewDialog(p protocol.Protocol, peer netip.AddrPort, name string) *Dialog {
	return &Dialog{protocol: p, plain: protocol.IsPlain(p), state: protocol.State{Peer: peer, Device: name, Awaits: awaitsNothing}}
}

// SetCert sets the verified certificate of the device. It is called before the connection's reader
// uses the dialog.
func (d *Dialog) SetCert(cert *x509.Certificate) { d.state.Cert = cert }

// SetAuth makes the protocol name the device only in a frame with a token. It is called before the
// connection's reader uses the dialog.
func (d *Dialog) SetAuth() { d.state.Auth = true }

func awaitsNothing(string) bool { return false }

// setAwaits sets the function that tells Encode which answers may still arrive.
func (d *Dialog) setAwaits(awaits func(key string) bool) {
	if d.plain {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.state.Awaits = awaits
}

// recoverPanic sets err if the protocol has panicked.
func recoverPanic(err *error) {
	if v := recover(); v != nil {
		*err = fmt.Errorf("%w: the protocol panicked: %v: %s", codec.ErrFrame, v, debug.Stack())
	}
}

// recoverRefusal is recoverPanic for commands. The sender of a command gets the error, so it has
// no stack.
func recoverRefusal(err *error) {
	if v := recover(); v != nil {
		*err = fmt.Errorf("%w: the protocol panicked: %v", codec.ErrPayload, v)
	}
}

// Split finds the first frame in data: see protocol.Protocol. If a protocol needs more bytes than
// its Max, it breaks the contract and would fill the memory. Split then returns an error.
func (d *Dialog) Split(data []byte, seen int) (advance int, frame []byte, err error) {
	defer recoverPanic(&err)
	if d.plain {
		advance, frame, err = d.protocol.Split(nil, data, seen)
	} else {
		d.mu.Lock()
		defer d.mu.Unlock()
		advance, frame, err = d.protocol.Split(&d.state, data, seen)
	}
	if most := d.protocol.Max(); advance == 0 && err == nil && len(data) >= most {
		err = fmt.Errorf("%w: the protocol found no frame in %d bytes; its limit is %d", codec.ErrFrame, len(data), most)
	}
	return advance, frame, err
}

// Decode returns what a frame means. The verdict is valid until the next call. If the frame has a
// token, Decode overwrites the token in the frame.
func (d *Dialog) Decode(frame []byte) (v *protocol.Verdict, err error) {
	if d.plain {
		return &noVerdict, nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.verdict = protocol.Verdict{}
	v = &d.verdict
	defer recoverPanic(&err)
	defer func() { concealToken(v, frame) }()
	err = d.protocol.Decode(&d.state, frame, &d.verdict)
	if d.state.Device == "" {
		d.state.Device = d.verdict.Device
	}
	return v, err
}

// Greet returns what the host says first, or nil.
func (d *Dialog) Greet() (greeting []byte, err error) {
	defer recoverPanic(&err)
	g, ok := d.protocol.(protocol.Greeter)
	if !ok {
		return nil, nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.verdict = protocol.Verdict{}
	if err := g.Greet(&d.state, &d.verdict); err != nil {
		return nil, err
	}
	return d.FrameResponse(&d.verdict)
}

// tick lets a protocol with timers act if it is time. It returns what the host says, or nil, and
// what it logs. It does nothing while unread reports that bytes of the device wait to be handled.
func (d *Dialog) tick(now time.Time, unread func() bool) (response []byte, problem string, err error) {
	defer recoverPanic(&err)
	t, ok := d.protocol.(protocol.Ticker)
	if !ok {
		return nil, "", nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.state.Wake.IsZero() || now.Before(d.state.Wake) || unread() {
		return nil, "", nil
	}
	d.state.Wake = time.Time{}
	var v protocol.Verdict
	if err := t.Tick(&d.state, now, &v); err != nil {
		return nil, "", err
	}
	response, err = d.FrameResponse(&v)
	return response, v.Problem, err
}

// FrameResponse returns a copy of the verdict's response as the device has to receive it, or nil.
func (d *Dialog) FrameResponse(v *protocol.Verdict) (response []byte, err error) {
	defer recoverPanic(&err)
	switch {
	case v.Response == nil:
		return nil, nil
	case v.Raw:
		return append([]byte(nil), v.Response...), nil
	default:
		return d.protocol.Append(nil, v.Response)
	}
}

// encode returns the frame of a command, and the key of its answer.
func (d *Dialog) encode(dst []byte, c protocol.Command) (frame []byte, key string, err error) {
	defer recoverRefusal(&err)
	if d.plain {
		frame, err = d.protocol.Append(dst, c.Payload)
		return frame, "", err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	payload, key, err := d.protocol.Encode(&d.state, nil, c)
	if err != nil {
		return dst, "", err
	}
	frame, err = d.protocol.Append(dst, payload)
	return frame, key, err
}
