package tcp

import (
	"strings"
	"testing"

	"github.com/pentrough/pentrough/transports"
)

func TestValidateConnect(t *testing.T) {
	to := func(devices ...connectTo) func(*Config) {
		return func(c *Config) { c.Listen, c.TLS, c.Connect = nil, nil, devices }
	}
	with := func(change func(*Config)) func(*Config) {
		return func(c *Config) { to(connectTo{"a", "10.0.0.1:502"})(c); change(c) }
	}
	for _, tt := range []struct {
		name   string
		change func(*Config)
		want   string // "" if the configuration is right
	}{
		{"one", to(connectTo{"a", "10.0.0.1:502"}), ""},
		{"names", to(connectTo{"a", "gw.example:502"}, connectTo{"b", "[fe80::1%eth0]:502"}, connectTo{"10.0.0.9", "gw_1:2404"}), ""},
		{"both", with(func(c *Config) { c.Listen = new(":5000") }), ""},
		{"neither", func(c *Config) { c.Listen = new("") }, `listen: "" is no address to listen on`},
		{"no port", to(connectTo{"a", "10.0.0.1"}), `connect[0].addr: "10.0.0.1" isn't an address to connect to: missing port`},
		{"an empty port", to(connectTo{"a", "10.0.0.1:"}), "connect[0].addr: \"10.0.0.1:\" isn't an address to connect to: a port is a number"},
		{"port 0", to(connectTo{"a", "10.0.0.1:0"}), "a port is a number from 1 to 65535"},
		{"a high port", to(connectTo{"a", "10.0.0.1:65536"}), "a port is a number from 1 to 65535"},
		{"no host", to(connectTo{"a", ":502"}), "name one host"},
		{"every host", to(connectTo{"a", "0.0.0.0:502"}), "name one host"},
		{"a wrong host", to(connectTo{"a", "10.0.0.300:502"}), "is neither an IP address nor a host name"},
		{"a URL", to(connectTo{"a", "tcp://10.0.0.1:502"}), "isn't an address to connect to"},
		{"a name with a space", to(connectTo{"a", "the gateway:502"}), "is neither an IP address nor a host name"},
		{"a dot", to(connectTo{"a", ".:502"}), "is neither an IP address nor a host name"},
		{"no device", to(connectTo{"", "10.0.0.1:502"}), "connect[0].device: "},
		{"a wrong device", to(connectTo{"a\x01", "10.0.0.1:502"}), "connect[0].device: "},
		{"a device twice", to(connectTo{"a", "10.0.0.1:502"}, connectTo{"a", "10.0.0.2:502"}), `connect[1].device: "a" is the device of connect[0], too`},
		{"an address twice", to(connectTo{"a", "GW.example:0502"}, connectTo{"b", "gw.example.:502"}), `connect[1].addr: "gw.example.:502" is the address of connect[0], too`},
		{"an address in another form", to(connectTo{"::ffff:10.0.0.7", "10.0.0.1:502"}), `write the address "::ffff:10.0.0.7" as "10.0.0.7"`},
		{"a unit", func(c *Config) {
			to(connectTo{"dtu-17/3", "10.0.0.1:502"})(c)
			c.Framing, c.Protocol = nil, talkConfig{}
		}, `"dtu-17/3" names a unit`},
		{"fewer connections than devices", func(c *Config) {
			to(connectTo{"a", "10.0.0.1:502"}, connectTo{"b", "10.0.0.2:502"})(c)
			c.MaxConnections = 1
		}, "max_connections: 1 is less than the number of devices in connect, 2"},
		{"TLS of connections that aren't accepted", with(func(c *Config) { c.TLS = serverTLS() }), "tls: is only used with listen"},
		{"networks without listen", with(func(c *Config) { c.AllowFrom = []network{{}} }), "allow_from: is only used with listen"},
		{"TLS without connect", func(c *Config) { c.ConnectTLS = &transports.TLS{} }, "connect_tls: is only used with connect"},
		{"half a pair", with(func(c *Config) { c.ConnectTLS = &transports.TLS{Cert: "x.pem"} }), "connect_tls: cert and key belong together"},
		{"an absent file", with(func(c *Config) { c.ConnectTLS = &transports.TLS{CA: "/absent.pem"} }), "connect_tls: reading tls.ca: open /absent.pem"},
		{"certificates without TLS", with(func(c *Config) { c.Identity.By = byCertificate }), "identity.by: needs a certificate of each device: set connect_tls"},
		{"unchecked certificates", with(func(c *Config) {
			c.Identity.Certificate, c.ConnectTLS = nameCN, &transports.TLS{Insecure: true}
		}), "identity.certificate: needs a certificate of each device: set connect_tls, without insecure"},
		{"no pause", with(func(c *Config) { c.Reconnect.InitialInterval = 0 }), "reconnect.initial_interval: 0s is not more than 0s"},
		{"pauses that shrink", with(func(c *Config) { c.Reconnect.MaxInterval = 1 }), "reconnect.max_interval: 1ns is less than initial_interval"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := testConfig()
			tt.change(c)
			switch err := c.Validate(); {
			case tt.want == "" && err != nil, tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
				t.Fatalf("got %v, want %q", err, tt.want)
			}
		})
	}
}

func TestWhereTheTransportListens(t *testing.T) {
	for _, tt := range []struct {
		listen  *string
		connect int
		binds   string
		wants   int
	}{
		{nil, 0, ":8123", 0},
		{nil, 2, "", 2},
		{new(":5000"), 2, ":5000", 0},
		{new(""), 2, "", 2},
	} {
		c := defaults
		c.Listen = tt.listen
		for range tt.connect {
			c.Connect = append(c.Connect, connectTo{})
		}
		if needs := c.Needs(); needs.Binds["listen"] != tt.binds || needs.Connections != tt.wants || len(needs.Binds) == 1 != (tt.binds != "") {
			t.Errorf("%+v: %+v", tt, needs)
		}
	}
}

// A name is that of a dialed device, or the address of one that connects.
func TestNamesOfDialedDevices(t *testing.T) {
	c := defaults
	c.Connect = []connectTo{{"rtu-7", "10.0.0.1:502"}, {"10.0.0.9", "10.0.0.2:502"}}
	for _, tt := range []struct {
		listen          *string
		name, want, err string
	}{
		{nil, "rtu-7", "rtu-7", ""},
		{nil, "::ffff:10.0.0.9", "10.0.0.9", ""},
		{nil, "10.0.0.8", "", `connect has no device "10.0.0.8"`},
		{new(":1"), "rtu-7", "rtu-7", ""},
		{new(":1"), "::ffff:10.0.0.8", "10.0.0.8", ""},
		{new(":1"), "rtu-8", "", `"rtu-8" is neither an IP address nor a device of connect`},
	} {
		c.Listen = tt.listen
		got, err := c.canonical()(tt.name)
		if got != tt.want || (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
			t.Errorf("%q: %q, %v", tt.name, got, err)
		}
	}
}
