package device

import (
	"errors"
	"hash/maphash"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// ErrNewName is what Connect returns when too many new names came.
var ErrNewName = errors.New("too many new names of devices")

// NameLimit bounds how fast devices come whose name is new: one that has had no session since the host
// started, and that no inventory lists. Each new name is a connected and a disconnected event, and what
// pipelines make of those, so anyone who invents names could flood them.
type NameLimit struct {
	// Rate is how many new names may come a second, Burst how many at once. A Rate of 0 is no limit.
	Rate, Burst int
	// AtStart is how many more may come within startPeriod of the first one: after a restart every
	// device of a fleet is new.
	AtStart int
}

// startPeriod is how long NameLimit.AtStart holds.
const startPeriod = 10 * time.Minute

// mostNames is how many names are remembered at least, and half of how many at most.
const maxNames = 500_000

// newcomers tells new names from those that were here before. It keeps hashes of names in two sets:
// when the newer one is full, the older one is forgotten.
type newcomers struct {
	limit  NameLimit
	bucket *rate.Limiter
	seed   maphash.Seed
	// listed reports whether the inventory lists a device; nil without an inventory.
	listed func(device string) bool

	mu           sync.Mutex
	newer, older map[uint64]struct{}
	maxSet       int       // of each set
	atStart      int       // that is left
	until        time.Time // when atStart ends; zero before the first new name
}

func newNewcomers(limit NameLimit) *newcomers {
	return &newcomers{
		limit: limit, bucket: rate.NewLimiter(rate.Limit(limit.Rate), limit.Burst), seed: maphash.MakeSeed(),
		newer: map[uint64]struct{}{}, maxSet: maxNames, atStart: limit.AtStart,
	}
}

// admit reports whether a device may have a session now, and remembers its name if so.
func (n *newcomers) admitName(device string, now time.Time) bool {
	if n.limit.Rate == 0 || n.listed != nil && n.listed(device) {
		return true
	}
	name := maphash.String(n.seed, device)
	n.mu.Lock()
	defer n.mu.Unlock()
	if _, here := n.newer[name]; here {
		return true
	}
	if _, before := n.older[name]; !before && !n.takeShare(now) {
		return false
	}
	if len(n.newer) >= n.maxSet {
		n.older, n.newer = n.newer, map[uint64]struct{}{}
	}
	n.newer[name] = struct{}{}
	return true
}

// take takes one new name's share of the limit.
func (n *newcomers) takeShare(now time.Time) bool {
	if n.until.IsZero() {
		n.until = now.Add(startPeriod)
	}
	if n.atStart > 0 && now.Before(n.until) {
		n.atStart--
		return true
	}
	return n.bucket.AllowN(now, 1)
}
