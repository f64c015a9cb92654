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
	// applyTimeout bounds one transaction, openTimeout one attempt to open the store.
	applyTimeout = 10 * time.Second
	openTimeout  = 30 * time.Second
	// retryFirst and retryLast bound the pauses between attempts in an outage.
	retryFirst = 100 * time.Millisecond
	retryLast  = 5 * time.Second
	// maxBatch is how many changes one transaction has at most.
	maxBatch = 2000
	// leisure is how long a change of which nobody waits to hear waits for more of its kind, leisureBatch how many there are at most.
	leisure      = 20 * time.Millisecond
	leisureBatch = 500
	// lastTimeout bounds a transaction at the end.
	lastTimeout = 3 * time.Second
)

// errClosed is what is returned after the journal's end.
var errClosed = errors.New("the ledger is closed")

// journal writes changes to a store, in the order in which they were made. What comes while a transaction runs goes together into the
// next one, so a busy ledger needs few of them and an idle one writes at once.
type journal struct {
	store  Store
	memory memory
	wake   chan struct{}
	// ending ends at close. farewell bounds the attempts to write what is left then.
	ending   context.Context
	end      context.CancelFunc
	farewell context.Context
	ended    chan struct{}
	outage   *outage.Outage
	dones    sync.Pool // of the channels at which writers wait
	// closeErr is why not all is written, and the store's, once ended is closed.
	closeErr error

	mu      sync.Mutex
	queue   []pending
	idle    []int64 // rows to be confirmed, for the queue when there are enough of them or idling fires
	idling  *time.Timer
	closing bool
	opened  bool

	// Of the journal's goroutine: the room of a batch that is written, what became of it, and when the
	// store was checked.
	spare    []pending
	compiled compiled
	checked  time.Time
}

// pending is a change on its way: in the states Writing, Done and OnHold the row is put as it is given, in Confirmed only its state changes, and
// without a state it is removed. Somebody waits for it, unless done is nil.
type pending struct {
	row  Row
	sync bool
	done chan error
}

// memory is the ledger that a journal writes for.
type memory interface {
	// load takes the store's rows in, once. refuse is told why there are none yet.
	load([]Row)
	refuse(error)
	// missing returns the changes that bring the rows of a store that was opened again to what is in
	// memory. restored learns which rows were written.
	missing([]Row) (Batch, error)
	restored([]Row)
}

// newJournal opens the store in the background.
func newJournal(s Store, log *slog.Logger, m memory) *journal {
	j := &journal{store: s, memory: m, wake: make(chan struct{}, 1), ended: make(chan struct{}), outage: outage.New(log, "the ledger")}
	j.ending, j.end = context.WithCancel(context.Background())
	go func() {
		defer close(j.ended)
		var err error
		if j.open() {
			err = j.finish(j.run())
		}
		j.refuseWaiting(errClosed)
		j.closeErr = errors.Join(err, j.store.Close())
	}()
	return j
}

var errOpening = errors.New("the store isn't open yet")

// open tries until the store is open, or the journal ends: then it returns false.
func (j *journal) open() bool {
	for pauses := backoff.New(retryFirst, retryLast); ; {
		ctx, cancel := context.WithTimeout(j.ending, openTimeout)
		rows, err := j.store.Open(ctx)
		cancel()
		if err == nil {
			err = j.store.Reserve()
		}
		if err != nil && j.ending.Err() != nil {
			return false
		}
		if err == nil {
			j.memory.load(rows)
			j.mu.Lock()
			j.opened = true
			j.mu.Unlock()
			j.outage.Report(nil)
			return true
		}
		err = fmt.Errorf("opening the store: %w", err)
		j.outage.Report(err)
		j.memory.refuse(err)
		if !backoff.Sleep(j.ending, pauses.NextBackOff()) {
			return false
		}
	}
}

// run applies what is queued until the journal is to end. After an error it opens the store anew. It
// returns whether the store works.
func (j *journal) run() bool {
	check := time.NewTicker(database.CheckInterval)
	defer check.Stop()
	for {
		ok := true
		if batch := j.take(); len(batch) > 0 {
			ok = j.apply(batch, applyTimeout)
		} else {
			select {
			case <-j.wake:
			case <-check.C:
				ok = j.check(applyTimeout)
			case <-j.ending.Done():
				return true
			}
		}
		if !ok && !j.reopen() {
			return false
		}
	}
}

// finish writes what is left. It makes at least one attempt, and others as long as farewell lives.
// Its error says why something is left.
func (j *journal) finish(works bool) error {
	for pauses := backoff.New(retryFirst, retryLast); ; {
		var err error
		if !works {
			err = j.restore(context.Background(), lastTimeout)
		}
		if err == nil {
			err = j.last()
		}
		if err == nil || !backoff.Sleep(j.farewell, pauses.NextBackOff()) {
			return err
		}
		works = false
	}
}

