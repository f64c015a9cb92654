package transports

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"time"
)

// TLS is the table `tls` of a configuration that connects to a server. A field for it is a
// pointer: without the table it is nil, and [TLS.Config] returns the defaults.
type TLS struct {
	CA         string `toml:"ca" doc:"PEM file with the authorities that the server's certificate is checked against; default: the system's." example:"\"/etc/pentrough/ca.pem\""`
	Cert       string `toml:"cert" doc:"PEM file with the host's own certificate and its chain, if the server asks for one."`
	Key        string `toml:"key" doc:"PEM file with the key of cert."`
	ServerName string `toml:"server_name" doc:"The name that the server's certificate must have; default: the name in the server's address."`
	Insecure   bool   `toml:"insecure" doc:"Do not check the server's certificate. Anyone on the network path can then read and change everything, passwords included."`
}

// ServerTLS is the table `tls` of a configuration that listens.
type ServerTLS struct {
	Cert string `toml:"cert" doc:"PEM file with the certificate and its chain." required:"true" example:"\"server.crt\""`
	Key  string `toml:"key" doc:"PEM file with the private key." required:"true" example:"\"server.key\""`
}

// Validate returns an error for a cert without a key and for a key without a cert. It reads no
// file. nil is valid.
func (t *TLS) Validate() error {
	if t != nil && (t.Cert == "") != (t.Key == "") {
		return Invalid("tls", "cert and key belong together: give both or none")
	}
	return nil
}

// Config returns the settings of a client, with TLS 1.2 as the minimum. It reads all files; an
// error names the key and the file. The files of cert and key are read again for each connection
// whose server asks for a certificate, so that a renewed certificate is used for the next one. The
// file of ca is read only here. An expired authority is not an error here: the handshake fails.
func (t *TLS) Config() (*tls.Config, error) {
	c := newTLS()
	if t == nil {
		return c, nil
	}
	c.ServerName, c.InsecureSkipVerify = t.ServerName, t.Insecure
	if t.CA != "" {
		pem, err := os.ReadFile(t.CA)
		if err != nil {
			return nil, fmt.Errorf("reading tls.ca: %w", err)
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("reading tls.ca: %s has no PEM certificate", t.CA)
		}
	}
	if t.Cert != "" {
		pair := func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return readPair(t.Cert, t.Key) }
		if _, err := pair(nil); err != nil {
			return nil, err
		}
		c.GetClientCertificate = pair
	}
	return c, nil
}

// Config returns the settings of a server, with TLS 1.2 as the minimum. It reads both files once;
// an error names the key and the file.
func (t *ServerTLS) Config() (*tls.Config, error) {
	pair, err := readPair(t.Cert, t.Key)
	if err != nil {
		return nil, err
	}
	c := newTLS()
	c.Certificates = []tls.Certificate{*pair}
	return c, nil
}

// CheckFiles loads both files and reports until when the certificate is valid, for Checker.
func (t *ServerTLS) CheckFiles(now time.Time) Check {
	check := Check{Part: "certificate", Next: "correct cert and key in the table tls"}
	loaded, err := t.Config()
	if err != nil {
		check.Err = err
		return check
	}
	if expiry := loaded.Certificates[0].Leaf.NotAfter; now.After(expiry) {
		check.Err = fmt.Errorf("the certificate %s expired at %s", t.Cert, expiry.Format(time.RFC3339))
		check.Next = "replace it by a newer one"
	} else {
		check.Found = fmt.Sprintf("%s is valid until %s", t.Cert, expiry.Format(time.DateOnly))
	}
	return check
}

func newTLS() *tls.Config { return &tls.Config{MinVersion: tls.VersionTLS12} }

// readPair reads a certificate and its key.
func readPair(certFile, keyFile string) (*tls.Certificate, error) {
	cert, err := os.ReadFile(certFile)
	if err != nil {
		return nil, fmt.Errorf("reading tls.cert: %w", err)
	}
	key, err := os.ReadFile(keyFile)
	if err != nil {
		return nil, fmt.Errorf("reading tls.key: %w", err)
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return nil, fmt.Errorf("reading tls.cert %s with tls.key %s: %w", certFile, keyFile, err)
	}
	return &pair, nil
}
