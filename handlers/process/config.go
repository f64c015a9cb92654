// Package process is the handler that has a program of its own, in any language, do the work: it starts the program and speaks with it over its standard
// input and output, as docs/process-protocol.md says. What the program does wrong hurts its own messages and nobody else.
package process

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/pentrough/pentrough/handlers"
	"github.com/pentrough/pentrough/transports"
)

func init() {
	handlers.Register(handlers.Plugin{
		Name:        "process",
		Summary:     "Has a program of its own, in any language, handle the messages.",
		Description: description,
		Config:      func() handlers.Config { c := defaults; return &c },
	})
}

const description = "Starts `command` and hands it each message, over its standard input and output. [The protocol](../process-protocol.md) is a page; for Go there is an SDK with which the same package is compiled in or a process, and for Python one file: " +
	"[Write a handler](../write-a-handler.md).\n\n" +
	"```toml\n" +
	"[pipeline.readings]\n" +
	"from       = \"broker:readings\"\n" +
	"middleware = [\"poison\", \"retry\"]\n" +
	"handler    = { type = \"process\", command = [\"python3\", \"/opt/plugins/readings.py\"], config = { threshold = 20 }, memory = 268435456 }\n" +
	"to         = \"broker:warm\"\n" +
	"```\n\n" +
	"A message is settled by the program's response and by nothing else. What the program may do wrong:\n\n" +
	"| it | what the host does |\n|---|---|\n" +
	"| can't be started, or refuses `config` | doesn't start, and says why. After a restart: is not ready, and tries again, at longer and longer intervals up to `restart_max` |\n" +
	"| ends, is killed, writes what is no line of the protocol, or needs more than `memory` | starts it again, at once the first time. Its messages run again; nothing is lost, poisoned or counted. While it is down messages are *unavailable*: the pipeline pauses |\n" +
	"| ends `crashes` times with the same message in it, which is alone there | that message is the cause: a *permanent* error |\n" +
	"| has no response within `timeout` | a *retryable* error of that message. `grace` later the program is killed |\n\n" +
	"`SIGHUP` to the host swaps the program: a new one is started, and when it is ready the old one gets no more messages and ends when it has answered those it has. If the new one doesn't start, the old one stays.\n\n" +
	"The program runs in a process group of its own and ends with the host. Of the host's environment it has `PATH`, `HOME`, `USER`, `LOGNAME`, `LANG`, `LC_*`, `TZ` and `TMPDIR`, and what `env` says. It has the host's user and its rights: " +
	"on Linux, `command` may begin with a program that gives it less, such as `setpriv` or `bwrap`. What it writes to standard error is in the host's log."

// Config is the configuration of process.
type Config struct {
	Command      []string                     `toml:"command" doc:"The program and its arguments; the program as a path, or as a name that is looked up in PATH." example:"[\"python3\", \"/opt/plugins/readings.py\"]" required:"true"`
	Dir          string                       `toml:"dir" doc:"The folder that it runs in; default: the host's." example:"\"/var/lib/pentrough/readings\""`
	Env          map[string]transports.Secret `toml:"env" doc:"Environment that it has beside the little of the host's." example:"{ API_TOKEN = \"${API_TOKEN}\" }"`
	Config       map[string]any               `toml:"config" doc:"The program's own settings, as it describes them." example:"{ threshold = 20 }"`
	Window       int                          `toml:"window" doc:"Messages that it has at a time; it may say that it takes fewer." min:"1" max:"10000"`
	WindowBytes  int                          `toml:"window_bytes" doc:"Bytes of these messages together; a larger one goes alone." unit:"bytes" min:"1024"`
	MaxLine      int                          `toml:"max_line" doc:"The longest line that it may write, and so about the largest response." unit:"bytes" min:"65536" max:"1073741824"`
	Timeout      time.Duration                `toml:"timeout" doc:"How long it may take for a message." min:"1ms"`
	Grace        time.Duration                `toml:"grace" doc:"How long after timeout it may still answer before it is killed." min:"1ms"`
	StartTimeout time.Duration                `toml:"start_timeout" doc:"How long it may take to be ready." min:"1ms"`
	Memory       int                          `toml:"memory" doc:"How much it may have in memory, with its children: the resident set, looked at every second, on Linux. 0: no limit." unit:"bytes" min:"0"`
	Crashes      int                          `toml:"crashes" doc:"How many times it may end with one message alone in it before that message is the cause." min:"1"`
	RestartMax   time.Duration                `toml:"restart_max" doc:"The longest wait before it is started again; the first is none, the second up to 100 ms, and each up to twice the one before." min:"100ms"`
	Destinations []handlers.TopicRef          `toml:"destinations" doc:"Topics beside the pipeline's that it may send to." example:"[\"broker:alarms\"]"`
}

var defaults = Config{
	Window: 64, WindowBytes: 16 << 20, MaxLine: 4 << 20, Timeout: 30 * time.Second, Grace: 2 * time.Second, StartTimeout: 10 * time.Second, Crashes: 3,
	RestartMax: 30 * time.Second,
}

