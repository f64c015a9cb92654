package tcp

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/pentrough/pentrough/transports/codec"
	"github.com/pentrough/pentrough/transports/device"
	"github.com/pentrough/pentrough/transports/protocol"
)

// newDialog returns the dialog with a new connection.
func (t *transport) newDialog(c *conn) *device.Dialog {
	name, peer := "", c.peerAddr()
	switch by := t.config.identifiedBy(); {
	case by == byCertificate:
		name, _ = c.certificateName() // identify returns the error
	case c.target != nil && by != byFirstFrame:
		name = c.target.device
	case by == byAddress:
		name = peerName(peer)
	}
	d := device.NewDialog(t.opening, peer, name)
	d.SetCert(c.certificate())
	if c.needsToken() {
		d.SetAuth()
	}
	return d
}

// sessionDialog returns the dialog for the session of a connection. It returns nil for a plain
// protocol: such a connection needs a dialog only until the device is known.
func (t *transport) sessionDialog(c *conn) *device.Dialog {
	if protocol.IsPlain(t.protocol) {
		return nil
	}
	return c.dialog
}

// identify returns the device's name. It leaves the frame that named the device in c.first, and
// the bytes behind that frame in c.rest.
func (c *conn) identify() (name string, err error) {
	greeting, err := c.dialog.Greet()
	if err == nil && greeting != nil {
		err = c.writeNow(greeting)
	}
	if err != nil {
		return "", fmt.Errorf("greeting the device: %w", err)
	}
	switch by := c.transport.config.identifiedBy(); {
	case by == byCertificate:
		return c.certificateName()
	case c.target != nil && by != byFirstFrame:
		return c.target.device, nil
	case by == byAddress:
		return peerName(c.peerAddr()), nil
	}
	for first := true; ; first = false {
		if err := c.readBytes(); err != nil {
			if c.timedOut.Load() {
				err = errFirstFrameLate
			}
			if len(c.rest) > 0 && !c.needsToken() {
				err = fmt.Errorf("%w, after %d bytes: %.100q", err, len(c.rest), c.rest)
			}
			return "", fmt.Errorf("reading the first frame: %w", err)
		}
		c.keepRest()
		if first && c.wire == nil && isHello(c.rest) {
			return "", errHello
		}
		name, err := c.nextName()
		switch {
		case err != nil && c.timedOut.Load():
			return "", fmt.Errorf("reading the first frame: %w", errFirstFrameLate)
		case name != "" || err != nil:
			return name, err
		}
	}
}

// nextName handles the frames in c.rest until one of them names the device. It returns "" if more
// bytes are needed.
func (c *conn) nextName() (name string, err error) {
	for len(c.rest) > 0 {
		advance, frame, err := c.dialog.Split(c.rest, c.seen)
		switch {
		case err != nil && c.needsToken():
			return "", fmt.Errorf("reading the first frame: %w", concealFrame(err))
		case err != nil:
			return "", fmt.Errorf("reading the first frame: %w", err)
		case advance == 0:
			c.seen = len(c.rest)
			return "", nil
		}
		c.rest, c.seen = c.rest[advance:], 0
		if frame == nil {
			continue
		}
		v, err := c.dialog.Decode(frame)
		c.keepToken(v.Token)
		c.logProblem("", v.Problem)
		if err == nil && v.Device != "" {
			err = device.CheckName(v.Device)
		}
		if err != nil {
			return "", c.frameError(frame, err)
		}
		// With auth, authenticate writes the response to the frame that names the device.
		if v.Device == "" || v.Refusal != "" || !c.needsToken() {
			if err := c.respondNow(v); err != nil {
				return "", err
			}
		}
		switch {
		case v.Refusal != "":
			return "", fmt.Errorf("%w: %s", device.ErrRefused, c.hide(v.Refusal))
		case v.Device != "":
			c.first, c.verdict = frame, v
			return v.Device, nil
		}
	}
	return "", nil
}

