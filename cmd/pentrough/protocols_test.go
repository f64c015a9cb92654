package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pentrough/pentrough/internal/testenv"
	"github.com/pentrough/pentrough/internal/testenv/await"
)

// These tests run a host with each protocol that is written in Go, and a device that checks every
// number that it gets. The devices are written from the standards and share no code with the host.

// field is a host with one protocol. Commands arrive by HTTP, and data leave by HTTP.
type field struct {
	*testing.T
	devices, commands string
	data              chan datum
	log               *output
}

type datum struct {
	Device, Payload, Encoding, Kind string
}

// hex returns the payload as hexadecimal digits.
func (d *datum) hex(t *testing.T) string {
	switch d.Encoding {
	case "text":
		return hex.EncodeToString([]byte(d.Payload))
	case "base64":
		var b []byte
		if err := json.Unmarshal([]byte(`"`+d.Payload+`"`), &b); err != nil {
			t.Fatal(err)
		}
		return hex.EncodeToString(b)
	}
	return d.Payload
}

// startField starts a host. settings are those of the transport.
func startField(t *testing.T, settings string) *field {
	t.Helper()
	f := &field{T: t, devices: "127.0.0.1:" + testenv.Port(t), data: make(chan datum, 100), log: &output{}}
	hook := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		var d datum
		if err := json.NewDecoder(r.Body).Decode(&d); err != nil {
			t.Error(err)
		}
		f.data <- d
	}))
	t.Cleanup(hook.Close)
	web, admin := testenv.Port(t), testenv.Port(t)
	f.commands = "http://127.0.0.1:" + web + "/commands"
	file := filepath.Join(t.TempDir(), "pentrough.toml")
	text := fmt.Sprintf(`host.admin = "127.0.0.1:%s"
%s
[transport.devices]
type     = "tcp"
listen   = "%s"
protocol = "p"
identity = { by = "%s" }
[transport.web]
type   = "http"
listen = "127.0.0.1:%s"
[pipeline.commands]
from    = "web:/commands"
handler = { type = "deliver", devices = "devices", answer = { max_open = 20 } }
[pipeline.data]
from     = "devices:data"
handler  = { type = "http-request", url = "%s" }
on_error = "drop"
to       = ""
`, admin, settings, f.devices, map[bool]string{true: "address", false: "protocol"}[strings.Contains(settings, "iec104")], web, hook.URL)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- (&run{file: file, out: io.Discard, errOut: f.log}).serve(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Errorf("stopping: %v", err)
		}
		if t.Failed() {
			t.Logf("the host logged:\n%s", f.log)
		}
	})
	await.That(t, "the host is ready", func() (any, bool) {
		resp, err := http.Get("http://127.0.0.1:" + admin + "/readyz")
		if err != nil {
			return err, false
		}
		resp.Body.Close()
		return resp.Status, resp.StatusCode == http.StatusOK
	})
	return f
}

func (f *field) dial() net.Conn {
	f.Helper()
	conn, err := net.Dial("tcp", f.devices)
	if err == nil {
		err = conn.SetDeadline(time.Now().Add(await.Patience))
	}
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { conn.Close() })
	return conn
}

// ask sends a command and returns the state and the reply of its result.
func (f *field) ask(id, device, cmd string) (state, reply string) {
	body := fmt.Sprintf(`{"id":%q,"device":%q,"cmd":%q,"encoding":"hex","reply":true,"timeout":"30s"}`, id, device, cmd)
	resp, err := http.Post(f.commands, "application/json", strings.NewReader(body))
	if err != nil {
		f.Error(err)
		return "", ""
	}
	defer resp.Body.Close()
	var r struct {
		State, Reply, Encoding, Detail string
	}
	if err := json.NewDecoder(resp.Body).Decode(&r); err != nil {
		f.Error(err)
	}
	if r.State != "answered" {
		return r.State, r.Detail
	}
	return r.State, (&datum{Payload: r.Reply, Encoding: r.Encoding}).hex(f.T)
}

func (f *field) datum() datum {
	f.Helper()
	return await.Receive(f.T, "data", f.data)
}

