package process

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/pentrough/pentrough/handlers"
	"github.com/pentrough/pentrough/handlers/handlertest"
	"github.com/pentrough/pentrough/internal/testenv/await"
	"github.com/pentrough/pentrough/transports"
)

// log is what a handler logged.
type log struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// plugin is a handler whose program has this character.
type plugin struct {
	*testing.T
	*handler
	log *log
}

// buildPlugin returns a handler that isn't started. It is closed at the end of the test.
func buildPlugin(t *testing.T, character string, change func(*Config)) *plugin {
	t.Helper()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := defaults
	// Without this setting, the race detector lets a program sleep for a second before it exits.
	c.Command, c.Env = []string{program}, map[string]transports.Secret{characterOf: transports.Secret(character), "GORACE": "atexit_sleep_ms=0"}
	c.StartTimeout, c.Timeout = await.Patience, await.Patience
	if change != nil {
		change(&c)
	}
	if err := c.Validate(); err != nil {
		t.Fatal(err)
	}
	p := &plugin{T: t, log: &log{}}
	env := handlertest.NewHost(t).Env()
	env.Logger = slog.New(slog.NewTextHandler(p.log, nil))
	h, err := c.New(env)
	if err != nil {
		t.Fatal(err)
	}
	p.handler = h.(*handler)
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("the handler logged:\n%s", p.log)
		}
	})
	return p
}

// startPlugin returns a started handler.
func startPlugin(t *testing.T, character string, change func(*Config)) *plugin {
	t.Helper()
	p := buildPlugin(t, character, change)
	if err := p.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	return p
}

// handle handles a message with this payload, and returns the payload of the first response
// message.
func (p *plugin) handle(payload string) (string, error) {
	p.Helper()
	out, err := p.handleIn(p.Context(), payload)
	if len(out) > 0 {
		return string(out[0].Payload), err
	}
	return "", err
}

func (p *plugin) handleIn(ctx context.Context, payload string) ([]*message.Message, error) {
	msg := handlers.NewMessage([]byte(payload))
	msg.SetContext(ctx)
	return p.Handle(msg)
}

// wantEcho checks that the program echoes a payload.
func (p *plugin) wantEcho() {
	p.Helper()
	if got, err := p.handle("hello"); got != "hello" || err != nil {
		p.Errorf("%q, %v", got, err)
	}
}

// awaitLog waits until the log has this text.
func (p *plugin) awaitLog(text string) {
	p.Helper()
	await.That(p, "the log says "+text, func() (any, bool) { return p.Health(), strings.Contains(p.log.String(), text) })
}

// running returns the current process and the number of its open requests, or nil.
func (p *plugin) running() (*child, int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.current == nil {
		return nil, 0
	}
	return p.current, p.current.open
}

// awaitOpen waits until the process has n open requests.
func (p *plugin) awaitOpen(n int) {
	p.Helper()
	await.That(p, fmt.Sprintf("the process has %d messages", n), func() (any, bool) {
		c, open := p.running()
		return fmt.Sprintf("a process: %v, with %d messages", c != nil, open), c != nil && open == n
	})
}

func TestStarts(t *testing.T) {
	t.Parallel()
	for character, want := range map[string]string{
		"dead":     "it ended: exit status 3",
		"chatty":   `it wrote a line that isn't a JSON object: "Hello, I am a plugin.": byte 1: 'H'; expected: an object`,
		"future":   "it speaks version 2 of the protocol, and this host version 1",
		"refusing": "no licence; config.a.b is 1; config is odd",
		"schema":   "config.n: minimum: got 3, want 5; config has the unknown key x",
		"mute":     "it wasn't ready within 300ms, and wrote nothing: did it flush its standard output?",
		"long":     "it wrote a line of more than 1048576 bytes",
	} {
		t.Run(character, func(t *testing.T) {
			t.Parallel()
			p := buildPlugin(t, character, func(c *Config) {
				c.Config = map[string]any{"n": 3, "x": true}
				if character == "mute" {
					c.StartTimeout = 300 * time.Millisecond
				}
			})
			err := p.Start(t.Context())
			if err == nil || !strings.HasPrefix(err.Error(), "starting the plugin "+p.config.Command[0]+": ") || !strings.HasSuffix(err.Error(), want) {
				t.Errorf("it started with %v, want %q", err, want)
			}
			if character == "dead" {
				p.awaitLog("no such library")
			}
		})
	}
	p := buildPlugin(t, "", func(c *Config) { c.Command = []string{"no-such-program"} })
	if err := p.Start(t.Context()); err == nil || !strings.Contains(err.Error(), `"no-such-program": executable file not found in $PATH`) {
		t.Error(err)
	}
}

