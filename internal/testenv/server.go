package testenv

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pentrough/pentrough/internal/testenv/await"
)

// server is a private database server with its own folder and user. It ends when its starter ends.
// Its methods are for one goroutine.
type server struct {
	// program and args start the server. answers reports whether this server, and not another one
	// on its port, accepts connections.
	program string
	args    []string
	answers func(ctx context.Context) error
	// use sets the port in args and answers.
	use func(port int)

	folder string
	as     *syscall.SysProcAttr
	owner  *exec.Cmd
	stdin  io.Closer
	pid    int
	// Reading gone ends when no process of the server is left, because each of them has the other
	// end of the pipe.
	gone *os.File
}

// ownServer prints the server's process id and runs the server until stdin ends. stdin ends with
// its starter, even after a crash.
const ownServer = `"$@" </dev/null >>"$0" 2>&1 & pid=$!; echo $pid; cat >/dev/null; kill -KILL $pid 2>/dev/null; wait`

// newServer makes a folder. Some databases don't run as root and have an account from their
// package; that account then owns the folder.
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
	return s, nil
}

func (s *server) data() string { return filepath.Join(s.folder, "data") }

func (s *server) command(name string, args ...string) *exec.Cmd {
	c := exec.Command(name, args...)
	c.Dir, c.SysProcAttr = s.folder, s.as
	return c
}

// prepare runs a command that makes the server's files. Test processes that share a node share
// these files too. The first one makes them and the others copy them, which takes a tenth of the
// time.
func (s *server) prepare(name string, args ...string) error {
	run := func(c *exec.Cmd) error {
		if out, err := c.CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w: %s", filepath.Base(c.Path), err, out)
		}
		return nil
	}
	if os.Getenv(NodeFolder) == "" {
		return run(s.command(name, args...))
	}
	first := false
	made, err := sharedFile(filepath.Base(name), func(path string) error {
		first = true
		if err := run(s.command(name, args...)); err != nil {
			return err
		}
		return run(exec.Command("cp", "-a", s.data(), path))
	})
	if err != nil || first {
		return err
	}
	return run(exec.Command("cp", "-a", made, s.data()))
}

// sharedFile returns the path of a file or folder that is shared by the test processes that share
// a node. The first process that asks for it makes it.
func sharedFile(name string, create func(path string) error) (path string, err error) {
	path = filepath.Join(os.Getenv(NodeFolder), name)
	lock, err := os.OpenFile(path+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return "", err
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return "", os.NewSyscallError("flock", err)
	}
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	if err := os.RemoveAll(path + ".new"); err != nil { // left by a process that was killed here
		return "", err
	}
	if err := create(path + ".new"); err != nil {
		return "", err
	}
	return path, os.Rename(path+".new", path)
}

// serve starts the server on a port that pick chooses, and stops it when the test ends.
func (s *server) serve(t testing.TB, pick func() (int, error)) {
	t.Helper()
	t.Cleanup(func() {
		s.killOwner(t)
		if err := os.RemoveAll(s.folder); err != nil {
			t.Errorf("removing the test database: %v", err)
		}
	})
	// A port that was free a moment ago may be taken by the time the server binds it.
	var errs []error
	for range 3 {
		port, err := pick()
		if err != nil {
			t.Fatalf("test database: %v", errors.Join(append(errs, err)...))
		}
		s.use(port)
		if err = s.boot(time.Now().Add(bootTimeout)); err == nil {
			return
		}
		errs = append(errs, err)
		s.killOwner(t)
	}
	t.Fatalf("test database: %v\n%s", errors.Join(errs...), s.log())
}

func (s *server) log() []byte {
	text, _ := os.ReadFile(filepath.Join(s.folder, "log")) // it may not exist yet
	return text
}

// Start starts the server again after Kill, on the same port and data, and waits until it accepts
// connections.
func (s *server) Start(t testing.TB) {
	t.Helper()
	deadline := time.Now().Add(bootTimeout)
	for {
		err := s.boot(deadline)
		if err == nil {
			return
		}
		s.killOwner(t)
		if time.Now().After(deadline) {
			t.Fatalf("test database: waited %s until it takes connections; the last state: %v\n%s", bootTimeout, err, s.log())
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
	gone, alive, err := os.Pipe()
	if err != nil {
		return err
	}
	s.owner.ExtraFiles = []*os.File{alive}
	err = s.owner.Start()
	alive.Close()
	if err != nil {
		gone.Close()
		return err
	}
	s.stdin, s.gone = stdin, gone
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		return err
	}
	if s.pid, err = strconv.Atoi(strings.TrimSpace(line)); err != nil {
		return err
	}
	for patience := time.Second; ; time.Sleep(20 * time.Millisecond) {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		err := s.answers(ctx)
		if ctx.Err() != nil {
			patience *= 2 // the machine is busy, or a silent program has the port
		}
		cancel()
		if err == nil {
			return nil
		}
		if syscall.Kill(s.pid, 0) != nil {
			return fmt.Errorf("the server ended: %w", err)
		}
		if time.Now().After(deadline) {
			return err
		}
	}
}

// Kill ends the server with SIGKILL and waits until all of its processes have ended. The processes
// of sessions end a little later than the first one.
func (s *server) Kill(t testing.TB) {
	t.Helper()
	s.killOwner(t)
}

func (s *server) killOwner(t testing.TB) {
	t.Helper()
	if s.stdin == nil {
		return
	}
	s.stdin.Close()
	_ = s.owner.Wait() // it was killed
	s.stdin = nil
	defer s.gone.Close()
	err := s.gone.SetReadDeadline(time.Now().Add(await.Patience))
	if err == nil {
		_, err = s.gone.Read(make([]byte, 1))
	}
	if !errors.Is(err, io.EOF) {
		t.Errorf("waited %s until every process of the killed database server %d is gone: %v", await.Patience, s.pid, err)
	}
}
