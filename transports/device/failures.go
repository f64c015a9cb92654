package device

import (
	"maps"
	"strings"
	"sync"
	"time"
)

const (
	// maxFailures is how many errors a registry remembers, one for each device, in addition to
	// those of devices that the host dials. So devices that fail, and strangers that invent names,
	// can't fill the memory.
	maxFailures = 4096
	// maxFailureText is the longest text of an error, in bytes.
	maxFailureText = 200
	// evictionSample is how many errors are compared to find an old one to forget.
	evictionSample = 8
)

// Failure is the last error of a device's connection. The registry still remembers it after the
// device goes offline or connects again.
type Failure struct {
	Text string
	Time time.Time
}

// failures has the last error of each device that had one.
type failures struct {
	mu  sync.Mutex // no other lock is taken while it is locked
	all map[string]Failure
}

// NoteError records the last error of a device's connection, for [Lister].
func (r *Registry) NoteError(device, text string) {
	if len(text) > maxFailureText {
		text = strings.ToValidUTF8(text[:maxFailureText], "") + "..."
	}
	f := Failure{Text: strings.Clone(text), Time: r.now()}
	r.failures.mu.Lock()
	defer r.failures.mu.Unlock()
	if _, ok := r.failures.all[device]; !ok && len(r.failures.all) >= maxFailures+len(r.dialed) {
		r.failures.forgetOld()
	}
	if r.failures.all == nil {
		r.failures.all = map[string]Failure{}
	}
	r.failures.all[device] = f
}

// forgetOld forgets the oldest of a few errors. mu is locked.
func (f *failures) forgetOld() {
	oldest, at, looked := "", time.Time{}, 0
	for device, failure := range f.all {
		if looked == 0 || failure.Time.Before(at) {
			oldest, at = device, failure.Time
		}
		if looked++; looked == evictionSample {
			break
		}
	}
	delete(f.all, oldest)
}

// Failures implements [Lister].
func (r *Registry) Failures() map[string]Failure {
	r.failures.mu.Lock()
	defer r.failures.mu.Unlock()
	return maps.Clone(r.failures.all)
}
