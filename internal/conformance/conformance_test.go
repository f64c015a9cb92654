package conformance

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pentrough/pentrough/handlers/serve"
	_ "github.com/pentrough/pentrough/internal/conformance/echo"
	"github.com/pentrough/pentrough/internal/testenv/await"
)

// plugins are the plugins that this test program can be. The first argument is the name.
var plugins = map[string]func(mistake string){"raw": runRawEcho, "serve": serve.Main}

func TestMain(m *testing.M) {
	if len(os.Args) == 3 {
		if run, ok := plugins[os.Args[1]]; ok {
			run(os.Args[2])
		}
	}
	await.Main(m)
}

// subject returns this test program as a plugin.
func subject(t *testing.T, plugin, mistake string) Subject {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	// Without this setting, the race detector lets a program sleep for a second before it exits.
	return Subject{Command: []string{self, plugin, mistake}, Env: []string{"GORACE=atexit_sleep_ms=0"}, Message: []byte("open"), Echo: true, Patience: await.Patience}
}

// pythonPath returns the path of the interpreter. If python3 is a script that looks for it, the
// script runs once here, and not for each process of a test.
func pythonPath(t *testing.T) string {
	python, err := exec.Command("python3", "-c", "import sys; print(sys.executable)").Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(python))
}

// The example of the protocol page follows the page.
func TestThePagesExample(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../docs/process-protocol.md")
	if err != nil {
		t.Fatal(err)
	}
	_, text, _ := strings.Cut(string(page), "```python\n")
	text, _, ok := strings.Cut(text, "```")
	if !ok {
		t.Fatal("the page has no example in Python")
	}
	path := filepath.Join(t.TempDir(), "upper.py")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	subject := Subject{Command: []string{pythonPath(t), "-S", path}, Message: []byte("open"), Patience: await.Patience}
	if err := Run(t.Context(), subject, func(r Result) {
		if r.Failure != nil {
			t.Errorf("%s: %s\n  %s\n  %s", r.Name, r.Failure.What, r.Failure.Rule, strings.Join(r.Failure.Exchange, "\n  "))
		}
	}); err != nil {
		t.Fatal(err)
	}
}

// The SDK for Python follows the protocol page.
func TestPython(t *testing.T) {
	t.Parallel()
	python := pythonPath(t)
	// In a folder of its own, the module is compiled once, too. The SDK doesn't need what `site`
	// adds.
	folder := t.TempDir()
	if err := os.CopyFS(folder, os.DirFS("../scaffold/python")); err != nil {
		t.Fatal(err)
	}
	passes(t, Subject{
		Command: []string{python, "-S", filepath.Join(folder, "echo.py")}, Message: []byte("open"), Echo: true, Patience: await.Patience,
	})
}

func TestPageHasTheRules(t *testing.T) {
	text, err := os.ReadFile("../../docs/process-protocol.md")
	if err != nil {
		t.Fatal(err)
	}
	page := strings.Join(strings.Fields(string(text)), " ")
	source, err := os.ReadFile("rules.go")
	if err != nil {
		t.Fatal(err)
	}
	rules := 0
	for line := range strings.Lines(string(source)) {
		_, rule, ok := strings.Cut(line, `= "`)
		if !ok {
			continue
		}
		rules++
		if rule = strings.TrimSuffix(strings.TrimSpace(rule), `"`); !strings.Contains(page, rule) {
			t.Errorf("the page doesn't say: %s", rule)
		}
	}
	if rules < 30 {
		t.Errorf("%d rules were read", rules)
	}
}

func TestChecksHaveUniqueNames(t *testing.T) {
	seen := map[string]bool{}
	for _, c := range Checks() {
		if seen[c.Name] || c.About == "" || c.Rule == "" {
			t.Errorf("%q: %q %q", c.Name, c.About, c.Rule)
		}
		seen[c.Name] = true
	}
	general := 0
	s := Subject{Command: []string{"/nowhere/plugin"}}
	if err := Run(t.Context(), s, func(r Result) {
		general++
		if r.Echo || r.Failure == nil && r.Skipped == "" {
			t.Errorf("%s of a program that isn't there", r.Name)
		}
	}); err != nil || general != len(generalChecks()) {
		t.Errorf("%d checks of any plugin ran: %v", general, err)
	}
}

func TestPluginThatFollowsThePagePasses(t *testing.T) {
	t.Parallel()
	passes(t, subject(t, "raw", ""))
}

// The Go SDK follows the protocol page.
func TestTheGoSDKPasses(t *testing.T) {
	t.Parallel()
	passes(t, subject(t, "serve", "echo"))
}

func passes(t *testing.T, s Subject) {
	t.Helper()
	ran := 0
	if err := Run(t.Context(), s, func(r Result) {
		ran++
		if r.Skipped != "" {
			t.Errorf("%s was skipped: %s", r.Name, r.Skipped)
		}
		if r.Failure != nil {
			t.Errorf("%s: %s\n  %s\n  %s", r.Name, r.Failure.What, r.Failure.Rule, strings.Join(r.Failure.Exchange, "\n  "))
		}
	}); err != nil {
		t.Fatal(err)
	}
	if ran != len(Checks()) {
		t.Errorf("%d of %d checks ran", ran, len(Checks()))
	}
}

