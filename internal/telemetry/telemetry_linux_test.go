package telemetry

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

func TestLevel(t *testing.T) {
	var out bytes.Buffer
	log, err := NewLogger(&out, Config{Level: slog.LevelWarn, Format: "json"})
	if err != nil {
		t.Fatal(err)
	}
	log.Info("hidden")
	log.Warn("shown", "err", errors.New("cut"))
	var entry map[string]any
	if err := json.Unmarshal(out.Bytes(), &entry); err != nil {
		t.Fatalf("%s: %v", out.String(), err)
	}
	if entry["msg"] != "shown" || entry["level"] != "WARN" || entry["err"] != "cut" || entry["time"] == nil {
		t.Errorf("logged %v", entry)
	}
}

func TestText(t *testing.T) {
	var out bytes.Buffer
	log, err := NewLogger(&out, Config{})
	if err != nil {
		t.Fatal(err)
	}
	log.Info("listening", "addr", ":1")
	if got := out.String(); !strings.HasPrefix(got, "time=") || !strings.HasSuffix(got, "level=INFO msg=listening addr=:1\n") {
		t.Errorf("logged %s", got)
	}
}

func TestBadFormat(t *testing.T) {
	if _, err := NewLogger(&bytes.Buffer{}, Config{Format: "xml"}); err == nil {
		t.Error("the format xml makes a logger")
	}
}

func TestJournalStampsLines(t *testing.T) {
	file, err := os.Create(filepath.Join(t.TempDir(), "journal"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	info, err := file.Stat()
	if err != nil {
		t.Fatal(err)
	}
	stat := info.Sys().(*syscall.Stat_t)
	for stream, want := range map[string]bool{
		"": false, "1:1": false, fmt.Sprintf("%d:%d", stat.Dev, stat.Ino): true,
	} {
		t.Setenv("JOURNAL_STREAM", stream)
		if got := isJournal(file); got != want {
			t.Errorf("JOURNAL_STREAM=%s: journal %v, want %v", stream, got, want)
		}
	}
	if isJournal(&bytes.Buffer{}) {
		t.Error("a buffer is the journal")
	}

	var out bytes.Buffer
	log, err := newLogger(&out, Config{}, true)
	if err != nil {
		t.Fatal(err)
	}
	log.Info("a", slog.Group("g", "time", "kept"))
	if got := out.String(); got != "level=INFO msg=a g.time=kept\n" {
		t.Errorf("logged %s", got)
	}
}

func TestRegistry(t *testing.T) {
	r, err := NewRegistry("v1.2.3")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"go_goroutines", "process_open_fds", "pentrough_build_info"} {
		if n, err := testutil.GatherAndCount(r, name); err != nil || n != 1 {
			t.Errorf("%s: %d, %v", name, n, err)
		}
	}
}

func TestWatermill(t *testing.T) {
	var out bytes.Buffer
	base, err := newLogger(&out, Config{Level: slog.LevelDebug}, true)
	if err != nil {
		t.Fatal(err)
	}
	log := Watermill(base).With(watermill.LogFields{"handler": "h", "a": 1})
	log.Error("publishing", errors.New("cut"), watermill.LogFields{"topic": "x"})
	log.Info("starting", watermill.LogFields{"b": 2, "a": 3})
	log.Debug("a message", watermill.LogFields{"uuid": "1"})
	log.Trace("a message", watermill.LogFields{"uuid": "1"})
	want := "level=ERROR msg=publishing a=1 handler=h topic=x err=cut\n" +
		"level=DEBUG msg=starting a=1 handler=h a=3 b=2\n"
	if got := out.String(); got != want {
		t.Errorf("logged\n%swant\n%s", got, want)
	}

	out.Reset()
	info, err := newLogger(&out, Config{}, true)
	if err != nil {
		t.Fatal(err)
	}
	Watermill(info).Info("starting", nil)
	if out.Len() > 0 {
		t.Errorf("logged %s at level info", out.String())
	}
}
