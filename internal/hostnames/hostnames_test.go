package hostnames

import (
	nethttp "net/http"
	"net/http/httptest"
	"os"
	"testing"
)

func TestNames(t *testing.T) {
	machine, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	n := New("gateway.internal:8222", "Proxy.example.com", "dotted.example.com.")
	for host, want := range map[string]bool{
		"localhost": true, "LOCALHOST:8222": true, "localhost.": true, machine + ":1": true,
		"gateway.internal:8222": true, "proxy.example.com": true, "dotted.example.com:80": true,
		"127.0.0.1:8222": true, "10.1.2.3": true, "[::1]:8222": true, "[fe80::1]": true, "::1": true,
		"": true, ":8222": false, "rebound.example.com": false, "localhost.example.com:8222": false, "127.0.0.1.example.com": false,
		"example.com": false, "127.1": false, "0x7f000001": false, "2130706433:8222": false, "localhost@example.com": false,
	} {
		if n.Allow(host) != want {
			t.Errorf("Host %q is allowed: %v", host, !want)
		}
	}
	if every := New(":8222"); every.Allow(":8222") {
		t.Error("an empty name is allowed")
	}
}

func TestForeignOrigin(t *testing.T) {
	for _, method := range []string{nethttp.MethodGet, nethttp.MethodHead, nethttp.MethodPost} {
		for _, c := range []struct {
			header, value string
			foreign       bool
		}{
			{"Accept", "*/*", false},
			{"Sec-Fetch-Site", "none", false},
			{"Sec-Fetch-Site", "same-origin", false},
			{"Sec-Fetch-Site", "same-site", true},
			{"Sec-Fetch-Site", "cross-site", true},
			{"Origin", "http://host.example.com", false},
			{"Origin", "http://other.example.com", true},
			{"Origin", "null", true},
		} {
			r := httptest.NewRequestWithContext(t.Context(), method, "http://host.example.com/", nil)
			r.Header.Set(c.header, c.value)
			if err := ForeignOrigin(r); (err != nil) != c.foreign {
				t.Errorf("%s with %s %s: %v", method, c.header, c.value, err)
			}
			if r.Method != method {
				t.Error("the request is changed")
			}
		}
	}
}