// Each mistake must be found by its check, and reported with the rule that it violates.
func TestMistakesAreFound(t *testing.T) {
	t.Parallel()
	cases := []struct{ mistake, check, rule string }{
		{"ready first", "start", ruleFirst},
		{"never ready", "start", ruleStart},
		{"no name", "start", ruleName},
		{"a window of nothing", "start", ruleWindow},
		{"no line feed", "start", ruleLine},
		{"a schema that isn't one", "schema", ruleSchema},
		{"a schema that the config doesn't fit", "schema", ruleSchema},
		{"takes any version", "versions", ruleRefuse},
		{"minds unknown types", "unknown", ruleUnknown},
		{"takes blank lines amiss", "spelling", ruleNothing},
		{"responds twice", "responses", ruleOnce},
		{"forgets a response", "responses", ruleOnce},
		{"numbers are floats", "responses", ruleIDs},
		{"needs a payload", "bytes", ruleBytes},
		{"both payloads", "responses", ruleBoth},
		{"metadata that aren't strings", "responses", ruleMessage},
		{"no pong", "ping", rulePing},
		{"pong of another id", "ping", rulePing},
		{"a late cancel breaks it", "late-cancel", ruleCancel},
		{"drained too early", "drain-working", ruleDrain},
		{"leaves without drained", "drain", ruleDrain},
		{"stays after drained", "drain", ruleDrain},
		{"outlives its standard input", "end", ruleEnd},
		{"fails at the end", "end", ruleEnd},
		{"overlooks broken lines", "broken-lines", ruleBroken},
		{"status 0 for broken lines", "broken-lines", ruleBroken},
		{"says nothing of broken lines", "broken-lines", ruleBroken},
		{"takes lines of any length", "long-lines", ruleBroken},
		{"counts the line feed", "long-lines", ruleMaxLine},
		{"only one feature", "echo-hello", ruleEchoHello},
		{"takes any config", "config", ruleProblems},
		{"problems without keys", "config", ruleProblems},
		{"spoils bytes", "echo", ruleBytes},
		{"base64 without padding", "echo", ruleBytes},
		{"loses metadata", "echo", ruleMessage},
		{"half a surrogate pair", "echo", ruleBoth},
		{"always one message", "messages", ruleMessages},
		{"errors of one kind", "errors", ruleError},
		{"one after the other", "order", ruleWindow},
		{"doesn't act on cancel", "cancel", ruleDeadline},
		{"no response to what is cancelled", "cancel", ruleDeadline},
		{"knows no deadline", "deadline", ruleEcho},
		{"responses of any length", "too-long", ruleHostLine},
		{"a level of its own", "log", ruleLog},
		{"prints to standard output", "stdout", ruleLine},
	}
	// Some mistakes show only as silence. Their checks wait at the same time.
	results := make([]Result, len(cases))
	var work sync.WaitGroup
	free := make(chan struct{}, 16)
	for i, c := range cases {
		at := slices.IndexFunc(Checks(), func(o Check) bool { return o.Name == c.check })
		if at < 0 {
			t.Fatalf("there is no check %q", c.check)
		}
		s := subject(t, "raw", c.mistake)
		s.Config = map[string]any{}
		free <- struct{}{}
		work.Go(func() {
			results[i] = patiently(t.Context(), s, Checks()[at], c.rule)
			<-free
		})
	}
	work.Wait()
	for i, c := range cases {
		t.Run(c.mistake, func(t *testing.T) {
			r := results[i]
			if r.Failure == nil {
				t.Fatalf("%s passed", c.check)
			}
			if r.Failure.Rule != c.rule {
				t.Errorf("it says %q by the rule %q, not %q\n  %s", r.Failure.What, r.Failure.Rule, c.rule, strings.Join(r.Failure.Exchange, "\n  "))
			}
			if len(r.Failure.Exchange) == 0 {
				t.Error("the failure has no exchange")
			}
		})
	}
}

// patiently runs a check that should fail by this rule. A plugin that stays silent fails only when
// the patience is over, so the patience begins small. It grows if a busy machine may be the reason
// for another result: one that took as long as the patience.
func patiently(ctx context.Context, s Subject, c Check, rule string) Result {
	for s.Patience = 2 * time.Second; ; s.Patience *= 3 {
		begun := time.Now()
		r := s.try(ctx, c)
		if r.Failure != nil && r.Failure.Rule == rule || time.Since(begun) < s.Patience || s.Patience > await.Patience {
			return r
		}
	}
}

// A refused config is reported once, and not by each check.
func TestRefusedConfig(t *testing.T) {
	s := subject(t, "raw", "")
	s.Config = map[string]any{"limit": -1}
	ran := 0
	err := Run(t.Context(), s, func(r Result) {
		ran++
		if r.Failure == nil || !strings.HasPrefix(r.Failure.What, "it refuses the config: limit: ") {
			t.Errorf("%s: %+v", r.Name, r.Failure)
		}
	})
	if ran != 1 || !errors.Is(err, ErrConfig) {
		t.Errorf("%d checks ran: %v", ran, err)
	}
}

func TestNothingToCheck(t *testing.T) {
	if err := Run(t.Context(), Subject{}, func(Result) {}); err == nil {
		t.Error("no command was checked")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := Run(ctx, subject(t, "raw", "never ready"), func(Result) { t.Error("told of a check that was given up") }); err == nil {
		t.Error("it went on without its context")
	}
}