// Validate reports all problems.
func (c *Config) Validate() error {
	var errs []error
	invalid := func(field, format string, args ...any) { errs = append(errs, handlers.Invalid(field, format, args...)) }
	if len(c.Command) == 0 || c.Command[0] == "" {
		invalid("command", "names no program, such as [\"python3\", \"plugin.py\"]")
	}
	for i, word := range c.Command {
		if strings.ContainsRune(word, 0) {
			invalid(fmt.Sprintf("command[%d]", i), "has a NUL character")
		}
	}
	for name := range c.Env {
		if name == "" || strings.ContainsAny(name, "=\x00") {
			invalid("env", "%q can't be the name of a variable", name)
		}
	}
	atLeast := func(field string, value, least int) {
		if value < least {
			invalid(field, "is %d, must be at least %d", value, least)
		}
	}
	atLeast("window", c.Window, 1)
	atLeast("window_bytes", c.WindowBytes, 1024)
	atLeast("max_line", c.MaxLine, leastMaxLine)
	atLeast("memory", c.Memory, 0)
	atLeast("crashes", c.Crashes, 1)
	for field, d := range map[string]time.Duration{"timeout": c.Timeout, "grace": c.Grace, "start_timeout": c.StartTimeout} {
		if d < time.Millisecond {
			invalid(field, "is %v, must be at least 1ms", d)
		}
	}
	if c.RestartMax < firstWait {
		invalid("restart_max", "is %v, must be at least %v", c.RestartMax, firstWait)
	}
	if _, err := c.settings(); err != nil {
		invalid("config", "%v", err)
	}
	return errors.Join(errs...)
}

// settings is the program's config as JSON.
func (c *Config) settings() (json.RawMessage, error) {
	if len(c.Config) == 0 {
		return json.RawMessage("{}"), nil
	}
	return json.Marshal(c.Config)
}

// New builds the handler.
func (c *Config) New(env handlers.Env) (handlers.Handler, error) {
	settings, err := c.settings()
	if err != nil {
		return nil, fmt.Errorf("config: %w", err)
	}
	for _, to := range c.Destinations {
		if _, err := env.Publisher(to); err != nil {
			return nil, err
		}
	}
	return newHandler(*c, settings, env)
}

// Outside implements handlers.Outsider.
func (*Config) Outside() string { return "a process" }

// Check implements handlers.Checker.
func (c *Config) Check(context.Context) []transports.Check {
	check := transports.Check{Part: "command " + c.Command[0]}
	path, err := c.program()
	if err != nil {
		check.Err, check.Next = err, "give the program's whole path, or a name that PATH of the host leads to"
	} else if err := c.noFolder(); err != nil {
		check.Err, check.Next = err, "make the folder, or say another dir"
	} else {
		check.Found = "the program is " + path
	}
	return []transports.Check{check}
}

// CheckSettings implements handlers.SettingsChecker.
func (c *Config) CheckSettings(ctx context.Context, env handlers.Env) error {
	if _, err := c.program(); err != nil {
		return err
	}
	settings, err := c.settings()
	if err != nil {
		return handlers.Invalid("config", "%v", err)
	}
	h, err := newHandler(*c, settings, env)
	if err != nil {
		return err
	}
	err = h.Start(ctx)
	if closeErr := h.Close(); closeErr != nil && err == nil {
		err = closeErr
	}
	if err != nil {
		return handlers.Invalid("config", "%v", err)
	}
	return nil
}

// program is the path of the program.
func (c *Config) program() (string, error) {
	name := c.Command[0]
	if c.Dir != "" && strings.ContainsRune(name, filepath.Separator) && !filepath.IsAbs(name) {
		name = filepath.Join(c.Dir, name)
	}
	path, err := exec.LookPath(name)
	if errors.Is(err, exec.ErrDot) {
		return "", fmt.Errorf("%q was found in the working folder, by a relative or empty element of PATH: take it out of PATH, or say ./%s", name, name)
	}
	if err != nil {
		return "", err
	}
	return filepath.Abs(path)
}

// noFolder says why the program can't run in its folder, nil if it can.
func (c *Config) noFolder() error {
	if c.Dir == "" {
		return nil
	}
	info, err := os.Stat(c.Dir)
	if err == nil && !info.IsDir() {
		err = fmt.Errorf("%s isn't a folder", c.Dir)
	}
	if err != nil {
		return fmt.Errorf("dir: %w", err)
	}
	return nil
}

// whyNot says what the system's error means when it can't start the program: the same few words stand for several things.
func (c *Config) whyNot(path string, err error) error {
	if err == nil {
		return nil
	}
	if folder := c.noFolder(); folder != nil {
		return folder
	}
	switch {
	case errors.Is(err, syscall.ENOEXEC):
		return fmt.Errorf("%s is nothing that can be run: a script begins with #! and its interpreter, and a binary has to be built for %s/%s: %w", path, runtime.GOOS, runtime.GOARCH, err)
	case errors.Is(err, fs.ErrNotExist):
		if interpreter := interpreterOf(path); interpreter != "" {
			return fmt.Errorf("the interpreter that %s names in its first line isn't there: %q: %w", path, interpreter, err)
		}
	}
	return err
}

// interpreterOf is what a script says behind #!; empty if the file is no script.
func interpreterOf(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	first := make([]byte, 256)
	n, _ := io.ReadFull(f, first) // what is there is enough
	line, _, _ := bytes.Cut(first[:n], []byte("\n"))
	if rest, ok := bytes.CutPrefix(line, []byte("#!")); ok {
		return strings.Trim(string(rest), " \t")
	}
	return ""
}

// inherited are the variables that a plugin has of the host.
var inherited = []string{"PATH", "HOME", "USER", "LOGNAME", "LANG", "TZ", "TMPDIR"}

// environment is what the program runs with.
func (c *Config) environment() []string {
	var env []string
	for _, e := range os.Environ() {
		if name, _, _ := strings.Cut(e, "="); slices.Contains(inherited, name) || strings.HasPrefix(name, "LC_") {
			env = append(env, e)
		}
	}
	for name, value := range c.Env {
		env = append(env, name+"="+string(value))
	}
	return append(env, "PENTROUGH_PLUGIN=1")
}
