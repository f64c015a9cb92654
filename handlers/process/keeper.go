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

const (
	// firstWait is the longest wait before the second new start; there is none before the first.
	firstWait = 100 * time.Millisecond
	// steady is how long a program must have stood for its end to count as the first again, if it has answered nothing.
	steady = 10 * time.Second
	// longWait is from when on messages don't wait for the next start, and the host isn't ready. It
	// is also the shortest wait after a start that went wrong.
	longWait = 500 * time.Millisecond
)

// reload is the wish for a new process.
type reload struct {
	ctx  context.Context
	done chan error
}

// Start implements handlers.Starter.
func (h *handler) Start(ctx context.Context) error {
	h.forks = make(chan fork)
	h.work.Go(h.forker)
	c, err := h.launch(ctx)
	if err != nil {
		return fmt.Errorf("starting the plugin %s: %w", h.config.Command[0], err)
	}
	h.adopt(c)
	h.work.Go(func() { h.keep(c) })
	return nil
}

// keep sees that there is a process until the handler is closed.
func (h *handler) keep(c *child) {
	var retired sync.WaitGroup
	defer retired.Wait()
	first, pauses := true, backoff.New(firstWait, h.config.RestartMax)
	// wait returns how long to wait after an end, or after a start that went wrong.
	wait := func() time.Duration {
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
	gone := func() <-chan struct{} {
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
				h.env.Logger.Info("another process of the plugin took over", "plugin", c.hello.Name, "version", c.hello.PluginVersion)
			}
			r.done <- err
			continue
		case <-gone():
			h.mu.Lock()
			if c.answered || time.Since(c.began) >= steady {
				reset()
			}
			h.mu.Unlock()
			c.mu.Lock()
			cause := c.reason
			c.mu.Unlock()
			c = nil
			pause := wait()
			if pause >= longWait {
				h.fell(cause, pause)
			}
			retry = time.After(pause)
			if pause > 0 {
				continue
			}
		case <-retry:
		}
		retry = nil
		if err := attempt(h.life); err != nil && h.life.Err() == nil {
			pause := min(max(longWait, wait()), h.config.RestartMax)
			h.fell(fmt.Errorf("it can't be started: %w", err), pause)
			retry = time.After(pause)
		}
	}
}

// fell says that there is no process for a while.
func (h *handler) fell(cause error, wait time.Duration) {
	h.mu.Lock()
	h.down, h.next = fmt.Errorf("the plugin's process is down: %w", cause), time.Now().Add(wait)
	h.dispatch()
	h.mu.Unlock()
	h.outage.Report(cause)
}

// adopt makes a process that is ready the one that gets messages.
func (h *handler) adopt(c *child) {
	h.metrics.starts.Inc()
	h.mu.Lock()
	h.current, h.down = c, nil
	h.dispatch()
	h.mu.Unlock()
	c.mu.Lock()
	over := c.reason != nil
	c.mu.Unlock()
	if over {
		c.leave(nil) // it didn't know that it was the one
	}
	h.outage.Report(nil)
	h.work.Go(func() { c.watch(h.life) })
}

