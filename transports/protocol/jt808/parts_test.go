package jt808

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pentrough/pentrough/transports/protocol"
)

// line is a connection of a test.
type line struct {
	*testing.T
	protocol.Protocol
	state protocol.State
}

func connect(t *testing.T, change func(*Config)) *line {
	t.Helper()
	return &line{T: t, Protocol: build(t, change)}
}

// hear handles a frame of the terminal.
func (l *line) hear(frame string) (v protocol.Verdict) {
	l.Helper()
	data := []byte(frame)
	advance, message, err := l.Split(&l.state, data, 0)
	if err != nil || advance != len(data) {
		l.Fatal(advance, err)
	}
	if err := l.Decode(&l.state, message, &v); err != nil {
		l.Fatal(err)
	}
	for i := range data {
		data[i] = 0xa5
	}
	return v
}

// result returns the result of a general response.
func result(v protocol.Verdict) string {
	if v.Response == nil {
		return "none"
	}
	return fmt.Sprint(v.Response[len(v.Response)-1])
}

// wait waits until the protocol wants to be called.
func (l *line) wait(after time.Duration) (v protocol.Verdict) {
	l.Helper()
	if got := time.Until(l.state.Wake); got != after {
		l.Errorf("the next tick is after %v, want %v", got, after)
	}
	time.Sleep(after)
	if err := l.Protocol.(protocol.Ticker).Tick(&l.state, time.Now(), &v); err != nil {
		l.Fatal(err)
	}
	return v
}

// Parts arrive in any order, and some of them twice.
func TestPartsInAnyOrder(t *testing.T) {
	for seed := range uint64(100) {
		rnd := rand.New(rand.NewPCG(seed, 1)) //nolint:gosec // it makes the same cases in each run
		total := uint16(1 + rnd.IntN(8))
		var order []int
		for _, n := range rnd.Perm(int(total)) {
			order = append(order, n)
			if rnd.IntN(3) == 0 {
				order = append(order, order[rnd.IntN(len(order))])
			}
		}
		l, whole, seen := connect(t, nil), 0, map[int]bool{}
		for _, n := range order {
			seen[n] = true
			v := l.hear(part("0704", uint16(n+1), total, strings.Repeat(string(rune('a'+n)), n+1)))
			switch {
			case result(v) != "0":
				t.Fatalf("seed %d: the response to part %d is % x", seed, n+1, v.Response)
			case len(seen) < int(total) || whole > 0:
				if !v.NoData || v.Payload != nil {
					t.Fatalf("seed %d: part %d of %v gives %q", seed, n+1, order, v.Payload)
				}
			default:
				whole++
				if want := "\x07\x04" + "abbcccddddeeeeeffffffggggggghhhhhhhh"[:int(total)*(int(total)+1)/2]; string(v.Payload) != want || v.Kind != "0704" {
					t.Fatalf("seed %d: got %q, want %q", seed, v.Payload, want)
				}
			}
		}
		if whole != 1 {
			t.Fatalf("seed %d: the message is complete %d times", seed, whole)
		}
	}
}

// Messages with the same id, and with other ids, don't mix.
func TestPartsOfSeveralMessages(t *testing.T) {
	l := connect(t, nil)
	l.hear(part("0704", 1, 2, "a"))
	l.hear(part("0801", 1, 2, "media"))
	// The first serial number of the message is 98.
	next := framed(unhexed("0704 2001 000123456789 0063 0002 0002") + "d")
	l.hear(next)
	if v := l.hear(part("0704", 2, 2, "b")); string(v.Payload) != "\x07\x04ab" {
		t.Errorf("got %q", v.Payload)
	}
	if v := l.hear(framed(unhexed("0704 2001 000123456789 0062 0002 0001") + "c")); string(v.Payload) != "\x07\x04cd" {
		t.Errorf("got %q", v.Payload)
	}
	if v := l.hear(part("0801", 2, 2, " ok")); string(v.Payload) != "\x08\x01media ok" || string(v.Response[len(v.Response)-4:]) != "medi" {
		t.Errorf("got %q, % x", v.Payload, v.Response)
	}
	// A message with another number of parts replaces an incomplete one.
	l.hear(part("0900", 1, 3, "old"))
	l.hear(part("0900", 1, 2, "x"))
	if v := l.hear(part("0900", 2, 2, "y")); string(v.Payload) != "\x09\x00xy" {
		t.Errorf("got %q", v.Payload)
	}
}

func TestMissingParts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := connect(t, func(c *Config) { c.Parts.Retries = 2 })
		l.hear(part("0801", 1, 4, "abcd"))
		time.Sleep(3 * time.Second)
		l.hear(part("0801", 3, 4, "ef"))
		request := framed(unhexed("8003 0007 000123456789 0002 0014 02 0002 0004"))
		if v := l.wait(10 * time.Second); string(v.Response) != request || !v.Raw || v.Problem != "" {
			t.Errorf("got % x, %q; want % x", v.Response, v.Problem, request)
		}
		time.Sleep(3 * time.Second)
		l.hear(part("0801", 2, 4, "ef"))
		request = framed(unhexed("8003 0005 000123456789 0004 0014 01 0004"))
		if v := l.wait(10 * time.Second); string(v.Response) != request {
			t.Errorf("got % x; want % x", v.Response, request)
		}
		if v := l.wait(10 * time.Second); v.Response != nil || v.Problem != "message 0801 with the first serial number 20 is dropped: of its 4 parts, 4 didn't arrive" {
			t.Errorf("got % x, %q", v.Response, v.Problem)
		}
		if !l.state.Wake.IsZero() {
			t.Errorf("the next tick is at %v", l.state.Wake)
		}
		l.hear(part("0801", 4, 4, "late"))
		if v := l.wait(10 * time.Second); string(v.Response) != framed(unhexed("8003 0009 000123456789 0006 0014 03 0001 0002 0003")) {
			t.Errorf("got % x", v.Response)
		}
	})
}

