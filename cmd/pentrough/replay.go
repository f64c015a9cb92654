package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/pentrough/pentrough/internal/recording"
)

const (
	// dialTimeout is how long connecting to the host may take.
	dialTimeout = 10 * time.Second
	// restTime is how long the verb reads on after a difference, to show more of what the host
	// sends. It reads on for the same time after the end of a recording.
	restTime = time.Second
)

// replayVerb is one call of pentrough replay.
type replayVerb struct {
	to         string
	speed      float64
	times      bool
	ignoreHost bool
	timeout    time.Duration
}

func newReplay() *cobra.Command {
	v := replayVerb{}
	cmd := &cobra.Command{
		Use:   "replay FILE --to ADDRESS",
		Short: "Play the device of a recording against a host",
		Long: `Play the device of a recording against a running host. pentrough replay connects to a TCP
transport and sends what the device sent, at the recorded times. Where the recording has bytes of
the host, pentrough replay waits for as many bytes, and compares them with the recorded ones.

The host sends a recorded command only if someone sends that command to the host again. With
--ignore-host, pentrough replay doesn't wait for the host and compares nothing.

Exit codes: 0 the host sent the same, 1 it sent something else, or the recording couldn't be played.`,
		Example: `  pentrough replay bug.jsonl --to 127.0.0.1:8123
  pentrough replay bug.jsonl --to 127.0.0.1:8123 --speed 0 --times`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return advise(errors.New("replay needs one recording"), "for example: pentrough replay bug.jsonl --to 127.0.0.1:8123")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := v.check(); err != nil {
				return err
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			return v.run(ctx, args[0], cmd.OutOrStdout())
		},
	}
	f := cmd.Flags()
	f.StringVar(&v.to, "to", "", "the address on which the host listens for devices, host:port")
	f.Float64Var(&v.speed, "speed", 1, "how many times faster than recorded; 0 sends without waiting for the recorded times")
	f.BoolVar(&v.times, "times", false, "print what both sides send, with the recorded time and the time now")
	f.BoolVar(&v.ignoreHost, "ignore-host", false, "compare nothing, and don't wait for what the host sends")
	f.DurationVar(&v.timeout, "timeout", 10*time.Second, "how much longer than recorded the host may take to send something")
	return cmd
}

func (v *replayVerb) check() error {
	_, port, err := net.SplitHostPort(v.to)
	switch {
	case v.to == "":
		return advise(errors.New("--to is missing"), "name the address on which the host listens for devices: --to 127.0.0.1:8123")
	case err != nil || port == "":
		return advise(fmt.Errorf("reading --to: %q isn't an address", v.to), "give host:port, such as 127.0.0.1:8123")
	case v.speed < 0 || v.speed != v.speed:
		return advise(fmt.Errorf("--speed %v isn't a speed", v.speed), "give 1 for the recorded times, 10 for ten times as fast, 0 for no waiting")
	case v.timeout <= 0:
		return advise(fmt.Errorf("--timeout %s is too short", v.timeout), "give a time such as 10s")
	}
	return nil
}

// run replays a file.
func (v *replayVerb) run(ctx context.Context, file string, out io.Writer) error {
	f, err := os.Open(file)
	if err != nil {
		return advise(fileError("opening", file, err), "record a device with: pentrough record DEVICE > %s", file)
	}
	defer f.Close()
	r, err := recording.NewReader(f)
	if err != nil {
		return badRecording(file, err)
	}
	dialer := net.Dialer{Timeout: dialTimeout}
	conn, err := dialer.DialContext(ctx, "tcp", v.to)
	if err != nil {
		return advise(err, "check that a host listens there (pentrough run), and name the address of its tcp transport with --to")
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	p := &playback{replayVerb: v, conn: conn.(*net.TCPConn), reader: r, began: time.Now(), out: out, file: file}
	err = p.play(ctx)
	if ctx.Err() != nil {
		return fmt.Errorf("replaying %s: stopped at line %d", file, r.LineNumber())
	}
	return err
}

func badRecording(file string, err error) error {
	return advise(fmt.Errorf("reading %s: %w", file, err), "a recording is what pentrough record DEVICE prints")
}

// playback is the connection on which a recording is replayed.
type playback struct {
	*replayVerb
	conn   *net.TCPConn
	reader *recording.Reader
	began  time.Time
	out    io.Writer
	file   string

	last         time.Time // the recorded time of the line before
	lines        int
	sent, gotten int
}

// play sends and compares all lines.
func (p *playback) play(ctx context.Context) error {
	p.last = p.reader.Began
	for {
		l, err := p.reader.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return badRecording(p.file, err)
		}
		if l.From == recording.FromDevice {
			err = p.send(ctx, l)
		} else if !p.ignoreHost {
			err = p.compare(l)
		}
		if err != nil {
			return fmt.Errorf("replaying %s: line %d: %w", p.file, p.reader.LineNumber(), err)
		}
		p.last = l.Time
		p.lines++
	}
	if err := p.finish(); err != nil {
		return fmt.Errorf("replaying %s: %w", p.file, err)
	}
	same := fmt.Sprintf("the host sent the same %d bytes", p.gotten)
	if p.ignoreHost {
		same = "what the host sent wasn't compared"
	}
	_, err := fmt.Fprintf(p.out, "replayed %d lines in %s: sent %d bytes, and %s\n", p.lines, time.Since(p.began).Round(time.Millisecond), p.sent, same)
	return err
}