// launch starts the program and returns when it is ready.
func (h *handler) launch(ctx context.Context) (*child, error) {
	path, err := h.config.program()
	if err != nil {
		return nil, err
	}
	var files []*os.File
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
		widen(in)
		widen(out)
	}
	c := &child{
		h: h, stdout: out, began: time.Now(), maxLine: h.config.MaxLine, started: make(chan error, 1), exited: make(chan struct{}), ended: make(chan struct{}),
		requests: map[int64]*request{}, drained: make(chan struct{}), unknown: map[string]bool{},
	}
	if err == nil {
		c.cmd = exec.Command(path, h.config.Command[1:]...)
		c.cmd.Args[0] = h.config.Command[0]
		c.cmd.Dir, c.cmd.Env = h.config.Dir, h.config.environment()
		c.cmd.Stdin, c.cmd.Stdout, c.cmd.Stderr = stdin, stdout, stderr
		ownGroup(c.cmd)
		err = h.config.whyNot(path, h.fork(c.cmd))
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
	c.stdin = newOutbox(in, func() { c.without(errInput) })
	reading := make(chan struct{})
	h.work.Go(func() { defer close(reading); c.read() })
	h.work.Go(func() { h.stderr.read(diag, c.ended) })
	h.work.Go(func() { c.wait(reading); <-c.stdin.ended })
	timer := time.NewTimer(h.config.StartTimeout)
	defer timer.Stop()
	select {
	case err = <-c.started:
	case <-timer.C:
		err = fmt.Errorf("it wasn't ready within %v%s", h.config.StartTimeout, c.silence(0))
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

// fork is a program to start.
type fork struct {
	cmd  *exec.Cmd
	done chan error
}

// forker starts programs. A program is killed with the thread that started it, so that has to live as long as the handler.
func (h *handler) forker() {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for {
		select {
		case f := <-h.forks:
			f.done <- f.cmd.Start()
		case <-h.life.Done():
			return
		}
	}
}

func (h *handler) fork(cmd *exec.Cmd) error {
	f := fork{cmd, make(chan error, 1)}
	select {
	case h.forks <- f:
		return <-f.done
	case <-h.life.Done():
		return errClosed
	}
}

// greeted is the beginning: hello, hello, ready.
func (c *child) greeted(in *stdio.Reader) error {
	config := c.h.config
	if err := c.say(hostHello{
		Type: "hello", Versions: []int{stdio.Version}, Host: hostName{Name: c.h.env.Host, Version: hostVersion()}, Pipeline: c.h.env.Pipeline,
		Config: c.h.settings, Window: config.Window, MaxLine: config.MaxLine, LogLevel: leastLevel(c.h.env.Logger),
	}); err != nil {
		return err
	}
	if err := c.introduced(in); err != nil {
		return err
	}
	for {
		l, text, err := c.beginning(in)
		switch {
		case err != nil:
			return err
		case l.kind == "ready":
			in.Most = config.MaxLine
			if err := c.h.fits(c.hello.Schema); err != nil {
				return err
			}
			c.h.mu.Lock()
			c.readyAt, c.quiet = time.Now(), time.Now()
			c.h.mu.Unlock()
			return nil
		case l.kind == "hello" || l.kind == "response":
			return fmt.Errorf("it wrote a %s where ready or refuse was waited for: %s", l.kind, quoted(text))
		}
	}
}

// introduced reads the plugin's hello.
func (c *child) introduced(in *stdio.Reader) error {
	l, text, err := c.beginning(in)
	if err != nil {
		return err
	}
	if l.kind != "hello" {
		return fmt.Errorf("it wrote something else where its hello was waited for: %s; only the protocol may go to standard output", quoted(text))
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
	case c.hello.MaxLine != nil && *c.hello.MaxLine < leastMaxLine:
		return fmt.Errorf("its hello says max_line %d, and the least is %d", *c.hello.MaxLine, leastMaxLine)
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

// beginning returns the next line but for those of logs and of unknown types.
func (c *child) beginning(in *stdio.Reader) (line, []byte, error) {
	for {
		text, err := in.Text()
		switch {
		case errors.Is(err, io.EOF):
			return line{}, nil, err
		case err != nil:
			return line{}, nil, fmt.Errorf("it wrote %w", err)
		}
		if stdio.Blank(text) {
			continue
		}
		l, err := parse(text)
		switch {
		case err != nil:
			return line{}, nil, err
		case l.kind == "log":
			c.h.stderr.log(text)
		case l.kind == "refuse":
			var r refusal
			if err := jsontext.Unmarshal(text, &r); err != nil {
				return line{}, nil, fmt.Errorf("reading its refusal: %w", err)
			}
			return line{}, nil, r
		case slices.Contains([]string{"hello", "ready", "response"}, l.kind):
			return l, text, nil
		default:
			c.complain(l.kind)
		}
	}
}
