package device

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
)

func sessionOf(name string) *Session {
	return &Session{slot: newSlot(nil, name), remote: "192.0.2.7:4711", epoch: 7}
}

// story returns a recording's entries as text. It must have ended.
func story(r *Recording) string {
	var b strings.Builder
	for e, err := range r.Entries() {
		switch {
		case err != nil:
			fmt.Fprintf(&b, "%v\n", err)
		case e.Connection != nil:
			fmt.Fprintf(&b, "%s at %s, whole %v\n", e.Connection.Device, e.Connection.RemoteAddr, e.Connection.Whole)
		case e.Ended != "":
			fmt.Fprintf(&b, "ended: %s\n", e.Ended)
		case e.FromHost:
			fmt.Fprintf(&b, "> %s\n", e.Bytes)
		default:
			fmt.Fprintf(&b, "< %s\n", e.Bytes)
		}
	}
	return b.String()
}

// writeAll is the write of a connection that takes everything.
func writeAll(p []byte) (int, error) { return len(p), nil }

func say(t *testing.T, c *Recordable, text string) {
	t.Helper()
	if _, err := c.Write([]byte(text), writeAll); err != nil {
		t.Fatal(err)
	}
}

func TestRecordings(t *testing.T) {
	const login = "d at 192.0.2.7:4711, whole true\n< login\n> welcome\n< data\n> open\nended: client_closed\n"
	const rest = "d at 192.0.2.7:4711, whole false\n< data\n> open\nended: client_closed\n"
	for _, c := range []struct {
		name string
		// before, during and after say which recordings begin before the connection, before its
		// device is known, and afterwards. The value is whether they want the next connection.
		before, during, after []bool
		device                string
		want                  []string
	}{
		{"from the first byte", []bool{false}, nil, nil, "d", []string{login}},
		{"the next one from the first byte", []bool{true}, nil, nil, "d", []string{login}},
		{"the current one", nil, nil, []bool{false}, "d", []string{rest}},
		{"after the first bytes", nil, []bool{false}, nil, "d", []string{rest}},
		{"the next one doesn't begin in the middle", nil, []bool{true}, []bool{true}, "d", []string{"", ""}},
		{"several", []bool{false, true}, nil, []bool{false}, "d", []string{login, login, rest}},
		{"another device", []bool{false}, []bool{false}, nil, "e", []string{"", ""}},
	} {
		t.Run(c.name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			var rs Recorders
			var all []*Recording
			wait := func(nexts []bool) {
				for _, next := range nexts {
					all = append(all, rs.Wait(ctx, "d", next))
				}
			}
			var conn Recordable
			wait(c.before)
			rs.Begin(&conn)
			wait(c.during)
			conn.AddRead([]byte("login"))
			say(t, &conn, "welcome")
			s := sessionOf(c.device)
			rs.Identify(&conn, s)
			wait(c.after)
			rs.Identify(&conn, s)
			conn.AddRead([]byte("data"))
			say(t, &conn, "open")
			conn.End(ClientClosed)
			if conn.IsRecorded() || rs.kept.Load() != 0 {
				t.Errorf("after the end: recorded %v, %d bytes kept", conn.IsRecorded(), rs.kept.Load())
			}
			cancel()
			for i, r := range all {
				if got := story(r); got != c.want[i] {
					t.Errorf("recording %d:\n%swant\n%s", i, got, c.want[i])
				}
			}
			if n := rs.waits.Load(); n != 0 {
				t.Errorf("%d recordings still wait", n)
			}
		})
	}
}

