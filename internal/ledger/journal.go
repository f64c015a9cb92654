package ledger

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/pentrough/pentrough/internal/backoff"
	"github.com/pentrough/pentrough/internal/database"
	"github.com/pentrough/pentrough/internal/outage"
	"github.com/pentrough/pentrough/router/middleware"
)

const (
	// applyTimeout bounds one transaction. openTimeout bounds one attempt to open the store.
	applyTimeout = 10 * time.Second
	openTimeout  = 30 * time.Second
	// retryFirst and retryLast bound the pauses between attempts in an outage.
	retryFirst = 100 * time.Millisecond
	retryLast  = 5 * time.Second
	// maxBatch is the most changes in one transaction.
	maxBatch = 2000
	// confirmDelay is how long the journal keeps back confirmations that no caller waits for, so
	// that several share a transaction. confirmBatch is the most that it keeps back.
	confirmDelay = 20 * time.Millisecond
	confirmBatch = 500
	// lastTimeout bounds a transaction after close.
	lastTimeout = 3 * time.Second
)

// errClosed is the error of a change after close.
var errClosed = errors.New("the ledger is closed")

// journal writes the ledger's changes to the store, from one goroutine.
//
// The ledger answers every call from memory, and the store follows. A change goes into the queue.
// The goroutine writes the whole queue, up to maxBatch changes, in one transaction. Changes that
// come during a transaction go into the next one. So a busy ledger needs few transactions, and an
// idle ledger writes at once.
//
// The goroutine goes through these states:
//
//	opening    it tries to open the store; the ledger refuses all calls
//	writing    it writes the queue, and checks the store every database.CheckInterval
//	reopening  after an error it opens the store again, and writes the rows that the store lacks
//	closing    close was called; it writes the rest of the queue as long as closeCtx lives
//	ended      the store is closed; every change gets errClosed
//
// Invariants:
//
//   - Changes reach the store in the order of the queue. Changes of confirmLater enter the queue
//     late, so newer changes may be written before them.
//   - A failed transaction gives its error to the callers that wait for their change. They decide
//     whether to try again. Changes that no caller waits for stay in the queue until they are
//     written.
//   - After an error the store may have any part of the batch. Nothing else is written to it
//     before restoreStore has made its rows equal to memory.
//
// Lock order: Ledger.mu before journal.mu. The goroutine unlocks journal.mu before it calls
// memory, whose methods lock Ledger.mu. A caller of write unlocks Ledger.mu first, since write
// waits for the store.
type journal struct {
	store  Store
	memory memory
	wake   chan struct{}
	// life ends when close is called; endLife ends it. closeCtx is the context of close: it bounds
	// the attempts to write the rest of the queue.
	life     context.Context
	endLife  context.CancelFunc
	closeCtx context.Context
	ended    chan struct{} // closed when the goroutine has ended
	outage   *outage.Outage
	donePool sync.Pool // of the channels on which callers of write wait
	// closeErr says why some changes weren't written, joined with the error of closing the store.
	// It is set when ended is closed.
	closeErr error

	mu    sync.Mutex
	queue []pending
	// confirmations are rows to confirm. They go into the queue when there are confirmBatch of
	// them, or when confirmTimer fires.
	confirmations []int64
	confirmTimer  *time.Timer
	closing       bool
	opened        bool

	// Only the goroutine uses these. spare is the memory of the last batch, for the next queue.
	// checked is when the store was checked.
	spare     []pending
	compacted compacted
	checked   time.Time
}

// pending is a change in the queue. Its row's state says what it does: Writing, Done and Held
// write the whole row, Confirmed changes only the state, and zero removes the row. The caller that
// waits for the change receives its error from done. If no caller waits, done is nil.
type pending struct {
	row  Row
	sync bool
	done chan error
}

