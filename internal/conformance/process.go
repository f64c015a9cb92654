package conformance

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"time"
)

// longestRead is more than the longest line that a plugin may write.
const longestRead = hostMaxLine + 2<<20

// process is one running program.
type process struct {
	cmd   *exec.Cmd
	stdin *os.File
	// lines receives the lines of standard output, and is closed at its end.
	lines  chan []byte
	exited chan struct{}
	work   sync.WaitGroup
	ended  context.CancelFunc

	mu     sync.Mutex
	stderr bytes.Buffer
	log    []string
	// unfinishedLength is the number of bytes of a line whose end hasn't come.
	unfinishedLength int
}

// pluginEnvironment returns the variables that a host passes to its plugins.
func pluginEnvironment() []string {
	kept := []string{"PATH", "HOME", "USER", "LOGNAME", "LANG", "TZ", "TMPDIR"}
	var env []string
	for _, e := range os.Environ() {
		if name, _, _ := strings.Cut(e, "="); slices.Contains(kept, name) || strings.HasPrefix(name, "LC_") {
			env = append(env, e)
		}
	}
	return append(env, "PENTROUGH_PLUGIN=1")
}

func startProcess(command, env []string) (*process, error) {
	var files []*os.File
	pipe := func() (r, w *os.File, err error) {
		if r, w, err = os.Pipe(); err == nil {
			files = append(files, r, w)
		}
		return r, w, err
	}
	stdin, in, err1 := pipe()
	out, stdout, err2 := pipe()
	diag, stderr, err3 := pipe()
	err := errors.Join(err1, err2, err3)
	p := &process{stdin: in, lines: make(chan []byte, 256), exited: make(chan struct{})}
	if err == nil {
		p.cmd = exec.Command(command[0], command[1:]...)
		p.cmd.Stdin, p.cmd.Stdout, p.cmd.Stderr, p.cmd.Env = stdin, stdout, stderr, append(pluginEnvironment(), env...)
		ownGroup(p.cmd)
		err = p.cmd.Start()
	}
	if err != nil {
		for _, f := range files {
			f.Close()
		}
		return nil, err
	}
	stdin.Close()
	stdout.Close()
	stderr.Close()
	ctx, cancel := context.WithCancel(context.Background())
	p.ended = func() {
		cancel()
		// A process that the program started may still keep the other ends open.
		out.Close()
		diag.Close()
	}
	p.work.Go(func() { p.readLines(ctx, out) })
	p.work.Go(func() { p.readStderr(diag) })
	p.work.Go(func() {
		_ = p.cmd.Wait() // ProcessState has everything that the error would say
		close(p.exited)
	})
	return p, nil
}

// readLines splits standard output into lines. It also passes on a line without an end, or one
// that is too long, without a line feed.
func (p *process) readLines(ctx context.Context, r io.Reader) {
	defer close(p.lines)
	var buf []byte
	chunk := make([]byte, 64<<10)
	for {
		n, err := r.Read(chunk)
		buf = append(buf, chunk[:n]...)
		for {
			i := bytes.IndexByte(buf, '\n')
			if i < 0 && len(buf) < longestRead && (err == nil || len(buf) == 0) {
				break
			}
			if i < 0 {
				i = len(buf) - 1
			}
			line := bytes.Clone(buf[:i+1])
			buf = buf[i+1:]
			select {
			case p.lines <- line:
			case <-ctx.Done():
				return
			}
		}
		p.mu.Lock()
		p.unfinishedLength = len(buf)
		p.mu.Unlock()
		if err != nil {
			return
		}
	}
}

func (p *process) unfinished() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.unfinishedLength
}

// mostStderr is the number of bytes of standard error that are kept.
const mostStderr = 1 << 20

func (p *process) readStderr(r io.Reader) {
	chunk := make([]byte, 4<<10)
	for {
		n, err := r.Read(chunk)
		p.mu.Lock()
		p.stderr.Write(chunk[:min(n, mostStderr-p.stderr.Len())])
		p.mu.Unlock()
		if err != nil {
			return
		}
	}
}

func (p *process) diagnostics() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.stderr.String()
}

func (p *process) noteEvent(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.log = append(p.log, fmt.Sprintf(format, args...))
}

// write writes bytes to the program, with a deadline where the system supports one.
func (p *process) write(data []byte, within time.Duration) error {
	_ = p.stdin.SetWriteDeadline(time.Now().Add(within)) // pipes have no deadline on some systems
	_, err := p.stdin.Write(data)
	return err
}

// kill ends the program and everything that it started, and waits for that.
func (p *process) kill() {
	p.stdin.Close()
	killGroup(p.cmd)
	<-p.exited
	p.ended()
	p.work.Wait()
}

// shown is the number of bytes of a line that are shown.
const shown = 300

func shorten(text string) string {
	if len(text) <= shown {
		return text
	}
	return strings.ToValidUTF8(text[:shown], "?") + fmt.Sprintf("... (%d bytes)", len(text))
}
