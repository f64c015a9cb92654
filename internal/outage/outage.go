// Package outage logs outages. It logs that something doesn't work, each new cause, and that it
// works again, with the length of the outage. The caller reports the result of each attempt to an
// [Outage]:
//
//	o := outage.New(log, "the ledger")
//	o.Report(write())
//
// The lines are the same for all things:
//
//	level=WARN msg="the ledger doesn't work, trying again" err="..."
//	level=INFO msg="the ledger works again" after=3.2s
//
// An Outage logs at most [Burst] warnings at once, and then one a minute. If this limit suppresses
// the first line of an outage, a later report logs it. The end of an outage is logged if its
// beginning was logged.
package outage

import (
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
)

const (
	// Burst is how many warnings about one thing are logged at once. interval is the time between
	// further warnings.
	Burst    = 5
	interval = time.Minute
)

// Outage is the state of one thing that may not work. Its methods may be called at the same time.
//
// A thing may have several users, such as two connections to one broker. It doesn't work while it
// doesn't work for one of them, and a cause that two of them report is logged once.
type Outage struct {
	log   *slog.Logger
	what  string
	limit *rate.Limiter
	// down says that some user has an error. It is read without the lock.
	down atomic.Bool

	mu     sync.Mutex
	users  map[any]report
	since  time.Time
	logged bool // says that the beginning of the outage was logged
}

// report is the last result that a user reported.
type report struct {
	err    error
	logged bool
}

// New returns the state of a thing that works. what names it in the log, as the subject of the
// sentence "the ledger doesn't work".
func New(log *slog.Logger, what string) *Outage {
	return &Outage{log: log, what: what, limit: rate.NewLimiter(rate.Every(interval), Burst), users: map[any]report{}}
}

// Report takes the result of an attempt; nil says that it works. While the thing works,
// Report(nil) costs one atomic load.
func (o *Outage) Report(err error) {
	if err != nil || o.Down() {
		o.ReportOf(nil, err)
	}
}

// ReportOf takes the result of an attempt of one of several users.
func (o *Outage) ReportOf(user any, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if err == nil {
		o.users[user] = report{}
		o.updateState()
		return
	}
	known := false
	for _, r := range o.users {
		known = known || r.logged && r.err.Error() == err.Error()
	}
	o.users[user] = report{err, known}
	o.updateState()
	if !known && o.limit.Allow() {
		o.users[user] = report{err, true}
		o.logged = true
		o.log.Warn(o.what+" doesn't work, trying again", "err", err)
	}
}

// Forget removes a user and reports whether there are others. If it was the last one, the outage
// ends without a log line.
func (o *Outage) Forget(user any) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.users, user)
	if len(o.users) == 0 {
		o.logged = false
	}
	o.updateState()
	return len(o.users) > 0
}

// updateState sets down from the users' errors, and begins or ends the outage. The caller has
// locked o.mu.
func (o *Outage) updateState() {
	was, is := o.down.Load(), o.firstError() != nil
	o.down.Store(is)
	switch {
	case is && !was:
		o.since = time.Now()
	case was && !is && o.logged:
		o.logged = false
		o.log.Info(o.what+" works again", "after", time.Since(o.since).Round(time.Millisecond))
	}
}

// Down reports whether the thing doesn't work.
func (o *Outage) Down() bool { return o.down.Load() }

// Err returns why the thing doesn't work, or nil.
func (o *Outage) Err() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.firstError()
}

// Since returns when the outage began. It is zero if the thing works.
func (o *Outage) Since() time.Time {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.down.Load() {
		return time.Time{}
	}
	return o.since
}

// firstError returns the users' first error in the order of the texts, so that repeated calls
// return the same one. The caller has locked o.mu.
func (o *Outage) firstError() (err error) {
	for _, r := range o.users {
		if r.err != nil && (err == nil || r.err.Error() < err.Error()) {
			err = r.err
		}
	}
	return err
}
