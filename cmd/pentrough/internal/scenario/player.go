package scenario

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/pentrough/pentrough/internal/recording"
	"github.com/pentrough/pentrough/transports"
	"github.com/pentrough/pentrough/transports/device"
	"github.com/pentrough/pentrough/transports/protocol"
)

// player plays the device of a recording on a fake connection.
//
// It carries out the parts of the recording in order. At a part of the device, the player puts the
// bytes into the connection. At a part of the host, the player waits until the host has written as
// many bytes, and compares all of them. If the host doesn't write them, the player carries out the
// next step of the test: for example an input with the command that the host sent at this point.
type player struct {
	*taken
	parts []part

	world  *world
	holder *holder
	conn   *conn
	ready  bool   // the connection has a session
	want   []byte // what the host has to have written so far

	mu   sync.Mutex
	sent []byte   // what the host has written
	data []string // the data of the device
}

// begin chooses the transport and consumes its data.
func (p *player) begin(w *world) error {
	p.world = w
	names := slices.Sorted(maps.Keys(w.holders))
	switch {
	case w.holders[p.Transport] != nil:
		p.holder = w.holders[p.Transport]
	case len(names) == 1:
		p.holder = w.holders[names[0]]
	default:
		return fmt.Errorf("the recording is of the transport %q; the transports of the configuration with devices are %s", p.Transport, strings.Join(names, ", "))
	}
	_, err := p.holder.Registry.Subscriber("replay").Subscribe(context.Background(), device.DataTopic, func(d *transports.Delivery) {
		p.addData(d.Payload)
		d.Settle(&transports.Outcome{})
	})
	return err
}

// addData keeps the parts of a data message that must be the same in all ways of replaying.
func (p *player) addData(payload []byte) {
	var d device.Data
	if json.Unmarshal(payload, &d) != nil || p.holder.Registry.Base(d.Device) != p.Device {
		return
	}
	b, err := d.Bytes()
	if err != nil {
		return
	}
	text := d.Device + " " + show(b)
	if d.Kind != "" {
		text += " kind " + d.Kind
	}
	if d.Partial {
		text += " partial"
	}
	if d.LateFor != "" {
		text += " late for " + d.LateFor
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.data = append(p.data, text)
}

// published returns the data of the device.
func (p *player) published() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.data)
}

// wrote is called with what the host writes.
func (p *player) wrote(b []byte) {
	p.mu.Lock()
	p.sent = append(p.sent, b...)
	p.mu.Unlock()
	p.holder.record.signal()
}

// written returns what the host has written.
func (p *player) written() []byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.sent)
}

// play plays the whole recording.
func (p *player) play() *Failure {
	began := time.Now()
	if err := p.connect(); err != nil {
		return failAt(p.world.test, 0, err.Error())
	}
	for _, part := range p.parts {
		if part.fromHost && p.world.test.IgnoreHost {
			continue
		}
		time.Sleep(time.Until(began.Add(part.at)))
		if part.fromHost {
			p.want = append(p.want, part.bytes...)
			if failure := p.awaitHost(part.line); failure != nil {
				return failure
			}
			continue
		}
		if err := p.feed(part.bytes); err != nil {
			return failAt(p.world.test, 0, fmt.Sprintf("line %d: %v", part.line, err))
		}
		p.world.settle()
	}
	if p.ended == "" {
		return nil
	}
	time.Sleep(time.Until(began.Add(p.at)))
	p.world.settle()
	if written := p.written(); !p.world.test.IgnoreHost && len(written) > len(p.want) {
		return failAt(p.world.test, 0, "at the end the host has sent more than recorded, "+recording.Difference(p.want, written))
	}
	p.disconnect()
	return nil
}

