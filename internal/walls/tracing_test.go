package walls

import (
	"slices"
	"strings"
	"testing"
)

// Spans are made with OpenTelemetry's API, in few places; what exports them is one package's, and nothing is set for the whole process.
func TestOpenTelemetryStaysWhereItBelongs(t *testing.T) {
	var (
		exports = []string{"internal/tracing", "internal/testenv"}
		spans   = append([]string{"router", "handlers", "handlers/deliver"}, exports...)
	)
	found := 0
	for _, p := range ownPackages(t, "") {
		for _, i := range p.Imports {
			if !strings.HasPrefix(i, "go.opentelemetry.io/") {
				continue
			}
			found++
			machinery := false
			for _, m := range []string{"go.opentelemetry.io/otel/sdk", "go.opentelemetry.io/otel/exporters", "go.opentelemetry.io/proto"} {
				machinery = machinery || within(i, m)
			}
			switch {
			case i == "go.opentelemetry.io/otel":
				t.Errorf("%s imports %s, which is one for the whole process", p.inside(), i)
			case machinery && !slices.Contains(exports, p.inside()), !slices.Contains(spans, p.inside()):
				t.Errorf("%s imports %s", p.inside(), i)
			}
		}
	}
	if found == 0 {
		t.Error("nothing imports OpenTelemetry")
	}
}
