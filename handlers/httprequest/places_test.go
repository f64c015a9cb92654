package httprequest

import (
	"net/netip"
	"net/url"
	"strings"
	"testing"
)

func TestPublic(t *testing.T) {
	for address, want := range map[string]bool{
		"8.8.8.8": true, "1.1.1.1": true, "172.15.255.255": true, "172.32.0.0": true, "100.63.255.255": true, "100.128.0.0": true, "223.255.255.255": true,
		"2606:4700::1111": true, "2a00:1450::1": true,
		"0.0.0.0": false, "0.1.2.3": false, "10.1.2.3": false, "100.64.0.1": false, "127.0.0.1": false, "127.255.255.255": false, "169.254.169.254": false,
		"172.16.0.1": false, "172.31.255.255": false, "192.168.1.1": false, "192.0.0.8": false, "198.18.0.1": false, "224.0.0.1": false, "255.255.255.255": false,
		"::": false, "::1": false, "::ffff:10.0.0.1": false, "::ffff:127.0.0.1": false, "fe80::1": false, "fe80::1%eth0": false, "fec0::1": false, "fc00::1": false,
		"fd12::1": false, "ff02::1": false, "64:ff9b::7f00:1": false, "2002:7f00:1::": false, "2001:0:1::": false, "2001:db8::1": false, "::127.0.0.1": false,
	} {
		if got := isPublic(netip.MustParseAddr(address).Unmap()); got != want {
			t.Errorf("%s is public: %v", address, got)
		}
	}
}

func TestReadPlace(t *testing.T) {
	for _, entry := range []string{"hook.example", "Hook.Example.", "hook.example:8443", "10.0.0.1", "10.0.0.1:80", "::1", "[::1]:80", "10.0.0.0/8", "fd00::/8", "localhost", "my_host", "bücher.example"} {
		if _, err := readPlace(entry); err != nil {
			t.Errorf("%s: %v", entry, err)
		}
	}
	for _, entry := range []string{".", ".:80", "fe80::1%", "fe80::1%a/b", "[fe80::1%a b]:80", "", "*", "*.example.com", "http://hook.example", "hook.example/path", "hook.example:", "hook.example:0", "hook.example:http", "hook.example:99999", ":80", "[::1]", "10.0.0.0/33", "a b", "user@host"} {
		if p, err := readPlace(entry); err == nil {
			t.Errorf("%q is %+v", entry, p)
		}
	}
}

func TestAdmit(t *testing.T) {
	p, err := newPlaces(&url.URL{Scheme: "https", Host: "hook.example:8443"}, []string{"other.example", "ported.example:8080", "10.1.0.0/16", "::1", "fe80::1%Eth0", "fe80::2"})
	if err != nil {
		t.Fatal(err)
	}
	for to, want := range map[string]bool{
		"https://hook.example": true, "https://HOOK.example.": true, "http://hook.example:1234": true, "https://other.example:1": true, "http://ported.example:8080": true,
		"http://10.1.2.3": true, "http://[::ffff:10.1.2.3]:9": true, "http://[::1]": true, "http://[0:0::1]": true,
		"https://evil-hook.example": false, "https://hook.example.evil": false, "https://sub.hook.example": false, "http://ported.example": false, "https://ported.example": false,
		"http://[fe80::1%25Eth0]": true, "http://[FE80:0::1%25Eth0]": true, "http://[fe80::2]": true, "http://[fe80::2%25eth1]": true,
		"http://[fe80::1]": false, "http://[fe80::1%25eth0]": false, "http://[fe80::1%25eth1]": false,
		"http://10.2.0.1": false, "http://127.0.0.1": false, "http://8.8.8.8": false,
	} {
		u, err := url.Parse(to)
		if err != nil {
			t.Fatal(err)
		}
		if got := p.allowsRedirect(u); got != want {
			t.Errorf("%s: %v", to, got)
		}
	}
}

func TestZonesOfPlaces(t *testing.T) {
	p, err := newPlaces(&url.URL{Scheme: "http", Host: "[fe80::5%eth0]:8080"}, []string{"[fe80::1%eth1]:80", "fe80::2", "fd00::/8"})
	if err != nil {
		t.Fatal(err)
	}
	for address, want := range map[string]bool{
		"[fe80::5%eth0]:8080": true, "[fe80::1%eth1]:80": true, "[fe80::2%eth7]:1": true, "[fd00::1]:1": true,
		"[fe80::5%eth1]:8080": false, "[fe80::5]:8080": false, "[fe80::5%eth0]:80": false, "[fe80::1%eth0]:80": false, "[fe80::3%eth0]:80": false,
	} {
		if err := p.checkAddress(address); (err == nil) != want {
			t.Errorf("%s: %v", address, err)
		}
	}
}

func FuzzReadPlace(f *testing.F) {
	for _, entry := range []string{"hook.example:80", "[::1]:80", "10.0.0.0/8", "::ffff:1.2.3.4", "fe80::1%eth0"} {
		f.Add(entry)
	}
	f.Fuzz(func(t *testing.T, entry string) {
		p, err := readPlace(entry)
		if err != nil {
			return
		}
		if p.name == "" && len(p.networks) == 0 || strings.ContainsAny(p.name, "/@ ") {
			t.Errorf("%q is %+v", entry, p)
		}
		for _, n := range p.networks {
			if !n.IsValid() || !p.contains(n.Addr().WithZone(p.zone)) {
				t.Errorf("%q has the network %v", entry, n)
			}
		}
	})
}
