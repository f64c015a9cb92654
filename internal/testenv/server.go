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
)

// server is a private server of a database, with a folder and a user of its own, that ends however its starter does. Its methods are for one goroutine.
type server struct {
	// program and args start it, and answers says whether it takes connections.
	program string
	args    []string
	answers func(ctx context.Context) error

	folder string
	port   int
	as     *syscall.SysProcAttr
	owner  *exec.Cmd
	stdin  io.Closer
	pid    int
}

// ownServer runs its arguments until stdin ends, which it does however its starter dies, and first says their process id.
const ownServer = `"$@" </dev/null >>"$0" 2>&1 & pid=$!; echo $pid; cat >/dev/null; kill -KILL $pid 2>/dev/null; wait`

// newServer makes a folder and finds a port. A database that doesn't run as root has an account for it, which its package made; it then owns the folder.
func newServer(name, account string) (*server, error) {
	s := &server{}
	var err error
	if s.folder, err = os.MkdirTemp("", "pentrough-"+name+"-"); err != nil {
		return nil, err
	}
	if os.Geteuid() == 0 && account != "" {
		u, err := user.Lookup(account)
		if err != nil {
			return nil, err
		}
		uid, _ := strconv.ParseUint(u.Uid, 10, 32) // both are numbers here
		gid, _ := strconv.ParseUint(u.Gid, 10, 32)
		s.as = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
		if err := os.Chown(s.folder, int(uid), int(gid)); err != nil {
			return nil, err
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s.port = l.Addr().(*net.TCPAddr).Port
	return s, l.Close()
}

func (s *server) data() string { return filepath.Join(s.folder, "data") }

func (s *server) command(name string, args ...string) *exec.Cmd {
	c := exec.Command(name, args...)
	c.Dir, c.SysProcAttr = s.folder, s.as
	return c
}

// prepare runs a command that makes the server's files.
func (s *server) prepare(name string, args ...string) error {
	if out, err := s.command(name, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", filepath.Base(name), err, out)
	}
	return nil
}

// serve starts the server and takes it down when the test ends.
func (s *server) serve(t testing.TB) {
	t.Helper()
	t.Cleanup(func() {
		s.end()
		if err := os.RemoveAll(s.folder); err != nil {
			t.Errorf("removing the test database: %v", err)
		}
	})
	s.Start(t)
}

// Start starts the server, again on the same port and data after Kill, and waits until it takes connections.
func (s *server) Start(t testing.TB) {
	t.Helper()
	deadline := time.Now().Add(bootTimeout)
	for {
		err := s.boot(deadline)
		if err == nil {
			return
		}
		s.end()
		// The killed server's own children may still hold its memory.
		if time.Now().After(deadline) {
			log, _ := os.ReadFile(filepath.Join(s.folder, "log"))
			t.Fatalf("test database: %v\n%s", err, log)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

func (s *server) boot(deadline time.Time) error {
	s.owner = s.command("sh", append([]string{"-c", ownServer, filepath.Join(s.folder, "log"), s.program}, s.args...)...)
	stdin, err := s.owner.StdinPipe()
	if err != nil {
		return err
	}
	out, err := s.owner.StdoutPipe()
	if err != nil {
		return err
	}
	if err := s.owner.Start(); err != nil {
		return err
	}
	s.stdin = stdin
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		return err
	}
	if s.pid, err = strconv.Atoi(strings.TrimSpace(line)); err != nil {
		return err
	}
	for {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		err := s.answers(ctx)
		cancel()
		if err == nil {
			return nil
		}
		if syscall.Kill(s.pid, 0) != nil || time.Now().After(deadline) {
			return err
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// Kill ends the server with SIGKILL and waits until it is gone.
func (s *server) Kill(testing.TB) { s.end() }

func (s *server) end() {
	if s.stdin == nil {
		return
	}
	s.stdin.Close()
	_ = s.owner.Wait() // it was killed
	s.stdin = nil
}
