package telemetry

import (
	"bytes"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pentrough/pentrough/internal/printable"
)

// In JSON what says what it is is text, whatever Go makes of it.
func TestFieldsAreText(t *testing.T) {
	var out bytes.Buffer
	log, err := NewLogger(&out, Config{Format: "json"})
	if err != nil {
		t.Fatal(err)
	}
	log.With("after", 90*time.Second).Info("message", "pause", 1500*time.Millisecond, "peer", &net.TCPAddr{IP: net.IPv4(192, 0, 2, 7), Port: 80},
		"addr", netip.MustParseAddrPort("192.0.2.7:80"), "err", errors.New("why"), "n", 3, "ok", true, "least", slog.LevelWarn, slog.Group("in", "took", time.Minute))
	var got map[string]any
	if err := json.Unmarshal(out.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	delete(got, "time")
	want := map[string]any{
		"level": "INFO", "msg": "message", "after": "1m30s", "pause": "1.5s", "peer": "192.0.2.7:80", "addr": "192.0.2.7:80", "err": "why", "n": 3.0, "ok": true, "least": "WARN",
		"in": map[string]any{"took": "1m0s"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// Nothing that a device says reaches the terminal as a control, in either format.
func TestLogsArePrintable(t *testing.T) {
	said := "a\u009b2J\u007f\u202e\u200b\ufe0fb"
	for _, format := range []string{"text", "json"} {
		var out bytes.Buffer
		log, err := NewLogger(&out, Config{Format: format})
		if err != nil {
			t.Fatal(err)
		}
		log.Info("message", "payload", said, "name", "a\u007fb")
		line := strings.TrimSuffix(out.String(), "\n")
		if printable.Text(line) != line {
			t.Errorf("%s: %q", format, line)
		}
		var entry struct{ Payload string }
		if format == "json" && (json.Unmarshal([]byte(line), &entry) != nil || entry.Payload != said) {
			t.Errorf("%s is %q", line, entry.Payload)
		}
	}
}
