package sql

import (
	"context"

	"github.com/pentrough/pentrough/handlers"
	"github.com/pentrough/pentrough/internal/database"
)

// StandIn returns the configuration of a handler that writes nothing, for `pentrough test`. It
// implements handlers.StandInMaker.
func (c *Config) StandIn() handlers.Config { return standIn{c} }

// standIn builds a handler that parses messages and writes nothing.
type standIn struct{ *Config }

func (s standIn) New(env handlers.Env) (handlers.Handler, error) {
	h, err := s.build(env)
	if err != nil {
		return nil, err
	}
	h.db = nowhere{h.db}
	return h, nil
}

// nowhere is a database that accepts every statement and stores nothing. Only its dialect is real.
type nowhere struct{ database.DB }

func (nowhere) Apply(context.Context, []database.Statement) error { return nil }
func (nowhere) Query(context.Context, database.Statement, func(func(dest ...any) error) error) error {
	return nil
}
func (nowhere) Explain(context.Context, database.Statement) error { return nil }
func (nowhere) CheckPlace(context.Context) error                  { return nil }
func (nowhere) CheckKey(context.Context, string, string) error    { return nil }
func (nowhere) Migrate(context.Context, string, []string) error   { return nil }
