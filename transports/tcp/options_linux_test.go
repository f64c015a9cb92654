package tcp

import (
	"fmt"
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pentrough/pentrough/internal/testenv/await"
)

// A device does several things while its connection waits to be accepted, and then leaves. Its
// silence begins with the last of them.
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
	waits := func() (n int) {
		if err := raw.Control(func(fd uintptr) { n, err = unix.IoctlGetInt(int(fd), unix.TIOCINQ) }); err != nil {
			t.Fatal(err)
		}
		return n
	}
	for i, sign := range []func() error{say, say, client.CloseWrite} {
		time.Sleep(100 * time.Millisecond)
		before := time.Now()
		if err := sign(); err != nil {
			t.Fatal(err)
		}
		await.That(t, fmt.Sprint("sign ", i, " has arrived"), func() (any, bool) {
			n, end := waits(), c.peerState()
			return fmt.Sprintf("%d bytes wait, the end is %d", n, end), n == min(i+1, 2) && (i < 2 || end == peerClosed)
		})
		after := time.Now()
		time.Sleep(150 * time.Millisecond)
		least := time.Since(after)
		if silent := c.SilentFor(); silent < least || silent > time.Since(before)+2*silenceError {
			t.Errorf("between %v and %v after sign %d the device is silent for %v", least, time.Since(before), i, silent)
		}
	}
}
