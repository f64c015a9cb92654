package http

import (
	"context"
	"crypto/x509"
	"fmt"
	"time"

	"github.com/pentrough/pentrough/transports"
)

var _ transports.Checker = (*Config)(nil)

// Check implements transports.Checker. It loads the certificate, if one is configured.
func (c *Config) Check(_ context.Context, env transports.Env, _ []transports.TopicUse) []transports.Check {
	if c.TLS == nil {
		return nil
	}
	check := transports.Check{Part: "certificate", Next: "correct cert and key in the table tls"}
	loaded, err := c.certificate()
	if err != nil {
		check.Err = err
		return []transports.Check{check}
	}
	leaf, err := x509.ParseCertificate(loaded.Certificates[0].Certificate[0])
	switch {
	case err != nil:
		check.Err = fmt.Errorf("reading the certificate %s: %w", c.TLS.Cert, err)
	case env.Now().After(leaf.NotAfter):
		check.Err = fmt.Errorf("the certificate %s expired at %s", c.TLS.Cert, leaf.NotAfter.Format(time.RFC3339))
		check.Next = "replace it by a newer one"
	default:
		check.Found = fmt.Sprintf("%s is valid until %s", c.TLS.Cert, leaf.NotAfter.Format(time.DateOnly))
	}
	return []transports.Check{check}
}