// While nobody records, nothing is kept and nothing is allocated.
func TestNoRecordingCostsNothing(t *testing.T) {
	var rs Recorders
	var conn Recordable
	s, p := sessionOf("d"), []byte("data")
	if n := testing.AllocsPerRun(100, func() {
		rs.Begin(&conn)
		conn.AddRead(p)
		rs.Identify(&conn, s)
		if conn.IsRecorded() {
			t.Error("it is recorded")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestStrangersBytesAreBounded(t *testing.T) {
	var rs Recorders
	r := rs.Wait(t.Context(), "d", false)
	kept := make([]Recordable, 200)
	for i := range kept {
		rs.Begin(&kept[i])
		kept[i].AddRead(bytes.Repeat([]byte("x"), keptBytes/2))
		if n := rs.kept.Load(); n > keptTotal {
			t.Fatalf("%d bytes are kept", n)
		}
	}
	for i := range kept {
		kept[i].End("")
	}
	if n := rs.kept.Load(); n != 0 {
		t.Fatalf("%d bytes are kept for no connection", n)
	}
	var long Recordable
	rs.Begin(&long)
	for range keptBytes {
		long.AddRead([]byte("x"))
	}
	if n := rs.kept.Load(); n != 0 {
		t.Errorf("%d bytes are kept of a connection that sends too much", n)
	}
	rs.Identify(&long, sessionOf("d"))
	if got, want := story(r), "d at 192.0.2.7:4711, whole true\n"+errNotKept.Error()+"\n"; got != want {
		t.Errorf("%swant\n%s", got, want)
	}
}

// A recording that nobody reads ends, and delays nobody.
func TestASlowRecordingEnds(t *testing.T) {
	for name, size := range map[string]int{"entries": 1, "bytes": longestEntry} {
		t.Run(name, func(t *testing.T) {
			var rs Recorders
			slow := rs.Wait(t.Context(), "d", false)
			var conn Recordable
			rs.Begin(&conn)
			rs.Identify(&conn, sessionOf("d"))
			part := bytes.Repeat([]byte("x"), size)
			n := 0
			for ; conn.IsRecorded(); n++ {
				conn.AddRead(part)
			}
			if n*size > recordedBytes+size || n > recordedEntries {
				t.Errorf("%d entries of %d bytes waited", n, size)
			}
			if got := story(slow); !strings.HasSuffix(got, errTooSlow.Error()+"\n") {
				t.Errorf("it ended with %s", got[max(0, len(got)-200):])
			}
		})
	}
}

func TestALongWriteHasSeveralEntries(t *testing.T) {
	var rs Recorders
	r := rs.Wait(t.Context(), "d", false)
	var conn Recordable
	rs.Begin(&conn)
	rs.Identify(&conn, sessionOf("d"))
	text := bytes.Repeat([]byte("0123456789"), longestEntry/4)
	broken := errors.New("broken")
	n, err := conn.Write(text, func(p []byte) (int, error) { return len(p) - 10, broken })
	if n != len(text)-10 || !errors.Is(err, broken) {
		t.Errorf("Write returned %d, %v", n, err)
	}
	conn.End(ConnectionLost)
	var got []byte
	for e := range r.Entries() {
		if len(e.Bytes) > longestEntry {
			t.Errorf("an entry has %d bytes", len(e.Bytes))
		}
		got = append(got, e.Bytes...)
	}
	if !bytes.Equal(got, text[:n]) {
		t.Errorf("%d bytes, want %d", len(got), n)
	}
}

// Connections and recordings that come and go at the same time leave nothing behind.
func TestRecordingsAndConnectionsTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var rs Recorders
		var all sync.WaitGroup
		for range 8 {
			all.Go(func() {
				for range 200 {
					var conn Recordable
					s := sessionOf("d")
					rs.Begin(&conn)
					conn.AddRead([]byte("login"))
					var late sync.WaitGroup
					late.Go(func() { rs.Identify(&conn, s) })
					rs.Identify(&conn, s)
					_, _ = conn.Write([]byte("open"), writeAll)
					conn.End(ClientClosed)
					late.Wait()
					if conn.IsRecorded() {
						t.Error("a connection that has ended is recorded")
					}
				}
			})
			all.Go(func() {
				for range 200 {
					ctx, cancel := context.WithCancel(t.Context())
					r := rs.Wait(ctx, "d", false)
					cancel()
					story(r)
				}
			})
		}
		all.Wait()
		synctest.Wait()
		if rs.waits.Load() != 0 || rs.kept.Load() != 0 {
			t.Errorf("%d recordings wait, %d bytes are kept", rs.waits.Load(), rs.kept.Load())
		}
	})
}
