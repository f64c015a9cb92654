package configs

import (
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/pentrough/pentrough/internal/plugin"
	"github.com/pentrough/pentrough/internal/tracing"
)

// headerName is a token of HTTP (RFC 9110, section 5.6.2).
var headerName = regexp.MustCompile("^[A-Za-z0-9!#$%&'*+.^_`|~-]+$")

// tracing decodes [tracing].
func (b *builder) tracing(m map[string]any, into *tracingTable) {
	b.decoder.Table(tracingSection, m, into)
	at := plugin.Join(tracingSection, "endpoint")
	const example = `"http://127.0.0.1:4318"`
	if _, given := m["endpoint"]; !given {
		b.fail(at, "missing: the collector's base URL", example+`, or "" for no tracing`, "")
	} else if into.Endpoint != "" {
		if _, err := tracing.ParseEndpoint(into.Endpoint); err != nil {
			b.fail(at, err.Error(), "http:// or https://, a host and a port, such as "+example, "")
		}
	}
	for _, name := range slices.Sorted(maps.Keys(into.Headers)) {
		at := plugin.Join(plugin.Join(tracingSection, "headers"), name)
		if !headerName.MatchString(name) {
			b.fail(at, "not a valid name of a header", "letters, digits and -", "")
		}
		if strings.ContainsFunc(string(into.Headers[name]), func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }) {
			b.fail(at, "not a valid value of a header", "text without control characters", "")
		}
	}
}
