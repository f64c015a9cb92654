package handlers

import (
	"context"
	"time"
)

// DeadLetter is a message that couldn't be handled, as it is kept for people.
type DeadLetter struct {
	// Time is when it was put aside; zero if nobody said.
	Time time.Time
	// Cause is the error, Kind the error's [Kind] as a word.
	Cause, Kind string
	// Pipeline and Handler are what it failed in, Attempts how often.
	Pipeline, Handler string
	Attempts          int
	// MessageID names the message, also when it comes again. It is never empty.
	MessageID string
	// From is the topic that it came from; Exchange and RoutingKey are how, if a broker brought it.
	From                 TopicRef
	Exchange, RoutingKey string
	// Metadata are its own properties and headers, without what was added when it was put aside.
	Metadata map[string]string
	// Headers are its headers in their transport's own types, as transports.KeptHeaders has them; nil if it has none.
	Headers []byte
	Body    []byte
}

// DeadLetters keeps dead letters as rows of the host's database. It is safe for concurrent use.
type DeadLetters interface {
	// Keep makes a row of each letter, of all or none, and returns when they have reached the disk. What is the same message, put aside at the
	// same time, gets one row, however often it comes. Rows beyond the limits are removed in the same go, so that it is also called
	// without letters.
	Keep(ctx context.Context, letters []DeadLetter, limits DeadLetterLimits) (DeadLettersRemoved, error)
}

// DeadLetterLimits bound the rows that one pipeline keeps.
type DeadLetterLimits struct {
	// Keeper is the pipeline.
	Keeper string
	// Rows is how many there may be. Those that somebody replayed or dropped go first, then the oldest.
	Rows int
	// Age is how old a row may get.
	Age time.Duration
}

// DeadLettersRemoved is how many rows were removed: those that somebody had replayed or dropped, and those that nobody had.
type DeadLettersRemoved struct {
	Settled, Open int
}

// StoreUser is implemented by configurations that can't do without a store which outlives the process.
type StoreUser interface {
	// NeedsStore returns what needs it, as in `the handler "store"`, or "".
	NeedsStore() string
}
