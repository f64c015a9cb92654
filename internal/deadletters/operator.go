package deadletters

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/google/uuid"

	"github.com/pentrough/pentrough/internal/database"
)

// Why a row can't be replayed or dropped.
var (
	// ErrNoRow means that there is no row of that number.
	ErrNoRow = errors.New("there is no such row")
	// ErrTaken means that another operator replays the row at this moment, or changed it a moment ago.
	ErrTaken = errors.New("somebody else has it")
	// ErrUndecided means that an operator was cut off in the middle of a replay: whether the message was sent isn't known.
	ErrUndecided = errors.New("not known whether it was replayed")
	// ErrSettled means that the row was replayed or dropped already.
	ErrSettled = errors.New("it is settled already")
	// ErrLost means that a claim ended before the replay did: the row was taken over, or removed.
	ErrLost = errors.New("the row was taken over or removed meanwhile")
)

// Operator works on the rows of a store, beside the hosts that use it and beside other operators. Its methods are for one goroutine. Close it.
type Operator struct {
	// Name is the operator's, which others see at a row.
	Name string
	// Place is where the store is, without secrets.
	Place string

	dialect *dialect
	db      *sql.DB
	// pageRows is how many rows one query reads, which bounds memory and the query's time.
	pageRows int
}

// Operate opens the store for an operator of that name. It makes nothing.
func (s *Store) Operate(ctx context.Context, name string) (*Operator, error) {
	return s.operate(ctx, operating, name)
}

// Look opens the store to read rows. A server that can only be read is enough; the operator can't
// claim or drop rows.
func (s *Store) Look(ctx context.Context) (*Operator, error) { return s.operate(ctx, looking, "") }

func (s *Store) operate(ctx context.Context, p purpose, name string) (*Operator, error) {
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	db, err := s.connect(p)
	if err != nil {
		return nil, s.explain(err)
	}
	db.SetMaxOpenConns(1)
	if _, err := s.dialect.Check(ctx, db); err != nil {
		return nil, errors.Join(s.explain(err), db.Close())
	}
	return &Operator{Name: name, Place: s.place, dialect: s.dialect, db: db, pageRows: mostPageRows}, nil
}

// Close ends the use of the store.
func (o *Operator) Close() error { return o.explain(o.db.Close()) }

func (o *Operator) explain(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", o.Place, database.Explain(err))
}

// Claim is the right to replay a row, of one operator alone.
type Claim struct {
	Row
	// before is the row as it was.
	before State
}

// Claim takes a row for a replay: until [Operator.Replayed] or [Operator.Release] nobody else does. With force it takes also one that is
// settled, and one whose replay began more than [Abandoned] ago and never ended.
func (o *Operator) Claim(ctx context.Context, number int64, force bool) (*Claim, error) {
	row, err := o.Row(ctx, number)
	if err != nil {
		return nil, err
	}
	if err := row.free(force); err != nil {
		return nil, fmt.Errorf("row %d: %w", number, err)
	}
	c := &Claim{Row: row, before: row.State}
	c.claim = uuid.NewString()
	changed, err := o.change(ctx, o.db, row, Replaying, c.claim)
	switch {
	case err != nil:
		return nil, o.explain(fmt.Errorf("claiming row %d: %w", number, err))
	case !changed:
		return nil, fmt.Errorf("row %d: %w", number, ErrTaken)
	}
	c.State = Replaying
	return c, nil
}

// free returns why an operator can't have a row.
func (r *Row) free(force bool) error {
	switch {
	case r.State == New:
		return nil
	case r.State == Replaying && r.SinceChange < Abandoned:
		return fmt.Errorf("%w: %s replays it since %s", ErrTaken, r.Operator, r.Changed.Local().Format("15:04:05"))
	case force:
		return nil
	case r.State == Replaying:
		return fmt.Errorf("%w: %s began to at %s and didn't say how it ended", ErrUndecided, r.Operator, r.Changed.Local().Format("2006-01-02 15:04:05"))
	default:
		return fmt.Errorf("%w: %s by %s at %s", ErrSettled, r.State, r.Operator, r.Changed.Local().Format("2006-01-02 15:04:05"))
	}
}

// executor is a database or a transaction.
type executor interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
}

// change gives a row another state if it still is as it was read; each claim has another name, so nobody can have been in between.
func (o *Operator) change(ctx context.Context, on executor, row Row, to State, claim string) (bool, error) {
	result, err := on.ExecContext(ctx, o.dialect.sql(`UPDATE {table} SET state = ?, claim = ?, operator = ?, changed = {now} WHERE number = ? AND state = ? AND claim = ?`),
		int(to), claim, plain(o.Name), row.Number, int(row.State), row.claim)
	if err != nil {
		return false, err
	}
	n, err := result.RowsAffected()
	return n == 1, err
}

// Replayed records that the message was sent and has arrived.
func (o *Operator) Replayed(ctx context.Context, c *Claim) error { return o.end(ctx, c, Replayed) }

// Release gives a row back as it was: the message was not sent.
func (o *Operator) Release(ctx context.Context, c *Claim) error { return o.end(ctx, c, c.before) }

func (o *Operator) end(ctx context.Context, c *Claim, as State) error {
	changed, err := o.change(ctx, o.db, c.Row, as, c.claim)
	switch {
	case err != nil:
		return o.explain(fmt.Errorf("recording that row %d is %s: %w", c.Number, as, err))
	case !changed:
		return fmt.Errorf("recording that row %d is %s: %w", c.Number, as, ErrLost)
	}
	return nil
}

// Droppable returns why a row that was read can't be dropped, or nil: with force only one that is being replayed can't be.
func (r *Row) Droppable(force bool) error {
	if r.State == Replayed {
		return nil
	}
	if err := r.free(force); err != nil {
		return fmt.Errorf("row %d: %w", r.Number, err)
	}
	return nil
}

// Drop says of rows that nothing needs to be done, and returns how many of them were still as they were read: the others are left alone.
func (o *Operator) Drop(ctx context.Context, rows []Row) (dropped int, err error) {
	err = o.dialect.Transact(ctx, o.db, func(tx *sql.Tx) error {
		dropped = 0
		for _, r := range rows {
			changed, err := o.change(ctx, tx, r, Dropped, r.claim)
			if err != nil {
				return fmt.Errorf("dropping row %d: %w", r.Number, err)
			}
			if changed {
				dropped++
			}
		}
		return nil
	})
	if err != nil {
		return 0, o.explain(err)
	}
	return dropped, nil
}
