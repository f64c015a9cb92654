package main

import (
	"context"
	"database/sql"
	"encoding/json"
	"net"
	"path/filepath"
	"testing"
	"time"

	"github.com/pentrough/pentrough/internal/ledger"
	"github.com/pentrough/pentrough/transports/device"
)

// holdRow is a row of the ledger's table while its command is held, and what it has in the end.
type holdRow struct {
	number                    int64
	pipeline, id, device      string
	digest                    []byte
	state, attempts           int
	outputs, message          []byte
	changed                   int64
	stateAfter, attemptsAfter int
	outputsAfter              []byte
	changedAfter              int64
}

// openBare opens a ledger's file with the pragmas of the host, for one connection.
func openBare(b *testing.B, path, synchronous string) (*sql.Conn, func()) {
	db, err := sql.Open("sqlite", "file:"+path+"?_txlock=immediate&_pragma=busy_timeout(5000)&_pragma=journal_mode(WAL)&_pragma=synchronous("+synchronous+")")
	must(b, err)
	conn, err := db.Conn(context.Background())
	must(b, err)
	return conn, func() {
		must(b, conn.Close())
		must(b, db.Close())
	}
}

// heldRows reads all rows.
func heldRows(b *testing.B, path string) []holdRow {
	conn, end := openBare(b, path, "NORMAL")
	defer end()
	found, err := conn.QueryContext(context.Background(), `SELECT number, pipeline, id, device, digest, state, attempts, outputs, message, changed FROM ledger ORDER BY number`)
	must(b, err)
	defer found.Close()
	rows := make([]holdRow, 0, holdCommands)
	for found.Next() {
		var r holdRow
		must(b, found.Scan(&r.number, &r.pipeline, &r.id, &r.device, &r.digest, &r.state, &r.attempts, &r.outputs, &r.message, &r.changed))
		if ledger.State(r.state) != ledger.Held || r.message == nil {
			b.Fatalf("row %d isn't held", r.number)
		}
		rows = append(rows, r)
	}
	must(b, found.Err())
	if len(rows) != holdCommands {
		b.Fatalf("%d rows are held", len(rows))
	}
	return rows
}

// endedRows adds to rows what they have in the end.
func endedRows(b *testing.B, path string, rows []holdRow) {
	conn, end := openBare(b, path, "NORMAL")
	defer end()
	found, err := conn.QueryContext(context.Background(), `SELECT number, state, attempts, outputs, changed, message IS NULL FROM ledger ORDER BY number`)
	must(b, err)
	defer found.Close()
	n := 0
	for ; found.Next(); n++ {
		var number int64
		var without bool
		r := &rows[n]
		must(b, found.Scan(&number, &r.stateAfter, &r.attemptsAfter, &r.outputsAfter, &r.changedAfter, &without))
		if number != r.number || ledger.State(r.stateAfter) != ledger.Confirmed || !without {
			b.Fatalf("row %d isn't confirmed", number)
		}
	}
	must(b, found.Err())
	if n != len(rows) {
		b.Fatalf("%d rows are left", n)
	}
}

// holdBare does what the host did, by hand.
func holdBare(b *testing.B, folder string, rows []holdRow, host holdRates) holdRates {
	b.Helper()
	path := filepath.Join(b.TempDir(), "bare.db")
	store := ledger.NewSQLite(path, "gateway-1")
	_, err := store.Open(context.Background())
	must(b, err)
	must(b, store.Close())
	return holdRates{held: bareHold(b, path, rows, int(host.holdBatch)), drained: bareDrain(b, folder, path, rows, int(host.drainBatch))}
}

