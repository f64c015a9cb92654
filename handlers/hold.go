package handlers

import (
	"context"
	"errors"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
)

// Holder is implemented by handlers that hold messages until something is ready, such as an
// offline device. [Journal.Hold] stores the message in the ledger, and the source's delivery is
// acked. When the thing that the message awaits is ready, the router gives the message to the
// handler again: the message is then [Resumed].
//
// A held message is handled before all newer ones that await the same thing. The router can't
// ensure this order alone, since a device may connect or disconnect at any moment. So the handler
// calls [HeldBefore] before it handles a message, and [MayHold] as soon as it may have to hold
// one.
type Holder interface {
	// Ready reports whether messages that await this name may be resumed now.
	Ready(awaits string) bool
	// Watch registers resume, which the handler calls with each name that becomes ready. resume
	// doesn't block.
	Watch(resume func(awaits string))
}

// Holding has the conditions under which a message is held.
type Holding struct {
	// Awaits is the handler's name for the thing that has to be ready, such as the device's name.
	Awaits string
	// Expires is the time at which the message is resumed even if the thing that it awaits isn't
	// ready. The zero time means never.
	Expires time.Time
	// Sets names the setting that the message changes. Older held messages with the same Awaits
	// and Sets are resumed at once, as superseded. An empty name supersedes none.
	Sets string
	// PerKey and Total are how many messages of a key and of the pipeline may be held.
	PerKey, Total int
}

// ErrHoldFull is the kind of Hold's error when PerKey or Total is reached. The error's text says
// which.
var ErrHoldFull = errors.New("no more can be held")

// Held is a message that the ledger owns.
type Held struct {
	// ID and Key are those of its [Description].
	ID, Key string
	// Order is the message's place among those of its key: an older message has a smaller one.
	Order int64
	// Awaits, Expires and Sets are those of [Holding].
	Awaits  string
	Expires time.Time
	Sets    string
	// Ended says that the handler has finished with the message, and that some of its outputs
	// aren't confirmed yet. Begun says that a run of it began and may have had its effect.
	Ended, Begun bool

	UUID     string
	Payload  []byte
	Metadata map[string]string
}

// Resumption says why a message came to the handler from the ledger, and not from its source.
type Resumption struct {
	// Abandoned says that the message wasn't held: a run of it had begun, its outputs aren't
	// confirmed, and its source didn't redeliver it. It has no payload.
	Abandoned bool
	// Expires is that of the message's [Holding].
	Expires time.Time
	// SupersededBy is the id of the newer message that supersedes this one, or "".
	SupersededBy string
}

// holds is the part of a [Scope] that exists in pipelines whose handler is a [Holder].
type holds interface {
	// Resumed: see [Resumed].
	Resumed() *Resumption
	// MayHold: see [MayHold].
	MayHold(awaits string)
	// HeldBefore: see [HeldBefore].
	HeldBefore(awaits string) (<-chan struct{}, error)
	// Held: see [OwnedByLedger].
	Held(h *Held)
}

func holdsFrom(ctx context.Context) holds {
	h, _ := ScopeFrom(ctx).(holds)
	return h
}

// Resumed returns why the message that ctx belongs to came from the ledger; nil if its source
// delivered it.
func Resumed(ctx context.Context) *Resumption {
	if h := holdsFrom(ctx); h != nil {
		return h.Resumed()
	}
	return nil
}

// MayHold records that the handler may hold the message, since the thing that the message awaits
// isn't ready any more. Until the message is settled, [HeldBefore] treats it as held.
func MayHold(ctx context.Context, awaits string) {
	if h := holdsFrom(ctx); h != nil {
		h.MayHold(awaits)
	}
}

// HeldBefore looks for held messages with the same awaits that have to be handled before the
// message that ctx belongs to. It returns nil if there are none. Otherwise it returns a channel
// that is closed when those messages may have been handled. The handler then calls HeldBefore
// again. HeldBefore returns an error if the run was cancelled. It returns an error of kind
// [KindUnavailable] if the message has to run again, behind the held ones. The handler returns
// either error.
func HeldBefore(ctx context.Context, awaits string) (<-chan struct{}, error) {
	if h := holdsFrom(ctx); h != nil {
		return h.HeldBefore(awaits)
	}
	return nil, nil
}

// OwnedByLedger records that the ledger owns the message that ctx belongs to. The middleware that
// uses the ledger calls it.
func OwnedByLedger(ctx context.Context, held *Held) {
	if h := holdsFrom(ctx); h != nil {
		h.Held(held)
	}
}

// NewHeld returns the record that the ledger stores of a held message.
func NewHeld(d Description, msg *message.Message, h Holding) *Held {
	return &Held{ID: d.ID, Key: d.Key, Awaits: h.Awaits, Expires: h.Expires, Sets: h.Sets, UUID: msg.UUID, Payload: msg.Payload, Metadata: msg.Metadata}
}

// Message returns the message as its source delivered it.
func (h *Held) Message() *message.Message {
	msg := message.NewMessage(h.UUID, h.Payload)
	for k, v := range h.Metadata {
		msg.Metadata[k] = v
	}
	return msg
}
