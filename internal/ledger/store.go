package ledger

import (
	"context"

	"github.com/pentrough/pentrough/handlers"
	"github.com/pentrough/pentrough/router/middleware"
)

// Store keeps a ledger's rows beyond the end of the process. One goroutine at a time calls it.
type Store interface {
	// Open connects, migrates the schema and returns the rows of this host. It is called again
	// after each error of Open, Apply and Check. If a SQLite file was removed, Open makes it
	// again. If another file has taken its place, Open returns an error.
	Open(ctx context.Context) ([]Row, error)
	// Check returns why a change would now be lost or refused, or nil.
	Check(ctx context.Context) error
	// Apply writes all changes in one transaction. With sync, these changes and all earlier ones
	// have reached the disk when Apply returns. Without sync they survive the end of the process,
	// but perhaps not a crash of the machine. After an error the changes may be written or not,
	// and applying them again does no harm. Apply doesn't use b after it returns.
	Apply(ctx context.Context, b Batch, sync bool) error
	// EnsureReserve reserves disk space for the outcomes of runs that have begun. Apply gives that
	// space up when the disk is full. The journal calls EnsureReserve before any run begins: after
	// the first Open, and after each later Open once the store has all rows of memory.
	EnsureReserve() error
	// Close ends the use of the store.
	Close() error
}

// Batch is a set of changes, at most one for each row. The store applies removals first, since a
// row to insert may have the key of a removed one.
type Batch struct {
	Remove []int64
	// Put are rows to insert or to replace.
	Put []Row
	// Confirm are the numbers of rows whose state becomes Confirmed.
	Confirm []int64
}

// State is the state of a row.
type State int

// The states of a row. A record that is only reserved has no row, since a reservation ends with
// the process.
const (
	// Writing: a run has begun, and its outcome isn't recorded.
	Writing State = iota + 1
	// Done: the outputs are recorded, and not all of them are confirmed.
	Done
	// Confirmed: all outputs are confirmed. The row serves duplicates.
	Confirmed
	// Held: the ledger owns the message, and it isn't done. The outputs are those of Hold, and
	// duplicates get them.
	Held
)

func (s State) String() string {
	switch s {
	case Writing:
		return "writing"
	case Done:
		return "done"
	case Confirmed:
		return "confirmed"
	case Held:
		return "held"
	default:
		return "none"
	}
}

// Row is one message in a store.
type Row struct {
	// Number identifies the row. The ledger never uses a number twice.
	Number int64
	Key    middleware.LedgerKey
	Digest middleware.Digest
	State  State
	// Attempts is how many runs have begun.
	Attempts int
	Outputs  []middleware.Output
	// Known says that the row was written before, or that an attempt to write it failed.
	Known bool
	// Message is set as long as the ledger owns the message. If Put has a row without a message,
	// the row in the store keeps its message until it is confirmed.
	Message *handlers.Held
	// Origin is set until the row is confirmed. If Put has a row without an origin, the row in the
	// store keeps its origin.
	Origin middleware.Origin
}