// If PATH has an empty or relative element, a program in the working folder isn't started through
// it.
func TestProgramsOfTheWorkingFolder(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := errors.Join(os.Mkdir("bin", 0o700), os.WriteFile("planted", []byte("#!/bin/sh\n"), 0o700), os.WriteFile("bin/planted", []byte("#!/bin/sh\n"), 0o700)); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{":/usr/bin", ".", "bin", "/usr/bin:"} {
		t.Setenv("PATH", path)
		if got, err := (&Config{Command: []string{"planted"}}).findProgram(); err == nil || !strings.Contains(err.Error(), "relative or empty element of PATH") {
			t.Errorf("PATH=%s: %q, %v", path, got, err)
		}
	}
	if _, err := (&Config{Command: []string{"./planted"}}).findProgram(); err != nil {
		t.Error(err)
	}
}

func TestProgramsThatCannotRun(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(folder, name)
		if err := os.WriteFile(path, []byte(text), 0o700); err != nil {
			t.Fatal(err)
		}
		return path
	}
	data, script, windows := file("data", "\x01\x02"), file("script", "#! /no/such/python3 -u\nx"), file("windows", "#!/bin/sh\r\necho\r\n")
	for want, change := range map[string]func(*Config){
		data + " can't be executed: a script must begin with #!":                                            func(c *Config) { c.Command = []string{data} },
		"the first line of " + script + ` names the interpreter "/no/such/python3 -u", which doesn't exist`: func(c *Config) { c.Command = []string{script} },
		`names the interpreter "/bin/sh\r", which doesn't exist`:                                            func(c *Config) { c.Command = []string{windows} },
		"dir: stat " + folder + "/none: no such file":                                                       func(c *Config) { c.Dir = folder + "/none" },
		"dir: " + data + " isn't a folder":                                                                  func(c *Config) { c.Dir = data },
	} {
		p := buildPlugin(t, "", change)
		if err := p.Start(t.Context()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("it started with %v, want %q", err, want)
		}
	}
}

// A process that has closed its input is replaced at the next message, and the next process
// handles the message.
func TestAClosedInput(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "once")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	p := startPlugin(t, "deaf", func(c *Config) {
		c.Env["DEAF_ONCE"] = transports.Secret(file)
	})
	await.That(t, "the message is handled after its process was replaced", func() (any, bool) {
		p.wantEcho()
		return p.Health(), strings.Contains(p.log.String(), errInputClosed.Error())
	})
}

func TestOutputOfAProgramIsBounded(t *testing.T) {
	t.Parallel()
	p := startPlugin(t, "", nil)
	if out, err := p.handleIn(t.Context(), fmt.Sprintf("crowd %d", maxProduced)); len(out) != maxProduced || err != nil {
		t.Errorf("%d messages, %v", len(out), err)
	}
	if _, err := p.handle(fmt.Sprintf("crowd %d", maxProduced+1)); err == nil || handlers.KindOf(err) != handlers.KindRetryable || !strings.Contains(err.Error(), "more than 100000 messages") {
		t.Error(err)
	}
	if _, err := p.handle("gossip"); err != nil {
		t.Error(err)
	}
	p.awaitLog("lines that the host doesn't expect")
	for line := range strings.Lines(p.log.String()) {
		if strings.Contains(line, "a long line") && (len(line) > 2*maxFields*maxValue || !strings.Contains(line, "plugin.left_out=68")) || strings.Contains(line, "lines that the host") && len(line) > 500 {
			t.Errorf("a line of %d bytes: %.200s", len(line), line)
		}
	}
}