// station is a controlled station of IEC 60870-5-104.
type station struct {
	conn           net.Conn
	r              *bufio.Reader
	sent, received uint16
	acknowledged   uint16 // by the host
	// window is how many unacknowledged frames the host may have, and most is the largest number
	// that it had.
	window, most int
	tests        atomic.Int32
}

// read returns the ASDU of the next I frame. It answers U frames, and checks the numbers.
func (s *station) read() ([]byte, error) {
	for {
		head := make([]byte, 6)
		if _, err := io.ReadFull(s.r, head); err != nil {
			return nil, err
		}
		asdu := make([]byte, head[1]-4)
		if _, err := io.ReadFull(s.r, asdu); err != nil {
			return nil, err
		}
		switch {
		case head[2] == 0x07, head[2] == 0x43: // the start of the data transfer, and a test
			if head[2] == 0x43 {
				s.tests.Add(1)
			}
			if _, err := s.conn.Write([]byte{0x68, 4, map[byte]byte{0x07: 0x0b, 0x43: 0x83}[head[2]], 0, 0, 0}); err != nil {
				return nil, err
			}
			if head[2] == 0x07 {
				return nil, nil
			}
			continue
		case head[2]&1 == 0:
			if n := binary.LittleEndian.Uint16(head[2:]) >> 1; n != s.received {
				return nil, fmt.Errorf("the host's frame has the number %d, want %d", n, s.received)
			}
			s.received++
		}
		next := binary.LittleEndian.Uint16(head[4:]) >> 1
		if next < s.acknowledged || next > s.sent {
			return nil, fmt.Errorf("the host acknowledges %d; %d are sent, and %d were acknowledged", next, s.sent, s.acknowledged)
		}
		s.acknowledged = next
		if head[2]&1 == 0 {
			return asdu, nil
		}
	}
}

func (s *station) write(asdu []byte) error {
	frame := binary.LittleEndian.AppendUint16([]byte{0x68, byte(4 + len(asdu))}, s.sent<<1)
	frame = binary.LittleEndian.AppendUint16(frame, s.received<<1)
	s.sent++
	_, err := s.conn.Write(append(frame, asdu...))
	return err
}

// serve confirms n commands. It waits for a window of commands before it answers them.
func (s *station) serve(n int) error {
	var open [][]byte
	for answered := 0; answered < n; {
		asdu, err := s.read()
		if err != nil {
			return fmt.Errorf("after %d commands: %w", answered, err)
		}
		open = append(open, asdu)
		s.most = max(s.most, len(open))
		if len(open) > s.window {
			return fmt.Errorf("%d commands aren't acknowledged", len(open))
		}
		if len(open) < min(s.window, n-answered) {
			continue
		}
		for _, asdu := range open {
			asdu[2] = 7 // confirmation
			if err := s.write(asdu); err != nil {
				return err
			}
			asdu[2] = 10 // end
			if err := s.write(asdu); err != nil {
				return err
			}
		}
		answered += len(open)
		open = nil
	}
	return nil
}

