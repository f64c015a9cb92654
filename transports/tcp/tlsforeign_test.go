package tcp

import (
	"bufio"
	"io"
	"os/exec"
	"testing"

	"github.com/pentrough/pentrough/internal/testenv/await"
	"github.com/pentrough/pentrough/transports/device"
)

// program is another TLS implementation that runs as a device.
type program struct {
	*testing.T
	in  io.WriteCloser
	out <-chan string
}

func run(t *testing.T, name string, args ...string) *program {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = cmd.Stdout
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := make(chan string, 100)
	go func() {
		defer close(lines)
		for s := bufio.NewScanner(out); s.Scan(); {
			lines <- s.Text()
		}
	}()
	t.Cleanup(func() {
		in.Close()
		_ = cmd.Process.Kill()
		for range lines { // until the program has ended
		}
		_ = cmd.Wait() // it is killed
	})
	return &program{t, in, lines}
}

func (p *program) say(text string) {
	p.Helper()
	if _, err := io.WriteString(p.in, text); err != nil {
		p.Fatal(err)
	}
}

// hear waits for a line.
func (p *program) hear(want string) {
	p.Helper()
	for {
		if await.Receive(p.T, "the line "+want, p.out) == want {
			return
		}
	}
}

func TestOpenSSL(t *testing.T) {
	onlyTLS(t)
	client, err := pki.ca.Issue("openssl", nil)
	if err != nil {
		t.Fatal(err)
	}
	connect := func(s *server, version string) *program {
		return run(t, "openssl", "s_client", "-connect", s.addr, version, "-CAfile", pki.ca.Cert, "-verify_return_error", "-cert", client.Cert, "-key", client.Key)
	}
	byCert := func(c *Config) { mutual(c); c.Identity.By = byCertificate }
	t.Run("new keys", func(t *testing.T) {
		s := start(t, byCert)
		d := connect(s, "-tls1_3")
		s.expect(device.Connected, "openssl", "")
		for _, cmd := range []string{"one", "two", "three"} {
			d.say("K\n") // the host answers with new keys of its own
			d.hear("KEYUPDATE")
			d.say(cmd + " is next\n")
			if got := s.frame(); got != cmd+" is next" {
				t.Errorf("got %q", got)
			}
			if w := s.send("openssl", cmd); w.Fate != device.Sent {
				t.Errorf("got %+v", w)
			}
			d.hear(cmd)
		}
		d.say("Q\n")
		s.expect(device.Disconnected, "openssl", device.ClientClosed)
	})
	// The host doesn't negotiate twice.
	t.Run("renegotiation", func(t *testing.T) {
		s := start(t, byCert)
		d := connect(s, "-tls1_2")
		s.expect(device.Connected, "openssl", "")
		d.say("R\n")
		s.expect(device.Disconnected, "openssl", device.ProtocolError)
		s.logged("reason=protocol_error")
	})
}

// python is a device that answers each command and leaves with close_notify.
const python = `
import socket, ssl, sys
context = ssl.create_default_context(cafile=sys.argv[2])
host, port = sys.argv[1].rsplit(":", 1)
with context.wrap_socket(socket.create_connection((host, int(port))), server_hostname=host) as s:
    s.sendall(b"hello\n")
    f = s.makefile("rwb", buffering=0)
    for command in iter(f.readline, b"leave\r\n"):
        f.write(b"did " + command)
    s.unwrap()
`

func TestPython(t *testing.T) {
	onlyTLS(t)
	s := start(t, nil)
	run(t, "python3", "-c", python, s.addr, pki.ca.Cert)
	s.expect(device.Connected, "127.0.0.1", "")
	for _, want := range []string{"hello", "did one", "did two"} {
		if got := s.frame(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
		switch want {
		case "hello":
			s.send("127.0.0.1", "one")
		case "did one":
			s.send("127.0.0.1", "two")
		}
	}
	s.send("127.0.0.1", "leave")
	s.expect(device.Disconnected, "127.0.0.1", device.ClientClosed)
}
