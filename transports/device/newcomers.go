package device

import (
	"errors"
	"hash/maphash"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// ErrNewName is what Connect returns when the limit of new names is reached.
var ErrNewName = errors.New("too many new names of devices")

// NameLimit limits the rate of devices with new names. A name is new if the device had no session
// since the host started and the inventory doesn't list it. Each new name causes a connected and a
// disconnected event, and work in the pipelines that consume them. Without a limit, a client that
// invents names could flood the pipelines.
type NameLimit struct {
	// Rate is how many new names are allowed a second, and Burst how many at once. A Rate of 0
	// means no limit.
	Rate, Burst int
	// AtStart is how many more new names are allowed within startPeriod of the first one. After a
	// restart, every device of a fleet is new.
	AtStart int
}

// startPeriod is the time in which NameLimit.AtStart applies.
const startPeriod = 10 * time.Minute

// maxNames is the size of each of the two sets of newcomers. So newcomers always remembers the
// last maxNames names, and never more than twice as many.
const maxNames = 500_000

// newcomers remembers the names of devices to recognise new ones. It keeps hashes of the names in
// two sets. When the newer set is full, the older one is forgotten.
type newcomers struct {
	limit  NameLimit
	bucket *rate.Limiter
	seed   maphash.Seed
	// listed reports whether the inventory lists a device; nil without an inventory.
	listed func(device string) bool

	mu           sync.Mutex
	newer, older map[uint64]struct{}
	maxSet       int       // the size of each set
	atStart      int       // how many of NameLimit.AtStart are left
	until        time.Time // when atStart ends; zero before the first new name
}

func newNewcomers(limit NameLimit) *newcomers {
	return &newcomers{
		limit: limit, bucket: rate.NewLimiter(rate.Limit(limit.Rate), limit.Burst), seed: maphash.MakeSeed(),
		newer: map[uint64]struct{}{}, maxSet: maxNames, atStart: limit.AtStart,
	}
}

// admitName reports whether a device may have a session now. If so, it remembers the name.
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

// takeShare takes one new name from the limit. It returns false if none is left.
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

// SetListed sets the function that reports whether the inventory lists a device. The limit of new
// names doesn't apply to listed devices. only means that no other device may be attached.
// SetListed must be called before the first Connect.
func (r *Registry) SetListed(listed func(device string) bool, only bool) {
	r.newcomers.listed, r.listedOnly = listed, only
}
