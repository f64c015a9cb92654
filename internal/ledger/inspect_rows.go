package ledger

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"iter"
	"strconv"
	"strings"
	"time"
)

// pages bounds what is held in memory of a store that is listed, and how long one query takes of it.
type pages struct{ rows, bytes int }

const (
	pageRows  = 500
	pageBytes = 8 << 20
)

// where is the condition of a filter, with its arguments.
func (in *Inspector) where(f Filter) (string, []any) {
	var all []string
	var args []any
	add := func(condition string, arg any) {
		args = append(args, arg)
		all = append(all, condition+in.dialect.argument(len(args)))
	}
	if in.dialect.byHost {
		add("host = ", in.host)
	}
	if f.Pipeline != nil {
		add("pipeline = ", *f.Pipeline)
	}
	if f.ID != nil {
		add("id = ", *f.ID)
	}
	if f.Device != nil {
		add("device = ", *f.Device)
	}
	if f.Number > 0 {
		add("number = ", f.Number)
	}
	if f.Below > 0 {
		add("number < ", f.Below)
	}
	if len(f.States) > 0 {
		var states []string
		for _, s := range f.States {
			states = append(states, strconv.Itoa(int(s)))
		}
		all = append(all, "state IN ("+strings.Join(states, ", ")+")")
	}
	if len(all) == 0 {
		return "", nil
	}
	return " WHERE " + strings.Join(all, " AND "), args
}

// Entries returns the rows that a filter chooses, the newest number first. Only some are in memory at a time, and no query stays open
// while they are handled, so that a slow reader is no burden to the host beside it. After an error there are no more.
func (in *Inspector) Entries(ctx context.Context, f Filter) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		for more := true; more; {
			var page []Entry
			var err error
			page, more, err = in.page(ctx, f)
			if err = in.checked(err); err != nil {
				yield(Entry{}, err)
				return
			}
			for _, e := range page {
				if !yield(e, nil) {
					return
				}
				f.Below = e.Number
			}
		}
	}
}

// page returns the first rows that a filter chooses, and whether there may be more.
func (in *Inspector) page(ctx context.Context, f Filter) (_ []Entry, more bool, err error) {
	where, args := in.where(f)
	rows, err := in.conn.QueryContext(ctx, `SELECT number, pipeline, id, device, digest, state, attempts, outputs, message, `+in.dialect.changed+
		` FROM `+in.dialect.walk+where+` ORDER BY number DESC LIMIT `+strconv.Itoa(in.pages.rows), args...)
	if err != nil {
		return nil, false, fmt.Errorf("reading the rows: %w", err)
	}
	defer func() { _ = rows.Close() }() // rows.Err says it
	var page []Entry
	for size := 0; rows.Next(); {
		e, bytes, err := entry(rows)
		if err != nil {
			return nil, false, fmt.Errorf("reading a row: %w", err)
		}
		page = append(page, e)
		if size += bytes; size > in.pages.bytes {
			return page, true, nil
		}
	}
	return page, len(page) == in.pages.rows, rows.Err()
}

// entry reads a row, and returns the size of its outputs and its message.
func entry(rows *sql.Rows) (Entry, int, error) {
	var e Entry
	var digest, outputs, message []byte
	var changed int64
	if err := rows.Scan(&e.Number, &e.Key.Pipeline, &e.Key.ID, &e.Key.Device, &digest, &e.State, &e.Attempts, &outputs, &message, &changed); err != nil {
		return e, 0, err
	}
	e.Changed = time.UnixMilli(changed).UTC()
	e.Flaw = e.decode(digest, outputs, message)
	return e, len(outputs) + len(message), nil
}

// Count returns how many rows a filter chooses.
func (in *Inspector) Count(ctx context.Context, f Filter) (int64, error) {
	where, args := in.where(f)
	var n int64
	err := in.conn.QueryRowContext(ctx, `SELECT count(*) FROM `+in.dialect.table+where, args...).Scan(&n)
	return n, in.checked(err)
}

// Tally counts the rows by pipeline and state, in this order.
func (in *Inspector) Tally(ctx context.Context) ([]Tally, error) {
	where, args := in.where(Filter{})
	var all []Tally
	err := in.each(ctx, func(rows *sql.Rows) error {
		var t Tally
		err := rows.Scan(&t.Pipeline, &t.State, &t.Rows)
		all = append(all, t)
		return err
	}, `SELECT pipeline, state, count(*) FROM `+in.dialect.table+where+` GROUP BY pipeline, state ORDER BY pipeline, state`, args...)
	return all, err
}

// Integrity returns what is wrong with a SQLite file; a database server looks after its own.
func (in *Inspector) Integrity(ctx context.Context) ([]string, error) {
	if in.dialect.byHost {
		return nil, nil
	}
	var found []string
	err := in.each(ctx, func(rows *sql.Rows) error {
		var text string
		err := rows.Scan(&text)
		found = append(found, text)
		return err
	}, `PRAGMA integrity_check(20)`)
	if len(found) == 1 && found[0] == "ok" {
		found = nil
	}
	return found, err
}

// each calls scan for every row of a query.
func (in *Inspector) each(ctx context.Context, scan func(*sql.Rows) error, query string, args ...any) error {
	rows, err := in.conn.QueryContext(ctx, query, args...)
	if err != nil {
		return in.checked(err)
	}
	defer func() { _ = rows.Close() }() // rows.Err says it
	for rows.Next() {
		if err := scan(rows); err != nil {
			return in.explain(err)
		}
	}
	return in.checked(rows.Err())
}

// Forget removes the rows of these numbers, all or none. They are gone for good when it returns.
func (r *Repair) Forget(ctx context.Context, numbers []int64) error {
	if err := r.forget(ctx, numbers); err != nil {
		return r.explain(fmt.Errorf("removing rows: %w", err))
	}
	return nil
}

func (r *Repair) forget(ctx context.Context, numbers []int64) error {
	tx, err := r.conn.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	for _, n := range numbers {
		where, args := r.where(Filter{Number: n})
		if _, err := tx.ExecContext(ctx, `DELETE FROM `+r.dialect.table+where, args...); err != nil {
			return errors.Join(err, tx.Rollback())
		}
	}
	return tx.Commit()
}
