// Package fanout is the handler that makes of a command for a group one for each device.
package fanout

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/google/uuid"
	"golang.org/x/time/rate"

	"github.com/pentrough/pentrough/handlers"
	"github.com/pentrough/pentrough/transports"
	"github.com/pentrough/pentrough/transports/device"
)

// Commands are published in pieces, each of which waits until it is confirmed.
const (
	piecesPerSecond = 20
	largestPiece    = 100
)

type fanout struct {
	env      handlers.Env
	devices  device.Devices
	commands message.Publisher
	results  handlers.TopicRef
	format   device.Format
	// inventory lists the known devices; nil: there is no list.
	inventory device.Inventory
	// most is how many devices a group may have, piece how many commands are published at once.
	most, piece int
	pace        *rate.Limiter
}

var _ handlers.Describer = (*fanout)(nil)

// order is what Describe finds in a message: a command for a group, or why it is a bad one.
type order struct {
	device.GroupCommand
	// sent is the commands' timestamp, from which a ttl counts.
	sent string
	// expiration is the commands' own, in the broker too; empty: none.
	expiration string
	// rejected is the detail of a bad command.
	rejected string
	// foreign says that it isn't meant as a command at all.
	foreign error
}

// Describe reads the command. Without a key all of them share one order.
func (f *fanout) Describe(msg *message.Message) (handlers.Description, error) {
	o, err := f.read(msg)
	if err != nil {
		return handlers.Description{}, err
	}
	size := len(o.Payload)
	for _, name := range o.Devices {
		size += len(name)
	}
	return handlers.Description{ID: o.ID, Priority: o.Priority, Value: o, Size: size}, nil
}

// read returns what the message asks for, or an error if it carries no JSON object.
func (f *fanout) read(msg *message.Message) (*order, error) {
	c, err := f.format.ParseGroupMessage(msg)
	if errors.Is(err, device.ErrMalformed) {
		return nil, err
	}
	o := &order{GroupCommand: c}
	if r, ok := errors.AsType[*device.Rejection](err); ok {
		switch kind := msg.Metadata[transports.Type]; kind {
		case device.TypeResult, device.TypeEvent, device.TypeData, device.TypeGroup:
			o.foreign = handlers.Drop(fmt.Errorf("a message of type %s is no command", kind))
		}
		o.rejected = r.Detail
		if r.Given != "" {
			o.rejected += "; given as id: " + r.Given
		}
	} else if o.ID == "" {
		o.rejected = "id: missing; a command for a group needs one, so that no device gets it twice"
	}
	o.Group = cmp.Or(o.Group, o.ID)
	if o.sent = msg.Metadata[transports.Timestamp]; o.sent == "" {
		o.sent = f.env.Now().UTC().Format(time.RFC3339Nano)
	}
	o.expire(msg.Metadata[transports.Expiration])
	return o, nil
}

// expire has the message's expiration, in milliseconds as AMQP has it, count for each command: as its ttl, unless it has an expires_at.
func (o *order) expire(expiration string) {
	ms, err := strconv.ParseUint(expiration, 10, 32)
	if err != nil || ms == 0 {
		return
	}
	life := time.Duration(ms) * time.Millisecond
	switch {
	case !o.ExpiresAt.IsZero():
		o.expiration = expiration
	case o.TTL == 0:
		o.TTL = life
	default:
		o.TTL = min(o.TTL, life)
	}
}

// Handle publishes the commands and then says that it did.
func (f *fanout) Handle(msg *message.Message) ([]*message.Message, error) {
	ctx := msg.Context()
	o, ok := handlers.Described(ctx).Value.(*order)
	if !ok {
		var err error
		if o, err = f.read(msg); err != nil {
			return nil, handlers.Permanent(err)
		}
	}
	if o.foreign != nil {
		return nil, o.foreign
	}
	report := device.GroupReport{ID: cmp.Or(o.ID, msg.UUID), Group: o.Group, State: device.GroupRejected, Detail: o.rejected}
	if o.rejected != "" {
		return f.report(report), nil
	}
	names, detail := f.chosen(o)
	if detail != "" {
		report.Detail = detail
		return f.report(report), nil
	}
	if err := f.publish(ctx, msg, o, names); err != nil {
		err = fmt.Errorf("publishing the commands of group %q: %w", o.Group, err)
		if errors.Is(err, transports.ErrUnsendable) {
			err = handlers.Permanent(err)
		}
		return nil, err
	}
	report.State, report.Devices = device.GroupExpanded, len(names)
	return f.report(report), nil
}

