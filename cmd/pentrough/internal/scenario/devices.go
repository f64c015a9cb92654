package scenario

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/pentrough/pentrough/configs"
	"github.com/pentrough/pentrough/transports"
	"github.com/pentrough/pentrough/transports/device"
	"github.com/pentrough/pentrough/transports/protocol"
)

// holder is the fake of a transport with devices. It has the sessions and the framing of the real
// transport, and fake connections.
type holder struct {
	transports.Config // describes topics
	maker             device.StandInMaker
	record            *record

	*device.StandIn
	known device.Inventory // nil accepts every device

	running sync.WaitGroup
	mu      sync.Mutex
	conns   map[string]*conn // the newest connection of each device
}

var (
	_ transports.Transport = (*holder)(nil)
	_ transports.Drainer   = (*holder)(nil)
	_ transports.Tapper    = (*holder)(nil)
	_ device.Provider      = (*holder)(nil)
	_ device.Screener      = (*holder)(nil)
)

// New implements transports.Config: the fake is its own configuration.
func (h *holder) New(env transports.Env) (transports.Transport, error) {
	var err error
	h.StandIn, err = h.maker.StandIn(env)
	h.conns = map[string]*conn{}
	return h, err
}

func (h *holder) Subscriber(c transports.Consumer) (transports.Subscriber, error) {
	return h.Registry.Subscriber(c.Pipeline), nil
}

func (h *holder) Publisher(transports.Producer) (message.Publisher, error) {
	return nil, errors.New("a pipeline can't publish to devices")
}

func (h *holder) Tap(ctx context.Context, topic string) (<-chan *message.Message, error) {
	return h.Registry.Tap(ctx, topic), nil
}

// Start doesn't start the registry, which would publish heartbeats of the host.
func (h *holder) Start(context.Context) error       { return nil }
func (h *holder) Health() []transports.Health       { return nil }
func (h *holder) Quiesce()                          {}
func (h *holder) Drain(topic string)                { h.Registry.Drain(topic) }
func (h *holder) Devices() device.Devices           { return h.Registry }
func (h *holder) CloseSessions(ctx context.Context) { h.Registry.CloseSessions(ctx) }
func (h *holder) Close(context.Context) error       { h.Registry.Close(); h.running.Wait(); return nil }
func (h *holder) takes(name string) bool {
	return !h.KnownOnly || h.known == nil || h.known.Known(name)
}
func (h *holder) conn(name string) *conn       { h.mu.Lock(); defer h.mu.Unlock(); return h.conns[name] }
func (h *holder) setConn(name string, c *conn) { h.mu.Lock(); defer h.mu.Unlock(); h.conns[name] = c }

// Screen implements device.Screener.
func (h *holder) Screen(known device.Inventory) {
	h.known = known
	h.Registry.SetListed(known.Known, h.KnownOnly)
}

// act carries out the device table of a step.
func (h *holder) act(d *configs.TestDevice) error {
	c := h.conn(d.Name)
	live := c != nil && !c.over()
	switch {
	case d.Online != nil && !*d.Online:
		if !live {
			return fmt.Errorf("device %s isn't connected", d.Name)
		}
		c.session.End(device.ClientClosed)
		return nil
	case d.Online != nil || !live:
		var err error
		if c, err = h.connect(d.Name, c); err != nil {
			return err
		}
	}
	if d.HasAnswers {
		a, err := answersFrom(d)
		if err != nil {
			return err
		}
		c.set(a)
	}
	for _, said := range d.Says {
		payload, err := configs.DecodePayload(d.Encoding, said)
		if err != nil {
			return err
		}
		frame, err := h.frameOf(payload)
		if err != nil {
			return fmt.Errorf("device %s can't send %q: %w", d.Name, said, err)
		}
		c.send(frame, 0)
	}
	return nil
}

