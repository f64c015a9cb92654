package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pentrough/pentrough/internal/testenv"
	"github.com/pentrough/pentrough/internal/testenv/await"
)

// However many devices and strangers connect, a host that may open few files answers on its admin
// listener, takes commands by HTTP, reconnects to its broker, and says what it refuses.
func TestConnectionsLeaveDescriptorsToTheHost(t *testing.T) {
	t.Parallel()
	const openFiles, devices = 400, 600
	proxy, url := testenv.Through(t, testenv.Broker(t).VHost(t))
	folder := t.TempDir()
	adminPort, webPort, devicesPort := testenv.Port(t), testenv.Port(t), testenv.Port(t)
	file := filepath.Join(folder, "host.toml")
	must(t, os.WriteFile(file, fmt.Appendf(nil, `
[host]
admin = "127.0.0.1:%s"
[store]
type = "sqlite"
path = %q
[transport.broker]
type = "amqp"
url = %q
[transport.devices]
type = "tcp"
listen = "127.0.0.1:%s"
[transport.web]
type = "http"
listen = "127.0.0.1:%s"
token = "s3cret"
[pipeline.in]
from = "web:/commands"
to = "broker:commands"
handler = { type = "passthrough" }
`, adminPort, filepath.Join(folder, "host.db"), url, devicesPort, webPort), 0o600))
	program := filepath.Join(testenv.Programs(t, "./cmd/pentrough"), "pentrough")
	limited := fmt.Sprintf("ulimit -n %d && exec %q run -c %q", openFiles, program, file)
	host := testenv.Launch(t, folder, "host.log", nil, "/bin/sh", "-c", limited)
	testenv.AwaitReady(t, adminPort, host.Ended)
	host.Says(t, "only 100 of 2000 connections are possible")

	dial := func(i int, port, say string) {
		dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 1, byte(i>>8), byte(i))}}
		conn, err := dialer.Dial("tcp4", "127.0.0.1:"+port)
		must(t, err)
		t.Cleanup(func() { conn.Close() })
		_, _ = io.WriteString(conn, say) // it may be closed already
	}
	for i := range devices {
		dial(i, devicesPort, "")
	}
	for i := range openFiles {
		for _, port := range []string{adminPort, webPort} {
			say := ""
			if i%2 == 1 {
				say = "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\n"
			}
			dial(i%7, port, say)
		}
	}
	ask := func(method, port, path string) (status int, body string) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, "http://127.0.0.1:"+port+path, strings.NewReader("a"))
		must(t, err)
		req.Header.Set("Authorization", "Bearer s3cret")
		client := http.Client{Timeout: await.Patience, Transport: &http.Transport{DisableKeepAlives: true}}
		res, err := client.Do(req)
		must(t, err)
		defer res.Body.Close()
		text, err := io.ReadAll(res.Body)
		must(t, err)
		return res.StatusCode, string(text)
	}
	if status, _ := ask(http.MethodGet, adminPort, "/livez"); status != 200 {
		t.Errorf("/livez: %d", status)
	}
	if status, body := ask(http.MethodPost, webPort, "/commands"); status != 202 {
		t.Errorf("a command: %d %s", status, body)
	}
	const full = "fail transport devices listener: there is no place for a further connection: all 100 that the limit of open files allows"
	if status, body := ask(http.MethodGet, adminPort, "/readyz"); status != 503 || !strings.Contains(body, full) {
		t.Errorf("/readyz: %d %s", status, body)
	} else if !strings.Contains(body, "ok transport web listener: under pressure") {
		t.Errorf("/readyz doesn't name the listener under pressure: %s", body)
	}
	proxy.Cut()
	await.That(t, "the host has reconnected to its broker", func() (any, bool) {
		status, body := ask(http.MethodPost, webPort, "/commands")
		return body, status == 202
	})
	if log := host.Output(t); strings.Contains(log, "too many open files") {
		t.Errorf("the host wanted more descriptors than it may have:\n%s", log)
	}
}