// report says what became of a command for a group.
func (f *fanout) report(r device.GroupReport) []*message.Message {
	r.Host, r.Time = f.env.Host, f.env.Now().UTC()
	out := r.Message(uuid.NewString())
	if f.results != "" {
		handlers.SetDestination(out, f.results)
	}
	return []*message.Message{out}
}

// chosen returns the canonical names of the devices that are meant, each once, or why there are none.
func (f *fanout) chosen(o *order) (names []string, detail string) {
	switch {
	case o.Devices != nil:
		if names, detail = f.canonical(o.Devices); detail != "" {
			return nil, detail
		}
	case f.inventory == nil && o.All:
		return nil, "all: the host has no inventory of devices"
	case f.inventory == nil:
		return nil, "labels: the host has no inventory of devices"
	default:
		names = f.inventory.Select(o.Labels)
	}
	switch {
	case len(names) > f.most:
		return nil, fmt.Sprintf("%d devices are meant, max_devices is %d", len(names), f.most)
	case len(names) == 0:
		return nil, f.nobody(o)
	}
	return names, ""
}

// canonical returns the names in their canonical form, in the same order, without repetitions.
func (f *fanout) canonical(given []string) (names []string, detail string) {
	seen := make(map[string]bool, len(given))
	for i, name := range given {
		canonical, err := f.devices.Canonical(name)
		if err != nil {
			return nil, fmt.Sprintf("devices[%d]: %v", i, err)
		}
		if !seen[canonical] {
			seen[canonical] = true
			names = append(names, canonical)
		}
	}
	return names, ""
}

// nobody says why no device is meant.
func (f *fanout) nobody(o *order) string {
	if o.All {
		return "all: the inventory lists no device"
	}
	for _, label := range slices.Sorted(maps.Keys(o.Labels)) {
		if value := o.Labels[label]; len(f.inventory.Select(map[string]string{label: value})) == 0 {
			return fmt.Sprintf("labels: no device has %s = %q", label, value)
		}
	}
	return "labels: no device has all of them"
}

// publish publishes a command for each device, piece by piece.
func (f *fanout) publish(ctx context.Context, msg *message.Message, o *order, names []string) error {
	for piece := range slices.Chunk(names, f.piece) {
		if err := f.pace.WaitN(ctx, len(piece)); err != nil {
			return err
		}
		msgs := make([]*message.Message, len(piece))
		for i, name := range piece {
			msgs[i] = o.child(msg, name)
			msgs[i].SetContext(ctx)
		}
		if err := f.commands.Publish("", msgs...); err != nil {
			return err
		}
	}
	return nil
}

// child is the command for one device. Each time it is the same, but for the timestamp of a message that came without.
func (o *order) child(msg *message.Message, name string) *message.Message {
	c := o.Command
	c.Device = name
	child := c.Message()
	child.UUID = childID(o.ID, name)
	child.Metadata[transports.MessageID] = child.UUID
	child.Metadata[transports.Timestamp] = o.sent
	if o.expiration != "" {
		child.Metadata[transports.Expiration] = o.expiration
	}
	for _, key := range [...]string{transports.CorrelationID, transports.TraceParent, transports.TraceState, transports.Priority} {
		if value := msg.Metadata[key]; value != "" {
			child.Metadata[key] = value
		}
	}
	return child
}

// childID is the message_id of the command for one device. What doesn't fit into an AMQP property becomes a UUID.
func childID(id, name string) string {
	if full := id + "/" + name; len(full) <= device.MaxName {
		return full
	}
	return uuid.NewSHA1(uuid.NameSpaceOID, []byte(id+"\x00"+name)).String()
}
