package router

import (
	"log/slog"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/pentrough/pentrough/handlers"
	"github.com/pentrough/pentrough/transports"
)

// entry is one message in the pipeline. It owns the delivery. Each run gets a message of its own.
type entry struct {
	// delivery is the latest delivery of the message. If it becomes void and the message is
	// redelivered, the new delivery replaces it. The intake's lock guards this field.
	delivery *transports.Delivery
	// message is the one from which the handler made desc. The first run gets it; then it is nil.
	message  *message.Message
	desc     handlers.Description
	released *released // nil if the message wasn't held
	// abandoned says that the source didn't redeliver the message: see abandoned.go.
	abandoned bool
	lane      *lane
	number    uint64 // increases with each entry that arrives
	arrived   time.Time
	state     entryState
	reason    handlers.Reason // why the message is refused, or ""
	// publishing says that the chain has returned and the outputs wait for their confirms.
	publishing bool
	run        *run // the latest run
	// size is how many bytes of the budget in_flight the message takes. outputs is how many bytes
	// the outputs of its run take until they are confirmed.
	size, outputs int
	// keptRun says that the run goes on although the delivery may be void. A redelivered message
	// takes the run over.
	keptRun bool

	// The mutex of holds guards the rest: see heldorder.go.

	// undecidedFor is what the message will wait for if its run holds it, such as a device. It is
	// set as long as that run, or the next one, may still hold the message. Otherwise it is "".
	undecidedFor string
	// rerun says that undecidedFor is from a run that has ended, and that the message runs again.
	rerun bool
	// heldAs is the record of the message if the run has held it.
	heldAs *handlers.Held
}

// entryState is one of the states that the comment of lanes describes.
type entryState int

const (
	stateWaiting entryState = iota
	stateRefused
	stateCurrent
	statePlaced
	stateSettled
)

// isOverdue reports whether the entry's delivery is unsettled for longer than the ack deadline.
func (e *entry) isOverdue(now time.Time, deadline time.Duration) bool {
	return !e.keptRun && fromSource(e) && now.Sub(e.arrived) >= deadline && !e.isVoid()
}

// anyEntry matches every entry.
func anyEntry(*entry) bool { return true }

// fromSource matches entries whose delivery the source made. Other entries are from the ledger.
func fromSource(e *entry) bool { return e.released == nil && !e.abandoned }

// logger returns a logger that adds the message's id and trace to each line. A message without an
// id is logged with its UUID.
func (e *entry) logger(log *slog.Logger, msg *message.Message) *slog.Logger {
	log = transports.Traced(log, msg.Metadata)
	if e.desc.ID != "" {
		return log.With("id", e.desc.ID)
	}
	return log.With("uuid", msg.UUID)
}

// isVoid reports whether the entry's delivery is void: its channel is closed, so the source
// redelivers the message and ignores how this delivery is settled.
func (e *entry) isVoid() bool { return e.delivery.Context.Err() != nil }
