// Package certs makes certificates for tests. Start with [New].
package certs

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// Authority signs certificates. Its own certificate is in the file Cert.
type Authority struct {
	Pair
	folder string
	leaf   *x509.Certificate
	key    *ecdsa.PrivateKey
}

// Pair is a certificate and its key, in PEM files and in memory.
type Pair struct {
	Cert, Key string
	TLS       tls.Certificate
}

// New makes an authority whose files are in a folder. name is a part of the files' names.
func New(folder, name string) (*Authority, error) {
	a := &Authority{folder: folder}
	err := a.issue(&a.Pair, name, func(c *x509.Certificate) {
		c.IsCA, c.BasicConstraintsValid, c.KeyUsage = true, true, x509.KeyUsageCertSign
	})
	a.leaf, a.key = a.TLS.Leaf, a.TLS.PrivateKey.(*ecdsa.PrivateKey)
	return a, err
}

// Issue makes a certificate for 127.0.0.1, for a server or a client. name is its common name and a
// part of the files' names. change may change it before it is signed.
func (a *Authority) Issue(name string, change func(*x509.Certificate)) (p Pair, err error) {
	err = a.issue(&p, name, change)
	return p, err
}

func (a *Authority) issue(p *Pair, name string, change func(*x509.Certificate)) error {
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		return fmt.Errorf("making a serial number: %w", err)
	}
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	if change != nil {
		change(template)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fmt.Errorf("making a key: %w", err)
	}
	parent, signer := a.leaf, a.key
	if parent == nil { // its own certificate
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		return fmt.Errorf("signing a certificate: %w", err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return fmt.Errorf("encoding a key: %w", err)
	}
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	keyPEM := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})
	p.Cert, p.Key = filepath.Join(a.folder, name+".pem"), filepath.Join(a.folder, name+".key")
	for file, data := range map[string][]byte{p.Cert: certPEM, p.Key: keyPEM} {
		if err := os.WriteFile(file, data, 0o600); err != nil {
			return fmt.Errorf("writing a certificate: %w", err)
		}
	}
	p.TLS, err = tls.X509KeyPair(certPEM, keyPEM)
	return err
}
