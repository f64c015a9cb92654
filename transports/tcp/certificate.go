package tcp

import (
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"slices"

	"github.com/pentrough/pentrough/transports/device"
)

// The values of identity.certificate.
const (
	nameCN  = "cn"
	nameDNS = "san-dns"
	nameURI = "san-uri"
)

var errCertificate = errors.New("the device's certificate doesn't name the device")

// certificateNames returns the names of one kind that a certificate has.
func certificateNames(cert *x509.Certificate, kind string) (names []string) {
	switch kind {
	case nameDNS:
		return cert.DNSNames
	case nameURI:
		for _, u := range cert.URIs {
			names = append(names, u.String())
		}
	default:
		for _, n := range cert.Subject.Names {
			if n.Type.Equal(asn1.ObjectIdentifier{2, 5, 4, 3}) {
				names = append(names, fmt.Sprint(n.Value))
			}
		}
	}
	return names
}

// certificateName returns the device's name for identity.by = "certificate".
func (c *conn) certificateName() (string, error) {
	return deviceOf(c.certificate(), c.transport.config.certificateKind())
}

func deviceOf(cert *x509.Certificate, kind string) (string, error) {
	names := certificateNames(cert, kind)
	if len(names) != 1 {
		return "", fmt.Errorf("%w: the certificate of %q has %d names of the kind %s, and must have one", errCertificate, cert.Subject, len(names), kind)
	}
	if err := device.CheckName(names[0]); err != nil {
		return "", fmt.Errorf("%w: the certificate of %q: %w", errCertificate, cert.Subject, err)
	}
	return names[0], nil
}

// certificateKind returns the setting identity.certificate or its default.
func (c *Config) certificateKind() string {
	if c.Identity.Certificate == "" {
		return nameCN
	}
	return c.Identity.Certificate
}

// checkName returns an error if name, which the peer has, isn't that of the device.
func (c *conn) checkName(name string) error {
	if c.target != nil && name != c.target.device {
		return fmt.Errorf("the device at %s is %q, and not %q", c.target.addr, name, c.target.device)
	}
	return c.checkCertificate(name)
}

// checkCertificate returns an error if the device's certificate must have the name under which the
// device wants a session, and hasn't. It must if identity.certificate is set. With auth, each
// certificate that is shown must.
func (c *conn) checkCertificate(name string) error {
	config := &c.transport.config
	cert := c.certificate()
	if config.identifiedBy() == byCertificate || config.Identity.Certificate == "" && (cert == nil || !c.needsToken()) {
		return nil
	}
	if names := certificateNames(cert, config.certificateKind()); !slices.Contains(names, name) {
		return fmt.Errorf("%w: the device is %q, and the certificate's names of the kind %s are %q", errCertificate, name, config.certificateKind(), names)
	}
	return nil
}
