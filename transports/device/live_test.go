package device

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
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
	got := map[string]Live{}
	for _, l := range r.Live() {
		got[l.Device] = l
	}
	want := map[string]Live{
		"a": {Device: "a", RemoteAddr: "192.0.2.1:1000", Epoch: asked.Epoch(), ConnectedAt: asked.connectedAt, OpenRequests: 1},
		"b": {Device: "b", RemoteAddr: "192.0.2.1:1000", Epoch: s.Epoch(), ConnectedAt: s.connectedAt, Waiting: 2, WaitingBytes: len("open\nclose\n")},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	s.End(Kicked)
}