// memory is the ledger as its journal sees it.
type memory interface {
	// loadRows receives the store's rows after the first successful Open. It is called once.
	loadRows(rows []Row)
	// setLoadError records why the store isn't open yet.
	setLoadError(err error)
	// missingChanges returns the changes that make a store's rows equal to those in memory. rows
	// are the rows that the store has.
	missingChanges(rows []Row) (Batch, error)
	// markRestored records that these rows were written after missingChanges returned them.
	markRestored(rows []Row)
}

// newJournal starts the goroutine, which opens the store.
func newJournal(s Store, log *slog.Logger, m memory) *journal {
	j := &journal{store: s, memory: m, wake: make(chan struct{}, 1), ended: make(chan struct{}), outage: outage.New(log, "the ledger")}
	j.life, j.endLife = context.WithCancel(context.Background())
	go func() {
		defer close(j.ended)
		var err error
		if j.openStore() {
			err = j.writeRemaining(j.writeQueued())
		}
		j.refuseWaiting(errClosed)
		j.closeErr = errors.Join(err, j.store.Close())
	}()
	return j
}

var errOpening = errors.New("the store isn't open yet")

// openStore tries to open the store until it succeeds. It returns false if close is called first.
func (j *journal) openStore() bool {
	for pauses := backoff.New(retryFirst, retryLast); ; {
		ctx, cancel := context.WithTimeout(j.life, openTimeout)
		rows, err := j.store.Open(ctx)
		cancel()
		if err == nil {
			err = j.store.EnsureReserve()
		}
		if err != nil && j.life.Err() != nil {
			return false
		}
		if err == nil {
			j.memory.loadRows(rows)
			j.mu.Lock()
			j.opened = true
			j.mu.Unlock()
			j.outage.Report(nil)
			return true
		}
		err = fmt.Errorf("opening the store: %w", err)
		j.outage.Report(err)
		j.memory.setLoadError(err)
		if !backoff.Sleep(j.life, pauses.NextBackOff()) {
			return false
		}
	}
}

// writeQueued writes the queue until close is called. After an error it opens the store again. It
// returns whether the store was usable at the end.
func (j *journal) writeQueued() bool {
	check := time.NewTicker(database.CheckInterval)
	defer check.Stop()
	for {
		ok := true
		if batch := j.takeBatch(); len(batch) > 0 {
			ok = j.applyBatch(batch, applyTimeout)
		} else {
			select {
			case <-j.wake:
			case <-check.C:
				ok = j.checkAndReport(applyTimeout)
			case <-j.life.Done():
				return true
			}
		}
		if !ok && !j.reopenStore() {
			return false
		}
	}
}

// writeRemaining writes the rest of the queue after close was called. It makes at least one
// attempt, and more as long as closeCtx lives. usable says whether the store was usable so far.
// The error says why some changes weren't written.
func (j *journal) writeRemaining(usable bool) error {
	for pauses := backoff.New(retryFirst, retryLast); ; {
		var err error
		if !usable {
			err = j.restoreStore(context.Background(), lastTimeout)
		}
		if err == nil {
			err = j.applyQueued()
		}
		if err == nil || !backoff.Sleep(j.closeCtx, pauses.NextBackOff()) {
			return err
		}
		usable = false
	}
}

// checkAndReport checks the store and reports the result to the outage. It returns true if the
// store can be written to and is still the one that was opened.
func (j *journal) checkAndReport(timeout time.Duration) bool {
	err := j.checkStore(timeout)
	j.outage.Report(err)
	return err == nil
}

func (j *journal) checkStore(timeout time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	j.checked = time.Now()
	if err := j.store.Check(ctx); err != nil {
		return fmt.Errorf("checking the store: %w", err)
	}
	return nil
}

// reopenStore opens the store again after an error. It tries until it succeeds, and returns false
// if close is called first. A store that comes back may be empty or lack its latest changes. So
// reopenStore writes all rows that the store lacks before anything else.
func (j *journal) reopenStore() bool {
	for pauses := backoff.New(retryFirst, retryLast); backoff.Sleep(j.life, pauses.NextBackOff()); {
		err := j.restoreStore(j.life, openTimeout)
		if err == nil {
			err = j.store.EnsureReserve()
		}
		if err != nil && j.life.Err() != nil {
			return false // writeRemaining tries again
		}
		j.outage.Report(err)
		if err == nil {
			return true
		}
		j.refuseWaiting(err)
	}
	return false
}

