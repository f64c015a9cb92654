package ledger

import (
	"context"

	"github.com/pentrough/pentrough/handlers"
	"github.com/pentrough/pentrough/router/middleware"
)

// Store keeps a ledger's rows beyond the process. One goroutine at a time calls it.
type Store interface {
	// Open connects, brings the schema up to date and returns the rows of this host. It is called
	// again after each error of Open, Apply and Check. A SQLite file that was removed is made anew; a
	// file that took its place isn't opened.
	Open(ctx context.Context) ([]Row, error)
	// Check returns why what is written now would be lost or refused, or nil.
	Check(ctx context.Context) error
	// Apply makes all changes in one transaction. With sync they have reached the disk when it returns, and so has everything
	// that was applied before; without it they outlive the process. After an error any of them may have been made or not:
	// making them again does no harm. b is the caller's again when it returns.
	Apply(ctx context.Context, b Batch, sync bool) error
	// Reserve keeps room for the outcomes of runs that have begun, so that a disk which others fill
	// doesn't cost them. Apply gives it up when there is no other room. It is called before anything
	// begins: when the store was opened, and after each error when all that is in memory is written.
	Reserve() error
	// Close ends the use of the store.
	Close() error
}

// Batch is what becomes of rows, each named once. Removals come first: a key may be removed and put anew under another number.
type Batch struct {
	Remove []int64
	// Put are rows as they are to be, known to the store or not.
	Put []Row
	// Confirm are rows whose state becomes Confirmed.
	Confirm []int64
}

// State is how far a row has come.
type State int

// The states of a row. A reservation alone is not worth a row: it ends with the process.
const (
	// Writing: a run began to do what can't be undone, and hasn't told how it ended.
	Writing State = iota + 1
	// Done: the outputs are known, not all of them are confirmed.
	Done
	// Confirmed: nothing is left to do, the row answers for duplicates.
	Confirmed
	// OnHold: the ledger owns the message, and the outputs are what duplicates get meanwhile.
	OnHold
)

func (s State) String() string {
	switch s {
	case Writing:
		return "writing"
	case Done:
		return "done"
	case Confirmed:
		return "confirmed"
	case OnHold:
		return "held"
	default:
		return "none"
	}
}

// Row is one message in a store.
type Row struct {
	// Number is the row's own, given by the ledger and never used again.
	Number int64
	Key    middleware.LedgerKey
	Digest middleware.Digest
	State  State
	// Attempts is how many runs began to do what can't be undone.
	Attempts int
	Outputs  []middleware.Output
	// Known says that the store was given the row before, though perhaps in vain.
	Known bool
	// Message is there as long as the ledger owns the message. A row that is put without one keeps what it has, until it is confirmed.
	Message *handlers.Held
	// Origin is there until the row is confirmed. A row that is put without one keeps what it has.
	Origin middleware.Origin
}
