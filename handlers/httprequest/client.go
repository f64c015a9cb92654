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
	// maxHead is the largest head of an answer.
	maxHead = 64 << 10
	// idle is how long a connection is kept without a request.
	idle = 90 * time.Second
)

// client makes the connections. It is safe for concurrent use.
type client struct {
	config Config
	places places
	// resolver looks names up; nil: as the system does.
	resolver *net.Resolver

	mu sync.Mutex
	// transport is made by the first request, as the files with certificates are read for it.
	transport *nethttp.Transport
	// proxies are the addresses of proxies that the environment named.
	proxies map[string]bool
}

// get returns the transport.
func (c *client) get() (*nethttp.Transport, error) {
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
		DisableCompression: true, // the answer is passed on as it came
	}
	if c.config.Proxy {
		c.transport.Proxy = c.proxy
	}
	return c.transport, nil
}

// proxy is the environment's, which is remembered: it may have any address.
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

// dial connects. The address is looked at when its socket is there, and so after all names were looked up.
func (c *client) dial(ctx context.Context, network, address string) (net.Conn, error) {
	d := net.Dialer{Timeout: c.config.Timeout, Resolver: c.resolver}
	c.mu.Lock()
	proxy := c.proxies[address]
	c.mu.Unlock()
	if !proxy {
		d.Control = func(_, address string, _ syscall.RawConn) error { return c.places.dial(address) }
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
