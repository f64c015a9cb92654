package tcp

import (
	"net"
	"testing"
	"time"
)

// A connection that waits to be accepted while its device does one thing after the other, and then leaves: its silence begins with the last.
func TestSilence(t *testing.T) {
	l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client, err := net.DialTCP("tcp", nil, l.Addr().(*net.TCPAddr))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	server, err := l.AcceptTCP()
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	raw, err := server.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	c := &conn{raw: raw}
	say := func() error { _, err := client.Write([]byte("x")); return err }
	for i, sign := range []func() error{say, say, client.CloseWrite} {
		time.Sleep(100 * time.Millisecond)
		if err := sign(); err != nil {
			t.Fatal(err)
		}
		heard := time.Now()
		time.Sleep(150 * time.Millisecond)
		least := time.Since(heard)
		if silent := c.Silent(); silent < least || silent > time.Since(heard)+2*silenceError {
			t.Errorf("%v after sign %d the device is silent for %v", least, i, silent)
		}
	}
}
