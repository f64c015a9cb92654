package recording_test

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pentrough/pentrough/internal/recording"
	"github.com/pentrough/pentrough/transports/device"
)

const (
	head = `{"time":"2026-01-02T03:04:05Z","device":"d-1","host":"gw","transport":"devices","remote_addr":"10.0.0.7:4711","epoch":7,"protocol":"gps103","whole":true}`
	said = `{"time":"2026-01-02T03:04:06Z","from":"device","bytes":"68690a"}`
)

// What the host writes can be read.
func TestWriteAndRead(t *testing.T) {
	began := time.Date(2026, 1, 2, 3, 4, 5, 0, time.FixedZone("", 3600))
	about := recording.Connection{Host: "gw", Transport: "devices", Framing: "line"}
	var text []byte
	for _, e := range []device.Recorded{
		{Time: began, Connection: &device.RecordedConnection{Device: "d-1", RemoteAddr: "10.0.0.7:4711", Epoch: 7, Whole: true}},
		{Time: began.Add(1), Bytes: []byte("hi \"Ü\"\r\n")},
		{Time: began.Add(time.Second), Bytes: []byte("\x00\xff"), FromHost: true},
		{Time: began.Add(time.Second), Bytes: []byte("\u202e")},
		{Time: began.Add(time.Minute), Ended: device.ClientClosed},
	} {
		var err error
		if text, err = recording.LineOf(e, about).Append(text); err != nil {
			t.Fatal(err)
		}
	}
	want := `{"time":"2026-01-02T02:04:05Z","device":"d-1","host":"gw","transport":"devices","remote_addr":"10.0.0.7:4711","epoch":7,"framing":"line","whole":true}
{"time":"2026-01-02T02:04:05.000000001Z","from":"device","bytes":"68692022c39c220d0a","text":"hi \"Ü\"\r\n"}
{"time":"2026-01-02T02:04:06Z","from":"host","bytes":"00ff"}
{"time":"2026-01-02T02:04:06Z","from":"device","bytes":"e280ae"}
{"time":"2026-01-02T02:05:05Z","ended":"client_closed"}
`
	if diff := cmp.Diff(want, string(text)); diff != "" {
		t.Fatal(diff)
	}
	r, err := recording.NewReader(strings.NewReader(want))
	if err != nil {
		t.Fatal(err)
	}
	if r.Connection.Device != "d-1" || !r.Connection.Whole || !r.Began.Equal(began) {
		t.Errorf("the first line: %+v at %s", r.Connection, r.Began)
	}
	var got []string
	for {
		l, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, fmt.Sprintf("%d %s %x", r.LineNumber(), l.From, []byte(l.Bytes)))
	}
	if diff := cmp.Diff([]string{"2 device 68692022c39c220d0a", "3 host 00ff", "4 device e280ae"}, got); diff != "" {
		t.Error(diff)
	}
	if r.Ended() != "client_closed" {
		t.Errorf("ended: %q", r.Ended())
	}
}

