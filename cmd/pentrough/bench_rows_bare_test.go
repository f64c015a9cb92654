package main

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	amqp "github.com/rabbitmq/amqp091-go"
)

func splitURL(url string) (kind, rest string, ok bool) { return strings.Cut(url, ":") }

// bareRow is what the loop needs of a message.
type bareRow struct {
	Type        string    `json:"type"`
	Device      string    `json:"device"`
	Online      bool      `json:"online"`
	Reason      string    `json:"reason"`
	RemoteAddr  string    `json:"remote_addr"`
	Host        string    `json:"host"`
	Generation  int64     `json:"generation"`
	Epoch       int64     `json:"epoch"`
	Seq         int64     `json:"seq"`
	ConnectedAt time.Time `json:"connected_at"`
	Time        time.Time `json:"time"`
}

// The statements of the loop: as many columns as the host's table has, the same fence, and no word
// on hosts.
const (
	bareTable = `CREATE TABLE IF NOT EXISTS %[1]s (device text PRIMARY KEY, online boolean NOT NULL DEFAULT false, connected boolean NOT NULL DEFAULT false, reason text NOT NULL DEFAULT '',
		remote_addr text NOT NULL DEFAULT '', host text NOT NULL DEFAULT '', generation bigint NOT NULL DEFAULT 0, epoch bigint NOT NULL DEFAULT 0, seq bigint NOT NULL DEFAULT 0,
		connected_at %[2]s, changed_at %[2]s, last_result_id text NOT NULL DEFAULT '', last_result_state text NOT NULL DEFAULT '', last_result_at %[2]s, results bigint NOT NULL DEFAULT 0,
		last_data_at %[2]s, data_epoch bigint NOT NULL DEFAULT 0, data_seq bigint NOT NULL DEFAULT 0, data bigint NOT NULL DEFAULT 0, last_seen %[2]s)`
	bareData = `INSERT INTO %s AS t (device, last_data_at, data_epoch, data_seq, last_seen, data) VALUES ($1, $2, $3, $4, $5, 1) ON CONFLICT (device) DO UPDATE SET
		last_data_at = excluded.last_data_at, data_epoch = excluded.data_epoch, data_seq = excluded.data_seq, last_seen = excluded.last_seen, data = t.data + 1
		WHERE (t.data_epoch, t.data_seq) < (excluded.data_epoch, excluded.data_seq)`
	bareEvent = `INSERT INTO %s AS t (device, connected, online, reason, remote_addr, host, generation, epoch, seq, connected_at, changed_at, last_seen)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) ON CONFLICT (device) DO UPDATE SET connected = excluded.connected, online = excluded.online, reason = excluded.reason,
		remote_addr = excluded.remote_addr, host = excluded.host, generation = excluded.generation, epoch = excluded.epoch, seq = excluded.seq, connected_at = excluded.connected_at,
		changed_at = excluded.changed_at, last_seen = excluded.last_seen WHERE (t.epoch, t.seq) < (excluded.epoch, excluded.seq)`
)

// bareRows is a program that a developer would write by hand to keep the table: it gathers
// deliveries, writes them in one transaction, and acks them at once. Its arguments are the
// broker's URL, the database's, the table, and what the queue holds; SIGTERM ends it.
func bareRows() {
	broker, url, table, name := os.Args[1], os.Args[2], os.Args[3], os.Args[4]
	end := make(chan os.Signal, 1)
	signal.Notify(end, syscall.SIGTERM)
	go func() {
		<-end
		os.Exit(0)
	}()
	write := bareWriter(url, table, name)
	conn, err := amqp.Dial(broker)
	check(err)
	ch, err := conn.Channel()
	check(err)
	check(ch.Qos(4*rowsBatch, 0, false))
	deliveries, err := ch.Consume("rows", "", false, false, false, false, nil)
	check(err)
	var batch [][]any
	for d := range deliveries {
		last := d.DeliveryTag
		batch = append(batch[:0], bareArgs(d.Body, name))
		timeout := time.After(20 * time.Millisecond)
	filling:
		for len(batch) < rowsBatch {
			select {
			case d := <-deliveries:
				batch, last = append(batch, bareArgs(d.Body, name)), d.DeliveryTag
			case <-timeout:
				break filling
			}
		}
		check(write(batch))
		check(ch.Ack(last, true))
	}
}

func bareArgs(body []byte, name string) []any {
	var r bareRow
	check(json.Unmarshal(body, &r))
	if name == "data" {
		return []any{r.Device, r.Time, r.Epoch, r.Seq, r.Time}
	}
	return []any{r.Device, r.Online, r.Online, r.Reason, r.RemoteAddr, r.Host, r.Generation, r.Epoch, r.Seq, r.ConnectedAt, r.Time, r.Time}
}

// bareWriter makes the table and returns what writes a batch into it.
func bareWriter(url, table, name string) func(batch [][]any) error {
	statement := map[string]string{"data": fmt.Sprintf(bareData, table), "fleet": fmt.Sprintf(bareEvent, table)}[name]
	ctx := context.Background()
	kind, path, _ := splitURL(url)
	if kind != "sqlite" {
		conn, err := pgx.Connect(ctx, url)
		check(err)
		_, err = conn.Exec(ctx, fmt.Sprintf(bareTable, table, "timestamptz"))
		check(err)
		return func(batch [][]any) error {
			b := &pgx.Batch{}
			for _, args := range batch {
				b.Queue(statement, args...)
			}
			return conn.SendBatch(ctx, b).Close()
		}
	}
	db, err := sql.Open("sqlite", "file:"+path+"?_txlock=immediate&_pragma=busy_timeout(5000)&_pragma=journal_mode(WAL)&_pragma=synchronous(NORMAL)")
	check(err)
	db.SetMaxOpenConns(1)
	_, err = db.ExecContext(ctx, fmt.Sprintf(bareTable, table, "datetime"))
	check(err)
	prepared, err := db.PrepareContext(ctx, statement)
	check(err)
	return func(batch [][]any) error {
		tx, err := db.BeginTx(ctx, nil)
		if err != nil {
			return err
		}
		in := tx.StmtContext(ctx, prepared)
		for _, args := range batch {
			for i, a := range args {
				if at, ok := a.(time.Time); ok {
					args[i] = at.Format("2006-01-02 15:04:05.000000")
				}
			}
			if _, err := in.ExecContext(ctx, args...); err != nil {
				return err
			}
		}
		return tx.Commit()
	}
}
