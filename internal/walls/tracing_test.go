package walls

import (
	"slices"
	"strings"
	"testing"
)

// Few packages make spans with OpenTelemetry's API. One package exports them. Nothing is set for
// the whole process.
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
				machinery = machinery || isWithin(i, m)
			}
			switch {
			case i == "go.opentelemetry.io/otel":
				t.Errorf("%s imports %s, which is one for the whole process", p.pathInModule(), i)
			case machinery && !slices.Contains(exports, p.pathInModule()), !slices.Contains(spans, p.pathInModule()):
				t.Errorf("%s imports %s", p.pathInModule(), i)
			}
		}
	}
	if found == 0 {
		t.Error("nothing imports OpenTelemetry")
	}
}
