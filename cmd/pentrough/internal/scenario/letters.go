package scenario

import (
	"context"
	"maps"

	"github.com/pentrough/pentrough/handlers"
	"github.com/pentrough/pentrough/internal/ledger"
)

// letters is a store of dead letters that only records them.
type letters struct{ record *record }

var _ handlers.DeadLetters = (*letters)(nil)

// Keep implements handlers.DeadLetters. It records the properties of a letter as additional
// metadata.
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

// forgetful is a store of the ledger that keeps nothing, because a test never restarts its host.
type forgetful struct{}

var _ ledger.Store = forgetful{}

func (forgetful) Open(context.Context) ([]ledger.Row, error)      { return nil, nil }
func (forgetful) Apply(context.Context, ledger.Batch, bool) error { return nil }
func (forgetful) Check(context.Context) error                     { return nil }
func (forgetful) EnsureReserve() error                            { return nil }
func (forgetful) Close() error                                    { return nil }