func TestIEC104Station(t *testing.T) {
	f := startField(t, `
[protocol.p]
type = "iec104"
k    = 3
w    = 2
t3   = "1s"
`)
	const name = "127.0.0.1"
	dial := func() *station {
		s := &station{conn: f.dial(), window: 3}
		s.r = bufio.NewReader(s.conn)
		if _, err := s.read(); err != nil {
			t.Fatal(err)
		}
		return s
	}
	s := dial()
	if err := s.write([]byte{1, 1, 3, 0, 1, 0, 1, 0, 0, 1}); err != nil { // spontaneous
		t.Fatal(err)
	}
	if d := f.datum(); d.Device != name || d.Kind != "1" || d.hex(t) != "01010300010001000001" {
		t.Errorf("got %+v", d)
	}
	// 30 commands for 30 objects. The host sends them without a gap, three at a time.
	const commands = 30
	served := make(chan error, 1)
	go func() { served <- s.serve(commands) }()
	var wg sync.WaitGroup
	for i := range commands {
		wg.Go(func() {
			asdu := func(cause byte) string {
				return hex.EncodeToString([]byte{45, 1, cause, 0, 1, 0, byte(i), 0, 0, 1})
			}
			if state, reply := f.ask(fmt.Sprint("c", i), name, asdu(6)); state != "answered" || reply != asdu(7) {
				t.Errorf("command %d: %s %s", i, state, reply)
			}
		})
	}
	wg.Wait()
	if err := <-served; err != nil || s.most != s.window {
		t.Errorf("%v; up to %d commands were open", err, s.most)
	}
	for range commands {
		if d := f.datum(); d.Kind != "45" || d.hex(t)[4:6] != "0a" {
			t.Errorf("got %+v", d)
		}
	}
	// Equal commands are written one after the other, since their answers look the same.
	s.window, s.most = 1, 0
	go func() { served <- s.serve(3) }()
	for i := range 3 {
		wg.Go(func() {
			if state, reply := f.ask(fmt.Sprint("same", i), name, "64010600010000000014"); state != "answered" || reply != "64010700010000000014" {
				t.Errorf("command %d: %s %s", i, state, reply)
			}
		})
	}
	wg.Wait()
	if err := <-served; err != nil {
		t.Error(err)
	}
	if state, detail := f.ask("short", name, "2d01"); state != "rejected" || !strings.Contains(detail, "an ASDU has from 6") {
		t.Errorf("got %s, %s", state, detail)
	}
	// The connection ends with the first wrong number.
	if _, err := s.conn.Write([]byte{0x68, 14, 0, 0, 0, 0, 1, 1, 3, 0, 1, 0, 1, 0, 0, 1}); err != nil {
		t.Fatal(err)
	}
	var err error
	for err == nil {
		_, err = s.read()
	}
	if !errors.Is(err, io.EOF) {
		t.Error(err)
	}
	await.That(t, "the host logs the wrong number", func() (any, bool) {
		said := f.log.String()
		return said, strings.Contains(said, "the number of the station's frame is 0")
	})
	// The next connection begins with the number 0. The host tests it when it is silent.
	s = dial()
	go func() { served <- s.serve(1) }()
	await.That(t, "the host tests the connection", func() (any, bool) { return s.tests.Load(), s.tests.Load() > 1 })
	if state, _ := f.ask("last", name, "64010600010000000014"); state != "answered" {
		t.Errorf("the last command: %s", state)
	}
	if err := <-served; err != nil {
		t.Error(err)
	}
}

// terminal is a terminal of JT/T 808-2013.
type terminal struct {
	*testing.T
	conn   net.Conn
	r      *bufio.Reader
	serial uint16
}

// send sends a message. parts is the number of its parts, or 0.
func (d *terminal) send(id, parts, part uint16, body string) {
	d.Helper()
	attributes := uint16(len(body))
	if parts > 0 {
		attributes |= 1 << 13
	}
	m := binary.BigEndian.AppendUint16(nil, id)
	m = binary.BigEndian.AppendUint16(m, attributes)
	m = append(m, 0x01, 0x39, 0x12, 0x34, 0x43, 0x29)
	m = binary.BigEndian.AppendUint16(m, d.serial)
	d.serial++
	if parts > 0 {
		m = binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(m, parts), part)
	}
	m = append(m, body...)
	check := byte(0)
	for _, b := range m {
		check ^= b
	}
	escaped := strings.NewReplacer("\x7e", "\x7d\x02", "\x7d", "\x7d\x01").Replace(string(append(m, check)))
	if _, err := io.WriteString(d.conn, "\x7e"+escaped+"\x7e"); err != nil {
		d.Fatal(err)
	}
}

// receive returns the id, the serial number and the body of the next message from the host.
func (d *terminal) receive() (id, serial uint16, body string) {
	d.Helper()
	if b, err := d.r.ReadByte(); err != nil || b != 0x7e {
		d.Fatalf("got %x, %v", b, err)
	}
	escaped, err := d.r.ReadString(0x7e)
	if err != nil {
		d.Fatal(err)
	}
	m := []byte(strings.NewReplacer("\x7d\x02", "\x7e", "\x7d\x01", "\x7d").Replace(strings.TrimSuffix(escaped, "\x7e")))
	check := byte(0)
	for _, b := range m {
		check ^= b
	}
	if check != 0 || len(m) < 13 || int(binary.BigEndian.Uint16(m[2:])) != len(m)-13 || hex.EncodeToString(m[4:10]) != "013912344329" {
		d.Fatalf("the host sends % x", m)
	}
	return binary.BigEndian.Uint16(m), binary.BigEndian.Uint16(m[10:]), string(m[12 : len(m)-1])
}

