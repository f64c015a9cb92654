package transports

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
)

func TestBudget(t *testing.T) {
	b := NewBudget(100)
	for _, c := range []struct {
		what     string
		do       func() bool
		ok, full bool
		used     int
	}{
		{what: "a part", do: func() bool { return b.Take(60) }, ok: true, used: 60},
		{what: "more than is left", do: func() bool { return b.Take(41) }, used: 60},
		{what: "the rest", do: func() bool { return b.Take(40) }, ok: true, full: true, used: 100},
		{what: "what can't be refused", do: func() bool { b.Add(50); return true }, ok: true, full: true, used: 150},
		{what: "all of it back", do: func() bool { b.Give(150); return true }, ok: true},
		{what: "more than the whole, alone", do: func() bool { return b.Take(1000) }, ok: true, full: true, used: 1000},
		{what: "anything beside it", do: func() bool { return b.Take(1) }, full: true, used: 1000},
	} {
		if ok := c.do(); ok != c.ok || b.Full() != c.full || b.Used() != c.used {
			t.Fatalf("%s: %v, full %v, used %d", c.what, ok, b.Full(), b.Used())
		}
	}
}

func TestNoBudgetHasNoLimit(t *testing.T) {
	for _, b := range []*Budget{nil, NewBudget(0)} {
		b.Add(1 << 40)
		if !b.Take(1<<40) || b.Full() || b.Limit() != 0 {
			t.Errorf("a budget of %d bytes has a limit", b.Limit())
		}
		b.Give(1 << 41)
		if b.Used() != 0 {
			t.Errorf("%d bytes are left taken", b.Used())
		}
	}
}

func TestBudgetIsNotExceeded(t *testing.T) {
	b := NewBudget(10)
	var work sync.WaitGroup
	for range 8 {
		work.Go(func() {
			for range 1000 {
				if b.Take(3) {
					if used := b.Used(); used > 10 {
						t.Errorf("%d bytes of 10 are used", used)
					}
					b.Give(3)
				}
			}
		})
	}
	work.Wait()
	if b.Used() != 0 {
		t.Errorf("%d bytes are left taken", b.Used())
	}
}

func TestReadAll(t *testing.T) {
	text := strings.Repeat("x", 10_000)
	broken := errors.New("broken")
	for what, c := range map[string]struct {
		from         io.Reader
		expected     int64
		most, budget int
		beside       int // taken by others
		read, taken  int // taken at most
		err          error
	}{
		"length unknown":         {strings.NewReader(text), -1, 20_000, 0, 0, 10_000, 20_000, nil},
		"length known":           {strings.NewReader(text), 10_000, 20_000, 0, 0, 10_000, 10_001, nil},
		"announced and not sent": {strings.NewReader("x"), 1 << 30, 1 << 31, 0, 0, 1, firstRead, nil},
		"more than announced":    {strings.NewReader(text), 100, 20_000, 0, 0, 10_000, 20_001, nil},
		"exactly as much as may": {strings.NewReader(text), -1, 10_000, 0, 0, 10_000, 10_001, nil},
		"too much":               {strings.NewReader(text), -1, 9_999, 0, 0, 10_000, 10_000, nil},
		"byte by byte":           {iotest.OneByteReader(strings.NewReader(text)), -1, 20_000, 0, 0, 10_000, 20_000, nil},
		"end with the last byte": {iotest.DataErrReader(strings.NewReader(text)), -1, 20_000, 0, 0, 10_000, 20_000, nil},
		"nothing":                {strings.NewReader(""), 0, 10, 0, 0, 0, 1, nil},
		"no room":                {strings.NewReader(text), -1, 20_000, 5_001, 1, 4096, 5_000, ErrNoRoom},
		"alone":                  {strings.NewReader(text), -1, 20_000, 5_000, 0, 10_000, 20_000, nil},
		"broken":                 {io.MultiReader(strings.NewReader("xx"), iotest.ErrReader(broken)), -1, 10, 0, 0, 2, 11, broken},
	} {
		b := NewBudget(c.budget)
		b.Add(c.beside)
		body, taken, err := b.ReadAll(BodySource{Reader: c.from, Expected: c.expected}, c.most)
		if len(body) != c.read || !bytes.Equal(body, []byte(text[:c.read])) || !errors.Is(err, c.err) {
			t.Errorf("%s: %d bytes, %v; want %d, %v", what, len(body), err, c.read, c.err)
		}
		if taken < len(body) || taken != cap(body) || taken > c.taken || b.Used() != taken+c.beside {
			t.Errorf("%s: %d bytes are taken for %d of %d, used %d", what, taken, len(body), cap(body), b.Used())
		}
	}
}

// pausingBody is a body that never arrives. interrupt ends its Read.
func pausingBody() (body BodySource, reading <-chan struct{}) {
	began, interrupted := make(chan struct{}), make(chan struct{})
	return BodySource{
		Reader: readerFunc(func([]byte) (int, error) {
			close(began)
			<-interrupted
			return 0, errors.New("interrupted")
		}),
		Expected: -1, Interrupt: func() { close(interrupted) },
	}, began
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// While the budget is used up, a small body displaces those that have been read for the longest
// time. It displaces no more of them than it needs, and never itself.
func TestASmallBodyDisplacesTheOldest(t *testing.T) {
	b := NewBudget(4 * firstRead)
	var ends []chan error
	for range 4 {
		body, reading := pausingBody()
		end := make(chan error, 1)
		go func() {
			_, taken, err := b.ReadAll(body, SmallBody)
			if taken != 0 {
				t.Errorf("a displaced body has %d bytes", taken)
			}
			end <- err
		}()
		<-reading
		ends = append(ends, end)
	}
	text := strings.Repeat("x", 2*firstRead)
	body, taken, err := b.ReadAll(BodySource{Reader: strings.NewReader(text), Expected: int64(len(text)), Interrupt: func() { t.Error("it displaces itself") }}, SmallBody)
	if string(body) != text || err != nil {
		t.Errorf("read %d bytes, %v", len(body), err)
	}
	if b.Used() > b.Limit() {
		t.Errorf("%d bytes are taken", b.Used())
	}
	for i, displaced := range []bool{true, true, true, false} {
		if !displaced {
			select {
			case err := <-ends[i]:
				t.Errorf("the newest body ended: %v", err)
			default:
			}
		} else if err := <-ends[i]; !errors.Is(err, ErrNoRoom) {
			t.Errorf("body %d ended with %v", i, err)
		}
	}
	// A larger body displaces nothing.
	large := BodySource{Reader: strings.NewReader(strings.Repeat("x", 2*SmallBody)), Expected: 2 * SmallBody}
	_, more, err := b.ReadAll(large, 4*SmallBody)
	if !errors.Is(err, ErrNoRoom) {
		t.Errorf("a large body took %d bytes: %v", more, err)
	}
	b.Give(taken + more)
	b.displaceOldest(&bodyReader{})
	if err := <-ends[3]; !errors.Is(err, ErrNoRoom) {
		t.Errorf("the newest body ended with %v", err)
	}
	if b.Used() != 0 || b.readers.Len() != 0 {
		t.Errorf("%d bytes and %d readers are left", b.Used(), b.readers.Len())
	}
}
