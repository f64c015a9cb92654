package http

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pentrough/pentrough/transports"
)

// selfSigned writes a certificate that ends at a time, and its key.
func selfSigned(t *testing.T, until time.Time) *transports.ServerTLS {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: until.Add(-24 * time.Hour), NotAfter: until}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	files := &transports.ServerTLS{Cert: filepath.Join(t.TempDir(), "cert.pem"), Key: filepath.Join(t.TempDir(), "key.pem")}
	for path, block := range map[string]*pem.Block{
		files.Cert: {Type: "CERTIFICATE", Bytes: cert}, files.Key: {Type: "EC PRIVATE KEY", Bytes: private},
	} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return files
}

func TestCheckOfTheCertificate(t *testing.T) {
	end := time.Date(2030, 5, 6, 12, 0, 0, 0, time.UTC)
	files := selfSigned(t, end)
	for _, c := range []struct {
		name       string
		tls        *transports.ServerTLS
		now        time.Time
		found, err string
	}{
		{"good", files, end.Add(-time.Hour), "is valid until 2030-05-06", ""},
		{"over", files, end.Add(time.Hour), "", "expired at 2030-05-06T12:00:00Z"},
		{"another's key", &transports.ServerTLS{Cert: files.Cert, Key: selfSigned(t, end).Key}, end, "", "private key does not match public key"},
	} {
		all := (&Config{TLS: c.tls}).Check(t.Context(), transports.Env{Now: func() time.Time { return c.now }}, nil)
		if len(all) != 1 || !strings.Contains(all[0].Found, c.found) || (all[0].Err == nil) != (c.err == "") || c.err != "" && !strings.Contains(all[0].Err.Error(), c.err) {
			t.Errorf("%s: %+v", c.name, all)
		}
	}
	if all := (&Config{}).Check(t.Context(), transports.Env{}, nil); all != nil {
		t.Errorf("without TLS: %+v", all)
	}
}