// frameOf returns what a device sends for a payload of a test. With a protocol, the payload
// already is what the device sends, framing included: devices may frame their messages differently
// from the host.
func (h *holder) frameOf(payload []byte) ([]byte, error) {
	if !protocol.IsPlain(h.Protocol) {
		return payload, nil
	}
	return h.Protocol.Append(nil, payload)
}

// connect creates a connection of a device. The device keeps the answers of its earlier
// connection.
func (h *holder) connect(name string, before *conn) (*conn, error) {
	canonical, err := h.Registry.Canonical(name)
	if err != nil {
		return nil, err
	}
	if !h.takes(canonical) {
		return nil, fmt.Errorf("device %s is refused: the inventory doesn't list it", name)
	}
	c := &conn{holder: h, device: name, dialog: device.NewDialog(h.Protocol, netip.AddrPort{}, canonical), more: make(chan struct{}, 1), closed: make(chan struct{})}
	if before != nil {
		c.answers = before.answersNow()
	}
	h.setConn(name, c)
	greeting, err := c.dialog.Greet()
	if err != nil {
		return nil, fmt.Errorf("greeting device %s: %w", name, err)
	}
	if greeting != nil {
		_, _, _ = c.TryWrite(greeting) // it takes everything
	}
	if err := c.begin(canonical); err != nil {
		return nil, err
	}
	return c, nil
}

// begin makes the connection the session of the device.
func (c *conn) begin(name string) (err error) {
	h := c.holder
	if c.session, err = h.Registry.Connect(context.Background(), name, h.Remote(name), c, c.dialog); err != nil {
		return fmt.Errorf("connecting device %s: %w", name, err)
	}
	h.running.Go(c.run)
	return nil
}

// answers has the answers of a device, by the frame that it gets.
type answers struct {
	to    map[string][]byte
	delay time.Duration
}

func answersFrom(d *configs.TestDevice) (answers, error) {
	a := answers{to: map[string][]byte{}, delay: d.Delay}
	for got, answer := range d.Answers {
		if got != configs.AnyFrame {
			b, err := configs.DecodePayload(d.Encoding, got)
			if err != nil {
				return a, err
			}
			got = string(b)
		}
		b, err := configs.DecodePayload(d.Encoding, answer)
		if err != nil {
			return a, err
		}
		a.to[got] = b
	}
	return a, nil
}

// conn is a fake connection. A write to it never has to wait.
type conn struct {
	holder  *holder
	device  string
	session *device.Session
	dialog  *device.Dialog
	more    chan struct{}
	shut    sync.Once
	closed  chan struct{}
	player  *player // replays a recording on the connection; nil in other tests
	tail    []byte  // with a player: what was read of an incomplete frame

	mu      sync.Mutex
	rest    []byte // the beginning of a frame that isn't complete yet
	answers answers
	saying  []saying
}

// saying is bytes that the device will send.
type saying struct {
	frame []byte
	at    time.Time
	// end isn't empty if the device ends the connection instead.
	end device.Reason
}

var _ device.Conn = (*conn)(nil)

func (c *conn) TryWrite(p []byte) (taken, begun int, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.player != nil {
		c.player.wrote(p)
		return len(p), len(p), nil
	}
	if !protocol.IsPlain(c.holder.Protocol) {
		c.handleFrame(slices.Clone(p))
		return len(p), len(p), nil
	}
	c.rest = append(c.rest, p...)
	for {
		advance, payload, err := c.dialog.Split(c.rest, 0)
		if err != nil {
			return 0, 0, fmt.Errorf("the device can't read its frame: %w", err)
		}
		if advance == 0 {
			return len(p), len(p), nil
		}
		if payload != nil {
			c.handleFrame(append([]byte(nil), payload...))
		}
		c.rest = c.rest[advance:]
	}
}

