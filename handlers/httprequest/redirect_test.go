package httprequest

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	nethttp "net/http"
	"strings"
	"testing"

	"github.com/pentrough/pentrough/handlers"
	"github.com/pentrough/pentrough/handlers/handlertest"
	"github.com/pentrough/pentrough/transports"
)

// leading redirects requests for the path / to the given location.
func leading(status int, location string) nethttp.HandlerFunc {
	return func(w nethttp.ResponseWriter, r *nethttp.Request) {
		if r.URL.Path != "/" {
			fmt.Fprint(w, "reached ", r.URL.Path)
			return
		}
		w.Header().Set("Location", location)
		w.WriteHeader(status)
	}
}

func TestRedirects(t *testing.T) {
	for _, c := range []struct {
		name     string
		status   int
		location string
		change   func(*Config)
		fails    string
	}{
		{"on the same host", 307, "/next", nil, ""},
		{"for good", 308, "/next", nil, ""},
		{"a GET by 302", 302, "/next", func(c *Config) { c.Method = "GET" }, ""},
		{"a POST by 301", 301, "/next", nil, "following it would turn the POST into a GET; set url to the target"},
		{"a POST by 303", 303, "/next", nil, "following it would turn the POST into a GET"},
		{"none allowed", 307, "/next", func(c *Config) { c.Redirects = 0 }, "more than 0 redirects"},
		{"around", 307, "/", nil, "more than 3 redirects"},
		{"without a place", 307, "", nil, "answered 307"},
		{"to no URL", 307, "http://a b/", nil, "it has no valid target"},
		{"to another scheme", 307, "file:///etc/passwd", nil, "it leads to no http or https URL"},
		{"to nobody", 307, "http:///next", nil, "it leads to no http or https URL"},
		{"to another host", 307, "http://127.0.0.2/next?secret", nil, "it leads to http://127.0.0.2, which isn't the host of url and not in allow"},
		{"to the cloud's metadata", 307, "http://169.254.169.254/latest", nil, "it leads to http://169.254.169.254, which"},
		{"to it in IPv6's clothes", 307, "http://[::ffff:169.254.169.254]/latest", nil, "it leads to http://169.254.169.254, which"},
		{"to a name", 307, "http://localhost/next", nil, "it leads to http://localhost, which"},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := serve(t, leading(c.status, c.location))
			out, err := call(t, with(e.URL, c.change))
			if c.fails == "" {
				if err != nil || string(out[0].Payload) != "reached /next" {
					t.Errorf("%v, %v", out, err)
				}
				return
			}
			expect(t, err, handlers.KindPermanent, 0, e.URL+" answered "+fmt.Sprint(c.status), c.fails)
			if strings.Contains(err.Error(), "secret") {
				t.Errorf("a secret in %v", err)
			}
		})
	}
}

// Another host gets the message, but not the headers and user that are configured for the hook.
func TestARedirectToAnotherHost(t *testing.T) {
	other := serveOn(t, "127.0.0.2", answering(200, "other"))
	e := serve(t, leading(308, strings.Replace(other.URL, "://", "://evil:evil@", 1)+"/x"))
	address := strings.TrimPrefix(other.URL, "http://")
	for _, allow := range [][]string{{"127.0.0.2"}, {"127.0.0.0/30"}, {address}} {
		c := with(strings.Replace(e.URL, "://", "://user:password@", 1), func(c *Config) {
			c.Allow = allow
			c.Headers = map[string]transports.Secret{"X-Api-Key": "k", "Authorization": "Bearer x", "Content-Type": "text/plain"}
		})
		out, err := call(t, c)
		if err != nil || string(out[0].Payload) != "other" {
			t.Fatalf("%q: %v, %v", allow, out, err)
		}
	}
	home := e.asked()[0].header
	if home.Get("X-Api-Key") != "k" || home.Get("Authorization") != "Bearer x" {
		t.Errorf("the hook got %v", home)
	}
	for _, seen := range other.asked() {
		h := seen.header
		if h.Get("X-Api-Key") != "" || h.Get("Authorization") != "" || h.Get("Referer") != "" || h.Get("Idempotency-Key") != "order-1" || h.Get("Content-Type") != "text/plain" || seen.body != `{"n":1}` {
			t.Errorf("the other host got %+v", seen)
		}
	}
	_, err := call(t, with(e.URL, func(c *Config) { c.Allow = []string{"127.0.0.2:1"} }))
	expect(t, err, handlers.KindPermanent, 0, e.URL+" answered 308", "not in allow")
}