// awaitHost waits until the host has written what it has to.
func (p *player) awaitHost(line int) *Failure {
	w := p.world
	wrote := func() (*seen, []*seen) {
		if written := p.written(); len(written) >= len(p.want) || !recording.Prefixed(p.want, written) {
			return &seen{payload: written}, nil
		}
		return nil, nil
	}
	soon, within := time.Duration(0), withinVirtual
	if !w.virtual {
		soon, within = nothingReal, withinReal
	}
	one, _, ok := w.await(wrote, soon)
	for !ok && w.next < len(w.test.Steps) {
		if failure := w.step(); failure != nil {
			return failure
		}
		one, _, ok = w.await(wrote, soon)
	}
	if !ok {
		if one, _, ok = w.await(wrote, within); !ok {
			return failAt(w.test, 0, fmt.Sprintf("line %d: the host didn't send the recorded bytes, %s\na step that makes the host send them may be missing; ignore_host = true compares nothing", line, recording.Difference(p.want, p.written())))
		}
	}
	if !recording.Prefixed(p.want, one.payload) {
		return failAt(w.test, 0, fmt.Sprintf("line %d: the host sent something else, %s", line, recording.Difference(p.want, one.payload)))
	}
	return nil
}

// connect makes the connection. If the recording has the connection's first bytes and they have to
// name the device, the session begins later.
func (p *player) connect() error {
	h := p.holder
	name, err := h.Registry.Canonical(p.Device)
	if err != nil {
		return fmt.Errorf("the recording is of the device %q: %w", p.Device, err)
	}
	opening, named := h.Opening, name
	if opening != nil && p.Whole && !h.Configured(name) {
		named = ""
	} else {
		opening = h.Protocol
	}
	peer, _ := netip.ParseAddrPort(p.RemoteAddr)
	p.conn = &conn{holder: h, device: p.Device, player: p, dialog: device.NewDialog(opening, peer, named), more: make(chan struct{}, 1), closed: make(chan struct{})}
	h.setConn(p.Device, p.conn)
	if p.Whole {
		greeting, err := p.conn.dialog.Greet()
		if err != nil {
			return fmt.Errorf("greeting the device: %w", err)
		}
		p.wrote(greeting)
	}
	if named != "" {
		return p.identified(name)
	}
	return nil
}

// identified begins the session.
func (p *player) identified(name string) error {
	if name != p.Device {
		return fmt.Errorf("the recording is of the device %q, but a frame names the device %q", p.Device, name)
	}
	if !p.holder.takes(name) {
		return fmt.Errorf("device %s is refused: the inventory doesn't list it", name)
	}
	if protocol.IsPlain(p.holder.Protocol) {
		p.conn.dialog = device.NewDialog(p.holder.Protocol, netip.AddrPort{}, name)
	}
	p.ready = true
	return p.conn.begin(name)
}

// feed lets the device send bytes.
func (p *player) feed(b []byte) error {
	c := p.conn
	if !p.ready {
		rest, err := p.open(slices.Concat(c.tail, b))
		if err != nil {
			return err
		}
		if b, c.tail = rest, nil; !p.ready {
			b, c.tail = nil, rest
		}
	}
	if len(b) > 0 {
		c.send(b, 0)
	}
	return nil
}

// open reads frames until one names the device, as the real transport does. It returns the bytes
// behind them.
func (p *player) open(data []byte) (rest []byte, err error) {
	c := p.conn
	for {
		advance, frame, err := c.dialog.Split(data, 0)
		if err != nil || advance == 0 {
			return data, err
		}
		data = data[advance:]
		if frame == nil {
			continue
		}
		v, err := c.dialog.Decode(frame)
		if err != nil {
			return nil, fmt.Errorf("the frame %.100q: %w", frame, err)
		}
		if v.Response != nil && !v.Confirmed {
			response, err := c.dialog.FrameResponse(v)
			if err != nil {
				return nil, fmt.Errorf("responding to the frame %.100q: %w", frame, err)
			}
			p.wrote(response)
			v.Response = nil
		}
		switch {
		case v.Refusal != "":
			return nil, errors.New("the protocol refused the device: " + v.Refusal)
		case v.Device != "":
			first := *v
			if err := p.identified(v.Device); err != nil {
				return nil, err
			}
			if err := c.session.Receive(frame, &first); err != nil {
				return nil, fmt.Errorf("handling the frame %.100q: %w", frame, err)
			}
			return data, nil
		}
	}
}

// disconnect ends the connection, if the device ended the recorded one.
func (p *player) disconnect() {
	reason := device.Reason(p.ended)
	if !p.ready || reason != device.ClientClosed && reason != device.ConnectionLost {
		return
	}
	c := p.conn
	c.mu.Lock()
	c.scheduleSaying(saying{at: time.Now(), end: reason})
	c.mu.Unlock()
	p.world.settle()
}
