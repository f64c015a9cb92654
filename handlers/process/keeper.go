package process

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/pentrough/pentrough/internal/backoff"
	"github.com/pentrough/pentrough/internal/jsontext"
	"github.com/pentrough/pentrough/internal/stdio"
)

// The keeper makes sure that the handler has a ready process. It is one goroutine, keepRunning.
// Start launches the first process, and the keeper all others.
//
// A process goes through these states, in this order:
//
//   - starting: the program runs, and the handshake isn't complete (launch).
//   - current: the process gets all new requests (adopt).
//   - retiring: the process responds to its open requests and gets no new ones, because a newer
//     process is current or the handler is closed (retire).
//   - ended: the process has exited and its output is read (awaitExit). A process can end in any
//     state.
//
// If the current process ends, a pause begins, and then the keeper starts the next one. In a short
// pause messages wait in the queue. In a long one they are unavailable, and the host isn't ready.
//
// Invariants:
//
//   - At most one process is current: h.current. It is nil in a pause. Only adopt sets it.
//   - h.down is set in a long pause, from the call of markDown until the next adopt.
//   - A reload has no pause: the old process retires when the new one is current.
//   - The caller of a request gets one response: from the process, from expireRequests at the
//     timeout, or errEnded from awaitExit. If its context ends first, it gets none.
//   - The keeper returns after all its processes have ended.
//
// h.mu guards the state of the handler, and each child has a lock of its own (see child). No
// goroutine has both locks at a time.

const (
	// firstPause is the upper limit of the pause before the second restart. The first restart
	// comes without a pause.
	firstPause = 100 * time.Millisecond
	// steadyTime is how long a process must have run so that the next restart counts as the first
	// again. A process that has responded to a request needs no such time.
	steadyTime = 10 * time.Second
	// longPause is the shortest pause that counts as long. The pause after a failed start always
	// counts as long, so messages are unavailable during it. It takes at least longPause, unless
	// restart_max is shorter.
	longPause = 500 * time.Millisecond
)

// reload asks the keeper for a new process.
type reload struct {
	ctx  context.Context
	done chan error
}

// Start implements handlers.Starter.
func (h *handler) Start(ctx context.Context) error {
	h.startOrders = make(chan startOrder)
	h.work.Go(h.startPrograms)
	c, err := h.launch(ctx)
	if err != nil {
		return fmt.Errorf("starting the plugin %s: %w", h.config.Command[0], err)
	}
	h.adopt(c)
	h.work.Go(func() { h.keepRunning(c) })
	return nil
}

// keepRunning is the keeper. It runs until the handler is closed.
func (h *handler) keepRunning(c *child) {
	var retired sync.WaitGroup
	defer retired.Wait()
	first, pauses := true, backoff.New(firstPause, h.config.RestartMax)
	// nextPause returns how long to wait before the next start.
	nextPause := func() time.Duration {
		if first {
			first = false
			return 0
		}
		return pauses.NextBackOff()
	}
	reset := func() {
		first = true
		pauses.Reset()
	}
	var retry <-chan time.Time
	ended := func() <-chan struct{} {
		if c == nil {
			return nil
		}
		return c.ended
	}
	attempt := func(ctx context.Context) error {
		next, err := h.launch(ctx)
		if err != nil {
			return err
		}
		old := c
		c = next
		h.adopt(c)
		if old != nil {
			retired.Go(old.retire)
		}
		return nil
	}
	for {
		select {
		case <-h.life.Done():
			h.mu.Lock()
			h.current, h.down = nil, errClosed
			h.dispatch()
			h.mu.Unlock()
			if c != nil {
				retired.Go(c.retire)
			}
			return
		case r := <-h.reloads:
			err := attempt(r.ctx)
			if err == nil {
				reset()
				retry = nil
				h.env.Logger.Info("a new process of the plugin replaced the old one", "plugin", c.hello.Name, "version", c.hello.PluginVersion)
			}
			r.done <- err
			continue
		case <-ended():
			h.mu.Lock()
			if c.answered || time.Since(c.startedAt) >= steadyTime {
				reset()
			}
			h.mu.Unlock()
			c.mu.Lock()
			cause := c.reason
			c.mu.Unlock()
			c = nil
			pause := nextPause()
			if pause >= longPause {
				h.markDown(cause, pause)
			}
			retry = time.After(pause)
			if pause > 0 {
				continue
			}
		case <-retry:
		}
		retry = nil
		if err := attempt(h.life); err != nil && h.life.Err() == nil {
			pause := min(max(longPause, nextPause()), h.config.RestartMax)
			h.markDown(fmt.Errorf("it can't be started: %w", err), pause)
			retry = time.After(pause)
		}
	}
}

