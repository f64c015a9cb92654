package tcp

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pentrough/pentrough/internal/testenv/await"
	"github.com/pentrough/pentrough/internal/testenv/certs"
	"github.com/pentrough/pentrough/transports/device"
)

// onlyTLS skips a test of TLS in the run over plain TCP.
func onlyTLS(t *testing.T) {
	t.Helper()
	if !overTLS {
		t.Skip("it runs in the run over TLS")
	}
}

// dialTLS dials with settings of its own.
func (s *server) dialTLS(change func(*tls.Config)) *peer {
	s.Helper()
	conn, err := net.Dial("tcp", s.addr)
	if err != nil {
		s.Fatal(err)
	}
	c := clientTLS()
	change(c)
	return newPeer(s.T, tls.Client(conn, c), nil)
}

func issue(t *testing.T, ca *certs.Authority, name string, change func(*x509.Certificate)) tls.Certificate {
	t.Helper()
	p, err := ca.Issue(name, change)
	if err != nil {
		t.Fatal(err)
	}
	return p.TLS
}

// mutual makes the host require certificates of devices.
func mutual(c *Config) { c.TLS.ClientCA = pki.ca.Cert }

// shows returns settings of a device with a certificate.
func shows(cert tls.Certificate) func(*tls.Config) {
	return func(c *tls.Config) {
		// With Certificates, the device would show only a certificate that the host accepts.
		c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &cert, nil }
	}
}

// Each device that the host refuses is logged and counted with its reason, sees why if TLS can say
// it, and keeps no other device out.
func TestRefusedHandshakes(t *testing.T) {
	onlyTLS(t)
	other, err := certs.New(t.TempDir(), "other")
	if err != nil {
		t.Fatal(err)
	}
	expired := issue(t, pki.ca, "expired", func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) })
	nameless := issue(t, pki.ca, "nameless", func(c *x509.Certificate) { c.Subject = pkix.Name{Organization: []string{"x"}} })
	twice := issue(t, pki.ca, "twice", func(c *x509.Certificate) { c.DNSNames = []string{"a", "b"} })
	long := issue(t, pki.ca, "long", func(c *x509.Certificate) { c.Subject.CommonName = strings.Repeat("x", 300) })
	good := issue(t, pki.ca, "door", func(c *x509.Certificate) { c.DNSNames = []string{"door"} })
	byCert := func(c *Config) { mutual(c); c.Identity.By = byCertificate }
	raw := func(text string) func(*server) *peer {
		return func(s *server) *peer {
			conn, err := net.Dial("tcp", s.addr)
			p := newPeer(s.T, conn, err)
			p.say(text)
			return p
		}
	}
	encrypted := func(change func(*tls.Config)) func(*server) *peer {
		return func(s *server) *peer { return s.dialTLS(change) }
	}
	for _, c := range []struct {
		name, logged, sees, reason string
		change                     func(*Config)
		dial                       func(*server) *peer
	}{
		{"plain text", `the device doesn't speak TLS; its first bytes are \"hello\"`, "", refusedHandshake, nil, raw("hello there\r\n")},
		{"an HTTP request", `its first bytes are \"GET /\"`, "", refusedHandshake, nil, raw("GET / HTTP/1.1\r\n\r\n")},
		{"an endless hello", "the TLS handshake didn't end within identity.timeout", "", refusedHandshake,
			func(c *Config) { c.Identity.Timeout = 50 * time.Millisecond }, raw("\x16\x03\x01\x10\x00\x01\x00")},
		{"silence", "the TLS handshake didn't end within identity.timeout", "", refusedHandshake,
			func(c *Config) { c.Identity.Timeout = 50 * time.Millisecond }, raw("")},
		{"a truncated hello", "the device closed the connection: EOF", "", refusedHandshake, nil, func(s *server) *peer {
			p := raw("\x16\x03\x01\x10\x00\x01\x00")(s)
			_ = closeWrite(p.Conn)
			return p
		}},
		{"a hello of a wrong length", "oversized record received", "", refusedHandshake, nil, raw("\x16\x03\x01\xff\xff\x01\x00")},
		{"too old", "client offered only unsupported versions", "protocol version not supported", refusedHandshake, nil,
			encrypted(func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS10, tls.VersionTLS11 })},
		{"older than min_version", "client offered only unsupported versions", "protocol version not supported", refusedHandshake,
			func(c *Config) { c.TLS.MinVersion = "1.3" }, encrypted(func(c *tls.Config) { c.MaxVersion = tls.VersionTLS12 })},
		{"the device doesn't trust the host", "remote error: tls: ", "unknown authority", refusedHandshake, nil,
			encrypted(func(c *tls.Config) { c.RootCAs = x509.NewCertPool() })},
		{"no certificate", noCertificate, "certificate required", refusedCertificate, mutual, encrypted(func(*tls.Config) {})},
		{"no certificate, TLS 1.2", noCertificate, "handshake failure", refusedCertificate, mutual,
			encrypted(func(c *tls.Config) { c.MaxVersion = tls.VersionTLS12 })},
		{"another authority", "unknown authority", "unknown certificate authority", refusedCertificate, mutual, encrypted(shows(issue(t, other, "stranger", nil)))},
		{"expired", "certificate has expired", "expired certificate", refusedCertificate, mutual, encrypted(shows(expired))},
		{"a wrong certificate that isn't required", "certificate has expired", "expired certificate", refusedCertificate,
			func(c *Config) { mutual(c); c.TLS.Client = clientRequest }, encrypted(shows(expired))},
		{"no name", "has 0 names of the kind cn", "EOF", refusedCertificate, byCert, encrypted(shows(nameless))},
		{"two names", "has 2 names of the kind san-dns", "EOF", refusedCertificate,
			func(c *Config) { byCert(c); c.Identity.Certificate = nameDNS }, encrypted(shows(twice))},
		{"a name that is no device's", "the certificate of", "EOF", refusedCertificate, byCert, encrypted(shows(long))},
		{"another name than the first frame's", `the device is \"window\", and the certificate's names of the kind cn are [\"door\"]`, "EOF", refusedCertificate,
			func(c *Config) { mutual(c); c.Identity.By, c.Identity.Certificate = byFirstFrame, nameCN }, func(s *server) *peer {
				p := s.dialTLS(shows(good))
				p.say("window\n")
				return p
			}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := start(t, c.change)
			p := c.dial(s)
			_, err := io.ReadAll(p.Conn)
			if errors.Is(err, os.ErrDeadlineExceeded) || c.sees != "" && c.sees != "EOF" && (err == nil || !strings.Contains(err.Error(), c.sees)) {
				t.Errorf("the device sees %v, want %q", err, c.sees)
			}
			s.logged("refusing a connection")
			s.logged(c.logged)
			await.That(t, "the refusal is counted", func() (any, bool) {
				n := s.refused(c.reason)
				return n, n == 1
			})
			// It is slow if identity.timeout is short.
			d := s.dialTLS(shows(good))
			if s.config.Identity.Timeout == await.Patience {
				_, _ = io.WriteString(d.Conn, "door\n")
				if e := s.event(); e.Type != device.Connected {
					t.Errorf("got %+v", e)
				}
			}
		})
	}
}

