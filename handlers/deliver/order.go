package deliver

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/google/uuid"

	"github.com/pentrough/pentrough/handlers"
	"github.com/pentrough/pentrough/transports"
	"github.com/pentrough/pentrough/transports/device"
)

// order is a parsed message: a command, or the reason why it is invalid.
type order struct {
	device.Command
	// given is the id from the sender. If it is empty, ID is a new one.
	given string
	// attempt is the number of this attempt, or 0 for the first. Before a later attempt, an
	// earlier one was interrupted and may have been written.
	attempt int
	// name is the canonical name of the device or unit, empty if it has none. key is the name of
	// the device that has the connection.
	name, key string
	// expires is when the command expires; zero is never.
	expires time.Time
	// rejected is the detail of the rejection if the command is invalid.
	rejected string
	// foreign is an error if the message isn't a command at all, but for example a result.
	foreign error
}

// Describe parses the command. Its value is the *order: so the message is parsed once, and a ttl
// counts from when the host first received it.
func (d *deliver) Describe(msg *message.Message) (handlers.Description, error) {
	o, err := d.parseOrder(msg)
	if err != nil {
		return handlers.Description{}, err
	}
	id := o.given
	if id == "" && d.offlinePolicy(o) == device.Hold {
		id = o.ID // a held command needs an id
	}
	// The message's payload may be compressed, so the command's payload may be larger.
	size := max(0, len(o.Payload)-len(msg.Payload))
	return handlers.Description{Key: o.key, ID: id, Priority: o.Priority, Keep: o.keptText(), Value: o, Size: size}, nil
}

// keptText returns the text that the ledger keeps of a command: its device and group. They are
// enough to make a result if the payload is lost. The message's key isn't enough: with the
// pipeline's setting key, it can differ from the device. Neither device nor group contains a line
// feed.
func (o *order) keptText() string {
	if o.Group == "" {
		return o.name
	}
	return o.name + "\n" + o.Group
}

// orderFromKept returns the order of a command whose payload is lost.
func orderFromKept(d handlers.Description) *order {
	name, group, _ := strings.Cut(d.Keep, "\n")
	return &order{Command: device.Command{ID: d.ID, Group: group}, name: name}
}

// offlinePolicy returns what happens to a command whose device is offline.
func (d *deliver) offlinePolicy(o *order) device.OfflinePolicy { return cmp.Or(o.Offline, d.offline) }

// parseOrder parses the command in a message. It returns an error if the payload is no JSON
// object.
func (d *deliver) parseOrder(msg *message.Message) (*order, error) {
	c, err := d.format.ParseMessage(msg)
	if errors.Is(err, device.ErrMalformed) {
		return nil, err
	}
	o := &order{Command: c, given: c.ID, expires: c.ExpiresAt}
	if o.ID == "" {
		o.ID = uuid.NewString()
	}
	if r, ok := errors.AsType[*device.Rejection](err); ok {
		switch kind := msg.Metadata[transports.Type]; kind {
		case device.TypeResult, device.TypeEvent, device.TypeData, device.TypeGroup:
			o.foreign = handlers.Drop(fmt.Errorf("a message of type %s is no command", kind))
		}
		o.rejected = r.Detail
		if r.Given != "" {
			o.rejected += "; given as id: " + r.Given
		}
	}
	if o.Device != "" {
		if o.name, err = d.devices.Canonical(o.Device); err != nil && o.rejected == "" {
			o.rejected = "device: " + err.Error()
		}
		o.key = d.devices.Base(o.name)
	}
	switch {
	case d.priority && o.Priority == 0:
		o.Priority = amqpPriority(msg.Metadata[transports.Priority])
	case !d.priority && o.Priority > 0 && o.rejected == "":
		o.rejected = "priority: this pipeline doesn't use priorities; set `priority = true` in its handler"
		o.Priority = 0
	}
	if life := lifetime(o.TTL, msg.Metadata[transports.Expiration]); life > 0 {
		sent, err := time.Parse(time.RFC3339Nano, msg.Metadata[transports.Timestamp])
		if err != nil { // the message has no timestamp
			sent = d.env.Now()
		}
		if expires := sent.Add(life); o.expires.IsZero() || expires.Before(o.expires) {
			o.expires = expires
		}
	}
	return o, nil
}

// amqpPriority returns the priority of a command for the AMQP priority of its message.
func amqpPriority(property string) int {
	p, err := strconv.Atoi(property)
	if err != nil {
		return 0 // the message has no priority
	}
	return min(max(p, 0), device.MaxPriority)
}

// lifetime returns the shorter of a command's ttl and its message's AMQP expiration, which is in
// milliseconds. 0 means that there is no limit.
func lifetime(ttl time.Duration, expiration string) time.Duration {
	if expiration == "" {
		return ttl
	}
	ms, err := strconv.ParseUint(expiration, 10, 32) // RabbitMQ's limit
	life := time.Duration(ms) * time.Millisecond
	switch {
	// RabbitMQ delivers a message with the expiration 0 at once or never. This one was delivered.
	case err != nil || ms == 0:
		return ttl
	case ttl == 0:
		return life
	default:
		return min(ttl, life)
	}
}

// orderFor returns the order of a message, with what the ledger knows of earlier attempts. It uses
// the order that Describe parsed, if Describe was called.
func (d *deliver) orderFor(ctx context.Context, msg *message.Message) (*order, error) {
	o, ok := handlers.Described(ctx).Value.(*order)
	if !ok {
		var err error
		if o, err = d.parseOrder(msg); err != nil {
			return nil, err
		}
	}
	journal, resumed := handlers.JournalFrom(ctx), handlers.Resumed(ctx)
	begunBefore := journal != nil && journal.Begun() > 0
	if !begunBefore && resumed == nil {
		return o, nil
	}
	resumedOrder := *o
	if begunBefore {
		resumedOrder.attempt = journal.Begun() + 1
	}
	if resumed != nil {
		// A ttl counts from when the host first received the command. An id that the host made
		// counts as given.
		resumedOrder.expires, resumedOrder.ID = resumed.Expires, handlers.Described(ctx).ID
		resumedOrder.given = resumedOrder.ID
	}
	return &resumedOrder, nil
}
