package testenv

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// Postgres is a private PostgreSQL server, to be killed and started again at will. Its methods are for one goroutine.
type Postgres struct {
	// URL is the database's, with the user.
	URL string

	folder, bin string
	port        int
	as          *syscall.SysProcAttr
	owner       *exec.Cmd
	stdin       io.Closer
	pid         int
}

// ownPostgres runs its arguments until stdin ends, which it does however its starter dies, and first says their process id.
const ownPostgres = `"$@" </dev/null >>"$0" 2>&1 & pid=$!; echo $pid; cat >/dev/null; kill -KILL $pid 2>/dev/null; wait`

// NewPostgres starts a private server and takes it down when the test ends.
func NewPostgres(t testing.TB) *Postgres {
	t.Helper()
	p := &Postgres{}
	if err := p.create(); err != nil {
		t.Fatalf("test database: %v", err)
	}
	t.Cleanup(func() {
		p.end()
		if err := os.RemoveAll(p.folder); err != nil {
			t.Errorf("removing the test database: %v", err)
		}
	})
	p.Start(t)
	return p
}

// create makes the server's files. PostgreSQL doesn't run as root: its own user then owns them.
func (p *Postgres) create() error {
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin")
	if err != nil || len(found) == 0 {
		return fmt.Errorf("PostgreSQL isn't installed; 'make tools' installs it")
	}
	p.bin = found[len(found)-1]
	if p.folder, err = os.MkdirTemp("", "pentrough-postgres-"); err != nil {
		return err
	}
	if os.Geteuid() == 0 {
		u, err := user.Lookup("postgres")
		if err != nil {
			return err
		}
		uid, _ := strconv.ParseUint(u.Uid, 10, 32) // both are numbers here
		gid, _ := strconv.ParseUint(u.Gid, 10, 32)
		p.as = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
		if err := os.Chown(p.folder, int(uid), int(gid)); err != nil {
			return err
		}
	}
	initdb := p.command(filepath.Join(p.bin, "initdb"), "--pgdata", p.data(), "--username", "pentrough", "--auth", "trust", "--encoding", "UTF8", "--no-sync")
	if out, err := initdb.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w: %s", err, out)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	p.port = l.Addr().(*net.TCPAddr).Port
	p.URL = fmt.Sprintf("postgres://pentrough@127.0.0.1:%d/postgres?sslmode=disable", p.port)
	return l.Close()
}

func (p *Postgres) data() string { return filepath.Join(p.folder, "data") }

func (p *Postgres) command(name string, args ...string) *exec.Cmd {
	c := exec.Command(name, args...)
	c.Dir, c.SysProcAttr = p.folder, p.as
	return c
}

// Start starts the server, again on the same port and data after Kill, and waits until it takes connections.
func (p *Postgres) Start(t testing.TB) {
	t.Helper()
	deadline := time.Now().Add(bootTimeout)
	for {
		err := p.boot(deadline)
		if err == nil {
			return
		}
		p.end()
		// The killed server's own children may still hold its memory.
		if time.Now().After(deadline) {
			log, _ := os.ReadFile(filepath.Join(p.folder, "log"))
			t.Fatalf("test database: %v\n%s", err, log)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

func (p *Postgres) boot(deadline time.Time) error {
	p.owner = p.command("sh", "-c", ownPostgres, filepath.Join(p.folder, "log"), filepath.Join(p.bin, "postgres"),
		"-D", p.data(), "-p", strconv.Itoa(p.port), "-h", "127.0.0.1", "-k", p.folder)
	stdin, err := p.owner.StdinPipe()
	if err != nil {
		return err
	}
	out, err := p.owner.StdoutPipe()
	if err != nil {
		return err
	}
	if err := p.owner.Start(); err != nil {
		return err
	}
	p.stdin = stdin
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		return err
	}
	if p.pid, err = strconv.Atoi(strings.TrimSpace(line)); err != nil {
		return err
	}
	for {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		conn, err := pgx.Connect(ctx, p.URL)
		cancel()
		if err == nil {
			return conn.Close(context.Background())
		}
		if syscall.Kill(p.pid, 0) != nil || time.Now().After(deadline) {
			return err
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// Kill ends the server with SIGKILL and waits until it is gone.
func (p *Postgres) Kill(testing.TB) { p.end() }

func (p *Postgres) end() {
	if p.stdin == nil {
		return
	}
	p.stdin.Close()
	_ = p.owner.Wait() // it was killed
	p.stdin = nil
}
