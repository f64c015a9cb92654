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
	// ErrNoRow means that no row has that number.
	ErrNoRow = errors.New("there is no such row")
	// ErrTaken means that another operator is replaying the row, or has just changed it.
	ErrTaken = errors.New("another operator has it")
	// ErrUndecided means that an operator was interrupted during a replay. The message may have
	// been sent or not.
	ErrUndecided = errors.New("not known whether it was replayed")
	// ErrSettled means that the row is replayed or dropped already.
	ErrSettled = errors.New("it is settled already")
	// ErrLost means that the claim ended before the replay, since another operator took the row
	// over or a host removed it.
	ErrLost = errors.New("the row was taken over or removed during the replay")
)

// Operator works on the rows of a store, also while hosts and other operators use it. One
// goroutine at a time calls its methods. The caller closes it.
type Operator struct {
	// Name is the name of the operator, which the rows show to other operators.
	Name string
	// Place is the path or the URL of the store, without secrets.
	Place string

	dialect *dialect
	db      *sql.DB
	// pageRows is how many rows one query reads. It bounds the memory and the time of a query.
	pageRows int
}

// Operate opens the store for an operator with that name. It makes no file and no tables.
func (s *Store) Operate(ctx context.Context, name string) (*Operator, error) {
	return s.openOperator(ctx, operating, name)
}

// Look opens the store for reading. A read-only server is enough. The operator can't claim or drop
// rows.
func (s *Store) Look(ctx context.Context) (*Operator, error) { return s.openOperator(ctx, looking, "") }

func (s *Store) openOperator(ctx context.Context, p purpose, name string) (*Operator, error) {
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

// Claim is the exclusive right of an operator to replay a row.
type Claim struct {
	Row
	// before is the row's state before the claim.
	before State
}

// Claim claims a row for a replay. Until [Operator.Replayed] or [Operator.Release] no other
// operator can claim it. With force it also claims a settled row, and a row whose replay began
// more than [Abandoned] ago and hasn't ended.
func (o *Operator) Claim(ctx context.Context, number int64, force bool) (*Claim, error) {
	row, err := o.Row(ctx, number)
	if err != nil {
		return nil, err
	}
	if err := row.checkFree(force); err != nil {
		return nil, fmt.Errorf("row %d: %w", number, err)
	}
	c := &Claim{Row: row, before: row.State}
	c.claim = uuid.NewString()
	changed, err := o.setState(ctx, o.db, row, Replaying, c.claim)
	switch {
	case err != nil:
		return nil, o.explain(fmt.Errorf("claiming row %d: %w", number, err))
	case !changed:
		return nil, fmt.Errorf("row %d: %w", number, ErrTaken)
	}
	c.State = Replaying
	return c, nil
}

// checkFree returns why an operator can't claim the row, or nil.
func (r *Row) checkFree(force bool) error {
	switch {
	case r.State == New:
		return nil
	case r.State == Replaying && r.SinceChange < Abandoned:
		return fmt.Errorf("%w: %s has been replaying it since %s", ErrTaken, r.Operator, r.Changed.Local().Format("15:04:05"))
	case force:
		return nil
	case r.State == Replaying:
		return fmt.Errorf("%w: %s began a replay at %s, which didn't end", ErrUndecided, r.Operator, r.Changed.Local().Format("2006-01-02 15:04:05"))
	default:
		return fmt.Errorf("%w: %s by %s at %s", ErrSettled, r.State, r.Operator, r.Changed.Local().Format("2006-01-02 15:04:05"))
	}
}

// executor is a database or a transaction.
type executor interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
}

// setState changes the state of a row, unless it was changed after the operator read it. Then it
// returns false.
func (o *Operator) setState(ctx context.Context, on executor, row Row, to State, claim string) (bool, error) {
	result, err := on.ExecContext(ctx, o.dialect.statement(`UPDATE {table} SET state = ?, claim = ?, operator = ?, changed = {now} WHERE number = ? AND state = ? AND claim = ?`),
		int(to), claim, cleanText(o.Name), row.Number, int(row.State), row.claim)
	if err != nil {
		return false, err
	}
	n, err := result.RowsAffected()
	return n == 1, err
}

// Replayed records that the message was sent and the broker has confirmed it.
func (o *Operator) Replayed(ctx context.Context, c *Claim) error { return o.endClaim(ctx, c, Replayed) }

// Release ends the claim of a row whose message wasn't sent, and restores its state.
func (o *Operator) Release(ctx context.Context, c *Claim) error { return o.endClaim(ctx, c, c.before) }

// endClaim ends a claim and sets the state of its row.
func (o *Operator) endClaim(ctx context.Context, c *Claim, as State) error {
	changed, err := o.setState(ctx, o.db, c.Row, as, c.claim)
	switch {
	case err != nil:
		return o.explain(fmt.Errorf("recording that row %d is %s: %w", c.Number, as, err))
	case !changed:
		return fmt.Errorf("recording that row %d is %s: %w", c.Number, as, ErrLost)
	}
	return nil
}

// Droppable returns why the row can't be dropped, or nil. With force only a row that is being
// replayed can't be dropped.
func (r *Row) Droppable(force bool) error {
	if r.State == Replayed {
		return nil
	}
	if err := r.checkFree(force); err != nil {
		return fmt.Errorf("row %d: %w", r.Number, err)
	}
	return nil
}

// Drop drops rows and returns how many. It leaves out rows that were changed after they were read.
func (o *Operator) Drop(ctx context.Context, rows []Row) (dropped int, err error) {
	err = o.dialect.Transact(ctx, o.db, func(tx *sql.Tx) error {
		dropped = 0
		for _, r := range rows {
			changed, err := o.setState(ctx, tx, r, Dropped, r.claim)
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
