package httprequest

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pentrough/pentrough/handlers"
	"github.com/pentrough/pentrough/handlers/handlertest"
	"github.com/pentrough/pentrough/transports"
)

func TestValidate(t *testing.T) {
	for _, c := range []struct {
		name   string
		url    string
		change func(*Config)
		says   string
	}{
		{"no url", "", nil, "url: is missing"},
		{"no URL", "http://a b", nil, "url: isn't an http or https URL"},
		{"a URL whose port is a password", "http://user:hunter2/x@hooks.example.com", nil, "url: isn't an http or https URL"},
		{"no scheme", "hooks.example.com/orders", nil, "url: isn't an http or https URL"},
		{"another scheme", "ftp://hooks.example.com", nil, "url: isn't an http or https URL"},
		{"no host", "http:///orders", nil, "url: isn't an http or https URL"},
		{"method", "http://a", func(c *Config) { c.Method = "post" }, `method: is "post", must be one of POST, `},
		{"a header's name", "http://a", func(c *Config) { c.Headers = map[string]transports.Secret{"X Y": "1"} }, `headers: "X Y" can't be a header's name`},
		{"a header's value", "http://a", func(c *Config) { c.Headers = map[string]transports.Secret{"X-Y": "hidden\n"} }, `headers: the value of "X-Y" has a line end`},
		{"a reserved header", "http://a", func(c *Config) { c.Headers = map[string]transports.Secret{"host": "b"} }, `headers: "host" is a header that the host sets itself`},
		{"a forwarded header", "http://a", func(c *Config) { c.Forward = map[string]string{"Content-Length": "n", "X": ""} }, `forward: "X" names no metadata`},
		{"timeout", "http://a", func(c *Config) { c.Timeout = 0 }, "timeout: is 0s"},
		{"connections", "http://a", func(c *Config) { c.Connections = 0 }, "connections: is 0"},
		{"output", "http://a", func(c *Config) { c.Output = "" }, "output: is "},
		{"max_response", "http://a", func(c *Config) { c.MaxResponse = 0 }, "max_response: is 0"},
		{"on_outage", "http://a", func(c *Config) { c.OnOutage = "drop" }, `on_outage: is "drop"`},
		{"outage_status", "http://a", func(c *Config) { c.OutageStatus = []int{503, 200} }, "outage_status: 200 is not from 400 to 599"},
		{"allow", "http://a", func(c *Config) { c.Allow = []string{"a", "*.b"} }, `allow[1]: "*.b" is neither a host`},
		{"redirects", "http://a", func(c *Config) { c.Redirects = -1 }, "redirects: is -1"},
		{"tls", "http://a", func(c *Config) { c.TLS = &transports.TLS{Cert: "a.pem"} }, "tls: cert and key belong together"},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := with(c.url, c.change).Validate()
			if err == nil || !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), "hidden") {
				t.Errorf("%v, want %s", err, c.says)
			}
		})
	}
	if err := with("https://user:password@hooks.example.com/a?b#c", nil).Validate(); err != nil {
		t.Error(err)
	}
}

// write writes PEM blocks to a new file.
func write(t *testing.T, blocks ...*pem.Block) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "x.pem")
	var all []byte
	for _, b := range blocks {
		all = append(all, pem.EncodeToMemory(b)...)
	}
	if err := os.WriteFile(name, all, 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestTLS(t *testing.T) {
	certificates := make(chan int, 1)
	secure := func(auth tls.ClientAuthType) *httptest.Server {
		e := httptest.NewUnstartedServer(answering(200, "reached"))
		e.TLS = &tls.Config{ClientAuth: auth, VerifyConnection: func(s tls.ConnectionState) error {
			certificates <- len(s.PeerCertificates)
			return nil
		}}
		e.StartTLS()
		t.Cleanup(e.Close)
		return e
	}
	open := secure(tls.RequestClientCert)
	own := open.TLS.Certificates[0]
	key, err := x509.MarshalPKCS8PrivateKey(own.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	ca := write(t, &pem.Block{Type: "CERTIFICATE", Bytes: open.Certificate().Raw})
	keyFile := write(t, &pem.Block{Type: "PRIVATE KEY", Bytes: key})
	for _, c := range []struct {
		name  string
		tls   *transports.TLS
		fails string
		given int
	}{
		{"not an authority that the system knows", nil, "certificate", 0},
		{"its authority", &transports.TLS{CA: ca}, "", 0},
		{"unchecked", &transports.TLS{Insecure: true}, "", 0},
		{"by another name", &transports.TLS{CA: ca, ServerName: "example.com"}, "", 0},
		{"by a wrong name", &transports.TLS{CA: ca, ServerName: "example.org"}, "example.org", 0},
		{"with a certificate of the host's own", &transports.TLS{CA: ca, Cert: ca, Key: keyFile}, "", 1},
		{"with one that isn't there", &transports.TLS{CA: ca, Cert: "nowhere.pem", Key: keyFile}, "reading tls.cert: open nowhere.pem", 0},
		{"authorities that aren't there", &transports.TLS{CA: "nowhere.pem"}, "reading tls.ca: open nowhere.pem", 0},
		{"authorities that are none", &transports.TLS{CA: keyFile}, "has no PEM certificate", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			out, err := call(t, with(open.URL, func(config *Config) { config.TLS = c.tls }))
			if c.fails != "" {
				expect(t, err, handlers.KindUnavailable, 0, "", open.URL, c.fails)
				select {
				case <-certificates: // the server accepted the certificate
				default:
				}
				return
			}
			if err != nil || string(out[0].Payload) != "reached" {
				t.Fatalf("%v, %v", out, err)
			}
			if n := <-certificates; n != c.given {
				t.Errorf("%d certificates were given", n)
			}
		})
	}
}

func TestFromHTTPSToHTTP(t *testing.T) {
	e := serve(t, answering(200, "reached"))
	secure := httptest.NewTLSServer(leading(307, e.URL+"/next"))
	t.Cleanup(secure.Close)
	_, err := call(t, with(secure.URL, func(c *Config) { c.TLS = &transports.TLS{Insecure: true} }))
	expect(t, err, handlers.KindPermanent, 0, secure.URL+" answered 307", "it leads from https to http")
}

// The error about missing certificate files is returned each time, until the files exist.
func TestAuthoritiesThatComeLater(t *testing.T) {
	secure := httptest.NewTLSServer(answering(200, "reached"))
	t.Cleanup(secure.Close)
	ca := filepath.Join(t.TempDir(), "ca.pem")
	h := build(t, with(secure.URL, func(c *Config) { c.TLS = &transports.TLS{CA: ca} }))
	for range 2 {
		_, err := handlertest.Handle(t.Context(), h, order())
		expect(t, err, handlers.KindUnavailable, 0, "calling "+secure.URL+": reading tls.ca: open ")
	}
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: secure.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := handlertest.Handle(t.Context(), h, order()); err != nil {
		t.Error(err)
	}
}