// A request has the longer number of parts of 2019, and asks for at most 255 parts.
func TestManyMissingParts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := connect(t, func(c *Config) { c.Parts.Retries = 1 })
		l.hear(framed(unhexed("0801 6001 01 00000000000123456789 0014 ffff 0001") + "a"))
		v := l.wait(10 * time.Second)
		if want := unhexed("7e 8003 4202 01 00000000000123456789 0001 0014 00ff 0002 0003"); !strings.HasPrefix(string(v.Response), want) {
			t.Errorf("got % x, want % x", v.Response, want)
		}
		v = l.wait(10 * time.Second)
		if want := "of its 65535 parts, 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 and 65514 more didn't arrive"; !strings.HasSuffix(v.Problem, want) {
			t.Errorf("got %q", v.Problem)
		}
	})
}

func TestTooLargeMessages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := connect(t, func(c *Config) { c.Parts.Memory = 2048 })
		half := strings.Repeat("x", 700)
		l.hear(part("0801", 1, 4, half))
		l.hear(part("0801", 2, 4, half))
		for _, n := range []uint16{3, 4} {
			v := l.hear(part("0801", n, 4, half))
			if result(v) != "1" || !v.NoData || !strings.Contains(v.Problem, fmt.Sprintf("part %d", n)) {
				t.Errorf("got %q, %q", v.Problem, v.Response)
			}
		}
		if own := l.state.Own.(*terminal); own.parts.memory != overhead {
			t.Errorf("%d bytes are counted", own.parts.memory)
		}
		if v := l.wait(10 * time.Second); v.Response != nil || v.Problem != "" {
			t.Errorf("got % x, %q", v.Response, v.Problem)
		}
		// The same serial numbers may be used again.
		l.hear(part("0801", 1, 2, "abcd"))
		if v := l.hear(part("0801", 2, 2, "e")); string(v.Payload) != "\x08\x01abcde" {
			t.Errorf("got %q", v.Payload)
		}
		// Many small messages are bounded, too.
		for i := range 1000 {
			l.hear(framed(unhexed("0704 2001 000123456789") + string([]byte{byte(i >> 7), byte(i << 1), 0, 2, 0, 1}) + "a"))
		}
		if own := l.state.Own.(*terminal); own.parts.memory > 2048 || len(own.parts.messages) > 2048/overhead {
			t.Errorf("%d messages of %d bytes are kept", len(own.parts.messages), own.parts.memory)
		}
	})
}

// The host responds to the last part only when the message is settled. It doesn't respond if that
// part comes a second time.
func TestPartsAreConfirmed(t *testing.T) {
	l := connect(t, func(c *Config) { c.After = "confirmed" })
	if v := l.hear(part("0704", 1, 2, "a")); v.Confirmed || result(v) != "0" {
		t.Errorf("got %+v", v)
	}
	if v := l.hear(part("0704", 2, 2, "b")); !v.Confirmed || result(v) != "0" {
		t.Errorf("got %+v", v)
	}
	if v := l.hear(part("0704", 2, 2, "b")); v.Response != nil || !v.NoData {
		t.Errorf("got %+v", v)
	}
}

// Terminals that share a connection get their own commands, and their parts aren't mixed up.
func TestTerminalsOfOneConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := connect(t, nil)
		part := func(phone string, number int, body string) protocol.Verdict {
			return l.hear(framed(unhexed(fmt.Sprintf("0900 2001 %s %04x 0002 %04x", phone, number, number)) + body))
		}
		l.state.Device = part("000123456789", 1, "a").Device
		part("000987654321", 1, "b")
		if v := part("000123456789", 2, "c"); string(v.Payload) != "\x09\x00ac" || v.Device != "123456789" {
			t.Errorf("got %+v", v)
		}
		for name, phone := range map[string]string{"123456789": "000123456789", "987654321": "000987654321"} {
			number := l.state.Number
			got, _, err := l.Encode(&l.state, nil, protocol.Command{Device: name, Payload: []byte("\x82\x01")})
			if want := unhexed(fmt.Sprintf("8201 0000 %s %04x", phone, number)); err != nil || string(got) != want {
				t.Errorf("the command to %s is %x, %v; want %x", name, got, err, want)
			}
		}
		if v := l.wait(defaults.Parts.Timeout); !strings.Contains(string(v.Response), unhexed("000987654321")) {
			t.Errorf("the missing part is requested with %x", v.Response)
		}
	})
}
