package scenario

import (
	"context"
	"maps"

	"github.com/pentrough/pentrough/handlers"
	"github.com/pentrough/pentrough/internal/ledger"
)

// letters is a place for dead letters that only records them.
type letters struct{ record *record }

var _ handlers.DeadLetters = (*letters)(nil)

// Keep implements handlers.DeadLetters. What is known of a letter beside its own metadata is recorded as metadata too.
func (l *letters) Keep(_ context.Context, all []handlers.DeadLetter, _ handlers.DeadLetterLimits) (handlers.DeadLettersRemoved, error) {
	for _, letter := range all {
		metadata := map[string]string{}
		maps.Copy(metadata, letter.Metadata)
		for key, value := range map[string]string{
			"poison.cause": letter.Cause, "poison.kind": letter.Kind, "poison.pipeline": letter.Pipeline, "poison.handler": letter.Handler,
			"poison.from": string(letter.From), "message_id": letter.MessageID,
		} {
			if value != "" {
				metadata[key] = value
			}
		}
		l.record.add(letterSubject, &seen{payload: letter.Body, metadata: metadata})
	}
	return handlers.DeadLettersRemoved{}, nil
}

// forgetful is a ledger's store that keeps nothing: for a test, what it would outlive never ends.
type forgetful struct{}

var _ ledger.Store = forgetful{}

func (forgetful) Open(context.Context) ([]ledger.Row, error)      { return nil, nil }
func (forgetful) Apply(context.Context, ledger.Batch, bool) error { return nil }
func (forgetful) Check(context.Context) error                     { return nil }
func (forgetful) EnsureReserve() error                            { return nil }
func (forgetful) Close() error                                    { return nil }
