package testenv

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	_ "github.com/go-sql-driver/mysql" // the driver "mysql"
)

// MySQL is a private MariaDB server that a test can kill and start again. Its methods are for one
// goroutine.
type MySQL struct {
	// URL is the URL of the database, with the user.
	URL string
	*server
}

// NewMySQL starts a private server and takes it down when the test ends.
func NewMySQL(t testing.TB) *MySQL {
	t.Helper()
	return newMySQL(t, FreePort)
}

func newMySQL(t testing.TB, pick func() (int, error)) *MySQL {
	t.Helper()
	m := &MySQL{}
	if err := m.create(); err != nil {
		t.Fatalf("test database: %v", err)
	}
	m.serve(t, pick)
	return m
}

// create makes the server's files.
func (m *MySQL) create() error {
	const program = "/usr/sbin/mariadbd" // a folder that isn't in every user's PATH
	if _, err := os.Stat(program); err != nil {
		return fmt.Errorf("MariaDB isn't installed; 'make tools' installs it: %w", err)
	}
	me, err := user.Current()
	if err != nil {
		return err
	}
	if m.server, err = newServer("mysql", ""); err != nil {
		return err
	}
	m.program = program
	m.use = func(port int) {
		m.URL = fmt.Sprintf("mysql://pentrough@127.0.0.1:%d/test", port)
		// Without system tables the server accepts every user, and starts at once. It runs as root
		// only if the configuration says so.
		m.args = []string{
			"--no-defaults", "--user=" + me.Username, "--datadir=" + m.data(), "--bind-address=127.0.0.1", "--port=" + strconv.Itoa(port), "--socket=" + filepath.Join(m.folder, "socket"),
			"--pid-file=" + filepath.Join(m.folder, "pid"), "--innodb-buffer-pool-size=16M", "--innodb-log-file-size=8M", "--skip-grant-tables", "--skip-networking=0", "--skip-name-resolve",
		}
		m.answers = func(ctx context.Context) error { return m.createDatabase(ctx, port) }
	}
	return os.Mkdir(m.data(), 0o700)
}

// createDatabase creates the database that the URL names, if this server is the one that listens
// on the port.
func (m *MySQL) createDatabase(ctx context.Context, port int) (err error) {
	db, err := sql.Open("mysql", fmt.Sprintf("pentrough@tcp(127.0.0.1:%d)/", port))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	var data string
	if err := db.QueryRowContext(ctx, "SELECT @@datadir").Scan(&data); err != nil {
		return err
	}
	if filepath.Clean(data) != m.data() {
		return fmt.Errorf("port %d is that of the server with its data in %s", port, data)
	}
	_, err = db.ExecContext(ctx, "CREATE DATABASE IF NOT EXISTS test")
	return err
}

// Restrict makes the server check privileges until its next start. The URL's user has all
// privileges in its database, and none on the server. execute runs statements as the server's
// root.
func (m *MySQL) Restrict(t testing.TB) (execute func(statements ...string)) {
	t.Helper()
	connect := func(user string) func(statements ...string) {
		db, err := sql.Open("mysql", strings.NewReplacer("mysql://pentrough@", user+"@tcp(", "/test", ")/test").Replace(m.URL))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = db.Close() }) // the server may be gone
		db.SetMaxOpenConns(1)
		return func(statements ...string) {
			t.Helper()
			for _, s := range statements {
				if _, err := db.ExecContext(t.Context(), s); err != nil {
					t.Fatalf("%.80s: %v", s, err)
				}
			}
		}
	}
	const tables = "/usr/share/mysql/mysql_system_tables.sql"
	text, err := os.ReadFile(tables)
	if err != nil {
		t.Fatal(err)
	}
	anybody := connect("anybody")
	anybody("CREATE DATABASE mysql", "USE mysql")
	for line := range strings.Lines(string(text)) {
		for _, table := range []string{"db", "global_priv", "servers", "tables_priv", "columns_priv", "procs_priv", "roles_mapping", "proxies_priv"} {
			if strings.HasPrefix(line, "CREATE TABLE IF NOT EXISTS "+table+" ") {
				anybody(strings.TrimSuffix(strings.TrimSpace(line), ";"))
			}
		}
	}
	anybody(`INSERT INTO global_priv VALUES ('%', 'root', '{"access": 18446744073709551615}')`, "FLUSH PRIVILEGES")
	root := connect("root")
	root("CREATE USER pentrough@'%'", "GRANT ALL ON test.* TO pentrough@'%'")
	return root
}
