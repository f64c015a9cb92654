package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pentrough/pentrough/internal/testenv/await"
	"github.com/pentrough/pentrough/internal/testenv/certs"
)

// asProgram makes the test binary the program itself.
const asProgram = "DEVSIM_TEST_AS_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		main()
		return
	}
	await.Main(m)
}

// host is the other end: it hands out the connections of devices.
type host struct {
	*testing.T
	net.Listener
}

func listen(t *testing.T) *host {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return &host{t, l}
}

type link struct {
	*testing.T
	net.Conn
	r    *bufio.Reader
	from string
}

func (h *host) accept() *link {
	h.Helper()
	if err := h.Listener.(*net.TCPListener).SetDeadline(time.Now().Add(await.Patience)); err != nil {
		h.Fatal(err)
	}
	conn, err := h.Accept()
	if err != nil {
		h.Fatalf("waited %s for a device to connect: %v", await.Patience, err)
	}
	h.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(await.Patience)); err != nil {
		h.Fatal(err)
	}
	return &link{h.T, conn, bufio.NewReader(conn), conn.RemoteAddr().(*net.TCPAddr).IP.String()}
}

func (l *link) hear(want string) {
	l.Helper()
	if got, err := l.r.ReadString('\n'); got != want+"\r\n" {
		l.Fatalf("got %q, %v; want %q", got, err, want)
	}
}

func (l *link) say(text string) {
	l.Helper()
	if _, err := l.Write([]byte(text)); err != nil {
		l.Fatal(err)
	}
}

// running is a run of the program.
type running struct {
	*testing.T
	cancel         context.CancelFunc
	code           chan int
	stdout, stderr bytes.Buffer
}

func start(t *testing.T, args ...string) *running {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	r := &running{T: t, cancel: cancel, code: make(chan int, 1)}
	go func() { r.code <- run(ctx, args, &r.stdout, &r.stderr) }()
	return r
}

// end waits for the end and returns the summary.
func (r *running) end(code int) summary {
	r.Helper()
	if got := await.Receive(r.T, "the program's exit code", r.code); got != code {
		r.Fatalf("exit code %d, want %d; stderr: %s", got, code, &r.stderr)
	}
	var s summary
	if err := json.Unmarshal(r.stdout.Bytes(), &s); err != nil {
		r.Fatalf("the summary %q: %v", &r.stdout, err)
	}
	if n := strings.Count(r.stdout.String(), "\n"); n != 1 {
		r.Errorf("the summary has %d lines", n)
	}
	return s
}

func TestDevices(t *testing.T) {
	h := listen(t)
	record := filepath.Join(t.TempDir(), "lines")
	r := start(t, "-addr", h.Addr().String(), "-n", "3", "-from", "127.1.0.255", "-hello", "HELLO {id}", "-reply", "{id} did {line}", "-record", record)
	links := map[string]*link{}
	for range 3 {
		l := h.accept()
		l.hear("HELLO " + l.from)
		links[l.from] = l
	}
	for from, l := range links {
		l.say("one\r\ntwo\nthr")
		l.hear(from + " did one")
		l.hear(from + " did two")
		l.say("ee\r\n")
		l.hear(from + " did three")
		l.say("never ended")
	}
	r.cancel()
	s := r.end(0)
	if s.Devices != 3 || s.Connected != 3 || s.Connects != 3 || s.LinesRead != 9 || s.LinesSent != 12 || s.Lost != 0 {
		t.Errorf("got %+v", s)
	}
	if !strings.Contains(r.stderr.String(), "all 3 devices connected") {
		t.Errorf("stderr: %s", &r.stderr)
	}
	content, err := os.ReadFile(record)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSuffix(string(content), "\n"), "\n")
	for _, from := range []string{"127.1.0.255", "127.1.1.0", "127.1.1.1"} {
		var own []string
		for _, line := range lines {
			if rest, ok := strings.CutPrefix(line, from+"\t"); ok {
				own = append(own, rest)
			}
		}
		if want := []string{"one", "two", "three"}; !slices.Equal(own, want) {
			t.Errorf("%s recorded %q, want %q", from, own, want)
		}
	}
}

func TestData(t *testing.T) {
	h := listen(t)
	r := start(t, "-addr", h.Addr().String(), "-from", "", "-rate", "200", "-data", "{id} says {n}")
	l := h.accept()
	for _, n := range []string{"1", "2", "3"} {
		l.hear("device-0 says " + n)
	}
	r.cancel()
	if s := r.end(0); s.LinesSent < 3 || s.LinesRead != 0 {
		t.Errorf("got %+v", s)
	}
}

func TestSilentDevicesDontRead(t *testing.T) {
	h := listen(t)
	r := start(t, "-addr", h.Addr().String(), "-n", "2", "-silent", "1", "-reply", "{line}")
	links := map[string]*link{}
	for range 2 {
		l := h.accept()
		links[l.from] = l
		l.say("x\n")
	}
	links["127.1.0.1"].hear("x")
	r.cancel()
	if s := r.end(0); s.LinesRead != 1 {
		t.Errorf("got %+v", s)
	}
}

