package transports

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// writePair writes a certificate for example.com that ends at a time, and its key.
func writePair(t *testing.T, until time.Time) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: until.Add(-48 * time.Hour), NotAfter: until, DNSNames: []string{"example.com"},
		IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalECPrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	folder := t.TempDir()
	cert, key = filepath.Join(folder, "cert.pem"), filepath.Join(folder, "key.pem")
	for path, block := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "EC PRIVATE KEY", Bytes: keyDER}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return cert, key
}

func TestTLSFiles(t *testing.T) {
	cert, key := writePair(t, time.Now().Add(time.Hour))
	expired, _ := writePair(t, time.Now().Add(-time.Hour))
	_, other := writePair(t, time.Now().Add(time.Hour))
	absent := filepath.Join(t.TempDir(), "absent.pem")
	text := filepath.Join(t.TempDir(), "text")
	if err := os.WriteFile(text, []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}
	client := func(c TLS) func() (*tls.Config, error) { return c.Config }
	server := func(c ServerTLS) func() (*tls.Config, error) { return c.Config }
	for name, c := range map[string]struct {
		config func() (*tls.Config, error)
		err    string
		absent bool
	}{
		"no table":                      {(*TLS)(nil).Config, "", false},
		"an empty table":                {client(TLS{}), "", false},
		"all":                           {client(TLS{CA: cert, Cert: cert, Key: key, ServerName: "example.com"}), "", false},
		"expired authority":             {client(TLS{CA: expired}), "", false},
		"missing authority":             {client(TLS{CA: absent}), "reading tls.ca: open " + absent, true},
		"authority isn't PEM":           {client(TLS{CA: text}), "reading tls.ca: " + text + " has no PEM certificate", false},
		"authority is a key":            {client(TLS{CA: key}), "reading tls.ca: " + key + " has no PEM certificate", false},
		"missing certificate":           {client(TLS{Cert: absent, Key: key}), "reading tls.cert: open " + absent, true},
		"missing key":                   {client(TLS{Cert: cert, Key: absent}), "reading tls.key: open " + absent, true},
		"another's key":                 {client(TLS{Cert: cert, Key: other}), "reading tls.cert " + cert + " with tls.key " + other + ": ", false},
		"certificate isn't PEM":         {client(TLS{Cert: text, Key: key}), "in certificate input", false},
		"key isn't PEM":                 {client(TLS{Cert: cert, Key: text}), "in key input", false},
		"server":                        {server(ServerTLS{Cert: cert, Key: key}), "", false},
		"server, missing certificate":   {server(ServerTLS{Cert: absent, Key: key}), "reading tls.cert: open " + absent, true},
		"server, missing key":           {server(ServerTLS{Cert: cert, Key: absent}), "reading tls.key: open " + absent, true},
		"server, another's key":         {server(ServerTLS{Cert: cert, Key: other}), "reading tls.cert " + cert + " with tls.key " + other + ": ", false},
		"server, certificate isn't PEM": {server(ServerTLS{Cert: text, Key: key}), "reading tls.cert " + text, false},
	} {
		got, err := c.config()
		switch {
		case c.err == "" && (err != nil || got.MinVersion != tls.VersionTLS12):
			t.Errorf("%s: %+v, %v", name, got, err)
		case c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err) || errors.Is(err, fs.ErrNotExist) != c.absent):
			t.Errorf("%s: %v, want %s", name, err, c.err)
		}
	}
}

func TestTLSHandshakes(t *testing.T) {
	cert, key := writePair(t, time.Now().Add(time.Hour))
	expiredCert, expiredKey := writePair(t, time.Now().Add(-time.Hour))
	for name, c := range map[string]struct {
		cert, key string
		client    TLS
		err       string
	}{
		"checked":                {cert, key, TLS{CA: cert, ServerName: "example.com"}, ""},
		"another name":           {cert, key, TLS{CA: cert, ServerName: "example.org"}, "example.org"},
		"another authority":      {cert, key, TLS{CA: expiredCert, ServerName: "example.com"}, "unknown authority"},
		"expired":                {expiredCert, expiredKey, TLS{CA: expiredCert, ServerName: "example.com"}, "expired"},
		"expired, but unchecked": {expiredCert, expiredKey, TLS{Insecure: true}, ""},
	} {
		server, err := (&ServerTLS{Cert: c.cert, Key: c.key}).Config()
		if err != nil {
			t.Fatal(err)
		}
		client, err := c.client.Config()
		if err != nil {
			t.Fatal(err)
		}
		if err := shake(t, server, client); (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%s: %v, want %q", name, err, c.err)
		}
	}
}

// A renewed certificate counts from the next connection on.
func TestTLSReadsACertificateAgain(t *testing.T) {
	cert, key := writePair(t, time.Now().Add(time.Hour))
	c, err := (&TLS{Cert: cert, Key: key}).Config()
	if err != nil {
		t.Fatal(err)
	}
	before, err := c.GetClientCertificate(nil)
	if err != nil {
		t.Fatal(err)
	}
	newCert, newKey := writePair(t, time.Now().Add(time.Hour))
	for from, to := range map[string]string{newCert: cert, newKey: key} {
		if err := os.Rename(from, to); err != nil {
			t.Fatal(err)
		}
	}
	after, err := c.GetClientCertificate(nil)
	if err != nil || string(after.Certificate[0]) == string(before.Certificate[0]) {
		t.Errorf("the certificate is still the old one, %v", err)
	}
}

func TestTLSValidate(t *testing.T) {
	for _, c := range []struct {
		config *TLS
		valid  bool
	}{{nil, true}, {&TLS{}, true}, {&TLS{Cert: "a", Key: "b"}, true}, {&TLS{Cert: "a"}, false}, {&TLS{Key: "b"}, false}} {
		if err := c.config.Validate(); (err == nil) != c.valid {
			t.Errorf("%+v: %v", c.config, err)
		}
	}
}

// shake returns the client's error of a handshake over a loopback connection.
func shake(t *testing.T, server, client *tls.Config) error {
	t.Helper()
	l, err := tls.Listen("tcp", "127.0.0.1:0", server)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		if s, ok := conn.(*tls.Conn); ok {
			_ = s.HandshakeContext(t.Context()) // the client's error is the one that counts
		}
	}()
	conn, err := tls.Dial("tcp", l.Addr().String(), client)
	if err == nil {
		err = conn.Close()
	}
	l.Close()
	<-done
	return err
}
