package tcp

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/pires/go-proxyproto"
	"golang.org/x/sys/unix"

	"github.com/pentrough/pentrough/internal/listen"
)

// A load balancer hides the address of a device. So it begins the connection with a PROXY header,
// which has that address. The specification is
// https://www.haproxy.org/download/3.2/doc/proxy-protocol.txt.
//
// The library parses a whole header. This file finds the header's end: it peeks at the bytes in
// the kernel and then takes only those of the header. The bytes that follow, frames or a TLS
// handshake, are then read as on a connection without a header.

const (
	// maxHeaderV1 is the longest header of version 1, including its CR LF.
	maxHeaderV1 = 107
	// maxHeaderV2 is the longest header of version 2 that the host takes. The specification says
	// that 536 bytes should suffice; a header with a client's TLS certificate is longer.
	maxHeaderV2 = readSize
	// prefixV2 is the size of the fixed part of a header of version 2. Its last two bytes are the
	// length of the rest.
	prefixV2 = 16
	// peekSize is how many bytes are read at once. Most headers have at most 107.
	peekSize = 256
)

// prefixV1 is how a header of version 1 begins.
var prefixV1 = []byte("PROXY ")

var (
	errHealthCheck = errors.New("it is a health check of a balancer")
	// errForbiddenHeader is the error for a PROXY header that doesn't come from a balancer.
	errForbiddenHeader = &listen.Refusal{Reason: refusedHeader, Err: errors.New("it begins with a PROXY header, and its address isn't in proxy_protocol.from")}
	errSecondHeader    = &listen.Refusal{Reason: refusedHeader, Err: errors.New("a second PROXY header follows the first")}
)

type proxyProtocol struct {
	From    []network     `toml:"from" required:"true" doc:"Networks of the balancers. Each connection from there must begin with a PROXY header, version 1 or 2. A PROXY header from elsewhere is refused." example:"[\"10.0.0.5/32\"]"`
	Timeout time.Duration `toml:"timeout" doc:"How long the header may take to arrive." min:"10ms" example:"\"5s\""`
}

// SetDefaults sets the defaults of the table.
func (p *proxyProtocol) SetDefaults() { p.Timeout = 5 * time.Second }

func (c *Config) balancers() []netip.Prefix {
	if c.ProxyProtocol == nil {
		return nil
	}
	return prefixes(c.ProxyProtocol.From)
}

// readHeader reads the PROXY header of a connection from a balancer, and records the device's
// address. It returns errHealthCheck if no device is behind the connection.
func (c *conn) readHeader() error {
	if !c.isBalanced() {
		return nil
	}
	header, err := c.takeHeader()
	if err == nil {
		var parsed *proxyproto.Header
		parsed, err = proxyproto.Read(bufio.NewReaderSize(bytes.NewReader(header), len(header)))
		if err == nil {
			return c.useHeader(parsed)
		}
	}
	switch {
	case c.timedOut.Load():
		err = errFirstFrameLate
	case errors.Is(err, os.ErrDeadlineExceeded):
		err = fmt.Errorf("it wasn't complete within proxy_protocol.timeout, %s", c.transport.config.ProxyProtocol.Timeout)
	case len(header) == 0 && !errors.Is(err, net.ErrClosed):
		return errHealthCheck // it has closed the connection without sending anything
	}
	return &listen.Refusal{Reason: refusedHeader, Err: fmt.Errorf("reading the PROXY header %.100q: %w", header, err)}
}

// useHeader records the device's address.
func (c *conn) useHeader(h *proxyproto.Header) error {
	if h.Command.IsLocal() {
		return errHealthCheck
	}
	source, _, ok := h.TCPAddrs()
	if !ok {
		return &listen.Refusal{Reason: refusedHeader, Err: fmt.Errorf("the PROXY header has no TCP address, but %s", h.SourceAddr)}
	}
	if source.AddrPort().Addr().Unmap() == c.balancer() {
		return errHealthCheck // with version 1, haproxy marks its health checks only like this
	}
	return c.link.SetSource(source)
}

