package handlers

import (
	"context"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/pentrough/pentrough/transports"
)

// Journal is the ledger's record of the message that a handler runs for. A handler that does what can't be undone, such as writing to a
// device, says so before it does it: after a crash the record tells that it may have happened.
//
// Only the run that it belongs to uses it.
type Journal interface {
	// Begun returns how often it began and wasn't taken back: it may have happened so often. For the first attempt it is 0.
	Begun() int
	// Begin records that it is about to happen. With sync the record has reached the disk when Begin returns, so that not even
	// the machine's crash loses it. An error is of kind unavailable: do nothing then.
	Begin(sync bool) error
	// Retract takes the latest Begin back: nothing happened after all.
	Retract()
	// Durable reports whether the record outlives the process.
	Durable() bool
	// Hold has the ledger own the message until its key is ready (see [Holder]); when it returns, the message is on disk. What began is taken
	// back. The handler then returns outputs, which a duplicate gets as well as long as the message is held. A message that is [Resumed] keeps
	// its place and conditions, and has no outputs. An error is of kind [ErrHoldFull], or unavailable: nothing is held then.
	Hold(h Holding, outputs []*message.Message) error
}

// WithJournal returns a context that carries j. The middleware that keeps the ledger calls it.
func WithJournal(ctx context.Context, j Journal) context.Context {
	x := transports.ExtraOf(ctx)
	x.Journal = j
	return transports.WithExtra(ctx, &x)
}

// JournalFrom returns the journal of the message that ctx belongs to, or nil: its pipeline keeps none, or the message has no id.
func JournalFrom(ctx context.Context) Journal {
	j, _ := transports.ExtraOf(ctx).Journal.(Journal)
	return j
}
