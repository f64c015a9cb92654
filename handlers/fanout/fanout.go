// Package fanout is the handler that publishes a command for a group as one command for each
// device.
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

// Commands are published in pieces. Each piece is confirmed before the next one begins.
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
	// inventory lists the devices that exist; nil: there is no inventory.
	inventory device.Inventory
	// most is the limit of devices in a group. piece is the number of commands that are published
	// at once.
	most, piece int
	pace        *rate.Limiter
}

var _ handlers.Describer = (*fanout)(nil)

// order is a parsed message: a command for a group, or the reason why it is invalid.
type order struct {
	device.GroupCommand
	// sent is the commands' timestamp, from which a ttl counts.
	sent string
	// expiration is the AMQP expiration of each command; empty: none.
	expiration string
	// rejected is the detail of the rejection if the command is invalid.
	rejected string
	// foreign is an error if the message isn't a command at all, but for example a result.
	foreign error
}

// Describe parses the command. It returns no key, so all commands for groups are handled in one
// order.
func (f *fanout) Describe(msg *message.Message) (handlers.Description, error) {
	o, err := f.parseOrder(msg)
	if err != nil {
		return handlers.Description{}, err
	}
	size := len(o.Payload)
	for _, name := range o.Devices {
		size += len(name)
	}
	return handlers.Description{ID: o.ID, Priority: o.Priority, Value: o, Size: size}, nil
}

// parseOrder parses the command in a message. It returns an error if the payload is no JSON
// object.
func (f *fanout) parseOrder(msg *message.Message) (*order, error) {
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
	o.limitLife(msg.Metadata[transports.Expiration])
	return o, nil
}

// limitLife applies the AMQP expiration of the message, which is in milliseconds, to each command.
// It becomes the ttl of the commands, or their own expiration if they have an expires_at.
func (o *order) limitLife(expiration string) {
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

// Handle publishes the commands and returns the report.
func (f *fanout) Handle(msg *message.Message) ([]*message.Message, error) {
	ctx := msg.Context()
	o, ok := handlers.Described(ctx).Value.(*order)
	if !ok {
		var err error
		if o, err = f.parseOrder(msg); err != nil {
			return nil, handlers.Permanent(err)
		}
	}
	if o.foreign != nil {
		return nil, o.foreign
	}
	report := device.GroupReport{ID: cmp.Or(o.ID, msg.UUID), Group: o.Group, State: device.GroupRejected, Detail: o.rejected}
	if o.rejected != "" {
		return f.newReport(report), nil
	}
	names, detail := f.selectDevices(o)
	if detail != "" {
		report.Detail = detail
		return f.newReport(report), nil
	}
	if err := f.publishCommands(ctx, msg, o, names); err != nil {
		err = fmt.Errorf("publishing the commands of group %q: %w", o.Group, err)
		if errors.Is(err, transports.ErrUnsendable) {
			err = handlers.Permanent(err)
		}
		return nil, err
	}
	report.State, report.Devices = device.GroupExpanded, len(names)
	return f.newReport(report), nil
}

// newReport makes the message about a command for a group.
func (f *fanout) newReport(r device.GroupReport) []*message.Message {
	r.Host, r.Time = f.env.Host, f.env.Now().UTC()
	out := r.Message(uuid.NewString())
	if f.results != "" {
		handlers.SetDestination(out, f.results)
	}
	return []*message.Message{out}
}

// selectDevices returns the canonical name of each device in the group once, or the reason why the
// command is rejected.
func (f *fanout) selectDevices(o *order) (names []string, detail string) {
	switch {
	case o.Devices != nil:
		if names, detail = f.canonicalNames(o.Devices); detail != "" {
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
		return nil, fmt.Sprintf("the group has %d devices, and max_devices is %d", len(names), f.most)
	case len(names) == 0:
		return nil, f.whyNoDevice(o)
	}
	return names, ""
}

// canonicalNames returns the names in their canonical form, in the same order and without
// duplicates.
func (f *fanout) canonicalNames(given []string) (names []string, detail string) {
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

// whyNoDevice returns why the group has no device.
func (f *fanout) whyNoDevice(o *order) string {
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

// publishCommands publishes a command for each device, piece by piece.
func (f *fanout) publishCommands(ctx context.Context, msg *message.Message, o *order, names []string) error {
	for piece := range slices.Chunk(names, f.piece) {
		if err := f.pace.WaitN(ctx, len(piece)); err != nil {
			return err
		}
		msgs := make([]*message.Message, len(piece))
		for i, name := range piece {
			msgs[i] = o.newCommand(msg, name)
			msgs[i].SetContext(ctx)
		}
		if err := f.commands.Publish("", msgs...); err != nil {
			return err
		}
	}
	return nil
}

// newCommand makes the command for one device. For a redelivered message it makes the same command
// again. Only the timestamp differs, if the message has none.
func (o *order) newCommand(msg *message.Message, name string) *message.Message {
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

// childID returns the message_id of the command for one device. An id that is too long for an AMQP
// property is replaced by a UUID.
func childID(id, name string) string {
	if full := id + "/" + name; len(full) <= device.MaxName {
		return full
	}
	return uuid.NewSHA1(uuid.NameSpaceOID, []byte(id+"\x00"+name)).String()
}
