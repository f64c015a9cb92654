package handlers

import (
	"context"
	"errors"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
)

// Holder is implemented by handlers that hold messages until something is ready, such as a device that is away: [Journal.Hold] has the
// ledger own the message, its source is told that it is done, and when what it awaits is ready it comes back to the handler as one that is
// [Resumed].
//
// A message that is held goes before all newer ones that await the same. The router can't see to that alone, as a device may be there in one moment
// and not in the next: a handler asks [HeldBefore], and says [MayHold].
type Holder interface {
	// Ready reports whether what awaits this may come back now.
	Ready(awaits string) bool
	// Watch has resume called with everything that becomes ready. resume doesn't block.
	Watch(resume func(awaits string))
}

// Holding is under what conditions a message is held.
type Holding struct {
	// Awaits names what has to be ready: the handler's own name of the device, of which [Holder] speaks.
	Awaits string
	// Expires is when it comes back though what it awaits isn't ready; zero is never.
	Expires time.Time
	// Sets names what the message sets: older ones that are held and await and set the same come back at once, as superseded. Empty: none do.
	Sets string
	// PerKey and Total are how many of a key and of the pipeline may be held.
	PerKey, Total int
}

// ErrHoldFull is the kind of Hold's error when as many are held as may be. Its text says which bound it was.
var ErrHoldFull = errors.New("no more can be held")

// Held is a message that the ledger owns.
type Held struct {
	// ID and Key are as described.
	ID, Key string
	// Order is its place: messages of a key have it in the order in which they came.
	Order int64
	// Awaits, Expires and Sets are those of [Holding].
	Awaits  string
	Expires time.Time
	Sets    string
	// Ended says that the handler is done with it, and that only what it produced isn't confirmed yet; Begun that it may have been.
	Ended, Begun bool

	UUID     string
	Payload  []byte
	Metadata map[string]string
}

// Resumption says how a message came back that its source doesn't deliver.
type Resumption struct {
	// Abandoned says that the message wasn't held: a run of it had begun, its outputs aren't
	// confirmed, and its source didn't redeliver it. It has no payload.
	Abandoned bool
	// Expires is what it was held with.
	Expires time.Time
	// SupersededBy is the id of the newer message that takes its place, if one does.
	SupersededBy string
}

// holds is the part of a [Scope] that pipelines have whose handler is a [Holder].
type holds interface {
	// Resumed: see [Resumed].
	Resumed() *Resumption
	// MayHold: see [MayHold].
	MayHold(awaits string)
	// HeldBefore: see [HeldBefore].
	HeldBefore(awaits string) (<-chan struct{}, error)
	// Held says that the ledger owns the message from now on.
	Held(h *Held)
}

func holdsFrom(ctx context.Context) holds {
	h, _ := ScopeFrom(ctx).(holds)
	return h
}

// Resumed returns how the message that ctx belongs to came back; nil if its source delivered it.
func Resumed(ctx context.Context) *Resumption {
	if h := holdsFrom(ctx); h != nil {
		return h.Resumed()
	}
	return nil
}

// MayHold says that the message may be going to be held, because what it awaits isn't ready any more: until it is settled, [HeldBefore] counts it
// as one that is.
func MayHold(ctx context.Context, awaits string) {
	if h := holdsFrom(ctx); h != nil {
		h.MayHold(awaits)
	}
}

// HeldBefore returns nil if no message that awaits the same is held which has to be handled before the one that ctx belongs to, and otherwise a
// channel that is closed when that may have changed. The error is of kind [KindUnavailable] when the message has to be run again to get behind it: the handler returns
// it.
func HeldBefore(ctx context.Context, awaits string) (<-chan struct{}, error) {
	if h := holdsFrom(ctx); h != nil {
		return h.HeldBefore(awaits)
	}
	return nil, nil
}

// OwnedByLedger tells the router that the ledger owns the message that ctx belongs to. The middleware that keeps the ledger calls it.
func OwnedByLedger(ctx context.Context, held *Held) {
	if h := holdsFrom(ctx); h != nil {
		h.Held(held)
	}
}

// NewHeld makes of a message what the ledger keeps.
func NewHeld(d Description, msg *message.Message, h Holding) *Held {
	return &Held{ID: d.ID, Key: d.Key, Awaits: h.Awaits, Expires: h.Expires, Sets: h.Sets, UUID: msg.UUID, Payload: msg.Payload, Metadata: msg.Metadata}
}

// Message returns the message as it came.
func (h *Held) Message() *message.Message {
	msg := message.NewMessage(h.UUID, h.Payload)
	for k, v := range h.Metadata {
		msg.Metadata[k] = v
	}
	return msg
}
