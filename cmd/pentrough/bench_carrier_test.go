package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pentrough/pentrough/internal/testenv"
)

// starter starts a carrier of commands on a broker.
type starter func(b *testing.B, url string) *carrier

// carrier is a process that carries commands to the devices that connect to addr, and results
// back.
type carrier struct {
	b     *testing.B
	cmd   *exec.Cmd
	addr  string
	admin string // the host's, empty for others
}

// startBare starts the bare loop.
func startBare(b *testing.B, url string) *carrier {
	addr := freeAddress(b)
	return startCarrier(b, &carrier{b: b, cmd: exec.Command("bareloop", url, addr), addr: addr})
}

// startHost starts the host without a ledger, as `pentrough run`.
func startHost(b *testing.B, url string) *carrier {
	return startHostWith(b, url, "", `type = "memory"`)
}

// remembering starts a host with dedup and that store.
func remembering(store string) starter {
	return func(b *testing.B, url string) *carrier { return startHostWith(b, url, `"dedup"`, store) }
}

func startHostWith(b *testing.B, url, middleware, store string) *carrier {
	c := &carrier{b: b, addr: freeAddress(b), admin: freeAddress(b)}
	folder := b.TempDir()
	file := filepath.Join(folder, "bench.toml")
	must(b, os.WriteFile(file, fmt.Appendf(nil, `
[host]
name = %[7]q
admin = %[6]q
log = { level = "error" }
[store]
%[5]s
[transport.broker]
type = "amqp"
url = %[1]q
prefetch = %[2]d
confirm_window = %[2]d
[transport.broker.topic.commands]
exchange = "bench.commands"
queue = "commands"
[transport.broker.topic.results]
exchange = "bench.results"
queue = "results"
[transport.devices]
type = "tcp"
listen = %[3]q
[pipeline.commands]
from = "broker:commands"
to = "broker:results"
middleware = [%[4]s]
handler = { type = "deliver", devices = "devices" }
on_error = "drop"
`, url, benchWindow, c.addr, middleware, store, c.admin, filepath.Base(filepath.Dir(folder))+filepath.Base(folder)), 0o600))
	c.cmd = exec.Command("pentrough", "run", "-c", file)
	c.cmd.Dir = folder
	return startCarrier(b, c)
}

// startCarrier runs the process and waits until it takes devices.
func startCarrier(b *testing.B, c *carrier) *carrier {
	b.Helper()
	c.cmd.Stderr = os.Stderr
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	must(b, c.cmd.Start())
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		conn, err := net.Dial("tcp4", c.addr)
		if err == nil {
			conn.Close()
			return c
		}
		if time.Now().After(end) {
			b.Fatalf("%s doesn't take devices: %v", c.cmd, err)
		}
	}
}

func (c *carrier) stop() {
	must(c.b, c.cmd.Process.Signal(syscall.SIGTERM))
	if err := c.cmd.Wait(); err != nil {
		c.b.Logf("%s: %v", c.cmd, err)
	}
}

// cpu is the time that the process has used so far.
func (c *carrier) cpu() time.Duration {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", c.cmd.Process.Pid))
	must(c.b, err)
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	const user, system, tick = 11, 12, 10 * time.Millisecond // proc(5)
	var ticks int
	for _, i := range []int{user, system} {
		n, err := strconv.Atoi(fields[i])
		must(c.b, err)
		ticks += n
	}
	return time.Duration(ticks) * tick
}

// allocations is how many objects the host has allocated so far; 0 for others.
func (c *carrier) allocations() float64 {
	if c.admin == "" {
		return 0
	}
	response, err := http.Get("http://" + c.admin + "/metrics")
	must(c.b, err)
	defer response.Body.Close()
	for lines := bufio.NewScanner(response.Body); lines.Scan(); {
		if value, ok := strings.CutPrefix(lines.Text(), "go_memstats_mallocs_total "); ok {
			n, err := strconv.ParseFloat(value, 64)
			must(c.b, err)
			return n
		}
	}
	c.b.Fatal("the host's metrics don't tell its allocations")
	return 0
}

// resultOf returns which command a result is of, and whether that is the special device's.
func resultOf(b *testing.B, body []byte) (i int, special bool) {
	var r struct{ ID, Device, State string }
	must(b, json.Unmarshal(body, &r))
	if r.Device == benchAddress(0) {
		return 0, true
	}
	if r.State != "sent" {
		b.Fatalf("a result that isn't sent: %s", body)
	}
	i, err := strconv.Atoi(strings.TrimPrefix(r.ID, "c-"))
	must(b, err)
	return i, false
}

func freeAddress(b *testing.B) string {
	port, err := testenv.FreePort()
	must(b, err)
	return fmt.Sprintf("127.0.0.1:%d", port)
}
