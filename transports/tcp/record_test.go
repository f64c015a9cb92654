package tcp

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/pentrough/pentrough/internal/testenv/await"
	"github.com/pentrough/pentrough/transports/device"
)

// record begins a recording.
func (s *server) record(name string, next bool) (*device.Recording, context.CancelFunc) {
	s.Helper()
	ctx, cancel := context.WithCancel(s.Context())
	r, err := s.Record(ctx, name, next)
	if err != nil {
		s.Fatal(err)
	}
	return r, cancel
}

// recorded returns the recording as text, when it has ended. Bytes of one side that follow each
// other are joined.
func recorded(t *testing.T, r *device.Recording) string {
	t.Helper()
	var b strings.Builder
	side := ""
	for e, err := range r.Entries() {
		if err != nil {
			t.Fatal(err)
		}
		now := " device: "
		if e.FromHost {
			now = " host: "
		}
		switch {
		case e.Connection != nil:
			fmt.Fprintf(&b, "%s, whole %v:", e.Connection.Device, e.Connection.Whole)
		case e.Ended != "":
			fmt.Fprintf(&b, " %s", e.Ended)
		case now == side:
			b.Write(e.Bytes)
		default:
			side = now
			fmt.Fprintf(&b, "%s%s", now, e.Bytes)
		}
	}
	return b.String()
}

// A recording has a login from its first byte, with the host's responses, commands and answers. It
// has nothing of other devices.
func TestRecordALogin(t *testing.T) {
	s := talking(t, nil)
	r, _ := s.record("d-1", false)
	other := s.dial()
	other.say("login d-2\nsecret\n")
	other.hear("welcome\r\n")
	d := s.dial()
	d.say("lo")
	d.say("gin d-1\n")
	d.hear("welcome\r\n")
	d.say("beat\n")
	d.hear("ON")
	s.send("d-1", "open")
	d.hear("1 open\r\n")
	d.say("done\n")
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	want := "d-1, whole true: device: login d-1\n host: welcome\r\n device: beat\n host: ON1 open\r\n device: done\n client_closed"
	if got := recorded(t, r); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	await.That(t, "no connection is recorded", func() (any, bool) { n := s.connsRecorded(); return n, n == 0 })
}

// A recording of an online device begins at once. With next it begins with the device's next
// connection.
func TestRecordAnOnlineDevice(t *testing.T) {
	s := talking(t, nil)
	d := s.dial()
	d.say("login d-1\n")
	d.hear("welcome\r\n")
	s.expect(device.Connected, "d-1", "")
	now, _ := s.record("d-1", false)
	next, _ := s.record("d-1", true)
	d.say("beat\n")
	d.hear("ON")
	again := s.dial()
	again.say("login d-1\n")
	again.hear("welcome\r\n")
	d.closed()
	if err := errors.Join(d.Close(), again.Close()); err != nil {
		t.Fatal(err)
	}
	if got, want := recorded(t, now), "d-1, whole false: device: beat\n host: ON replaced"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got, want := recorded(t, next), "d-1, whole true: device: login d-1\n host: welcome\r\n client_closed"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// A device that its address identifies has no first frame.
func TestRecordAnAddress(t *testing.T) {
	s := start(t, nil)
	if _, err := s.Record(t.Context(), "d-1", false); !errors.Is(err, device.ErrDevice) {
		t.Errorf("recording a device that can't be: %v", err)
	}
	r, _ := s.record("::ffff:127.0.0.1", false)
	d := s.dial()
	d.say("hello\n")
	if got := s.frame(); got != "hello" {
		t.Error(got)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if got, want := recorded(t, r), "127.0.0.1, whole true: device: hello\n client_closed"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// A recording ends when its reader ends it, and the session goes on.
func TestARecordingIsEnded(t *testing.T) {
	s := start(t, nil)
	d := s.dial()
	d.say("one\n")
	s.frame()
	r, end := s.record("127.0.0.1", false)
	end()
	if got, want := recorded(t, r), "127.0.0.1, whole false:"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	d.say("two\n")
	if got := s.frame(); got != "two" {
		t.Error(got)
	}
	if s.connsRecorded() != 0 {
		t.Error("the connection is still recorded")
	}
}

// connsRecorded counts the open connections that have a capture.
func (s *server) connsRecorded() (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		if c.recordable.IsRecorded() {
			n++
		}
	}
	return n
}
