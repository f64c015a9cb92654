// Package process is the handler that gives the messages to a program in any language. The handler
// starts the program and exchanges lines with it over standard input and output
// (docs/process-protocol.md). A faulty program harms only its own messages.
//
// The setting `command` names the program. Each start of the program makes a new process (type
// child). Each file has one part:
//
//   - process.go: the handler, and the life of a message in it
//   - keeper.go: the keeper, which starts processes and replaces them
//   - child.go, end.go: one process, from its first request to its end
//   - window.go: which message may go to the process, and which messages are suspects
//   - wire.go, outbox.go: the lines of the protocol, and their writer
//   - report.go: what the plugin writes to the host's log
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
		Summary:     "Passes each message to a program of yours, in any language.",
		Description: description,
		Config:      func() handlers.Config { c := defaults; return &c },
	})
}

const description = "Starts the program `command` and sends it each message over its standard input and output. " +
	"[Write a handler](../write-a-handler.md) shows how to write the program with an SDK, in Go or Python. For other languages, " +
	"[the protocol](../process-protocol.md) describes the lines.\n\n" +
	"```toml\n" +
	"[pipeline.readings]\n" +
	"from       = \"broker:readings\"\n" +
	"middleware = [\"poison\", \"retry\"]\n" +
	"handler    = { type = \"process\", command = [\"python3\", \"/opt/plugins/readings.py\"], config = { threshold = 20 }, memory = 268435456 }\n" +
	"to         = \"broker:warm\"\n" +
	"```\n\n" +
	"Only the program's response settles a message. If the program fails, the host acts as follows. The kinds of errors are those of [all handlers](../delivery.md#errors-of-handlers).\n\n" +
	"| the program | the host |\n|---|---|\n" +
	"| can't be started, or refuses `config` | at its own start: prints the reason and exits. Later: isn't ready, and tries again after growing pauses of up to `restart_max` |\n" +
	"| exits, is killed, writes a line that breaks the protocol, or uses more than `memory` | starts it again, the first time at once, and sends it its messages again. No message is lost, and this doesn't count as a retry. During longer pauses, messages are *unavailable*: the pipeline pauses |\n" +
	"| ends while it has only one message, and this happens `crashes` times with the same message | treats the message as the cause, and gives it a *permanent* error |\n" +
	"| doesn't respond within `timeout` | gives the message a *retryable* error. If the response doesn't come within `grace` either, kills the program |\n\n" +
	"At `SIGHUP` the host starts the program once more. When the new process is ready, it gets all new messages. The old process responds to the messages that it has, and ends. If the new one doesn't start, the old one stays.\n\n" +
	"The program runs in a process group of its own and ends with the host. It gets the variables `PATH`, `HOME`, `USER`, `LOGNAME`, `LANG`, `LC_*`, `TZ` and `TMPDIR` of the host, and those in `env`. " +
	"It runs as the host's user, with the same rights. To take rights away on Linux, let `command` begin with a program such as `setpriv` or `bwrap`. The host logs what the program writes to standard error."

// Config is the configuration of process.
type Config struct {
	Command      []string                     `toml:"command" doc:"The program and its arguments. The program is a path, or a name that the host finds in PATH." example:"[\"python3\", \"/opt/plugins/readings.py\"]" required:"true"`
	Dir          string                       `toml:"dir" doc:"The folder that the program runs in. Default: the host's." example:"\"/var/lib/pentrough/readings\""`
	Env          map[string]transports.Secret `toml:"env" doc:"Environment variables for the program. It also gets some variables of the host, such as PATH." example:"{ API_TOKEN = \"${API_TOKEN}\" }"`
	Config       map[string]any               `toml:"config" doc:"The program's own settings. The program says which there are." example:"{ threshold = 20 }"`
	Window       int                          `toml:"window" doc:"The greatest number of messages that the program has at a time. The program may set a smaller one." min:"1" max:"10000"`
	WindowBytes  int                          `toml:"window_bytes" doc:"The greatest number of bytes that those messages have together. A larger message goes to the program alone." unit:"bytes" min:"1024"`
	MaxLine      int                          `toml:"max_line" doc:"The longest line that the program may write. It limits the size of a response." unit:"bytes" min:"65536" max:"1073741824"`
	Timeout      time.Duration                `toml:"timeout" doc:"How long the program may take for a message." min:"1ms"`
	Grace        time.Duration                `toml:"grace" doc:"How long the response may be late before the host kills the program." min:"1ms"`
	StartTimeout time.Duration                `toml:"start_timeout" doc:"How long the program may take from its start until it is ready." min:"1ms"`
	Memory       int                          `toml:"memory" doc:"The greatest resident set of the program and its children. Linux only; measured every second. 0: no limit." unit:"bytes" min:"0"`
	Crashes      int                          `toml:"crashes" doc:"If the program ends this number of times while it has only one message, each time the same message, that message gets a permanent error." min:"1"`
	RestartMax   time.Duration                `toml:"restart_max" doc:"The longest pause before a restart. The first restart has no pause. The pause before the second one is up to 100 ms, and the limit doubles from there." min:"100ms"`
	Destinations []handlers.TopicRef          `toml:"destinations" doc:"Topics that the program may send to, in addition to the pipeline's to." example:"[\"broker:alarms\"]"`
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
	atLeast("max_line", c.MaxLine, minMaxLine)
	atLeast("memory", c.Memory, 0)
	atLeast("crashes", c.Crashes, 1)
	for field, d := range map[string]time.Duration{"timeout": c.Timeout, "grace": c.Grace, "start_timeout": c.StartTimeout} {
		if d < time.Millisecond {
			invalid(field, "is %v, must be at least 1ms", d)
		}
	}
	if c.RestartMax < firstPause {
		invalid("restart_max", "is %v, must be at least %v", c.RestartMax, firstPause)
	}
	if _, err := c.settingsJSON(); err != nil {
		invalid("config", "%v", err)
	}
	return errors.Join(errs...)
}