func TestADeviceThatSpeaksTLSToAPlainPort(t *testing.T) {
	s := start(t, func(c *Config) { c.TLS, c.Identity.By = nil, byFirstFrame })
	p := s.dialTLS(func(*tls.Config) {})
	if err := p.Conn.(*tls.Conn).Handshake(); err == nil {
		t.Error("the handshake succeeded")
	}
	s.logged(errHello.Error())
}

func TestDeviceByCertificate(t *testing.T) {
	onlyTLS(t)
	cert := issue(t, pki.ca, "by-cn", func(c *x509.Certificate) {
		c.DNSNames, c.URIs = []string{"by-dns"}, []*url.URL{{Scheme: "urn", Opaque: "by:uri"}}
	})
	for kind, name := range map[string]string{"": "by-cn", nameCN: "by-cn", nameDNS: "by-dns", nameURI: "urn:by:uri"} {
		s := start(t, func(c *Config) { mutual(c); c.Identity.By, c.Identity.Certificate = byCertificate, kind })
		d := s.dialTLS(shows(cert))
		d.say("first\n")
		s.expect(device.Connected, name, "")
		if got := s.frame(); got != "first" {
			t.Errorf("got %q", got)
		}
	}
}

// The device may close its side with close_notify, and then the end of its data is certain.
func TestTheEndOfTheStream(t *testing.T) {
	onlyTLS(t)
	for _, c := range []struct {
		name   string
		leave  func(*peer) error
		reason device.Reason
	}{
		{"close_notify", func(p *peer) error { return p.Conn.(*tls.Conn).CloseWrite() }, device.ClientClosed},
		{"close_notify and the end", func(p *peer) error { return p.Conn.Close() }, device.ClientClosed},
		{"only the end", func(p *peer) error { return socketOf(p.Conn).CloseWrite() }, device.ConnectionLost},
		{"in the middle of a record", func(p *peer) error {
			_, _ = socketOf(p.Conn).Write([]byte("\x17\x03\x03\x01\x00half"))
			return socketOf(p.Conn).CloseWrite()
		}, device.ConnectionLost},
		{"with rubbish", func(p *peer) error {
			_, err := socketOf(p.Conn).Write([]byte("\x17\x03\x03\x00\x20" + strings.Repeat("x", 32)))
			return err
		}, device.ProtocolError},
		{"with a reset", func(p *peer) error { p.reset(); return nil }, device.ConnectionLost},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := start(t, nil)
			d := s.dial()
			s.expect(device.Connected, "127.0.0.1", "")
			d.say("last\n")
			if got := s.frame(); got != "last" {
				t.Fatalf("got %q", got)
			}
			if err := c.leave(d); err != nil {
				t.Fatal(err)
			}
			s.expect(device.Disconnected, "127.0.0.1", c.reason)
		})
	}
}

