package tcp

import (
	"bufio"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/pentrough/pentrough/transports/device"
)

// TestOrderOverReconnects sends to devices that reconnect all the time. A command is read at most
// once, in order, and only if its fate is Sent.
func TestOrderOverReconnects(t *testing.T) {
	const devices, commands, reconnectAfter = 4, 2000, 50
	s := start(t, func(c *Config) { c.SendBuffer = 4096 })
	go func() {
		for msg := range s.events {
			msg.Ack()
		}
	}()
	var wg sync.WaitGroup
	for i := range devices {
		wg.Go(func() { s.commandReconnecting(i, commands, reconnectAfter) })
	}
	wg.Wait()
}

func (s *server) commandReconnecting(i, commands, reconnectAfter int) {
	var read []string
	quit, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-quit:
				return
			default:
				read = append(read, s.readSome(i, reconnectAfter, quit)...)
			}
		}
	}()
	name := fmt.Sprintf("127.1.0.%d", i)
	var writes []device.Write
	for len(writes) < commands {
		w, err := s.Devices().Enqueue(name, fmt.Appendf(nil, "%d:%s", len(writes), strings.Repeat("x", 100)), device.EnqueueOptions{})
		switch {
		case err == nil:
			writes = append(writes, w)
		case !errors.Is(err, device.ErrOffline) && !errors.Is(err, device.ErrBusy):
			s.Error(err)
			return
		}
	}
	fates := make([]device.Fate, commands)
	for n, w := range writes {
		fates[n] = w.Wait(s.Context()).Fate
	}
	close(quit)
	<-stopped
	last := -1
	for _, line := range read {
		var n int
		if _, err := fmt.Sscanf(line, "%d:", &n); err != nil {
			s.Errorf("read %q: %v", line, err)
			return
		}
		if n <= last {
			s.Errorf("read command %d after %d", n, last)
		}
		last = n
		if fates[n] != device.Sent {
			s.Errorf("read command %d, whose fate is %d", n, fates[n])
		}
	}
	if len(read) == 0 {
		s.Error("nothing was read")
	}
}

// readSome connects, reads some whole lines and leaves.
func (s *server) readSome(i, lines int, quit <-chan struct{}) (read []string) {
	conn, err := dialFrom(s.Context(), i, s.addr)
	if err != nil {
		s.Error(err)
		return nil
	}
	var once sync.Once
	leave := func() { once.Do(func() { conn.Close() }) }
	done := make(chan struct{})
	defer close(done)
	go func() {
		select {
		case <-quit:
			// The rest has been taken by the kernel already: end the stream behind it.
			_ = closeWrite(conn)
		case <-done:
		}
	}()
	defer leave()
	r := bufio.NewReader(conn)
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return read
		}
		read = append(read, strings.TrimSuffix(line, "\r\n"))
		if len(read) == lines {
			select {
			case <-quit:
			default:
				return read
			}
		}
	}
}
