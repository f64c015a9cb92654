package tcp

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"testing"
	"time"

	"github.com/pentrough/pentrough/internal/testenv/await"
	"github.com/pentrough/pentrough/internal/testenv/certs"
	"github.com/pentrough/pentrough/transports"
)

// overTLS says that the connections of the tests use TLS. TestMain runs all tests twice.
var overTLS bool

// pki has the certificates of the tests.
var pki struct {
	folder string
	ca     *certs.Authority
	server certs.Pair
}

func makeCertificates() (err error) {
	if pki.folder, err = os.MkdirTemp("", "pentrough-tcp-"); err != nil {
		return err
	}
	if pki.ca, err = certs.New(pki.folder, "ca"); err != nil {
		return err
	}
	pki.server, err = pki.ca.Issue("server", nil)
	return err
}

// runTwice runs the tests over plain TCP and then over TLS.
func runTwice(m *testing.M) (code int) {
	if err := makeCertificates(); err != nil {
		fmt.Fprintln(os.Stderr, "making certificates:", err)
		return 1
	}
	defer os.RemoveAll(pki.folder)
	if code = await.Run(m); code != 0 {
		return code
	}
	fmt.Println("the same tests over TLS:")
	overTLS = true
	return await.Run(m)
}

// serverTLS returns the table tls of a transport.
func serverTLS() *tlsSettings {
	return &tlsSettings{ServerTLS: transports.ServerTLS{Cert: pki.server.Cert, Key: pki.server.Key}}
}

// clientTLS returns the settings of a device.
func clientTLS() *tls.Config {
	roots := x509.NewCertPool()
	roots.AddCert(pki.ca.TLS.Leaf)
	return &tls.Config{RootCAs: roots, ServerName: "127.0.0.1"}
}

// secure returns the device's end of a connection: conn itself, or TLS above it.
func secure(conn net.Conn) net.Conn {
	if !overTLS {
		return conn
	}
	c := tls.Client(conn, clientTLS())
	_ = conn.SetDeadline(time.Now().Add(await.Patience))
	_ = c.Handshake() // the first read or write has the error, too
	_ = conn.SetDeadline(time.Time{})
	return c
}

// socketOf returns the socket of a device's end.
func socketOf(conn net.Conn) *net.TCPConn {
	if c, ok := conn.(*tls.Conn); ok {
		conn = c.NetConn()
	}
	return conn.(*net.TCPConn)
}

// closeWrite closes the sending side of a device's end.
func closeWrite(conn net.Conn) error {
	if c, ok := conn.(*tls.Conn); ok {
		_ = c.CloseWrite() // it fails before the end of the handshake
	}
	return socketOf(conn).CloseWrite()
}

// reset closes the connection with a reset.
func (p *peer) reset() {
	p.Helper()
	socket := socketOf(p.Conn)
	if err := socket.SetLinger(0); err != nil {
		p.Fatal(err)
	}
	socket.Close()
}
