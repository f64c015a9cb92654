package httprequest

import (
	"context"
	"net"
	nethttp "net/http"
	"net/url"
	"sync"
	"syscall"
	"time"
)

const (
	// maxHead is the largest header of an answer, in bytes.
	maxHead = 64 << 10
	// idle is how long an unused connection stays open.
	idle = 90 * time.Second
)

// client makes the connections. Before it connects, it checks the address. It is safe for
// concurrent use.
type client struct {
	config Config
	places places
	// resolver looks up names; nil: the system's resolver.
	resolver *net.Resolver

	mu sync.Mutex
	// transport is made for the first request, because that reads the certificate files.
	transport *nethttp.Transport
	// proxies has the addresses of the proxies from the environment.
	proxies map[string]bool
}

// roundTripper returns the transport, and makes it if needed.
func (c *client) roundTripper() (*nethttp.Transport, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.transport != nil {
		return c.transport, nil
	}
	encrypted, err := c.config.TLS.Config()
	if err != nil {
		return nil, err
	}
	c.transport = &nethttp.Transport{
		DialContext: c.dial, TLSClientConfig: encrypted, TLSHandshakeTimeout: c.config.Timeout, MaxResponseHeaderBytes: maxHead,
		MaxIdleConns: c.config.Connections, MaxIdleConnsPerHost: c.config.Connections, IdleConnTimeout: idle,
		DisableCompression: true, // the answer's body is passed on unchanged
	}
	if c.config.Proxy {
		c.transport.Proxy = c.proxy
	}
	return c.transport, nil
}

// proxy returns the proxy from the environment. It remembers the proxy's address, which dial
// doesn't check.
func (c *client) proxy(r *nethttp.Request) (*url.URL, error) {
	u, err := nethttp.ProxyFromEnvironment(r)
	if u == nil || err != nil {
		return u, err
	}
	port := u.Port()
	if port == "" {
		port = map[string]string{schemeHTTP: "80", schemeHTTPS: "443", "socks5": "1080", "socks5h": "1080"}[u.Scheme]
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.proxies == nil {
		c.proxies = map[string]bool{}
	}
	c.proxies[net.JoinHostPort(u.Hostname(), port)] = true
	return u, nil
}

// dial connects. It checks the address after the lookup of the name, just before the connection.
// So the checked address is the one that dial connects to, even if the name gets another address.
func (c *client) dial(ctx context.Context, network, address string) (net.Conn, error) {
	d := net.Dialer{Timeout: c.config.Timeout, Resolver: c.resolver}
	c.mu.Lock()
	proxy := c.proxies[address]
	c.mu.Unlock()
	if !proxy {
		d.Control = func(_, address string, _ syscall.RawConn) error { return c.places.checkAddress(address) }
	}
	return d.DialContext(ctx, network, address)
}

func (c *client) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.transport != nil {
		c.transport.CloseIdleConnections()
	}
}