func TestReconnect(t *testing.T) {
	h := listen(t)
	r := start(t, "-addr", h.Addr().String(), "-reconnect", "-hello", "hi")
	for range 3 {
		l := h.accept()
		l.hear("hi")
		l.Close()
	}
	h.accept().hear("hi")
	r.cancel()
	if s := r.end(0); s.Connected != 1 || s.Connects < 4 || s.Lost < 3 {
		t.Errorf("got %+v", s)
	}
}

func TestSessionsEndByThemselves(t *testing.T) {
	h := listen(t)
	r := start(t, "-addr", h.Addr().String(), "-reconnect", "-session", "20ms")
	for range 3 {
		if line, err := h.accept().r.ReadString('\n'); err != io.EOF {
			t.Errorf("read %q, %v", line, err)
		}
	}
	r.cancel()
	if s := r.end(0); s.Connected != 1 || s.Connects < 3 || s.Lost != 0 {
		t.Errorf("got %+v", s)
	}
}

func TestEndsWithItsConnections(t *testing.T) {
	h := listen(t)
	r := start(t, "-addr", h.Addr().String())
	h.accept().Close()
	if s := r.end(0); s.Lost != 1 {
		t.Errorf("got %+v", s)
	}
}

func TestDuration(t *testing.T) {
	h := listen(t)
	for duration := 200 * time.Millisecond; ; duration *= 2 {
		r := start(t, "-addr", h.Addr().String(), "-duration", duration.String(), "-silent", "1", "-rate", "1")
		code := await.Receive(t, "the program's exit code", r.code)
		if code == 1 && duration < await.Patience {
			continue // it had no time to connect
		}
		r.code <- code
		if s := r.end(0); s.Connected != 1 || s.Seconds < duration.Seconds()/2 {
			t.Errorf("got %+v", s)
		}
		return
	}
}

func TestNobodyListens(t *testing.T) {
	// Nobody else can listen on a port that a connection has.
	conn, err := net.Dial("tcp", listen(t).Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if s := start(t, "-addr", conn.LocalAddr().String(), "-n", "2").end(1); s.FailedDials != 2 {
		t.Errorf("got %+v", s)
	}
}

func TestWrongFlags(t *testing.T) {
	for _, args := range [][]string{{"-n", "0"}, {"-silent", "2"}, {"-rate", "-1"}, {"-from", "x"}, {"-nonsense"}, {"word"}} {
		var out bytes.Buffer
		if code := run(t.Context(), args, &out, &out); code != 2 || out.Len() == 0 {
			t.Errorf("%q: exit code %d, said %q", args, code, &out)
		}
	}
	var out bytes.Buffer
	if code := run(t.Context(), []string{"-record", t.TempDir()}, &out, &out); code != 1 || !strings.Contains(out.String(), "opening the record") {
		t.Errorf("a record that can't be written: exit code %d, said %q", code, &out)
	}
	if code := run(t.Context(), []string{"-h"}, &out, &out); code != 0 {
		t.Errorf("-h: exit code %d", code)
	}
}

func TestHelp(t *testing.T) {
	var out, errOut bytes.Buffer
	if code := run(t.Context(), []string{"-help"}, &out, &errOut); code != 0 {
		t.Errorf("exit code %d", code)
	}
	text := errOut.String()
	if !strings.HasPrefix(text, "devsim simulates many TCP devices") || !strings.Contains(text, "\n  -addr string\n") {
		t.Errorf("help says %s", text)
	}
}

func TestSignals(t *testing.T) {
	for _, sig := range []os.Signal{os.Interrupt, syscall.SIGTERM} {
		h := listen(t)
		cmd := exec.Command(os.Args[0], "-addr", h.Addr().String(), "-reconnect", "-hello", "hi")
		cmd.Env = append(os.Environ(), asProgram+"=1")
		var stdout bytes.Buffer
		cmd.Stdout = &stdout
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		h.accept().hear("hi")
		if err := cmd.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Wait(); err != nil {
			t.Errorf("after %v: %v", sig, err)
		}
		var s summary
		if err := json.Unmarshal(stdout.Bytes(), &s); err != nil {
			t.Errorf("after %v: %q, %v", sig, &stdout, err)
		}
	}
}

func TestTLS(t *testing.T) {
	ca, err := certs.New(t.TempDir(), "ca")
	if err != nil {
		t.Fatal(err)
	}
	server, err := ca.Issue("server", nil)
	if err != nil {
		t.Fatal(err)
	}
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{server.TLS}, ClientAuth: tls.RequireAnyClientCert})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	r := start(t, "-addr", l.Addr().String(), "-tls", "-ca", ca.Cert, "-cert", server.Cert, "-key", server.Key, "-hello", "hi")
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(await.Patience)); err != nil {
		t.Fatal(err)
	}
	(&link{T: t, Conn: conn, r: bufio.NewReader(conn)}).hear("hi")
	r.cancel()
	if s := r.end(0); s.Connected != 1 {
		t.Errorf("got %+v", s)
	}
	for args, want := range map[string]string{
		"-ca x":                     "need -tls",
		"-tls -ca /nowhere":         "reading tls.ca: open /nowhere",
		"-tls -cert " + server.Cert: "cert and key belong together",
	} {
		r := start(t, strings.Fields(args)...)
		if code := await.Receive(t, "the exit code", r.code); code != 2 || !strings.Contains(r.stderr.String(), want) {
			t.Errorf("%s: exit code %d, %s", args, code, &r.stderr)
		}
	}
}