// names is a DNS server with one address for every name, and a resolver that uses it.
func names(t *testing.T, address string) *net.Resolver {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		buffer := make([]byte, 1500)
		for {
			n, from, err := conn.ReadFrom(buffer)
			if err != nil {
				return
			}
			conn.WriteTo(respond(buffer[:n], net.ParseIP(address).To4()), from)
		}
	}()
	t.Cleanup(func() {
		conn.Close()
		<-done
	})
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "udp", conn.LocalAddr().String())
	}}
}

// respond returns the DNS response to a query: an address for an A record, and none for other
// types.
func respond(query []byte, address net.IP) []byte {
	end := 12
	for query[end] != 0 {
		end += int(query[end]) + 1
	}
	question := query[12 : end+5]
	isA := binary.BigEndian.Uint16(query[end+1:]) == 1
	answer := []byte{query[0], query[1], 0x85, 0x80, 0, 1, 0, 0, 0, 0, 0, 0}
	answer = append(answer, question...)
	if isA {
		answer[7] = 1
		answer = append(answer, 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4)
		answer = append(answer, address...)
	}
	return answer
}

// A name with an address that isn't public is refused, also if the address changes, and also after
// a redirect.
func TestNamesWithPrivateAddresses(t *testing.T) {
	e := serve(t, answering(200, "reached"))
	_, port, _ := net.SplitHostPort(e.Listener.Addr().String())
	named := "http://hook.example:" + port
	run := func(c *Config) (string, error) {
		h := build(t, c)
		h.client.resolver = names(t, "127.0.0.1")
		out, err := handlertest.Handle(t.Context(), h, order())
		if err != nil {
			return "", err
		}
		return string(out[0].Payload), nil
	}
	_, err := run(with(named, nil))
	expect(t, err, handlers.KindUnavailable, 0, "reaching "+named, `127.0.0.1 is not a public address; allow it with allow = ["127.0.0.1"]`)
	_, err = run(with(named, func(c *Config) { c.Allow = []string{"hook.example", "127.0.0.2", "10.0.0.0/8", "127.0.0.1:1"} }))
	expect(t, err, handlers.KindUnavailable, 0, "reaching "+named, "127.0.0.1 is not a public address")
	for _, allow := range []string{"127.0.0.1", "127.0.0.0/8", "127.0.0.1:" + port} {
		if got, err := run(with(named, func(c *Config) { c.Allow = []string{allow} })); err != nil || got != "reached" {
			t.Errorf("%s: %v, %v", allow, got, err)
		}
	}
	if n := len(e.asked()); n != 3 {
		t.Errorf("%d requests came", n)
	}
	// The URL contains the hook's address, so it is allowed on its own port. The targets of its
	// redirects aren't.
	other := serve(t, answering(200, "other"))
	_, otherPort, _ := net.SplitHostPort(other.Listener.Addr().String())
	for _, location := range []string{"http://rebound.example:" + otherPort, other.URL} {
		from := serve(t, leading(307, location))
		_, err = run(with(from.URL, func(c *Config) { c.Allow = []string{"rebound.example"} }))
		expect(t, err, handlers.KindPermanent, 0, "redirected to "+location, "127.0.0.1 is not a public address")
	}
	if len(other.asked()) != 0 {
		t.Error("another port was reached")
	}
}

func TestLocalhostIsSpelled(t *testing.T) {
	e := serve(t, answering(200, "reached"))
	_, port, _ := net.SplitHostPort(e.Listener.Addr().String())
	h := build(t, with("http://LocalHost:"+port, nil))
	h.client.resolver = names(t, "127.0.0.1")
	if _, err := handlertest.Handle(t.Context(), h, order()); err != nil {
		t.Error(err)
	}
}

func TestProxy(t *testing.T) {
	out, err := call(t, with("http://hook.example/orders", func(c *Config) { c.Proxy = true }))
	if err != nil || string(out[0].Payload) != "proxied http://hook.example/orders" {
		t.Errorf("%v, %v", out, err)
	}
	h := build(t, with("http://hook.example/orders", nil))
	h.client.resolver = names(t, "127.0.0.1")
	_, err = handlertest.Handle(t.Context(), h, order())
	expect(t, err, handlers.KindUnavailable, 0, "reaching http://hook.example", "127.0.0.1 is not a public address")
}