// handleFrame records a frame and schedules its answer. The caller has the lock.
func (c *conn) handleFrame(payload []byte) {
	c.holder.record.add(deviceSubject(c.device), &seen{payload: payload})
	answer, ok := c.answers.to[string(payload)]
	if !ok {
		answer, ok = c.answers.to[configs.AnyFrame]
	}
	if !ok {
		return
	}
	if frame, err := c.holder.frameOf(answer); err == nil {
		c.scheduleFrame(frame, c.answers.delay)
	}
}

func (c *conn) WaitWritable(time.Time) error { return nil }
func (c *conn) Gone() bool                   { return c.over() }
func (c *conn) Unread() bool                 { return false }
func (c *conn) SilentFor() time.Duration     { return 0 }
func (c *conn) Heard() bool                  { return true }
func (c *conn) Authenticated() bool          { return false }
func (c *conn) Probe()                       {}
func (c *conn) LastRead() time.Time          { return time.Time{} }

func (c *conn) Close() error {
	c.shut.Do(func() { close(c.closed) })
	return nil
}

func (c *conn) over() bool {
	select {
	case <-c.closed:
		return true
	default:
		return false
	}
}

func (c *conn) set(a answers) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.answers = a
}

func (c *conn) answersNow() answers {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.answers
}

func (c *conn) send(frame []byte, delay time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.scheduleFrame(frame, delay)
}

// scheduleFrame schedules a frame after a delay. It is sent after all frames that were scheduled
// before. The caller has the lock.
func (c *conn) scheduleFrame(frame []byte, delay time.Duration) {
	c.scheduleSaying(saying{frame: frame, at: time.Now().Add(delay)})
}

// scheduleSaying schedules what the device does next. The caller has the lock.
func (c *conn) scheduleSaying(s saying) {
	c.saying = append(c.saying, s)
	select {
	case c.more <- struct{}{}:
	default:
	}
}

// run sends the scheduled frames, and ends the session if the device was silent for too long.
func (c *conn) run() {
	defer c.session.End(device.ConnectionLost)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for heard := time.Now(); ; {
		next, speaks := c.next()
		idle := c.holder.IdleTimeout > 0
		switch silent := heard.Add(c.holder.IdleTimeout); {
		case speaks && (!idle || next.at.Before(silent)):
			idle = false
			timer.Reset(time.Until(next.at))
		case idle:
			timer.Reset(time.Until(silent))
		default:
			timer.Stop()
		}
		select {
		case <-timer.C:
		case <-c.more:
			continue
		case <-c.closed:
			return
		}
		if idle {
			c.session.End(device.IdleTimeout)
			return
		}
		if next.end != "" {
			if c.holder.Partial && len(c.tail) > 0 {
				_ = c.session.Partial(c.tail) // it fails if the session has ended
			}
			c.session.End(next.end)
			return
		}
		heard = time.Now()
		if !c.deliver(next.frame) {
			return
		}
	}
}

// next returns the next scheduled frame.
func (c *conn) next() (saying, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.saying) == 0 {
		return saying{}, false
	}
	return c.saying[0], true
}

// deliver passes frames to the session, as the real transport does. It reports whether the session
// continues.
func (c *conn) deliver(data []byte) bool {
	c.mu.Lock()
	c.saying = c.saying[1:]
	c.mu.Unlock()
	for data = slices.Concat(c.tail, data); len(data) > 0; {
		advance, frame, err := c.dialog.Split(data, 0)
		if err == nil && advance == 0 && c.player != nil {
			break
		}
		if err != nil || advance == 0 {
			c.session.End(device.ProtocolError)
			return false
		}
		if frame != nil && !c.receive(frame) {
			return false
		}
		data = data[advance:]
	}
	c.tail = data
	return true
}

// receive passes a frame to the session. It reports whether the session continues.
func (c *conn) receive(frame []byte) bool {
	_, err := c.session.HandleFrame(context.Background(), frame)
	if err != nil && !errors.Is(err, device.ErrEnded) {
		c.session.End(device.ProtocolError)
	}
	return err == nil
}
