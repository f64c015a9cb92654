package testenv

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/jackc/pgx/v5"
)

// Postgres is a private PostgreSQL server that a test can kill and start again. Its methods are
// for one goroutine.
type Postgres struct {
	// URL is the URL of the database, with the user.
	URL string
	*server
}

// NewPostgres starts a private server and takes it down when the test ends.
func NewPostgres(t testing.TB) *Postgres {
	t.Helper()
	return newPostgres(t, FreePort)
}

func newPostgres(t testing.TB, pick func() (int, error)) *Postgres {
	t.Helper()
	p := &Postgres{}
	if err := p.create(); err != nil {
		t.Fatalf("test database: %v", err)
	}
	p.serve(t, pick)
	return p
}

// create makes the server's files.
func (p *Postgres) create() error {
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin")
	if err != nil || len(found) == 0 {
		return errors.New("PostgreSQL isn't installed; 'make tools' installs it")
	}
	bin := found[len(found)-1]
	if p.server, err = newServer("postgres", "postgres"); err != nil {
		return err
	}
	p.program = filepath.Join(bin, "postgres")
	p.use = func(port int) {
		p.URL = fmt.Sprintf("postgres://pentrough@127.0.0.1:%d/postgres?sslmode=disable", port)
		p.args = []string{"-D", p.data(), "-p", strconv.Itoa(port), "-h", "127.0.0.1", "-k", p.folder}
	}
	p.answers = func(ctx context.Context) (err error) {
		conn, err := pgx.Connect(ctx, p.URL)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, conn.Close(context.Background())) }()
		var data string
		if err := conn.QueryRow(ctx, "SHOW data_directory").Scan(&data); err != nil {
			return err
		}
		if data != p.data() {
			return fmt.Errorf("%s is the server with its data in %s", p.URL, data)
		}
		return nil
	}
	return p.prepare(filepath.Join(bin, "initdb"), "--pgdata", p.data(), "--username", "pentrough", "--auth", "trust", "--encoding", "UTF8", "--no-sync")
}
