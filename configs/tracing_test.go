package configs

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pentrough/pentrough/transports"
)

func TestTracing(t *testing.T) {
	for text, want := range map[string]Tracing{
		``:                         {},
		"[tracing]\nendpoint = ''": {},
		"[tracing]\nendpoint = '${EMPTY:-}'\nsample = 0.5": {},
		"[tracing]\nendpoint = 'http://127.0.0.1:4318'":    {Endpoint: "http://127.0.0.1:4318", Sample: 1, Service: "pentrough"},
		"[tracing]\nendpoint = 'http://[::1]:4318'\nsample = 0\nservice = 'x'\nheaders.a-key = '${PASSWORD}'": {
			Endpoint: "http://[::1]:4318", Service: "x", Headers: map[string]transports.Secret{"a-key": "hunter2"},
		},
	} {
		if diff := cmp.Diff(want, parse(t, text).Tracing); diff != "" {
			t.Errorf("%q:\n%s", text, diff)
		}
	}
}