func TestWrongRecordings(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"", "the recording is empty"},
		{"\n", "line 1: not a line of a recording: "},
		{"<html>", "line 1: not a line of a recording: "},
		{said, "line 1: the first line of a recording names its device"},
		{`{"device":"d"}`, "line 1: time is missing"},
		{`{"time":"today","device":"d"}`, "line 1: not a line of a recording: "},
		{`[]`, "line 1: not a line of a recording: "},
		{head + "\n" + head, "line 2: a recording is of one connection, and another one begins here"},
		{head + "\nhello", "line 2: not a line of a recording: "},
		{head + "\n" + said + "\n" + `{"time":"2026-01-02T03:04:07Z","from":"device","bytes":"686"}`, "line 3: not a line of a recording: encoding/hex: odd length hex string"},
		{head + "\n" + `{"time":"2026-01-02T03:04:07Z","from":"device","bytes":"6g"}`, "line 2: not a line of a recording: encoding/hex: invalid byte: U+0067 'g'"},
		{head + "\n" + `{"time":"2026-01-02T03:04:07Z","from":"device"}`, "line 2: bytes is missing"},
		{head + "\n" + `{"time":"2026-01-02T03:04:07Z","from":"me","bytes":"68"}`, `line 2: from is "me"; allowed: "device", "host"`},
		{head + "\n" + `{"from":"device","bytes":"68"}`, "line 2: time is missing"},
		{head + "\n" + said + "\n" + strings.Replace(said, "06Z", "05.9Z", 1), "line 3: the time goes back, from 2026-01-02T03:04:06Z to 2026-01-02T03:04:05.9Z"},
		{head + "\n" + `{"time":"2026-01-02T03:04:07Z","ended":"client_closed"}` + "\n" + said, "line 3: the connection has ended (client_closed), but the recording goes on"},
		{head + "\n" + `{"time":"2026-01-02T03:04:07Z","error":"bytes are missing"}`, "line 2: the recording isn't complete: bytes are missing; remove this line to use the lines before it"},
		{head + "\n" + said[:len(said)-4], "line 2: not a line of a recording: "},
		{head + "\n" + `{"text":"` + strings.Repeat("x", 1<<20) + `"}`, "line 2: a line is longer than 1048576 bytes"},
	} {
		err := readAll(strings.NewReader(c.text))
		if err == nil || !strings.HasPrefix(err.Error(), c.want) {
			t.Errorf("%.200q: got %v, want %s", c.text, err, c.want)
		}
	}
}

func readAll(in io.Reader) error {
	r, err := recording.NewReader(in)
	for err == nil {
		_, err = r.Next()
	}
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// endless is a recording without an end. It counts what was read of it.
type endless struct{ read int }

func (e *endless) Read(p []byte) (int, error) {
	text := said + "\n"
	if e.read == 0 {
		text = head + "\n"
	}
	n := copy(p, text)
	e.read += n
	return n, nil
}

// A reader reads no further than it has to. So the length of a recording doesn't matter.
func TestAnEndlessRecording(t *testing.T) {
	in := &endless{}
	r, err := recording.NewReader(in)
	if err != nil {
		t.Fatal(err)
	}
	for range 1000 {
		if _, err := r.Next(); err != nil {
			t.Fatal(err)
		}
	}
	if most := (1000 + 2) * (len(head) + 1); in.read > most {
		t.Errorf("%d bytes were read for 1000 lines", in.read)
	}
}

func TestDifference(t *testing.T) {
	long := strings.Repeat("0123456789", 20)
	for _, c := range []struct{ recorded, sent, want string }{
		{"LOAD", "ON", "in its first byte\nrecorded: \"LOAD\", hex 4c4f4144\nsent now: \"ON\", hex 4f4e"},
		{"LOAD", "LO", "after 2 equal bytes\nrecorded: \"LOAD\", hex 4c4f4144\nsent now: \"LO\", hex 4c4f"},
		{"LOAD", "", "in its first byte\nrecorded: \"LOAD\", hex 4c4f4144\nsent now: nothing"},
		{"\x78\x78\x05", "\x78\x78\xff", "after 2 equal bytes\nrecorded: \"xx\\x05\", hex 787805\nsent now: hex 7878ff"},
		{
			long, long[:100] + "x", "after 100 equal bytes\nrecorded: ... \"4567890123456789012345678901234567890123456789012345678901234567\", hex 34353637383930313233343536373839303132333435363738393031323334353637383930313233343536373839303132333435363738393031323334353637 ... (200 bytes)\nsent now: ... \"4567890123456789x\", hex 3435363738393031323334353637383978",
		},
	} {
		if diff := cmp.Diff(c.want, recording.Difference([]byte(c.recorded), []byte(c.sent))); diff != "" {
			t.Error(diff)
		}
	}
}

func FuzzReader(f *testing.F) {
	f.Add(head + "\n" + said)
	f.Add(head + "\n" + `{"time":"2026-01-02T03:04:07Z","ended":"client_closed"}`)
	f.Fuzz(func(t *testing.T, text string) {
		if err := readAll(strings.NewReader(text)); err != nil && err.Error() == "" {
			t.Error("an error without a text")
		}
	})
}
