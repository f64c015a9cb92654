package handlers

import (
	"context"
	"time"
)

// DeadLetter is a message that couldn't be handled. It is stored so that a person can look at it.
type DeadLetter struct {
	// Time is when the middleware poison put the message aside; zero if that isn't known.
	Time time.Time
	// Cause is the error's text, and Kind the error's [Kind] as a word.
	Cause, Kind string
	// Pipeline and Handler say where the message failed, and Attempts how often.
	Pipeline, Handler string
	Attempts          int
	// MessageID is the message's id. It stays the same when the message is redelivered, and is
	// never empty.
	MessageID string
	// From is the topic that the message came from. Exchange and RoutingKey are set if a broker
	// delivered it.
	From                 TopicRef
	Exchange, RoutingKey string
	// Metadata has the message's own properties and headers, without those that poison added.
	Metadata map[string]string
	// Headers has the message's headers in their transport's own types, in the format of
	// transports.KeptHeaders; nil if there are none.
	Headers []byte
	Body    []byte
}

// DeadLetters stores dead letters as rows of the host's database. It is safe for concurrent use.
type DeadLetters interface {
	// Keep stores each letter in a row, all of them or none, and returns when they have reached
	// the disk. Letters with the same message and the same time share one row. In the same
	// transaction Keep removes the rows beyond the limits: call it without letters to do only
	// that.
	Keep(ctx context.Context, letters []DeadLetter, limits DeadLetterLimits) (DeadLettersRemoved, error)
}

// DeadLetterLimits bounds the rows that one pipeline stores.
type DeadLetterLimits struct {
	// Keeper is the pipeline.
	Keeper string
	// Rows is the largest number of rows. Replayed and dropped letters are removed first, then the
	// oldest ones.
	Rows int
	// Age is how old a row may get.
	Age time.Duration
}

// DeadLettersRemoved counts removed rows: Settled ones had been replayed or dropped by a person,
// Open ones had not.
type DeadLettersRemoved struct {
	Settled, Open int
}

// StoreUser is implemented by configurations that may need a store that outlives the process.
type StoreUser interface {
	// NeedsStore names what needs the store, as in `the handler "store"`, or returns "".
	NeedsStore() string
}