// markDown records why there is no process and when the next start is. The messages that wait
// become unavailable.
func (h *handler) markDown(cause error, wait time.Duration) {
	h.mu.Lock()
	h.down, h.next = fmt.Errorf("the plugin's process is down: %w", cause), time.Now().Add(wait)
	h.dispatch()
	h.mu.Unlock()
	h.outage.Report(cause)
}

// adopt makes a ready process the current one, which gets the next requests.
func (h *handler) adopt(c *child) {
	h.metrics.starts.Inc()
	h.mu.Lock()
	h.current, h.down = c, nil
	h.dispatch()
	h.mu.Unlock()
	c.mu.Lock()
	ending := c.reason != nil
	c.mu.Unlock()
	if ending {
		c.stopDispatch() // markEnding may have called it before c was current
	}
	h.outage.Report(nil)
	h.work.Go(func() { c.watchHealth(h.life) })
}

// launch starts the program and returns a process when its handshake is complete. If that fails,
// it kills the process and waits for its end.
func (h *handler) launch(ctx context.Context) (*child, error) {
	path, err := h.config.findProgram()
	if err != nil {
		return nil, err
	}
	var files []*os.File // both ends of all pipes
	pipe := func() (r, w *os.File) {
		r, w, e := os.Pipe()
		if e != nil {
			err = errors.Join(err, e)
			return nil, nil
		}
		files = append(files, r, w)
		return r, w
	}
	stdin, in := pipe()
	out, stdout := pipe()
	diag, stderr := pipe()
	if err == nil {
		widenPipe(in)
		widenPipe(out)
	}
	c := &child{
		h: h, stdout: out, startedAt: time.Now(), maxLine: h.config.MaxLine, started: make(chan error, 1), exited: make(chan struct{}), ended: make(chan struct{}),
		requests: map[int64]*request{}, drained: make(chan struct{}), warned: map[string]bool{},
	}
	if err == nil {
		c.cmd = exec.Command(path, h.config.Command[1:]...)
		c.cmd.Args[0] = h.config.Command[0]
		c.cmd.Dir, c.cmd.Env = h.config.Dir, h.config.buildEnvironment()
		c.cmd.Stdin, c.cmd.Stdout, c.cmd.Stderr = stdin, stdout, stderr
		setOwnGroup(c.cmd)
		err = h.config.explainStartError(path, h.startProgram(c.cmd))
	}
	if err != nil {
		for _, f := range files {
			_ = f.Close()
		}
		return nil, err
	}
	for _, f := range []*os.File{stdin, stdout, stderr} {
		_ = f.Close()
	}
	c.stdin = newOutbox(in, func() { c.killUnlessExited(errInputClosed) })
	reading := make(chan struct{})
	h.work.Go(func() { defer close(reading); c.readLines() })
	h.work.Go(func() { h.stderr.forwardStderr(diag, c.ended) })
	h.work.Go(func() { c.awaitExit(reading); <-c.stdin.ended })
	timer := time.NewTimer(h.config.StartTimeout)
	defer timer.Stop()
	select {
	case err = <-c.started:
	case <-timer.C:
		err = fmt.Errorf("it wasn't ready within %v%s", h.config.StartTimeout, c.silenceHint(0))
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	if err != nil {
		c.kill(err)
		<-c.ended
		return nil, err
	}
	return c, nil
}

// startOrder is a program for startPrograms to start.
type startOrder struct {
	cmd  *exec.Cmd
	done chan error
}

// startPrograms starts all programs from one thread, and keeps that thread while the handler is
// open. The reason is Pdeathsig: Linux kills a program when the thread that started it ends.
func (h *handler) startPrograms() {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for {
		select {
		case f := <-h.startOrders:
			f.done <- f.cmd.Start()
		case <-h.life.Done():
			return
		}
	}
}

// startProgram passes a program to startPrograms, and returns when the program has been started.
func (h *handler) startProgram(cmd *exec.Cmd) error {
	f := startOrder{cmd, make(chan error, 1)}
	select {
	case h.startOrders <- f:
		return <-f.done
	case <-h.life.Done():
		return errClosed
	}
}

// handshake writes the host's hello, and then reads the plugin's `hello` and `ready`.
func (c *child) handshake(in *stdio.Reader) error {
	config := c.h.config
	if err := c.sendJSON(hostHello{
		Type: "hello", Versions: []int{stdio.Version}, Host: hostName{Name: c.h.env.Host, Version: hostVersion()}, Pipeline: c.h.env.Pipeline,
		Config: c.h.settings, Window: config.Window, MaxLine: config.MaxLine, LogLevel: lowestLevel(c.h.env.Logger),
	}); err != nil {
		return err
	}
	if err := c.readHello(in); err != nil {
		return err
	}
	for {
		l, text, err := c.readStartLine(in)
		switch {
		case err != nil:
			return err
		case l.kind == "ready":
			in.MaxLine = config.MaxLine
			if err := c.h.checkSettings(c.hello.Schema); err != nil {
				return err
			}
			c.h.mu.Lock()
			c.readyAt, c.idleSince = time.Now(), time.Now()
			c.h.mu.Unlock()
			return nil
		case l.kind == "hello" || l.kind == "response":
			return fmt.Errorf("it wrote %s before ready or refuse: %s", l.kind, quoteStart(text))
		}
	}
}

// readHello reads and checks the plugin's hello.
func (c *child) readHello(in *stdio.Reader) error {
	l, text, err := c.readStartLine(in)
	if err != nil {
		return err
	}
	if l.kind != "hello" {
		return fmt.Errorf("its first line isn't a hello: %s; only the protocol may go to standard output", quoteStart(text))
	}
	if err := jsontext.Unmarshal(text, &c.hello); err != nil {
		return fmt.Errorf("reading its hello: %w", err)
	}
	switch {
	case c.hello.Version != stdio.Version:
		return fmt.Errorf("it speaks version %d of the protocol, and this host version %d", c.hello.Version, stdio.Version)
	case c.hello.Name == "":
		return errors.New("its hello has no name")
	case c.hello.Window != nil && *c.hello.Window < 1:
		return fmt.Errorf("its hello says window %d, and the least is 1", *c.hello.Window)
	case c.hello.MaxLine != nil && *c.hello.MaxLine < minMaxLine:
		return fmt.Errorf("its hello says max_line %d, and the least is %d", *c.hello.MaxLine, minMaxLine)
	}
	c.window = c.h.config.Window
	if c.hello.Window != nil {
		c.window = min(c.window, *c.hello.Window)
	}
	if c.hello.MaxLine != nil {
		c.maxLine = *c.hello.MaxLine
	}
	return nil
}

// readStartLine returns the next line of the handshake. It logs `log` lines, skips lines of
// unknown types, and returns a refusal as an error.
func (c *child) readStartLine(in *stdio.Reader) (line, []byte, error) {
	for {
		text, err := in.ReadLine()
		switch {
		case errors.Is(err, io.EOF):
			return line{}, nil, err
		case err != nil:
			return line{}, nil, fmt.Errorf("it wrote %w", err)
		}
		if stdio.IsBlank(text) {
			continue
		}
		l, err := parse(text)
		switch {
		case err != nil:
			return line{}, nil, err
		case l.kind == "log":
			c.h.stderr.forwardLine(text)
		case l.kind == "refuse":
			var r refusal
			if err := jsontext.Unmarshal(text, &r); err != nil {
				return line{}, nil, fmt.Errorf("reading its refusal: %w", err)
			}
			return line{}, nil, r
		case slices.Contains([]string{"hello", "ready", "response"}, l.kind):
			return l, text, nil
		default:
			c.warnUnknown(l.kind)
		}
	}
}