// restoreStore opens the store and writes the rows that memory has and the store lacks. Memory
// already includes the queued changes that no caller waits for. restoreStore removes these changes
// from the queue: if they were written later, they would set rows back to older states.
func (j *journal) restoreStore(ctx context.Context, timeout time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	rows, err := j.store.Open(ctx)
	older := j.queueLength()
	var all Batch
	if err == nil {
		all, err = j.memory.missingChanges(rows)
	}
	if err != nil {
		return fmt.Errorf("opening the store: %w", err)
	}
	rows = all.Put
	for part := (Batch{Remove: all.Remove}); len(part.Remove)+len(rows) > 0; part.Remove = nil {
		n := min(len(rows), maxBatch)
		part.Put, rows = rows[:n], rows[n:]
		if err := j.store.Apply(ctx, part, true); err != nil {
			return fmt.Errorf("writing the rows in memory to the store: %w", err)
		}
	}
	j.memory.markRestored(all.Put)
	j.mu.Lock()
	defer j.mu.Unlock()
	j.queue = slices.DeleteFunc(j.queue, func(p pending) bool {
		older--
		return older >= 0 && p.done == nil
	})
	return nil
}

// refuseWaiting gives err to every caller that waits for a queued change, and removes that change.
// It keeps the changes that no caller waits for.
func (j *journal) refuseWaiting(err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.queue = slices.DeleteFunc(j.queue, func(p pending) bool {
		if p.done != nil {
			p.done <- err
		}
		return p.done != nil
	})
}

// applyQueued writes the whole queue and checks the store.
func (j *journal) applyQueued() error {
	for batch := j.takeBatch(); len(batch) > 0; batch = j.takeBatch() {
		if !j.applyBatch(batch, lastTimeout) {
			return j.outage.Err()
		}
	}
	return j.checkStore(lastTimeout)
}

// queueLength returns how many changes aren't written.
func (j *journal) queueLength() int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return len(j.queue)
}

// takeBatch removes the oldest changes from the queue, at most maxBatch, and returns them.
func (j *journal) takeBatch() []pending {
	j.mu.Lock()
	defer j.mu.Unlock()
	if len(j.queue) > maxBatch {
		batch := j.queue[:maxBatch:maxBatch]
		j.queue = j.queue[maxBatch:]
		return batch
	}
	batch := j.queue
	j.queue, j.spare = j.spare, nil
	return batch
}

// applyBatch writes a batch in one transaction and gives the result to the callers that wait. If
// it fails, the changes that no caller waits for go back to the front of the queue.
func (j *journal) applyBatch(batch []pending, timeout time.Duration) bool {
	sync := slices.ContainsFunc(batch, func(p pending) bool { return p.sync })
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	err := j.store.Apply(ctx, j.compacted.compact(batch), sync)
	cancel()
	if err != nil {
		err = fmt.Errorf("writing to the store: %w", err)
	} else if time.Since(j.checked) >= database.CheckInterval {
		// The check comes after the transaction, and before its changes count as written. So
		// changes count as written for at most one interval after the file was removed.
		err = j.checkStore(timeout)
	}
	if err != nil {
		retry := slices.DeleteFunc(slices.Clone(batch), func(p pending) bool { return p.done != nil })
		j.mu.Lock()
		j.queue = append(retry, j.queue...)
		j.mu.Unlock()
	}
	j.outage.Report(err)
	for _, p := range batch {
		if p.done != nil {
			p.done <- err
		}
	}
	clear(batch)
	if len(batch) < maxBatch {
		j.spare = batch[:0]
	}
	return err == nil
}

// compacted is a batch in which each row has at most one change. The next batch reuses its memory.
type compacted struct {
	Batch
	put map[int64]int // from a row's number to its index in Put
}

