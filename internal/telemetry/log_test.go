package telemetry

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/pentrough/pentrough/internal/printable"
)

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
