package device

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pentrough/pentrough/internal/testenv/await"
)

func TestLive(t *testing.T) {
	r := testRegistry(t, nil)
	stuck := newPipe(0)
	s := connect(t, r, "b", stuck)
	gone := connect(t, r, "c", newPipe(100))
	asked := connect(t, r, "a", newPipe(100))
	enqueue(t, r, "b", "open")
	enqueue(t, r, "b", "close")
	if _, err := r.Enqueue("a", []byte("how?"), EnqueueOptions{Request: &Request{Timeout: time.Hour}}); err != nil {
		t.Fatal(err)
	}
	gone.End(ClientClosed)
	heard := time.Now().Add(time.Hour)
	stuck.change(func() { stuck.lastRead = heard })
	stuck.grant(7)
	await.That(t, "the device has the first command and a part of the second", func() (any, bool) { return stuck.bytes(), stuck.bytes() == "open\ncl" })
	if err := errors.Join(s.Data([]byte("one")), s.Data(nil), s.Data([]byte("three")), s.Partial([]byte("fo"))); err != nil {
		t.Fatal(err)
	}
	got := map[string]Live{}
	for _, l := range r.Live() {
		got[l.Device] = l
	}
	want := map[string]Live{
		"a": {Device: "a", RemoteAddr: "192.0.2.1:1000", Epoch: asked.Epoch(), ConnectedAt: asked.connectedAt, OpenRequests: 1, Traffic: Traffic{FramesOut: 1, BytesOut: 5}, LastRead: asked.connectedAt},
		"b": {Device: "b", RemoteAddr: "192.0.2.1:1000", Epoch: s.Epoch(), ConnectedAt: s.connectedAt, Waiting: 1, WaitingBytes: len("close\n"),
			Traffic: Traffic{FramesIn: 3, BytesIn: 10, FramesOut: 1, BytesOut: 7}, LastRead: heard},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	s.End(Kicked)
}

func TestFailures(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	r := testRegistry(t, func(o *Options) { o.Now = func() time.Time { return now } })
	if got := r.Failures(); len(got) > 0 {
		t.Errorf("without an error: %v", got)
	}
	s := connect(t, r, "d", newPipe(0))
	r.NoteError("d", "bad checksum")
	now = now.Add(time.Second)
	r.NoteError("d", strings.Repeat("é", 200))
	s.End(ProtocolError)
	if diff := cmp.Diff(map[string]Failure{"d": {Text: strings.Repeat("é", 100) + "...", Time: now}}, r.Failures()); diff != "" {
		t.Error(diff)
	}
	for i := range 2 * maxFailures {
		now = now.Add(time.Second)
		r.NoteError(fmt.Sprint(i), "strange")
	}
	got := r.Failures()
	if _, newest := got[fmt.Sprint(2*maxFailures-1)]; len(got) != maxFailures || !newest {
		t.Errorf("%d errors are remembered, the newest: %v", len(got), newest)
	}
}

// A device whose connection breaks while the host writes has an error.
func TestAFailureOfWriting(t *testing.T) {
	r := testRegistry(t, nil)
	p := newPipe(100)
	p.tryError = errors.New("broken pipe")
	connect(t, r, "d", p)
	enqueue(t, r, "d", "open").Wait(t.Context())
	if got := r.Failures()["d"].Text; got != "broken pipe" {
		t.Errorf("the error is %q", got)
	}
}
