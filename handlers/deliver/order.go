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

// order is what Describe finds in a message: a command, or why it is a bad one.
type order struct {
	device.Command
	// given is the id that the sender gave, empty if it gave none; ID then is a new one.
	given string
	// attempt is which attempt this is, if it isn't the first: an earlier one was cut off and may have been written.
	attempt int
	// key is the device's canonical name, empty if it has none.
	key string
	// expires is when the command is too late; zero is never.
	expires time.Time
	// rejected is the detail of a bad command.
	rejected string
	// foreign says that it isn't meant as a command at all: it came to the wrong queue.
	foreign error
}

// Describe reads the command. Its value is the *order, so that it is read once, and a ttl counts from the first receipt.
func (d *deliver) Describe(msg *message.Message) (handlers.Description, error) {
	o, err := d.read(msg)
	if err != nil {
		return handlers.Description{}, err
	}
	id := o.given
	if id == "" && d.policy(o) == device.Hold {
		id = o.ID // what is held needs one
	}
	// A payload that was opened or decoded may be larger than what it was in.
	size := max(0, len(o.Payload)-len(msg.Payload))
	return handlers.Description{Key: o.key, ID: id, Priority: o.Priority, Keep: o.keep(), Value: o, Size: size}, nil
}

// keep is what a result needs of a command whose payload is gone: its device, which the pipeline's key
// needn't be, and its group. Neither has a line feed.
func (o *order) keep() string {
	if o.Group == "" {
		return o.key
	}
	return o.key + "\n" + o.Group
}

// keptOrder is what is left of such a command.
func keptOrder(d handlers.Description) *order {
	key, group, _ := strings.Cut(d.Keep, "\n")
	return &order{Command: device.Command{ID: d.ID, Group: group}, key: key}
}

// policy is what becomes of a command while its device is away.
func (d *deliver) policy(o *order) device.OfflinePolicy { return cmp.Or(o.Offline, d.offline) }

// read returns what the message asks for, or an error if it carries no JSON object.
func (d *deliver) read(msg *message.Message) (*order, error) {
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
		if o.key, err = d.devices.Canonical(o.Device); err != nil && o.rejected == "" {
			o.rejected = "device: " + err.Error()
		}
	}
	switch {
	case d.priority && o.Priority == 0:
		o.Priority = amqpPriority(msg.Metadata[transports.Priority])
	case !d.priority && o.Priority > 0 && o.rejected == "":
		o.rejected = "priority: commands of this pipeline have none; `priority = true` of its handler gives them one"
		o.Priority = 0
	}
	if life := lifetime(o.TTL, msg.Metadata[transports.Expiration]); life > 0 {
		sent, err := time.Parse(time.RFC3339Nano, msg.Metadata[transports.Timestamp])
		if err != nil { // there is none
			sent = d.env.Now()
		}
		if expires := sent.Add(life); o.expires.IsZero() || expires.Before(o.expires) {
			o.expires = expires
		}
	}
	return o, nil
}

// amqpPriority is a message's priority as a command's.
func amqpPriority(property string) int {
	p, err := strconv.Atoi(property)
	if err != nil {
		return 0 // it has none
	}
	return min(max(p, 0), device.MaxPriority)
}

// lifetime is the shorter of a command's ttl and its message's expiration, in milliseconds as AMQP has it; 0 is without end.
func lifetime(ttl time.Duration, expiration string) time.Duration {
	if expiration == "" {
		return ttl
	}
	ms, err := strconv.ParseUint(expiration, 10, 32) // RabbitMQ takes no more
	life := time.Duration(ms) * time.Millisecond
	switch {
	case err != nil || ms == 0: // 0 is for a consumer that waits already, as this one did
		return ttl
	case ttl == 0:
		return life
	default:
		return min(ttl, life)
	}
}

// described returns what Describe found, if it was called.
func (d *deliver) described(ctx context.Context, msg *message.Message) (*order, error) {
	o, ok := handlers.Described(ctx).Value.(*order)
	if !ok {
		var err error
		if o, err = d.read(msg); err != nil {
			return nil, err
		}
	}
	journal, resumed := handlers.JournalFrom(ctx), handlers.Resumed(ctx)
	cut := journal != nil && journal.Begun() > 0
	if !cut && resumed == nil {
		return o, nil
	}
	again := *o
	if cut {
		again.attempt = journal.Begun() + 1
	}
	if resumed != nil {
		// A ttl counts from when it was first received, and an id that it was given by this host is its own.
		again.expires, again.ID = resumed.Expires, handlers.Described(ctx).ID
		again.given = again.ID
	}
	return &again, nil
}