// send sends what the device sent, at its time.
func (p *playback) send(ctx context.Context, l recording.Line) error {
	if p.speed > 0 {
		due := p.began.Add(time.Duration(float64(l.Time.Sub(p.reader.Began)) / p.speed))
		select {
		case <-time.After(time.Until(due)):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if err := p.conn.SetWriteDeadline(time.Now().Add(p.timeout)); err != nil {
		return fmt.Errorf("sending: %w", err)
	}
	n, err := p.conn.Write(l.Bytes)
	p.sent += n
	if err != nil {
		return advise(fmt.Errorf("sending: %w", err), "the host has closed the connection, or doesn't read; its log may say why")
	}
	return p.print(l)
}

// compare reads as many bytes as the host sent, and compares them.
func (p *playback) compare(l recording.Line) error {
	patience := l.Time.Sub(p.last) + p.timeout
	got := make([]byte, 0, len(l.Bytes))
	deadline := time.Now().Add(patience)
	for len(got) < len(l.Bytes) {
		if err := p.conn.SetReadDeadline(deadline); err != nil {
			return fmt.Errorf("reading: %w", err)
		}
		n, err := p.conn.Read(got[len(got):cap(got)])
		got = got[:len(got)+n]
		p.gotten += n
		same := recording.Prefixed(l.Bytes, got)
		switch {
		case err != nil && !same:
		case errors.Is(err, os.ErrDeadlineExceeded):
			return different(l.Bytes, got, "the host didn't send the recorded bytes within "+patience.String())
		case err != nil:
			return different(l.Bytes, got, "the host closed the connection and didn't send the recorded bytes")
		case !same && len(got) < len(l.Bytes):
			deadline = time.Now().Add(restTime)
			continue
		}
		if !same {
			return different(l.Bytes, got, "the host sent something else")
		}
	}
	return p.print(l)
}

// different returns the error for a difference.
func different(recorded, got []byte, what string) error {
	return advise(fmt.Errorf("%s, %s", what, recording.Difference(recorded, got)), "--ignore-host replays without comparing; recorded commands have to be sent to the host again")
}

// finish closes the sending side. If the recording has the end of the connection, it checks that
// the host sends nothing more.
func (p *playback) finish() error {
	if err := p.conn.CloseWrite(); err != nil && p.reader.Ended() == "" {
		return fmt.Errorf("closing the connection: %w", err)
	}
	if p.reader.Ended() == "" || p.ignoreHost {
		return nil
	}
	if err := p.conn.SetReadDeadline(time.Now().Add(restTime)); err != nil {
		return fmt.Errorf("reading: %w", err)
	}
	more := make([]byte, 1<<10)
	n, _ := io.ReadFull(p.conn, more) // at a time-out or the end there is no more
	if n > 0 {
		return different(nil, more[:n], "after the last line, the host sent something else")
	}
	return nil
}

// print prints what a side has sent, for --times.
func (p *playback) print(l recording.Line) error {
	if !p.times {
		return nil
	}
	at := func(d time.Duration) string { return fmt.Sprintf("%+.3f", d.Seconds()) }
	_, err := fmt.Fprintf(p.out, "recorded %ss  now %ss  %-6s  %s\n", at(l.Time.Sub(p.reader.Began)), at(time.Since(p.began)), l.From, recording.Show(l.Bytes))
	return err
}
