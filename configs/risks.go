package configs

import (
	"maps"
	"slices"
	"strings"

	"github.com/pentrough/pentrough/internal/database"
	"github.com/pentrough/pentrough/internal/plugin"
	"github.com/pentrough/pentrough/internal/tracing"
	"github.com/pentrough/pentrough/transports"
)

// risks warns about connections that others could read or change.
func (b *builder) risks(tree map[string]any, f *file) {
	b.insecure("", tree)
	configs := map[string]any{} // by path: a table may be used twice
	for name, t := range f.transports {
		configs[plugin.Join("transport", name)] = t.config
	}
	for _, inst := range b.decoder.Instances {
		configs[inst.Path] = inst.Config
	}
	for _, path := range slices.Sorted(maps.Keys(configs)) {
		if c, ok := configs[path].(transports.Risky); ok {
			b.warnOf(path, c.Risks())
		}
	}
	// URLs with another scheme are refused elsewhere.
	if f.store.Type == postgresStore && strings.HasPrefix(string(f.store.URL), postgresStore) {
		b.warnOf(storeSection, map[string]string{"url": database.Risk(string(f.store.URL))})
	}
	if u, err := tracing.ParseEndpoint(f.tracing.Endpoint); err == nil && u.Scheme == "http" && !transports.Loopback(u.Hostname()) && len(f.tracing.Headers) > 0 {
		b.warnOf(tracingSection, map[string]string{"headers": "the headers are sent in the clear, because the endpoint isn't https and isn't on a loopback address"})
	}
}

// warnOf warns about the risks of a table.
func (b *builder) warnOf(path string, risks map[string]string) {
	for _, key := range slices.Sorted(maps.Keys(risks)) {
		if risks[key] != "" {
			b.warn(path+"."+key, "%s", b.decoder.Redact(risks[key]))
		}
	}
}

// insecure warns about each tls.insecure below a path.
func (b *builder) insecure(path string, v any) {
	switch v := v.(type) {
	case map[string]any:
		for _, key := range slices.Sorted(maps.Keys(v)) {
			at := plugin.Join(path, key)
			if tls, ok := v[key].(map[string]any); ok && key == "tls" && tls["insecure"] == true {
				b.warn(at+".insecure", "the server's certificate isn't checked: others in the network can read and change everything, including passwords")
			}
			b.insecure(at, v[key])
		}
	case []any:
		for i := range v {
			b.insecure(plugin.Index(path, i), v[i])
		}
	}
}
