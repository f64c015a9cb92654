package ratelimit

import (
	"container/list"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// sweep is how many buckets are looked at for each use of one: more than come, so that all that are full go.
const sweep = 2

// buckets are those of the keys that came lately. It is safe for concurrent use.
type buckets struct {
	rate  rate.Limit
	burst int
	most  int
	// refill is the time in which an empty bucket becomes full: one that wasn't used for so long is like a new one.
	refill time.Duration

	mu    sync.Mutex
	byKey map[string]*list.Element
	// used has the bucket used last at its front.
	used *list.List
}

type bucket struct {
	*rate.Limiter
	key  string
	used time.Time
}

func newBuckets(c *Config) *buckets {
	return &buckets{
		rate: rate.Limit(c.Rate), burst: c.Burst, most: c.MaxKeys, refill: time.Duration(float64(c.Burst) / c.Rate * float64(time.Second)),
		byKey: map[string]*list.Element{}, used: list.New(),
	}
}

// of returns the bucket of a key, a new one if there is none, and forgets some that aren't needed.
func (b *buckets) of(key string, now time.Time) *rate.Limiter {
	b.mu.Lock()
	defer b.mu.Unlock()
	e, ok := b.byKey[key]
	if ok {
		e.Value.(*bucket).used = now
		b.used.MoveToFront(e)
	} else {
		e = b.used.PushFront(&bucket{rate.NewLimiter(b.rate, b.burst), key, now})
		b.byKey[key] = e
	}
	for range sweep {
		oldest := b.used.Back().Value.(*bucket)
		if len(b.byKey) <= b.most && (oldest.TokensAt(now) < float64(b.burst) || now.Sub(oldest.used) < b.refill) {
			break
		}
		b.used.Remove(b.used.Back())
		delete(b.byKey, oldest.key)
	}
	return e.Value.(*bucket).Limiter
}
