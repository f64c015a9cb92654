package database

import (
	"context"
	"database/sql"
	"fmt"

	"github.com/pressly/goose/v3"
)

// migrate makes the steps that a schema hasn't had yet. Another host may do the same at the same moment: whoever loses looks again.
func migrate(ctx context.Context, in goose.Dialect, db *sql.DB, versions string, steps []string) error {
	return again(ctx, func() error { return migrateOnce(ctx, in, db, versions, steps) }, func(error) bool { return true })
}

func migrateOnce(ctx context.Context, in goose.Dialect, db *sql.DB, versions string, steps []string) error {
	var all []*goose.Migration
	for i, text := range steps {
		all = append(all, goose.NewGoMigration(int64(i+1), &goose.GoFunc{RunTx: func(ctx context.Context, tx *sql.Tx) error {
			_, err := tx.ExecContext(ctx, text)
			return err
		}}, nil))
	}
	p, err := goose.NewProvider(in, db, nil, goose.WithTableName(versions), goose.WithGoMigrations(all...), goose.WithDisableGlobalRegistry(true))
	if err != nil {
		return fmt.Errorf("reading the migrations: %w", err)
	}
	has, own, err := p.GetVersions(ctx)
	if err != nil {
		return fmt.Errorf("reading the schema's version: %w", err)
	}
	if has > own {
		return fmt.Errorf("another version of pentrough made the tables: their schema in %s has version %d, this one's is %d", versions, has, own)
	}
	if _, err := p.Up(ctx); err != nil {
		return fmt.Errorf("bringing the schema up to date: %w", err)
	}
	return nil
}
