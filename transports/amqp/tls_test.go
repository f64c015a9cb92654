package amqp

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/pentrough/pentrough/internal/testenv"
	"github.com/pentrough/pentrough/transports"
)

func TestTLS(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	ca, client := authority(t, dir)
	url := testenv.Broker(t).VHost(t)
	secure := encrypted(t, url, ca)
	for name, c := range map[string]struct {
		tls transports.TLS
		err string
	}{
		"right":          {transports.TLS{CA: filepath.Join(dir, "ca.pem"), Cert: client.cert, Key: client.key}, ""},
		"unchecked":      {transports.TLS{Insecure: true, Cert: client.cert, Key: client.key}, ""},
		"system's own":   {transports.TLS{Cert: client.cert, Key: client.key}, "unknown authority"},
		"other name":     {transports.TLS{CA: filepath.Join(dir, "ca.pem"), ServerName: "other", Cert: client.cert, Key: client.key}, "match other"},
		"no certificate": {transports.TLS{CA: filepath.Join(dir, "ca.pem")}, "certificate required"},
		"no such file":   {transports.TLS{CA: filepath.Join(dir, "none.pem")}, "none.pem"},
	} {
		t.Run(name, func(t *testing.T) {
			r := start(t, config(secure, func(config *Config) { config.TLS = &c.tls }))
			if c.err != "" {
				r.sick("publisher connection", c.err)
				return
			}
			if err := r.publish("t", outgoing("one")); err != nil {
				t.Fatal(err)
			}
			next(t, r.subscribe(t.Context(), "t")).Ack()
		})
	}
}

type pair struct {
	tls       tls.Certificate
	cert, key string
}

// authority creates a certificate authority, a certificate for 127.0.0.1 that it has signed, and
// files with both.
func authority(t *testing.T, dir string) (server *tls.Config, client pair) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotAfter: time.Now().Add(time.Hour), NotBefore: time.Now().Add(-time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	keyPEM := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})
	client = pair{cert: filepath.Join(dir, "ca.pem"), key: filepath.Join(dir, "key.pem")}
	for name, data := range map[string][]byte{client.cert: certPEM, client.key: keyPEM} {
		if err := os.WriteFile(name, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if client.tls, err = tls.X509KeyPair(certPEM, keyPEM); err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(certPEM)
	return &tls.Config{Certificates: []tls.Certificate{client.tls}, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert}, client
}

// encrypted starts a TLS listener in front of the broker.
func encrypted(t *testing.T, url string, c *tls.Config) string {
	t.Helper()
	uri, err := amqp.ParseURI(url)
	if err != nil {
		t.Fatal(err)
	}
	target := net.JoinHostPort(uri.Host, strconv.Itoa(uri.Port))
	l, err := tls.Listen("tcp", "127.0.0.1:0", c)
	if err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	running.Go(func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			running.Go(func() {
				defer in.Close()
				if in.(*tls.Conn).Handshake() != nil {
					return
				}
				out, err := net.Dial("tcp", target)
				if err != nil {
					return
				}
				running.Go(func() {
					defer in.Close()
					defer out.Close()
					_, _ = io.Copy(in, out)
				})
				_, _ = io.Copy(out, in)
				out.Close()
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		running.Wait()
	})
	return strings.Replace(strings.Replace(url, target, l.Addr().String(), 1), "amqp://", "amqps://", 1)
}
