package ledger

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/pentrough/pentrough/internal/database"
)

// ErrInUse means that another process, usually a host, uses the store.
var ErrInUse = errors.New("another process uses it")

// Inspector reads a store, also while a host uses it. One goroutine at a time calls its methods.
// The caller closes it.
type Inspector struct {
	// Place is the path or the URL of the store, without secrets. Version is the version of its
	// schema.
	Place   string
	Version int64

	dialect dialect
	host    string
	db      *sql.DB
	conn    *sql.Conn
	pages   pages
	// verify returns why the rows that were read may be wrong, or nil.
	verify func() error
}

// Repair is an Inspector that can remove rows. No host can use the store until the Repair is
// closed.
type Repair struct {
	*Inspector
	// end closes the Inspector and releases the lock.
	end func() error
}

// dialect has the parts of queries that differ between databases.
type dialect struct {
	database.Schema
	// walk is the text after FROM in a query that reads the rows in the order of their numbers.
	walk string
	// changed is an expression for the time of a row's last change, in Unix milliseconds.
	changed string
	// byHost says that several hosts share the table.
	byHost bool
}

// Entry is a row of a store, usable or not.
type Entry struct {
	Row
	// Changed is when the row was last written: by the host's clock in SQLite, by the server's in
	// PostgreSQL.
	Changed time.Time
	// Flaw says why a host can't use the row. It is nil for a usable row.
	Flaw error
}

// Filter chooses rows. Its zero value chooses all.
type Filter struct {
	// States are the states to choose; empty chooses all.
	States []State
	// Pipeline, ID and Device choose the rows with these values; nil chooses all.
	Pipeline, ID, Device *string
	// Number chooses the row with this number. Below chooses the rows with smaller numbers. Zero
	// chooses all.
	Number, Below int64
}

// Tally is the number of rows that a pipeline has in a state.
type Tally struct {
	Pipeline string
	State    State
	Rows     int64
}

// open connects to the database and compares its schema with the program's. After an error it
// closes the database.
func (in *Inspector) open(ctx context.Context) (err error) {
	defer func() {
		if err != nil {
			err = errors.Join(in.explain(err), in.Close())
		}
	}()
	in.pages = pages{pageRows, pageBytes}
	in.db.SetMaxOpenConns(1)
	if in.conn, err = in.db.Conn(ctx); err != nil {
		return err
	}
	in.Version, err = in.dialect.Check(ctx, in.conn)
	return err
}

func (in *Inspector) explain(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", in.Place, database.Explain(err))
}

// verifyRead returns why the result of a query can't be used, or nil. err is the query's error.
func (in *Inspector) verifyRead(err error) error {
	if in.verify != nil {
		if changed := in.verify(); changed != nil {
			err = changed
		}
	}
	return in.explain(err)
}

// Close ends the use of the store.
func (in *Inspector) Close() error {
	var errs []error
	if in.conn != nil {
		errs = append(errs, in.conn.Close())
	}
	if in.db != nil {
		errs = append(errs, in.db.Close())
	}
	in.conn, in.db = nil, nil
	return errors.Join(errs...)
}

// Close ends the use of the store, so that a host can use it again.
func (r *Repair) Close() error {
	return r.end()
}