// compact merges all changes of a row into one. The result is valid until the next call.
func (b *compacted) compact(changes []pending) Batch {
	if b.put == nil {
		b.put = map[int64]int{}
	}
	put := b.put
	clear(put)
	clear(b.Put)
	b.Remove, b.Put, b.Confirm = b.Remove[:0], b.Put[:0], b.Confirm[:0]
	for _, c := range changes {
		n := c.row.Number
		i, ok := put[n]
		switch {
		case c.row.State == 0:
			b.Remove = append(b.Remove, n)
			if ok {
				b.Put[i].Number = 0
			}
		case c.row.State == Confirmed && !ok:
			b.Confirm = append(b.Confirm, n)
		case c.row.State == Confirmed:
			b.Put[i].State, b.Put[i].Message, b.Put[i].Origin = Confirmed, nil, middleware.Origin{}
		case ok:
			if c.row.Message == nil {
				c.row.Message = b.Put[i].Message
			}
			if c.row.Origin.UUID == "" {
				c.row.Origin = b.Put[i].Origin
			}
			c.row.Known = b.Put[i].Known
			b.Put[i] = c.row
		default:
			put[n] = len(b.Put)
			b.Put = append(b.Put, c.row)
		}
	}
	b.Put = slices.DeleteFunc(b.Put, func(r Row) bool { return r.Number == 0 })
	return b.Batch
}

// write queues a change and waits until it is written, or has failed.
func (j *journal) write(r Row, sync bool) error {
	done, ok := j.donePool.Get().(chan error)
	if !ok {
		done = make(chan error, 1)
	}
	defer j.donePool.Put(done) // its only value has been received
	if err := j.enqueue(pending{row: r, sync: sync, done: done}); err != nil {
		return err
	}
	return <-done
}

// writeLater queues a change and doesn't wait. The journal tries until it is written.
func (j *journal) writeLater(r Row) { _ = j.enqueue(pending{row: r}) }

// enqueue adds a change to the queue.
func (j *journal) enqueue(p pending) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closing {
		return errClosed
	}
	j.queue = append(j.queue, p)
	j.wakeWriter()
	return nil
}

// confirmLater confirms a row within confirmDelay, together with others. Changes that are queued
// after the call may be written before the confirmation.
func (j *journal) confirmLater(number int64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closing {
		return
	}
	j.confirmations = append(j.confirmations, number)
	switch {
	case len(j.confirmations) == confirmBatch:
		j.queueConfirmations()
	case j.confirmTimer == nil:
		j.confirmTimer = time.AfterFunc(confirmDelay, func() {
			j.mu.Lock()
			defer j.mu.Unlock()
			j.queueConfirmations()
		})
	case len(j.confirmations) == 1:
		j.confirmTimer.Reset(confirmDelay)
	}
}

// queueConfirmations moves the confirmations into the queue. The caller has locked j.mu.
func (j *journal) queueConfirmations() {
	for _, number := range j.confirmations {
		j.queue = append(j.queue, pending{row: Row{Number: number, State: Confirmed}})
	}
	j.confirmations = j.confirmations[:0]
	j.wakeWriter()
}

// wakeWriter wakes the goroutine if it waits for changes.
func (j *journal) wakeWriter() {
	select {
	case j.wake <- struct{}{}:
	default:
	}
}

// health returns why the store can't be used, or nil.
func (j *journal) health() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if err := j.outage.Err(); err != nil || j.opened {
		return err
	}
	return errOpening
}

// close ends the journal. It tries to write the rest of the queue as long as ctx lives. Every call
// waits for the end. Only the first call returns why some changes weren't written.
func (j *journal) close(ctx context.Context) error {
	j.mu.Lock()
	first := !j.closing
	if first {
		j.closing, j.closeCtx = true, ctx
		j.queueConfirmations()
		j.endLife()
	}
	j.mu.Unlock()
	<-j.ended
	if !first {
		return nil
	}
	return j.closeErr
}