// check reports whether the store is the one that was opened, and can be written to.
func (j *journal) check(timeout time.Duration) bool {
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

// reopen tries to open the store after an error, until that works. It returns false if the journal
// ends first. The store may be empty, or lack its latest changes: it gets all that is in memory before
// anything else is written to it.
func (j *journal) reopen() bool {
	for pauses := backoff.New(retryFirst, retryLast); backoff.Sleep(j.ending, pauses.NextBackOff()); {
		err := j.restore(j.ending, openTimeout)
		if err == nil {
			err = j.store.Reserve()
		}
		if err != nil && j.ending.Err() != nil {
			return false // finish tries again
		}
		j.outage.Report(err)
		if err == nil {
			return true
		}
		j.refuseWaiting(err)
	}
	return false
}

// restore opens the store and writes to it what it lacks. That includes the changes that are
// queued already and for which nobody waits. To make these afterwards would bring rows back to
// older states.
func (j *journal) restore(ctx context.Context, timeout time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	rows, err := j.store.Open(ctx)
	older := j.left()
	var all Batch
	if err == nil {
		all, err = j.memory.missing(rows)
	}
	if err != nil {
		return fmt.Errorf("opening the store: %w", err)
	}
	rows = all.Put
	for part := (Batch{Remove: all.Remove}); len(part.Remove)+len(rows) > 0; part.Remove = nil {
		n := min(len(rows), maxBatch)
		part.Put, rows = rows[:n], rows[n:]
		if err := j.store.Apply(ctx, part, true); err != nil {
			return fmt.Errorf("writing to the store what is in memory: %w", err)
		}
	}
	j.memory.restored(all.Put)
	j.mu.Lock()
	defer j.mu.Unlock()
	j.queue = slices.DeleteFunc(j.queue, func(p pending) bool {
		older--
		return older >= 0 && p.done == nil
	})
	return nil
}

// refuseWaiting gives an error to those who wait for a change, who will ask again, and keeps the
// changes for which nobody waits.
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

// last applies what is queued, and checks the store.
func (j *journal) last() error {
	for batch := j.take(); len(batch) > 0; batch = j.take() {
		if !j.apply(batch, lastTimeout) {
			return j.outage.Err()
		}
	}
	return j.checkStore(lastTimeout)
}

// left is how many changes aren't made.
func (j *journal) left() int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return len(j.queue)
}

// take returns the oldest changes.
func (j *journal) take() []pending {
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

// apply makes the changes, tells those who wait, and puts the others back if it failed.
func (j *journal) apply(batch []pending, timeout time.Duration) bool {
	sync := slices.ContainsFunc(batch, func(p pending) bool { return p.sync })
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	err := j.store.Apply(ctx, j.compiled.of(batch), sync)
	cancel()
	if err != nil {
		err = fmt.Errorf("writing to the store: %w", err)
	} else if time.Since(j.checked) >= database.CheckInterval {
		// The check comes after the change: so no change counts as made that went to a file that had
		// been gone for longer than the interval.
		err = j.checkStore(timeout)
	}
	if err != nil {
		left := slices.DeleteFunc(slices.Clone(batch), func(p pending) bool { return p.done != nil })
		j.mu.Lock()
		j.queue = append(left, j.queue...)
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

// compiled is a batch whose room serves the next one too.
type compiled struct {
	Batch
	put map[int64]int // index in Put
}

// of brings changes into the form in which each row is named once. It is good until the next call.
func (b *compiled) of(changes []pending) Batch {
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

// write makes a change and returns when it is made.
func (j *journal) write(r Row, sync bool) error {
	done, ok := j.dones.Get().(chan error)
	if !ok {
		done = make(chan error, 1)
	}
	defer j.dones.Put(done) // it is empty again
	if err := j.add(pending{row: r, sync: sync, done: done}); err != nil {
		return err
	}
	return <-done
}

// later makes a change by and by, however often that takes.
func (j *journal) later(r Row) { _ = j.add(pending{row: r}) }

func (j *journal) add(p pending) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closing {
		return errClosed
	}
	j.queue = append(j.queue, p)
	j.signal()
	return nil
}

// confirmLater confirms a row by and by, together with others: perhaps after changes that were asked for later.
func (j *journal) confirmLater(number int64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closing {
		return
	}
	j.idle = append(j.idle, number)
	switch {
	case len(j.idle) == leisureBatch:
		j.hurry()
	case j.idling == nil:
		j.idling = time.AfterFunc(leisure, func() {
			j.mu.Lock()
			defer j.mu.Unlock()
			j.hurry()
		})
	case len(j.idle) == 1:
		j.idling.Reset(leisure)
	}
}

// hurry has it queued what there was time for. The lock is held.
func (j *journal) hurry() {
	for _, number := range j.idle {
		j.queue = append(j.queue, pending{row: Row{Number: number, State: Confirmed}})
	}
	j.idle = j.idle[:0]
	j.signal()
}

func (j *journal) signal() {
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

// close ends the journal. As long as ctx lives it tries to write what is left. Only the first call
// returns why something is left.
func (j *journal) close(ctx context.Context) error {
	j.mu.Lock()
	first := !j.closing
	if first {
		j.closing, j.farewell = true, ctx
		j.hurry()
		j.end()
	}
	j.mu.Unlock()
	<-j.ended
	if !first {
		return nil
	}
	return j.closeErr
}