// respondNow writes the response to a frame of a connection without a session, so that no command
// comes before it. A response that waits for pipelines is written later.
func (c *conn) respondNow(v *protocol.Verdict) error {
	if v.Response == nil || v.Confirmed && v.Refusal == "" {
		return nil
	}
	response, err := c.dialog.FrameResponse(v)
	if err == nil {
		err = c.writeNow(response)
	}
	if err != nil {
		return fmt.Errorf("responding to the first frame: %w", err)
	}
	v.Response = nil
	return nil
}

// writeNow writes bytes to a connection without a session.
func (c *conn) writeNow(p []byte) error {
	for deadline := time.Now().Add(c.transport.config.WriteTimeout); len(p) > 0; {
		n, _, err := c.TryWrite(p)
		if err != nil {
			return err
		}
		if p = p[n:]; len(p) > 0 {
			if err := c.WaitWritable(deadline); err != nil {
				return err
			}
		}
	}
	return nil
}

// handleFirst handles the frame that identified the device.
func (c *conn) handleFirst(session *device.Session) error {
	frame, v := c.first, c.verdict
	c.first, c.verdict = nil, nil
	if frame == nil {
		return nil
	}
	c.transport.metrics.framesIn.Add(1)
	return session.Receive(frame, v)
}

// handleFrame handles a frame of a connection with a session.
func (c *conn) handleFrame(session *device.Session, frame []byte) error {
	problem, err := session.HandleFrame(c.transport.ctx, frame)
	c.logProblem(session.Device(), problem)
	return err
}

// reportTail counts and logs the bytes of a frame whose end never came. With data.partial it
// publishes them.
func (c *conn) reportTail(session *device.Session, err error) {
	if len(c.rest) == 0 || errors.Is(err, codec.ErrFrame) {
		return
	}
	t := c.transport
	t.metrics.partials.Inc()
	level := slog.LevelDebug
	t.complaints.Do(func() { level = slog.LevelInfo })
	t.env.Logger.Log(t.ctx, level, "a connection ended in the middle of a frame", "device", session.Device(), "bytes", len(c.rest), "frame", c.hide(fmt.Sprintf("%.100q", c.rest)))
	if t.config.Data.Partial && c.hide(string(c.rest)) != hidden {
		_ = session.Partial(c.rest) // it fails only after the session's end
	}
	c.rest = nil
}

// peerLook is the time between two looks at a connection that the device has half closed.
const peerLook = time.Second

// awaitEnd keeps the session of a device that has closed its sending side. It returns when the
// session has ended or the device has reset the connection.
func (c *conn) awaitEnd(session *device.Session) error {
	ticker := time.NewTicker(peerLook)
	defer ticker.Stop()
	for {
		select {
		case <-session.Ended():
			return device.ErrEnded
		case <-ticker.C:
			if c.peerState() == peerReset {
				return errReset
			}
		}
	}
}

// tick lets the protocol of a connection act if it is time.
func (c *conn) tick(session *device.Session, now time.Time) {
	problem, err := session.Tick(now)
	err = c.hideError(err)
	c.logProblem(session.Device(), problem)
	if err != nil {
		c.transport.env.Logger.Info("the protocol ends a connection", "device", session.Device(), "err", err)
		c.transport.registry.NoteError(session.Device(), err.Error())
		session.End(device.ProtocolError)
	}
}

// logProblem logs a problem that a protocol has found, unless it is empty. The name of the device
// is empty if it isn't known yet.
func (c *conn) logProblem(name, problem string) {
	if problem == "" {
		return
	}
	t, level := c.transport, slog.LevelDebug
	if name == "" && c.needsToken() {
		problem = hidden
	}
	if problem = c.hide(problem); name != "" {
		t.registry.NoteError(name, problem)
	}
	t.complaints.Do(func() { level = slog.LevelInfo })
	t.env.Logger.Log(t.ctx, level, "the protocol reports a problem", "device", name, "peer", c.peerAddr(), "problem", problem)
}