// expect checks the next message from the host.
func (d *terminal) expect(id uint16, body string) {
	d.Helper()
	if gotID, _, got := d.receive(); gotID != id || hex.EncodeToString([]byte(got)) != body {
		d.Errorf("got %04x % x, want %04x %s", gotID, got, id, body)
	}
}

func TestJT808Terminal(t *testing.T) {
	f := startField(t, `
[protocol.p]
type  = "jt808"
token = "let me in"
after = "confirmed"
parts = { timeout = "1s" }
`)
	const name = "13912344329"
	d := &terminal{T: t, conn: f.dial(), serial: 0x7d}
	d.r = bufio.NewReader(d.conn)
	d.send(0x0100, 0, 0, strings.Repeat("r", 37))
	d.expect(0x8100, "007d00"+hex.EncodeToString([]byte("let me in")))
	d.send(0x0102, 0, 0, "let me in")
	d.expect(0x8001, "007e010200")
	d.send(0x0002, 0, 0, "")
	d.expect(0x8001, "007f000200")
	d.send(0x0200, 0, 0, "position \x7e\x7d")
	if got := f.datum(); got.Device != name || got.Kind != "0200" || got.hex(t) != "0200"+hex.EncodeToString([]byte("position \x7e\x7d")) {
		t.Errorf("got %+v", got)
	}
	d.expect(0x8001, "0080020000") // after the pipeline has settled it

	// Of three parts, the second one arrives only when the host requests it.
	d.send(0x0704, 3, 1, "first ")
	d.expect(0x8001, "0081070400")
	d.serial++
	d.send(0x0704, 3, 3, "third")
	d.expect(0x8001, "0083070400")
	d.expect(0x8003, "0081010002")
	d.serial = 0x82
	d.send(0x0704, 3, 2, "second ")
	if got := f.datum(); got.Kind != "0704" || got.hex(t) != "0704"+hex.EncodeToString([]byte("first second third")) {
		t.Errorf("got %+v", got)
	}
	d.expect(0x8001, "0082070400")

	// Two commands wait for their answers, which come in the other order, with data between them.
	d.serial = 0x90
	var wg sync.WaitGroup
	for _, cmd := range []string{"8201", "810504"} {
		wg.Go(func() {
			want := map[string]string{"8201": "0201", "810504": "0001"}[cmd]
			if state, reply := f.ask("c"+cmd, name, cmd); state != "answered" || !strings.HasPrefix(reply, want) {
				t.Errorf("command %s: %s %s", cmd, state, reply)
			}
		})
	}
	serials := map[uint16]uint16{}
	for range 2 {
		id, serial, _ := d.receive()
		serials[id] = serial
	}
	d.send(0x0002, 0, 0, "")
	d.expect(0x8001, "0090000200")
	d.send(0x0001, 0, 0, string(binary.BigEndian.AppendUint16(nil, serials[0x8105]))+"\x81\x05\x00")
	d.send(0x0201, 0, 0, string(binary.BigEndian.AppendUint16(nil, serials[0x8201]))+"position")
	wg.Wait()
}

// A terminal with a wrong token is refused.
func TestJT808WrongToken(t *testing.T) {
	f := startField(t, "[protocol.p]\ntype = \"jt808\"\ntoken = \"right\"\n")
	d := &terminal{T: t, conn: f.dial()}
	d.r = bufio.NewReader(d.conn)
	d.send(0x0102, 0, 0, "stolen")
	d.expect(0x8001, "0000010201")
	if _, err := d.r.ReadByte(); !errors.Is(err, io.EOF) {
		t.Errorf("got %v", err)
	}
	await.That(t, "the host logs the wrong token", func() (any, bool) {
		said := f.log.String()
		return said, strings.Contains(said, "terminal 13912344329 has a wrong token")
	})
	if said := f.log.String(); strings.Contains(said, "right") {
		t.Errorf("the host logs %s", said)
	}
}
