package main

import (
	"context"
	"database/sql"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	amqp "github.com/rabbitmq/amqp091-go"
	_ "modernc.org/sqlite"

	"github.com/pentrough/pentrough/internal/testenv"
	"github.com/pentrough/pentrough/transports/device"
)

const (
	rowsMessages = 100_000
	rowsDevices  = 2_000
	rowsBatch    = 500
	rowsFleet    = 18_000
)

// BenchmarkRows writes what a queue holds into a database's table of devices, by the host and by a
// bare loop that batches as much in turn, each a process of its own, and reports the medians of
// the pairs' ratios of their rates and of their CPU time. "data" are messages of what devices
// said, several for each row; "fleet" are 18,000 devices that go offline and come back at once.
func BenchmarkRows(b *testing.B) {
	server, postgres := testenv.Broker(b), testenv.NewPostgres(b)
	for name, bodies := range map[string]func() [][]byte{"data": dataBodies, "fleet": fleetBodies} {
		for _, url := range []string{postgres.URL, "sqlite:"} {
			kind, _, _ := splitURL(url)
			b.Run(name+"/"+kind, func(b *testing.B) {
				messages := bodies()
				for b.Loop() {
					var rates, cpus, hosts []float64
					for range benchPairs {
						bare := writeRows(b, server.VHost(b), url, name, messages, "barerows")
						host := writeRows(b, server.VHost(b), url, name, messages, "pentrough")
						b.Logf("host %.0f/s, bare loop %.0f/s, ratio %.2f; CPU a row %.1f and %.1f us", host.rate, bare.rate, host.rate/bare.rate, host.cpu, bare.cpu)
						rates, cpus, hosts = append(rates, host.rate/bare.rate), append(cpus, host.cpu/bare.cpu), append(hosts, host.rate)
					}
					b.ReportMetric(median(rates), "rate-host/bare")
					b.ReportMetric(median(cpus), "CPU-host/bare")
					b.ReportMetric(median(hosts), "rows/s")
				}
			})
		}
	}
}

var rowsBegan = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

func dataBodies() [][]byte {
	var all [][]byte
	for i := range rowsMessages {
		seq := uint64(2 + i/rowsDevices)
		all = append(all, device.Data{DataID: fmt.Sprint("d-", i), Device: benchAddress(i % rowsDevices), Host: "gateway-1", Epoch: 1_700_000_000_000, Seq: seq, Encoding: device.Text,
			Payload: fmt.Sprintf("temp=%d", i), Time: rowsBegan.Add(time.Duration(i) * time.Millisecond)}.AppendJSON(nil))
	}
	return all
}

// fleetBodies have all devices disconnect and then connect.
func fleetBodies() [][]byte {
	var all [][]byte
	for i := range 2 * rowsFleet {
		e := device.Event{EventID: fmt.Sprint("e-", i), Type: device.Disconnected, Device: benchAddress(i % rowsFleet), RemoteAddr: "10.0.0.1:4000", Host: "gateway-1", Generation: 1_700_000_000_000,
			Epoch: 1_700_000_000_000, Seq: 9, Reason: device.IdleTimeout, ConnectedAt: rowsBegan, Time: rowsBegan.Add(time.Duration(i) * time.Millisecond)}
		if i >= rowsFleet {
			e.Type, e.Online, e.Reason, e.Epoch, e.Seq = device.Connected, true, "", e.Epoch+1, 1
		}
		all = append(all, e.AppendJSON(nil))
	}
	return all
}

type rowsRun struct{ rate, cpu float64 }

// writeRows fills a queue, starts a writer, and waits until the table says what the last message
// of each device said.
func writeRows(b *testing.B, broker, url, name string, bodies [][]byte, program string) rowsRun {
	b.Helper()
	folder := b.TempDir()
	table, kind := fmt.Sprintf("rows_%d", time.Now().UnixNano()), map[string]string{"data": device.TypeData, "fleet": device.TypeEvent}[name]
	if url == "sqlite:" {
		url += filepath.Join(folder, "rows.db")
	}
	fillRows(b, broker, kind, map[string]int{"data": rowsDevices, "fleet": rowsFleet}[name], bodies)
	c := &carrier{b: b, cmd: exec.Command(program, broker, url, table, name)}
	if program == "pentrough" {
		file := filepath.Join(folder, "rows.toml")
		must(b, os.WriteFile(file, fmt.Appendf(nil, `
[host]
admin = ""
log = { level = "error" }
[transport.broker]
type = "amqp"
url = %q
prefetch = %d
topic.rows = { queue = "rows" }
[pipeline.rows]
from = "broker:rows"
on_error = "drop"
batch = { size = %d }
handler = { type = "sql", url = %q, table = %q }
`, broker, 4*rowsBatch, rowsBatch, url, table), 0o600))
		c.cmd = exec.Command("pentrough", "run", "-c", file)
	}
	c.cmd.Stderr = os.Stderr
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	done := watchRows(b, url, table, name)
	begun := time.Now()
	must(b, c.cmd.Start())
	<-done
	took := time.Since(begun)
	used := c.cpu()
	c.stop()
	n := float64(len(bodies))
	return rowsRun{n / took.Seconds(), used.Seconds() * 1e6 / n}
}

func fillRows(b *testing.B, broker, kind string, devices int, bodies [][]byte) {
	b.Helper()
	conn, err := amqp.Dial(broker)
	must(b, err)
	defer conn.Close()
	ch, err := conn.Channel()
	must(b, err)
	must(b, ch.Confirm(false))
	_, err = ch.QueueDeclare("rows", true, false, false, false, nil)
	must(b, err)
	var last *amqp.DeferredConfirmation
	for i, body := range bodies {
		last, err = ch.PublishWithDeferredConfirm("", "rows", false, false, amqp.Publishing{Type: kind, DeliveryMode: amqp.Persistent, ContentType: "application/json",
			Headers: amqp.Table{"device": benchAddress(i % devices)}, Body: body})
		must(b, err)
	}
	last.Wait()
}

// watchRows tells when each device's row is what it is in the end.
func watchRows(b *testing.B, url, table, name string) <-chan struct{} {
	want := rowsDevices
	query := fmt.Sprintf("SELECT count(*) FROM %s WHERE data_seq = %d", table, 1+rowsMessages/rowsDevices)
	if name == "fleet" {
		want, query = rowsFleet, fmt.Sprintf("SELECT count(*) FROM %s WHERE online AND seq = 1", table)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for deadline := time.Now().Add(benchDeadline); ; time.Sleep(20 * time.Millisecond) {
			if n, err := countRows(url, query); err == nil && n == want {
				return
			} else if time.Now().After(deadline) {
				b.Errorf("%d rows of %d are right, %v", n, want, err)
				return
			}
		}
	}()
	return done
}

func countRows(url, query string) (n int, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	kind, path, _ := splitURL(url)
	if kind != "sqlite" {
		conn, err := pgx.Connect(ctx, url)
		if err != nil {
			return 0, err
		}
		defer conn.Close(ctx)
		err = conn.QueryRow(ctx, query).Scan(&n)
		return n, err
	}
	if _, err := os.Stat(path); err != nil {
		return 0, err
	}
	db, err := sql.Open("sqlite", path+"?_pragma=busy_timeout(5000)")
	if err != nil {
		return 0, err
	}
	defer db.Close()
	err = db.QueryRowContext(ctx, query).Scan(&n)
	return n, err
}