// settingsJSON returns the program's config as JSON.
func (c *Config) settingsJSON() (json.RawMessage, error) {
	if len(c.Config) == 0 {
		return json.RawMessage("{}"), nil
	}
	return json.Marshal(c.Config)
}

// New builds the handler.
func (c *Config) New(env handlers.Env) (handlers.Handler, error) {
	settings, err := c.settingsJSON()
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
	path, err := c.findProgram()
	if err != nil {
		check.Err, check.Next = err, "write the program's absolute path, or the name of a program in the host's PATH"
	} else if err := c.checkFolder(); err != nil {
		check.Err, check.Next = err, "create the folder, or set another dir"
	} else {
		check.Found = "the program is " + path
	}
	return []transports.Check{check}
}

// CheckSettings implements handlers.SettingsChecker.
func (c *Config) CheckSettings(ctx context.Context, env handlers.Env) error {
	if _, err := c.findProgram(); err != nil {
		return err
	}
	settings, err := c.settingsJSON()
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

// findProgram returns the absolute path of the program.
func (c *Config) findProgram() (string, error) {
	name := c.Command[0]
	if c.Dir != "" && strings.ContainsRune(name, filepath.Separator) && !filepath.IsAbs(name) {
		name = filepath.Join(c.Dir, name)
	}
	path, err := exec.LookPath(name)
	if errors.Is(err, exec.ErrDot) {
		return "", fmt.Errorf("%q was found in the working folder, by a relative or empty element of PATH: remove that element, or write ./%s", name, name)
	}
	if err != nil {
		return "", err
	}
	return filepath.Abs(path)
}

// checkFolder returns an error if the program can't run in the folder dir.
func (c *Config) checkFolder() error {
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

// explainStartError adds the likely cause to err, which the system returned because it couldn't
// start the program. The system uses the same error for several causes.
func (c *Config) explainStartError(path string, err error) error {
	if err == nil {
		return nil
	}
	if folder := c.checkFolder(); folder != nil {
		return folder
	}
	switch {
	case errors.Is(err, syscall.ENOEXEC):
		return fmt.Errorf("%s can't be executed: a script must begin with #! and its interpreter, and a binary must be built for %s/%s: %w", path, runtime.GOOS, runtime.GOARCH, err)
	case errors.Is(err, fs.ErrNotExist):
		if interpreter := readInterpreter(path); interpreter != "" {
			return fmt.Errorf("the first line of %s names the interpreter %q, which doesn't exist: %w", path, interpreter, err)
		}
	}
	return err
}

// readInterpreter returns what a script names after #! in its first line, or "" if the file isn't
// a script.
func readInterpreter(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	first := make([]byte, 256)
	n, _ := io.ReadFull(f, first) // a shorter file is no error
	line, _, _ := bytes.Cut(first[:n], []byte("\n"))
	if rest, ok := bytes.CutPrefix(line, []byte("#!")); ok {
		return strings.Trim(string(rest), " \t")
	}
	return ""
}

// inheritedVariables names variables of the host's environment that the program gets. It also gets
// those whose names begin with LC_.
var inheritedVariables = []string{"PATH", "HOME", "USER", "LOGNAME", "LANG", "TZ", "TMPDIR"}

// buildEnvironment returns the environment of the program.
func (c *Config) buildEnvironment() []string {
	var env []string
	for _, e := range os.Environ() {
		if name, _, _ := strings.Cut(e, "="); slices.Contains(inheritedVariables, name) || strings.HasPrefix(name, "LC_") {
			env = append(env, e)
		}
	}
	for name, value := range c.Env {
		env = append(env, name+"="+string(value))
	}
	return append(env, "PENTROUGH_PLUGIN=1")
}