func TestResponses(t *testing.T) {
	p := startPlugin(t, "", func(c *Config) { c.Destinations = []handlers.TopicRef{"memory:alarms"} })
	for _, payload := range []string{"", "text", "\"\\\n\x00é", "\xff\xfe"} {
		if got, err := p.handle(payload); got != payload || err != nil {
			t.Errorf("%q came back as %q, %v", payload, got, err)
		}
	}
	for text, want := range map[string]struct {
		kind  handlers.Kind
		after time.Duration
		text  string
	}{
		`{"kind":"permanent","text":"no"}`:                        {handlers.KindPermanent, 0, "no"},
		`{"kind":"drop","text":"no"}`:                             {handlers.KindDrop, 0, "no"},
		`{"kind":"unavailable","text":"no","retry_after_ms":500}`: {handlers.KindUnavailable, 500 * time.Millisecond, "no"},
		`{"kind":"weather"}`:                                      {handlers.KindRetryable, 0, "the plugin gives no reason"},
		`{"text":"no","retry_after_ms":1e300}`:                    {handlers.KindRetryable, 24 * time.Hour, "no"},
		`7`:                                                       {handlers.KindRetryable, 0, "reading the plugin's response: \"error\" is a number"},
	} {
		_, err := p.handle("error " + text)
		if err == nil || handlers.KindOf(err) != want.kind || handlers.RetryAfterOf(err) != want.after || !strings.HasPrefix(err.Error(), want.text) {
			t.Errorf("%s became %v, %v, %v", text, err, handlers.KindOf(err), handlers.RetryAfterOf(err))
		}
	}
	if _, err := p.handle("mad"); err == nil || handlers.KindOf(err) != handlers.KindRetryable || !strings.Contains(err.Error(), "two payloads") {
		t.Error(err)
	}
	out, err := p.handleIn(t.Context(), "to memory:alarms")
	if err != nil || len(out) != 1 || handlers.Destination(out[0]) != "memory:alarms" || out[0].UUID != "mine" || out[0].Metadata["k"] != "v" {
		t.Errorf("%v, %v", out, err)
	}
	if _, err := p.handle("to memory:other"); handlers.KindOf(err) != handlers.KindPermanent {
		t.Error(err)
	}
	if _, err := p.handle("twice"); err != nil {
		t.Error(err)
	}
	p.wantEcho()
	p.awaitLog("response with an unknown id")
	p.awaitLog("weather")
	if _, err := p.handle("log"); err != nil {
		t.Error(err)
	}
	p.awaitLog(`level=WARN msg="the sensor is slow" plugin.ms=812`)
	t.Setenv("SECRET_OF_THE_HOST", "x")
	if got, err := p.handle("env"); err != nil || !strings.Contains(got, "PENTROUGH_PLUGIN=1") || strings.Contains(got, "SECRET_OF") {
		t.Errorf("%q, %v", got, err)
	}
}

// A message that always ends the process gets a permanent error. The other messages are handled.
func TestMessagesThatEndTheProcess(t *testing.T) {
	t.Parallel()
	for payload, want := range map[string]string{
		"die":   "exit status 7",
		"print": `it wrote a line that isn't a JSON object: "a word from a library"`,
		"latin": "it wrote a line that isn't UTF-8",
		"flood": "it wrote a line of more than 1048576 bytes",
	} {
		t.Run(payload, func(t *testing.T) {
			t.Parallel()
			p := startPlugin(t, "", func(c *Config) { c.MaxLine = 1 << 20 })
			var others sync.WaitGroup
			for range 20 {
				others.Go(func() { p.wantEcho() })
			}
			_, err := p.handle(payload)
			if err == nil || handlers.KindOf(err) != handlers.KindPermanent || !strings.HasPrefix(err.Error(), "the plugin ended 3 times with this message alone in it") || !strings.Contains(err.Error(), want) {
				t.Errorf("%v", err)
			}
			others.Wait()
			p.wantEcho()
			if err := p.Health(); err != nil {
				t.Error(err)
			}
		})
	}
}

