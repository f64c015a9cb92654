package handlers

import (
	"context"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/pentrough/pentrough/transports"
)

// Journal is the ledger's record of one message. A handler that does something that can't be
// undone, such as a write to a device, calls Begin first. After a crash the record says that the
// act may have happened.
//
// A journal belongs to one run of the handler. It isn't safe for concurrent use.
type Journal interface {
	// Begun returns how many calls of Begin were not retracted, those of earlier runs included.
	// The act may have happened that often. It is 0 for the first attempt.
	Begun() int
	// Begin records that the act is about to happen. With sync the record is on the disk when
	// Begin returns, so that it survives a crash of the machine. An error is of kind unavailable:
	// the act must not happen then.
	Begin(sync bool) error
	// Retract removes the latest Begin: the act didn't happen.
	Retract()
	// Durable reports whether the record outlives the process.
	Durable() bool
	// Hold stores the message in the ledger until the thing that it awaits is ready (see
	// [Holder]), and returns when the message is on the disk. Hold retracts the Begin of this run.
	// The handler then returns outputs. While the message is held, its duplicates get the same
	// outputs. A message that is [Resumed] keeps its place and conditions, and has no outputs. An
	// error is [ErrHoldFull] or of kind unavailable: the message isn't held then.
	Hold(h Holding, outputs []*message.Message) error
}

// WithJournal returns a context that carries j. The middleware that keeps the ledger calls it.
func WithJournal(ctx context.Context, j Journal) context.Context {
	x := transports.ExtraOf(ctx)
	x.Journal = j
	return transports.WithExtra(ctx, &x)
}

// JournalFrom returns the journal of the message that ctx belongs to. It is nil if the pipeline
// has no ledger or the message has no id.
func JournalFrom(ctx context.Context) Journal {
	j, _ := transports.ExtraOf(ctx).Journal.(Journal)
	return j
}
