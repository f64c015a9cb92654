package amqp

import (
	"bytes"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"
)

func TestWireNeverBlocksAndLosesNothing(t *testing.T) {
	far, near := net.Pipe() // without a buffer: a write lasts until the peer reads
	w := newWire(near, nil, nil)
	var want bytes.Buffer
	for i := range 1000 {
		chunk := bytes.Repeat([]byte{byte(i)}, i)
		want.Write(chunk)
		if n, err := w.Write(chunk); n != len(chunk) || err != nil {
			t.Fatalf("write %d: %d, %v", i, n, err)
		}
	}
	got := make([]byte, want.Len())
	if _, err := io.ReadFull(far, got); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want.Bytes()) {
		t.Fatal("the bytes differ")
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte("x")); err == nil {
		t.Fatal("a closed wire takes bytes")
	}
}

func TestWireClosesThoughThePeerDoesNotRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, near := net.Pipe()
		w := newWire(near, nil, nil)
		if _, err := w.Write([]byte("never read")); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		w.Close()
		if took := time.Since(began); took != flushTime {
			t.Fatalf("closing took %s", took)
		}
	})
}

func TestWireSendsItsLastWords(t *testing.T) {
	far, near := net.Pipe()
	w := newWire(near, nil, nil)
	if _, err := w.Write([]byte("bye")); err != nil {
		t.Fatal(err)
	}
	go w.Close()
	got, err := io.ReadAll(far)
	if err != nil || string(got) != "bye" {
		t.Fatalf("read %q, %v", got, err)
	}
	<-w.done
}