// bareHold writes the rows.
func bareHold(b *testing.B, path string, rows []holdRow, batch int) float64 {
	conn, end := openBare(b, path, "FULL")
	defer end()
	t := newTransactions(b, conn, batch, `INSERT INTO ledger (number, pipeline, id, device, digest, state, attempts, outputs, message, changed) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`)
	begun := time.Now()
	for _, r := range rows {
		t.exec(r.number, r.pipeline, r.id, r.device, r.digest, r.state, r.attempts, r.outputs, r.message, r.changed)
	}
	t.commit()
	rate := holdCommands / time.Since(begun).Seconds()
	must(b, t.statement.Close())
	return rate
}

// bareDrain reads the rows when the first device connects, and writes to each device that connects
// what is for it. Then its rows are marked.
func bareDrain(b *testing.B, folder, path string, rows []holdRow, batch int) float64 {
	after := map[int64]*holdRow{}
	for i := range rows {
		after[rows[i].number] = &rows[i]
	}
	conn, end := openBare(b, path, "NORMAL")
	defer end()
	t := newTransactions(b, conn, batch, `UPDATE ledger SET state = ?, attempts = ?, outputs = ?, message = NULL, changed = ? WHERE number = ?`)
	addr := freeAddress(b)
	l, err := net.Listen("tcp", addr)
	must(b, err)
	arrivals := make(chan net.Conn, holdDevices)
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				close(arrivals)
				return
			}
			arrivals <- conn
		}
	}()
	defer startHoldDevices(b, folder, addr)()
	first := <-arrivals
	begun := time.Now()
	held := readHeld(b, conn)
	frame := make([]byte, 0, 256)
	left := holdCommands
	for conn := first; ; conn = <-arrivals {
		for _, h := range held[conn.RemoteAddr().(*net.TCPAddr).IP.String()] {
			frame = append(append(frame[:0], h.frame...), '\r', '\n')
			_, err := conn.Write(frame)
			must(b, err)
			a := after[h.number]
			t.exec(a.stateAfter, a.attemptsAfter, a.outputsAfter, a.changedAfter, h.number)
			left--
		}
		defer conn.Close()
		if left == 0 {
			break
		}
	}
	t.commit()
	rate := holdCommands / time.Since(begun).Seconds()
	must(b, t.statement.Close())
	l.Close()
	for range arrivals {
	}
	return rate
}

type heldFrame struct {
	number int64
	frame  []byte
}

// readHeld reads what is held, by device.
func readHeld(b *testing.B, conn *sql.Conn) map[string][]heldFrame {
	found, err := conn.QueryContext(context.Background(), `SELECT number, device, message FROM ledger WHERE state = 4 ORDER BY number`)
	must(b, err)
	defer found.Close()
	held := make(map[string][]heldFrame, holdDevices)
	for found.Next() {
		var number int64
		var name string
		var body sql.RawBytes
		must(b, found.Scan(&number, &name, &body))
		var m struct{ Payload []byte }
		must(b, json.Unmarshal(body, &m))
		c, err := device.ParseCommand(m.Payload, "")
		must(b, err)
		held[name] = append(held[name], heldFrame{number, c.Payload})
	}
	must(b, found.Err())
	return held
}

// transactions runs a statement in transactions of a size.
type transactions struct {
	b         *testing.B
	conn      *sql.Conn
	statement *sql.Stmt
	size, n   int
}

func newTransactions(b *testing.B, conn *sql.Conn, size int, statement string) *transactions {
	prepared, err := conn.PrepareContext(context.Background(), statement)
	must(b, err)
	return &transactions{b: b, conn: conn, statement: prepared, size: size}
}

func (t *transactions) exec(args ...any) {
	if t.n == 0 {
		_, err := t.conn.ExecContext(context.Background(), "BEGIN IMMEDIATE")
		must(t.b, err)
	}
	_, err := t.statement.ExecContext(context.Background(), args...)
	must(t.b, err)
	if t.n++; t.n == t.size {
		t.commit()
	}
}

func (t *transactions) commit() {
	if t.n > 0 {
		_, err := t.conn.ExecContext(context.Background(), "COMMIT")
		must(t.b, err)
		t.n = 0
	}
}