// The host says with close_notify that nothing follows.
func TestTheHostClosesWithCloseNotify(t *testing.T) {
	onlyTLS(t)
	s := start(t, nil)
	d := s.dial()
	s.expect(device.Connected, "127.0.0.1", "")
	s.send("127.0.0.1", "last")
	s.dial().say("hello\n") // it replaces the session
	if got, err := io.ReadAll(d.Conn); string(got) != "last\r\n" || err != nil {
		t.Errorf("got %q, %v", got, err) // without close_notify the error is io.ErrUnexpectedEOF
	}
}

// A device that has sent close_notify still gets its commands with half_close.
func TestHalfCloseByCloseNotify(t *testing.T) {
	onlyTLS(t)
	s := start(t, func(c *Config) { c.HalfClose = true })
	d := s.dial()
	s.expect(device.Connected, "127.0.0.1", "")
	d.say("x\n")
	if err := d.Conn.(*tls.Conn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	s.frame()
	if w := s.send("127.0.0.1", "go"); w.Fate != device.Sent {
		t.Errorf("got %+v", w)
	}
	d.hear("go\r\n")
}

// Handshakes wait for devices without keeping others from computing.
func TestSlowHandshakesHoldUpNobody(t *testing.T) {
	onlyTLS(t)
	s := start(t, func(c *Config) { c.TLS.Handshakes = 1 })
	for range 5 {
		conn, err := net.Dial("tcp", s.addr)
		newPeer(t, conn, err).say("\x16\x03\x01\x10\x00\x01")
	}
	s.dial()
	s.expect(device.Connected, "127.0.0.1", "")
}

func TestSessionTickets(t *testing.T) {
	onlyTLS(t)
	for _, tickets := range []bool{false, true} {
		s := start(t, func(c *Config) { c.TLS.SessionTickets = tickets })
		cache := tls.NewLRUClientSessionCache(1)
		for _, resumed := range []bool{false, tickets} {
			d := s.dialTLS(func(c *tls.Config) { c.ClientSessionCache = cache })
			d.say("x\n")
			s.frame()
			s.send("127.0.0.1", "x")
			d.hear("x\r\n") // the ticket comes before it
			if got := d.Conn.(*tls.Conn).ConnectionState().DidResume; got != resumed {
				t.Errorf("with tickets %v, the session is resumed: %v", tickets, got)
			}
		}
	}
}

// New files are used without a restart. Files that are wrong change nothing.
func TestCertificatesAreReadAgain(t *testing.T) {
	onlyTLS(t)
	folder := t.TempDir()
	ca, err := certs.New(folder, "own-ca")
	if err != nil {
		t.Fatal(err)
	}
	pair, err := ca.Issue("host", nil)
	if err != nil {
		t.Fatal(err)
	}
	s := start(t, func(c *Config) {
		c.TLS.Cert, c.TLS.Key, c.TLS.ClientCA, c.TLS.Client = pair.Cert, pair.Key, ca.Cert, clientRequest
	})
	serial := func() string {
		conn, err := tls.Dial("tcp", s.addr, &tls.Config{InsecureSkipVerify: true})
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		return conn.ConnectionState().PeerCertificates[0].SerialNumber.String()
	}
	old := serial()
	if _, err := ca.Issue("host", nil); err != nil {
		t.Fatal(err)
	}
	s.logged("the TLS files have changed")
	renewed := serial()
	if renewed == old {
		t.Error("the certificate is still the old one")
	}
	for _, file := range []string{ca.Cert, pair.Key, pair.Cert} {
		if err := os.WriteFile(file, []byte("broken"), 0o600); err != nil {
			t.Fatal(err)
		}
		s.reloadTLS(s.tls)
		s.logged("reading the TLS files again; the ones from before stay in use")
		if h := s.Health()[0]; h.Err != nil || !strings.Contains(h.Note, "can't be used; the ones from before stay in use") {
			t.Errorf("%s: %+v", file, h)
		}
		if serial() != renewed {
			t.Errorf("%s: the certificate has changed", file)
		}
	}
}

func TestAnExpiredCertificateIsNoted(t *testing.T) {
	onlyTLS(t)
	p, err := pki.ca.Issue("short", func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) })
	if err != nil {
		t.Fatal(err)
	}
	expired := func(c *Config) { c.TLS.Cert, c.TLS.Key = p.Cert, p.Key }
	c := testConfig()
	expired(c)
	if err, risk := c.Validate(), c.Risks()["tls.cert"]; err != nil || !strings.Contains(risk, "expired at") {
		t.Errorf("got %v, and the risk %q", err, risk)
	}
	if check := c.Check(t.Context(), env(io.Discard), nil)[0]; check.Err == nil || !strings.Contains(check.Err.Error(), "expired at") {
		t.Errorf("got %+v", check)
	}
	s := start(t, expired)
	if h := s.Health()[0]; h.Err != nil || !strings.Contains(h.Note, "the TLS certificate has expired at ") {
		t.Errorf("got %+v", h)
	}
}

