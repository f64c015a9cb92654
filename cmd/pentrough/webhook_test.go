package main

import (
	"bufio"
	"context"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pentrough/pentrough/internal/testenv"
	"github.com/pentrough/pentrough/internal/testenv/await"
)

const webhookExample = "../../docs/examples/webhook"

// The example of a web hook does what its README says: data wait for the hook, what it refuses is
// poisoned, and what it puts off comes later.
func TestWebhookExample(t *testing.T) {
	devices, hook, adm := testenv.Port(t), testenv.Port(t), testenv.Port(t)
	t.Setenv("AMQP_URL", testenv.Broker(t).VHost(t))
	t.Setenv("DEVICES", "127.0.0.1:"+devices)
	t.Setenv("HOOK", "http://127.0.0.1:"+hook+"/data")
	text, err := os.ReadFile(filepath.Join(webhookExample, "pentrough.toml"))
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "pentrough.toml")
	if err := os.WriteFile(file, append([]byte("[host]\nadmin = \"127.0.0.1:"+adm+"\"\n\n"), text...), 0o600); err != nil {
		t.Fatal(err)
	}
	log := &output{}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- (&run{file: file, out: io.Discard, errOut: log}).serve(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Errorf("stopping: %v", err)
		}
		if t.Failed() {
			t.Logf("the host logged:\n%s", log)
		}
	})

	var device net.Conn
	await.That(t, "the host listens", func() (any, bool) {
		device, err = net.Dial("tcp", "127.0.0.1:"+devices)
		return err, err == nil
	})
	t.Cleanup(func() { device.Close() })
	if _, err := io.WriteString(device, "first\r\n"); err != nil {
		t.Fatal(err)
	}
	await.That(t, "the pipeline pauses", func() (any, bool) {
		return log, strings.Contains(log.String(), "pipeline doesn't work") && strings.Contains(log.String(), "connection refused")
	})

	server := exec.Command("/usr/bin/python3", filepath.Join(webhookExample, "hook.py"), hook)
	printed, err := server.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		server.Process.Kill()
		server.Wait()
	})
	if _, err := io.WriteString(device, "a bad one\r\nlate\r\nlast\r\n"); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(printed)
	for _, want := range []string{"first", "late", "last"} {
		if !lines.Scan() || !strings.HasPrefix(lines.Text(), "127.0.0.1 ") || !strings.Contains(lines.Text(), `"payload":"`+want+`"`) {
			t.Fatalf("the hook printed %q, %v; want %s", lines.Text(), lines.Err(), want)
		}
	}
	await.That(t, "the log is complete", func() (any, bool) {
		said := log.String()
		return said, strings.Count(said, "the hook answered") == 3 && strings.Contains(said, "message poisoned") && strings.Contains(said, "that is bad") &&
			strings.Contains(said, "429 Too Many Requests") && strings.Contains(said, "header.http.status=200")
	})
}
