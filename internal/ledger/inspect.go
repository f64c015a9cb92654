package ledger

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/pentrough/pentrough/internal/database"
)

// ErrInUse means that a process, most likely a host, uses the store.
var ErrInUse = errors.New("another process uses it")

// Inspector looks into a store, also beside the host that uses it. Its methods are for one goroutine. Close it.
type Inspector struct {
	// Place is where the store is, without secrets. Version is its schema's.
	Place   string
	Version int64

	dialect dialect
	host    string
	db      *sql.DB
	conn    *sql.Conn
	pages   pages
	// verify returns why what was read may be wrong.
	verify func() error
}

// Repair is an Inspector that also removes rows. No host can use the store until it is closed.
type Repair struct {
	*Inspector
	// end closes the Inspector and gives up the lock.
	end func() error
}

// dialect is how a database is asked.
type dialect struct {
	database.Schema
	// walk is how the table is read in the order of its numbers.
	walk string
	// changed is a row's time in Unix milliseconds.
	changed string
	// byHost says that hosts share the table.
	byHost bool
}

// Entry is a row as it lies in a store.
type Entry struct {
	Row
	// Changed is when the row was last written, by the clock of the one who wrote it.
	Changed time.Time
	// Flaw says why a host can't use the row. It is nil for a good one.
	Flaw error
}

// Filter chooses rows. Its zero value chooses all.
type Filter struct {
	// States are those wanted; none is all.
	States []State
	// Pipeline, ID and Device have to be equal; nil is all.
	Pipeline, ID, Device *string
	// Number has to be equal, Below is above the numbers that are wanted; zero is all.
	Number, Below int64
}

// Tally is how many rows a pipeline has in a state.
type Tally struct {
	Pipeline string
	State    State
	Rows     int64
}

// open takes a database into use and holds its schema against the program's own. After an error the database is closed.
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

// checked returns why the outcome of a query can't be used.
func (in *Inspector) checked(err error) error {
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

// Close ends the use of the store and lets a host use it again.
func (r *Repair) Close() error {
	return r.end()
}
