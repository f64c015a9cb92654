package ledger

import (
	"context"
	"database/sql"
	"fmt"
	"iter"
	"strconv"
	"time"

	"github.com/pentrough/pentrough/internal/database"
)

// pages bounds the rows and the bytes that one query reads. That bounds the memory and the time of
// a query.
type pages struct{ rows, bytes int }

const (
	pageRows  = 500
	pageBytes = 8 << 20
)

// condition returns the condition of a filter.
func (in *Inspector) condition(f Filter) *database.Where {
	var w database.Where
	if in.dialect.byHost {
		w.And("host = ?", in.host)
	}
	w.AndEqual("pipeline", f.Pipeline)
	w.AndEqual("id", f.ID)
	w.AndEqual("device", f.Device)
	if f.Number > 0 {
		w.And("number = ?", f.Number)
	}
	if f.Below > 0 {
		w.And("number < ?", f.Below)
	}
	database.AndIn(&w, "state", f.States)
	return &w
}

// Entries returns the rows that a filter chooses, the highest number first. It reads them in pages
// and leaves no query open between the pages, so that a slow reader doesn't disturb the host. If
// there is an error, it comes as the last value.
func (in *Inspector) Entries(ctx context.Context, f Filter) iter.Seq2[Entry, error] {
	below := f.Below
	return database.Pages(func(first bool) ([]Entry, bool, error) {
		if first {
			f.Below = below
		}
		page, more, err := in.readPage(ctx, f)
		if len(page) > 0 {
			f.Below = page[len(page)-1].Number
		}
		return page, more, in.verifyRead(err)
	})
}

// readPage returns the first rows that a filter chooses, and whether there may be more.
func (in *Inspector) readPage(ctx context.Context, f Filter) (_ []Entry, more bool, err error) {
	w := in.condition(f)
	rows, err := in.conn.QueryContext(ctx, in.dialect.Positional(`SELECT number, pipeline, id, device, digest, state, attempts, outputs, message, origin, `+
		in.dialect.changed+` FROM `+in.dialect.walk+w.String()+` ORDER BY number DESC LIMIT `+strconv.Itoa(in.pages.rows)), w.Args...)
	if err != nil {
		return nil, false, fmt.Errorf("reading the rows: %w", err)
	}
	defer func() { _ = rows.Close() }() // rows.Err returns the same error
	var page []Entry
	for size := 0; rows.Next(); {
		e, bytes, err := scanEntry(rows)
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

// scanEntry reads a row and returns it with the size of its parts.
func scanEntry(rows *sql.Rows) (Entry, int, error) {
	var e Entry
	var digest []byte
	var p parts
	var changed int64
	if err := rows.Scan(&e.Number, &e.Key.Pipeline, &e.Key.ID, &e.Key.Device, &digest, &e.State, &e.Attempts, &p.outputs, &p.message, &p.origin, &changed); err != nil {
		return e, 0, err
	}
	e.Changed = time.UnixMilli(changed).UTC()
	e.Flaw = e.decode(digest, p)
	return e, len(p.outputs) + len(p.message) + len(p.origin), nil
}

// Count returns how many rows a filter chooses.
func (in *Inspector) Count(ctx context.Context, f Filter) (int64, error) {
	w := in.condition(f)
	var n int64
	err := in.conn.QueryRowContext(ctx, in.dialect.Positional(`SELECT count(*) FROM `+in.dialect.Table+w.String()), w.Args...).Scan(&n)
	return n, in.verifyRead(err)
}

// Tally counts the rows by pipeline and state, and sorts the counts in this order.
func (in *Inspector) Tally(ctx context.Context) ([]Tally, error) {
	w := in.condition(Filter{})
	var all []Tally
	err := in.forEachRow(ctx, func(rows *sql.Rows) error {
		var t Tally
		err := rows.Scan(&t.Pipeline, &t.State, &t.Rows)
		all = append(all, t)
		return err
	}, in.dialect.Positional(`SELECT pipeline, state, count(*) FROM `+in.dialect.Table+w.String()+` GROUP BY pipeline, state ORDER BY pipeline, state`), w.Args...)
	return all, err
}

// Integrity returns what is wrong with a SQLite file. For a database server it returns nothing,
// since the server checks its own files.
func (in *Inspector) Integrity(ctx context.Context) ([]string, error) {
	if in.dialect.byHost {
		return nil, nil
	}
	var found []string
	err := in.forEachRow(ctx, func(rows *sql.Rows) error {
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

// forEachRow calls scan for each row of a query.
func (in *Inspector) forEachRow(ctx context.Context, scan func(*sql.Rows) error, query string, args ...any) error {
	rows, err := in.conn.QueryContext(ctx, query, args...)
	if err != nil {
		return in.verifyRead(err)
	}
	defer func() { _ = rows.Close() }() // rows.Err returns the same error
	for rows.Next() {
		if err := scan(rows); err != nil {
			return in.explain(err)
		}
	}
	return in.verifyRead(rows.Err())
}

// Forget removes the rows with these numbers, all or none. When it returns, the disk has the
// change.
func (r *Repair) Forget(ctx context.Context, numbers []int64) error {
	if err := r.removeRows(ctx, numbers); err != nil {
		return r.explain(fmt.Errorf("removing rows: %w", err))
	}
	return nil
}

func (r *Repair) removeRows(ctx context.Context, numbers []int64) error {
	return r.dialect.Transact(ctx, r.conn, func(tx *sql.Tx) error {
		for _, n := range numbers {
			w := r.condition(Filter{Number: n})
			if _, err := tx.ExecContext(ctx, r.dialect.Positional(`DELETE FROM `+r.dialect.Table+w.String()), w.Args...); err != nil {
				return err
			}
		}
		return nil
	})
}
