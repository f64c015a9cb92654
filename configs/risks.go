package configs

import (
	"maps"
	"net/url"
	"slices"

	"github.com/pentrough/pentrough/internal/plugin"
	"github.com/pentrough/pentrough/transports"
)

// risks warns of connections that others can read or change.
func (b *builder) risks(tree map[string]any, f *file) {
	b.insecure("", plugin.Plain(tree))
	for _, name := range slices.Sorted(maps.Keys(f.transports)) {
		risks := transports.NeedsOf(f.transports[name].config).Risks
		for _, key := range slices.Sorted(maps.Keys(risks)) {
			b.warn(plugin.Join("transport", name)+"."+key, "%s", risks[key])
		}
	}
}

// insecure warns of each tls.insecure below a path, and of headers for an http URL.
func (b *builder) insecure(path string, v any) {
	switch v := v.(type) {
	case map[string]any:
		if headers, ok := v["headers"].(map[string]any); ok && len(headers) > 0 {
			for _, key := range []string{"endpoint", "url"} {
				text, _ := v[key].(string)
				if u, err := url.Parse(text); err == nil && u.Scheme == "http" && !transports.Loopback(u.Hostname()) {
					b.warn(plugin.Join(path, key), "the headers are sent in the clear, and with them what they authorize; use https://")
				}
			}
		}
		for _, key := range slices.Sorted(maps.Keys(v)) {
			at := plugin.Join(path, key)
			if tls, ok := v[key].(map[string]any); ok && key == "tls" && tls["insecure"] == true {
				b.warn(at+".insecure", "the server's certificate isn't checked: anybody on the way can read and change what is sent, passwords included")
			}
			b.insecure(at, v[key])
		}
	case []any:
		for i := range v {
			b.insecure(plugin.Index(path, i), v[i])
		}
	}
}
