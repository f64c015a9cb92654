package tcp

import (
	"crypto/tls"
	"fmt"
	"net"

	"github.com/pentrough/pentrough/transports"
)

// This file is TLS with devices that the host dials. The host is the client there.

// newDialTLS returns nil without TLS.
func newDialTLS(s *transports.TLS) *endpointTLS {
	if s == nil {
		return nil
	}
	files := map[string]string{}
	for setting, file := range map[string]string{"ca": s.CA, "cert": s.Cert, "key": s.Key} {
		if file != "" {
			files[setting] = file
		}
	}
	return newEndpointTLS("connect_tls", files, func() (*tls.Config, error) { return loadDialTLS(s) }, 0)
}

// loadDialTLS reads the files of the table connect_tls.
func loadDialTLS(s *transports.TLS) (*tls.Config, error) {
	c, err := s.Config()
	if err != nil {
		return nil, fmt.Errorf("connect_tls: %w", err)
	}
	c.DynamicRecordSizingDisabled = true // each call of Write makes one record: see wire.go
	if c.GetClientCertificate != nil {
		own, err := c.GetClientCertificate(nil)
		if err != nil {
			return nil, fmt.Errorf("connect_tls: %w", err)
		}
		c.Certificates = []tls.Certificate{*own}
		c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return own, nil }
	}
	return c, nil
}

// validateDialTLS returns the problems of the table connect_tls and of its files.
func (c *Config) validateDialTLS() []error {
	if c.ConnectTLS == nil {
		return nil
	}
	if c.ConnectTLS.Validate() != nil {
		return []error{transports.Invalid("connect_tls", "cert and key belong together: give both or none")}
	}
	if _, err := c.ConnectTLS.Config(); err != nil {
		return []error{transports.Invalid("connect_tls", "%v", err)}
	}
	return nil
}

// endpointTLS returns the TLS settings for the connection, or nil without TLS.
func (c *conn) endpointTLS() *endpointTLS {
	if c.target != nil {
		return c.target.dialer.tls
	}
	return c.transport.tls
}

// clientTLS returns the settings for one connection. The device's certificate must have the name
// in the device's address, unless server_name is set.
func (g *target) clientTLS() *tls.Config {
	c := g.dialer.tls.current.Load()
	if c.ServerName != "" {
		return c
	}
	c = c.Clone()
	c.ServerName, _, _ = net.SplitHostPort(g.addr) // it was checked
	return c
}

// tlsSides returns the TLS settings of the transport.
func (t *transport) tlsSides() (sides []*endpointTLS) {
	if t.tls != nil {
		sides = append(sides, t.tls)
	}
	if t.dialer != nil && t.dialer.tls != nil {
		sides = append(sides, t.dialer.tls)
	}
	return sides
}