func TestValidateTLS(t *testing.T) {
	onlyTLS(t)
	text := filepath.Join(t.TempDir(), "text")
	if err := os.WriteFile(text, []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}
	absent := text + ".absent"
	other, err := certs.New(t.TempDir(), "other")
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		change func(*Config)
		want   string
	}{
		{func(*Config) {}, ""},
		{mutual, ""},
		{func(c *Config) { c.TLS.Cert = absent }, "tls.cert: open " + absent},
		{func(c *Config) { c.TLS.Key = absent }, "tls.key: open " + absent},
		{func(c *Config) { c.TLS.Key = other.Key }, "tls.cert: reading tls.cert " + pki.server.Cert + " with tls.key " + other.Key},
		{func(c *Config) { c.TLS.Cert = text }, "tls.cert: reading tls.cert " + text},
		{func(c *Config) { c.TLS.ClientCA = absent }, "tls.client_ca: open " + absent},
		{func(c *Config) { c.TLS.ClientCA = text }, "tls.client_ca: reading tls.client_ca: " + text + " has no PEM certificate"},
		{func(c *Config) { c.TLS.Client = clientRequire }, `tls.client: "require" needs client_ca`},
		{func(c *Config) { mutual(c); c.TLS.Client = clientNone }, "tls.client_ca: isn't used"},
		{func(c *Config) { c.Identity.By = byCertificate }, "identity.by: needs a certificate of each device"},
		{func(c *Config) {
			mutual(c)
			c.TLS.Client = clientRequest
			c.Identity.By, c.Identity.Certificate = byFirstFrame, nameCN
		}, "identity.certificate: needs a certificate of each device"},
		{func(c *Config) { c.TLS, c.Identity.By = nil, byCertificate }, "identity.by: needs a certificate of each device"},
	} {
		c := testConfig()
		tt.change(c)
		if err := c.Validate(); (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("got %v, want %q", err, tt.want)
		}
	}
}

// TLS's own answers can't fill the memory.
func TestAnswersOfTLSAreBounded(t *testing.T) {
	w := &wire{}
	answer := bytes.Repeat([]byte("x"), 1000)
	for i := 0; ; i++ {
		if _, err := w.Write(answer); errors.Is(err, errUnsent) {
			return
		} else if err != nil || i > 2*maxUnsent/len(answer) {
			t.Fatal(fmt.Sprint("after ", i, " answers: ", err))
		}
	}
}

// A protocol can read the certificate that the host has verified.
func TestAProtocolSeesTheCertificate(t *testing.T) {
	onlyTLS(t)
	door := issue(t, pki.ca, "door", nil)
	for name, c := range map[string]struct {
		change func(*Config)
		dial   func(*tls.Config)
		want   string
	}{
		"required":      {func(c *Config) { mutual(c); c.Identity.By = byCertificate }, shows(door), "door"},
		"shown":         {func(c *Config) { mutual(c); c.TLS.Client = clientRequest }, shows(door), "door"},
		"not shown":     {func(c *Config) { mutual(c); c.TLS.Client = clientRequest }, func(*tls.Config) {}, "nobody"},
		"not asked for": {nil, shows(door), "nobody"},
	} {
		t.Run(name, func(t *testing.T) {
			s := start(t, func(config *Config) {
				config.Framing, config.Protocol = nil, talkConfig{}
				if c.change != nil {
					c.change(config)
				}
			})
			p := s.dialTLS(c.dial)
			p.say("login door\r\n")
			p.hear("welcome\r\n")
			p.say("who\r\n")
			p.hear(c.want + "\r\n")
		})
	}
}
