package ledger

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"path"
	"time"

	"github.com/pressly/goose/v3"
)

// Why a store can't be looked into, or not be changed.
var (
	// ErrInUse means that a process, most likely a host, uses the store.
	ErrInUse = errors.New("another process uses it")
	// ErrNoLedger means that no host made a ledger there yet.
	ErrNoLedger = errors.New("it has no ledger")
	// ErrSchema means that another version of the program wrote it.
	ErrSchema = errors.New("another version of pentrough wrote it")
	// ErrDamaged means that a file was a SQLite database once and is none now, or not a whole one.
	ErrDamaged = errors.New("the file is damaged")
	// ErrNotSQLite means that a file isn't a SQLite database.
	ErrNotSQLite = errors.New("it isn't a SQLite database")
)

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
	// migrations is the folder of its migrations, and versions the table that says which of them were made.
	migrations, versions string
	// exists is a query that tells whether a table is there.
	exists string
	// table is the ledger's; walk is how it is read in the order of its numbers.
	table, walk string
	// changed is a row's time in Unix milliseconds.
	changed string
	// argument is the nth argument of a query, from 1.
	argument func(n int) string
	// byHost says that hosts share the table.
	byHost bool
	// explain adds what an error of the database means.
	explain func(error) error
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
	for _, table := range []string{in.dialect.versions, in.dialect.table} {
		var there bool
		if err := in.conn.QueryRowContext(ctx, in.dialect.exists, table).Scan(&there); err != nil {
			return fmt.Errorf("looking for the table %s: %w", table, err)
		}
		if !there {
			return ErrNoLedger
		}
	}
	err = in.conn.QueryRowContext(ctx, `SELECT coalesce(max(version_id), 0) FROM `+in.dialect.versions+` WHERE is_applied`).Scan(&in.Version)
	if err != nil {
		return fmt.Errorf("reading the schema's version: %w", err)
	}
	return sameVersion(in.Version, newest(in.dialect.migrations))
}

// sameVersion returns an error if a store has another version of the schema than the program's own.
func sameVersion(has, own int64) error {
	if has == own {
		return nil
	}
	return fmt.Errorf("%w: its schema has version %d, this one's is %d", ErrSchema, has, own)
}

// newest is the version of the last migration in a folder.
func newest(folder string) int64 {
	files, err := migrations.ReadDir(path.Join("migrations", folder))
	if err != nil {
		panic(err) // they are embedded
	}
	var last int64
	for _, f := range files {
		if n, err := goose.NumericComponent(f.Name()); err == nil {
			last = max(last, n)
		}
	}
	return last
}

func (in *Inspector) explain(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", in.Place, in.dialect.explain(err))
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