// Messages that a process had when another message ended it are handled, and aren't suspects any
// more.
func TestOtherMessagesAreNotBlamed(t *testing.T) {
	t.Parallel()
	p := startPlugin(t, "", nil)
	file := filepath.Join(t.TempDir(), "once")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for range 30 {
		all.Go(func() { p.wantEcho() })
	}
	if _, err := p.handle("die-once " + file); err != nil {
		t.Error(err)
	}
	all.Wait()
	await.That(t, "nothing is suspected or open", func() (any, bool) {
		p.mu.Lock()
		defer p.mu.Unlock()
		state := fmt.Sprintf("%d are suspected, %d open with %d bytes", len(p.suspects), p.current.open, p.current.bytes)
		return state, len(p.suspects) == 0 && p.current.open == 0 && p.current.bytes == 0
	})
}

func TestHangs(t *testing.T) {
	t.Parallel()
	for _, payload := range []string{"hang", "spin"} {
		t.Run(payload, func(t *testing.T) {
			t.Parallel()
			p := startPlugin(t, "", func(c *Config) { c.Timeout, c.Grace = 300*time.Millisecond, 100*time.Millisecond })
			before, _ := p.running()
			if _, err := p.handle(payload); err == nil || handlers.KindOf(err) != handlers.KindRetryable || err.Error() != "the plugin had no response within 300ms, and wrote nothing: did it flush its standard output?" {
				t.Error(err)
			}
			await.That(t, "another process runs", func() (any, bool) {
				now, _ := p.running()
				return p.Health(), now != nil && now != before
			})
		})
	}
}

// A program gets `cancel` when its response is late, before the grace period is over.
func TestATimeoutCancelsTheRequest(t *testing.T) {
	t.Parallel()
	p := startPlugin(t, "", func(c *Config) { c.Timeout, c.Grace = 300*time.Millisecond, await.Patience })
	if _, err := p.handle("hang"); err == nil || err.Error() != "the plugin had no response within 300ms, and wrote nothing: did it flush its standard output?" {
		t.Error(err)
	}
	p.awaitLog("cancelled 1")
}

func TestEndedContextCancelsTheRequest(t *testing.T) {
	t.Parallel()
	p := startPlugin(t, "", nil)
	ctx, cancel := context.WithCancel(t.Context())
	handled := make(chan error, 1)
	go func() {
		_, err := p.handleIn(ctx, "hang")
		handled <- err
	}()
	p.awaitOpen(1)
	cancel()
	if err := await.Receive(t, "the error of the message", handled); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	p.awaitLog("cancelled 1")
	p.wantEcho()
}

func TestMemory(t *testing.T) {
	t.Parallel()
	p := startPlugin(t, "", func(c *Config) { c.Memory, c.Crashes = 150<<20, 1 })
	if _, err := p.handle("grow"); err == nil || handlers.KindOf(err) != handlers.KindPermanent || !strings.Contains(err.Error(), "bytes of memory, more than 157286400") {
		t.Error(err)
	}
	p.wantEcho()
}

