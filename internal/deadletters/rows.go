package deadletters

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"iter"
	"math"
	"strconv"
	"time"

	"github.com/pentrough/pentrough/internal/database"
	"github.com/pentrough/pentrough/transports"
)

// mostPageRows is the default of Operator.pageRows.
const mostPageRows = 500

// Filter chooses rows. Its zero value chooses all.
type Filter struct {
	// States are the states to choose; empty chooses all.
	States []State
	// Pipeline and ID of the message must be equal; nil chooses all.
	Pipeline, ID *string
	// Cause must be a part of the cause.
	Cause string
	// Since is the earliest time of the failure.
	Since time.Time
	// Last is the highest number to choose; zero chooses all.
	Last int64
}

// condition returns the condition of a filter.
func (f *Filter) condition() *database.Where {
	var w database.Where
	if f.Pipeline != nil {
		w.And("pipeline = ?", cleanText(*f.Pipeline))
	}
	if f.ID != nil {
		w.And("message_id = ?", cleanText(*f.ID))
	}
	if f.Cause != "" {
		w.And("{position}(cause, ?) > 0", cleanText(f.Cause))
	}
	if !f.Since.IsZero() {
		w.And("poisoned >= ?", f.Since.UnixMilli())
	}
	if f.Last > 0 {
		w.And("number <= ?", f.Last)
	}
	database.AndIn(&w, "state", f.States)
	return &w
}

const columns = `SELECT number, keeper, host, kept, poisoned, pipeline, handler, kind, cause, attempts, message_id, source, exchange, routing_key,
	state, changed, operator, claim, {now} - changed, length(body)`

// Order is the order of rows, by their numbers.
type Order bool

// The orders.
const (
	NewestFirst Order = false
	OldestFirst Order = true
)

// Rows returns the rows that a filter chooses, without their bodies, metadata and headers. It
// reads them in pages and leaves no query open between the pages, so that the caller may change
// rows in the loop. An error is the last value.
func (o *Operator) Rows(ctx context.Context, f Filter, order Order) iter.Seq2[Row, error] {
	beyond, by, start := "number < ?", "DESC", int64(math.MaxInt64)
	if order == OldestFirst {
		beyond, by, start = "number > ?", "ASC", 0
	}
	last := start
	return database.Pages(func(first bool) ([]Row, bool, error) {
		if first {
			last = start
		}
		w := f.condition()
		w.And(beyond, last)
		page, err := o.readPage(ctx, o.dialect.statement(columns+` FROM {table}`+w.String()+` ORDER BY number `+by+` LIMIT `+strconv.Itoa(o.pageRows)), w.Args)
		if len(page) > 0 {
			last = page[len(page)-1].Number
		}
		return page, len(page) == o.pageRows, o.explain(err)
	})
}

// readPage returns the rows of one query.
func (o *Operator) readPage(ctx context.Context, query string, args []any) ([]Row, error) {
	rows, err := o.db.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, fmt.Errorf("reading the rows: %w", err)
	}
	defer func() { _ = rows.Close() }() // rows.Err returns the same error
	var page []Row
	for rows.Next() {
		var r Row
		if err := r.scanRow(rows); err != nil {
			return nil, fmt.Errorf("reading a row: %w", err)
		}
		page = append(page, r)
	}
	return page, rows.Err()
}

// scanRow reads the columns of a row, and the columns after them into more.
func (r *Row) scanRow(from interface{ Scan(to ...any) error }, more ...any) error {
	var kept, poisoned, changed, since int64
	var source string
	err := from.Scan(append([]any{
		&r.Number, &r.Keeper, &r.Host, &kept, &poisoned, &r.Pipeline, &r.Handler, &r.Kind, &r.Cause, &r.Attempts, &r.MessageID, &source, &r.Exchange,
		&r.RoutingKey, &r.State, &changed, &r.Operator, &r.claim, &since, &r.Size,
	}, more...)...)
	r.Kept, r.Time, r.Changed = time.UnixMilli(kept).UTC(), time.UnixMilli(poisoned).UTC(), time.UnixMilli(changed).UTC()
	r.SinceChange, r.From = time.Duration(since)*time.Millisecond, transports.TopicRef(source)
	return err
}

// Row returns a row with its body, metadata and headers.
func (o *Operator) Row(ctx context.Context, number int64) (Row, error) {
	var r Row
	var details []byte
	err := r.scanRow(o.db.QueryRowContext(ctx, o.dialect.statement(columns+`, details, body FROM {table} WHERE number = ?`), number), &details, &r.Body)
	if errors.Is(err, sql.ErrNoRows) {
		return r, fmt.Errorf("row %d: %w", number, ErrNoRow)
	}
	if err == nil {
		err = unmarshalDetails(details, &r.DeadLetter)
	}
	if err != nil {
		return r, o.explain(fmt.Errorf("reading row %d: %w", number, err))
	}
	return r, nil
}

// Count returns how many rows a filter chooses.
func (o *Operator) Count(ctx context.Context, f Filter) (int64, error) {
	w := f.condition()
	var n int64
	err := o.db.QueryRowContext(ctx, o.dialect.statement(`SELECT count(*) FROM {table}`+w.String()), w.Args...).Scan(&n)
	return n, o.explain(err)
}
