package listen

import (
	"context"
	"net"
	"testing"
)

func TestWhichConnectionsAnAddressTakes(t *testing.T) {
	if l, err := net.Listen("tcp6", "[::1]:0"); err != nil {
		t.Skipf("this machine has no IPv6: %v", err)
	} else {
		l.Close()
	}
	for addr, want := range map[string][2]bool{ // from 127.0.0.1, from ::1
		"0.0.0.0:0":          {true, false},
		"[::ffff:0.0.0.0]:0": {true, false},
		"127.0.0.1:0":        {true, false},
		"[::1]:0":            {false, true},
		"[::]:0":             {true, true},
		":0":                 {true, true},
	} {
		l, err := TCP(t.Context(), new(net.ListenConfig), addr)
		if err != nil {
			t.Errorf("listening on %s: %v", addr, err)
			continue
		}
		_, port, _ := net.SplitHostPort(l.Addr().String())
		for i, from := range []string{"127.0.0.1", "::1"} {
			conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", net.JoinHostPort(from, port))
			if err == nil {
				conn.Close()
			}
			if (err == nil) != want[i] {
				t.Errorf("%s, dialed at %s: %v", addr, from, err)
			}
		}
		l.Close()
	}
}

func TestInvalidAddressIsAnError(t *testing.T) {
	for _, addr := range []string{"127.0.0.1", "0.0.0.0:70000", "0.0.0.0"} {
		if l, err := TCP(context.Background(), new(net.ListenConfig), addr); err == nil {
			l.Close()
			t.Errorf("%q is listened on", addr)
		}
	}
}