// takeHeader reads the bytes of a header, and no others. After an error it returns what it has.
func (c *conn) takeHeader() (header []byte, err error) {
	if err := c.socket.SetReadDeadline(time.Now().Add(c.transport.config.ProxyProtocol.Timeout)); err != nil {
		return nil, err
	}
	buffer := make([]byte, peekSize)
	for {
		n, err := c.recv(buffer, unix.MSG_PEEK)
		if err != nil {
			return header, err
		}
		before := len(header)
		header = append(header, buffer[:n]...)
		size, err := headerSize(header)
		if err != nil {
			return header, err
		}
		if size > 0 {
			header = header[:size]
		}
		if _, err := c.recv(buffer[:len(header)-before], 0); err != nil {
			return header, err
		}
		if size > 0 {
			return header, c.socket.SetReadDeadline(time.Time{})
		}
	}
}

// recv waits until there are bytes and receives them. At the end of the stream, it returns io.EOF.
func (c *conn) recv(p []byte, flags int) (n int, err error) {
	failed := c.raw.Read(func(fd uintptr) bool {
		for {
			n, _, err = unix.Recvfrom(int(fd), p, flags)
			if err != unix.EINTR {
				return err != unix.EAGAIN
			}
		}
	})
	switch {
	case failed != nil:
		return 0, failed
	case err != nil:
		return 0, os.NewSyscallError("recv", err)
	case n == 0:
		return 0, io.EOF
	}
	return n, nil
}

// headerSize returns the size of the PROXY header with which p begins. It returns 0 if p ends
// within the header.
func headerSize(p []byte) (int, error) {
	switch {
	case matches(p, proxyproto.SIGV2):
		if len(p) < prefixV2 {
			return 0, nil
		}
		size := prefixV2 + int(p[14])<<8 + int(p[15])
		switch {
		case size > maxHeaderV2:
			return 0, fmt.Errorf("it has %d bytes; at most %d are allowed", size, maxHeaderV2)
		case size > len(p):
			return 0, nil
		}
		return size, nil
	case matches(p, prefixV1):
		if end := bytes.IndexByte(p[:min(len(p), maxHeaderV1)], '\n'); end >= 0 {
			return end + 1, nil
		}
		if len(p) >= maxHeaderV1 {
			return 0, fmt.Errorf("its first %d bytes have no end of line", maxHeaderV1)
		}
		return 0, nil
	}
	return 0, fmt.Errorf("%w; the balancer needs a setting such as send-proxy-v2", proxyproto.ErrNoProxyProtocol)
}

// matches reports whether p begins with prefix, or is the beginning of prefix.
func matches(p, prefix []byte) bool {
	n := min(len(p), len(prefix))
	return bytes.Equal(p[:n], prefix[:n])
}

// balancer returns the address at the other end of the socket.
func (c *conn) balancer() netip.Addr {
	return c.socket.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap()
}

// isBalanced reports whether the connection comes from a balancer.
func (c *conn) isBalanced() bool {
	return c.target == nil && listen.Contains(c.transport.balancers, c.balancer())
}

// checkForHeader returns an error if p, the first bytes of a device, begins with a PROXY header. A
// sender sends its header as a whole, so p has at least the header's prefix.
func (c *conn) checkForHeader(p []byte) error {
	switch {
	case c.target != nil, !bytes.HasPrefix(p, prefixV1) && !bytes.HasPrefix(p, proxyproto.SIGV2):
		return nil
	case c.isBalanced():
		return errSecondHeader
	}
	return errForbiddenHeader
}

// isHeaderError reports whether a device's PROXY header is the cause of err.
func isHeaderError(err error) bool {
	return errors.Is(err, errForbiddenHeader) || errors.Is(err, errSecondHeader)
}