func TestWindow(t *testing.T) {
	t.Parallel()
	p := startPlugin(t, "narrow", func(c *Config) { c.Grace = time.Millisecond })
	big := strings.Repeat("x", 70_000)
	if _, err := p.handle(big); err == nil || handlers.KindOf(err) != handlers.KindPermanent || !strings.Contains(err.Error(), "the plugin accepts 65536") {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var hanging sync.WaitGroup
	hanging.Go(func() { _, _ = p.handleIn(ctx, "hang") })
	p.awaitOpen(1)
	short, end := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer end()
	if _, err := p.handleIn(short, "hello"); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	cancel()
	hanging.Wait()

	wide := startPlugin(t, "", func(c *Config) { c.WindowBytes = 1024 })
	var all sync.WaitGroup
	for i := range 50 {
		all.Go(func() {
			body := strings.Repeat("y", 100*(i%20))
			if got, err := wide.handle(body); got != body || err != nil {
				t.Errorf("%d bytes, %v", len(got), err)
			}
		})
	}
	all.Wait()
}

func TestAProgramThatStaysDown(t *testing.T) {
	t.Parallel()
	p := startPlugin(t, "stillborn", nil)
	await.That(t, "it is down", func() (any, bool) {
		err := p.Health()
		return err, err != nil
	})
	// The process is started again and again, so a message may meet one that runs.
	await.That(t, "a message gets the error that the process is down", func() (any, bool) {
		_, err := p.handle("hello")
		return err, handlers.KindOf(err) == handlers.KindUnavailable && handlers.RetryAfterOf(err) > 0 &&
			strings.Contains(err.Error(), "the plugin's process is down: it ended: exit status 1")
	})
}

func TestProcessGroupEndsWithTheProcess(t *testing.T) {
	t.Parallel()
	p := startPlugin(t, "", func(c *Config) { c.Grace = 10 * time.Millisecond })
	text, err := p.handle("orphan")
	if err != nil {
		t.Fatal(err)
	}
	orphan, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	text, _ = p.handle("pid")
	if err := p.Close(); err != nil {
		t.Error(err)
	}
	child, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	for _, pid := range []int{child, orphan} {
		await.That(t, fmt.Sprintf("process %d is gone", pid), func() (any, bool) {
			state, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
			return string(state), err != nil || bytes.Contains(state, []byte(") Z ")) || errors.Is(syscall.Kill(pid, 0), syscall.ESRCH)
		})
	}
}

func TestProcessesThatDoNotExitAreKilled(t *testing.T) {
	t.Parallel()
	p := startPlugin(t, "stubborn", nil)
	p.wantEcho()
	closed := make(chan error, 1)
	go func() { closed <- p.Close() }()
	if err := await.Receive(t, "the end of Close", closed); err != nil {
		t.Error(err)
	}
}

func TestStandardErrorIsBounded(t *testing.T) {
	t.Parallel()
	begun := time.Now()
	p := startPlugin(t, "", nil)
	if _, err := p.handle("babble"); err != nil {
		t.Error(err)
	}
	await.That(t, "it says that lines are missing", func() (any, bool) {
		if _, err := p.handle("log"); err != nil {
			t.Error(err)
		}
		said := p.log.String()
		return fmt.Sprintf("%d bytes of log", len(said)), strings.Contains(said, "the plugin wrote more lines than the host logs")
	})
	n := strings.Count(p.log.String(), "a word")
	if most := logBurst + int(logRate*time.Since(begun).Seconds()); n > most {
		t.Errorf("%d of 5000 lines are in the log, at most %d may be", n, most)
	}
}

// During reloads, each message is handled, and handled once.
func TestReloads(t *testing.T) {
	t.Parallel()
	p := startPlugin(t, "", nil)
	ctx, cancel := context.WithCancel(t.Context())
	var work sync.WaitGroup
	pids := sync.Map{}
	var handled sync.Map
	for w := range 8 {
		work.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				id := fmt.Sprint(w, "-", i)
				got, err := p.handle(id)
				if got != id || err != nil {
					t.Errorf("%s: %q, %v", id, got, err)
				}
				if _, twice := handled.LoadOrStore(id, true); twice {
					t.Errorf("%s was handled twice", id)
				}
				if pid, err := p.handle("pid"); err == nil {
					pids.Store(pid, true)
				}
			}
		})
	}
	for range 20 {
		if err := p.Reload(t.Context()); err != nil {
			t.Error(err)
		}
	}
	cancel()
	work.Wait()
	if strings.Contains(p.log.String(), "the plugin's process ended") {
		t.Error("the log reports a reload as a failure")
	}
	p.config.Command = []string{"no-such-program"}
	if err := p.Reload(t.Context()); err == nil {
		t.Error("a program that doesn't exist replaced the process")
	}
	p.wantEcho()
}

func TestValidate(t *testing.T) {
	c := Config{Env: map[string]transports.Secret{"A=B": "x"}, MaxLine: 1, Memory: -1}
	err := fmt.Sprint(c.Validate())
	for _, want := range []string{"command: names no program", `env: "A=B" can't be`, "window: is 0", "max_line: is 1, must be at least 65536", "memory: is -1", "timeout: is 0s", "restart_max"} {
		if !strings.Contains(err, want) {
			t.Errorf("%q isn't in\n%s", want, err)
		}
	}
	c = defaults
	c.Command = []string{"no-such-program"}
	if check := c.Check(t.Context()); len(check) != 1 || check[0].Err == nil || check[0].Next == "" {
		t.Errorf("%+v", check)
	}
	c.Command = []string{"sh"}
	if check := c.Check(t.Context()); len(check) != 1 || check[0].Err != nil || !strings.HasPrefix(check[0].Found, "the program is /") {
		t.Errorf("%+v", check)
	}
}
