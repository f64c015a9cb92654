package ratelimit

import (
	"container/list"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// sweep is how many buckets each call of bucketOf may remove. A call adds at most one bucket. So
// in the end the calls remove all full buckets.
const sweep = 2

// buckets has the buckets that aren't full. It is safe for concurrent use.
type buckets struct {
	rate    rate.Limit
	burst   int
	maxKeys int
	// refill is how long an empty bucket takes to become full.
	refill time.Duration

	mu    sync.Mutex
	byKey map[string]*list.Element
	// used has all buckets, the one that was used last in front.
	used *list.List
}

type bucket struct {
	*rate.Limiter
	key  string
	used time.Time
}

func newBuckets(c *Config) *buckets {
	return &buckets{
		rate: rate.Limit(c.Rate), burst: c.Burst, maxKeys: c.MaxKeys, refill: time.Duration(float64(c.Burst) / c.Rate * float64(time.Second)),
		byKey: map[string]*list.Element{}, used: list.New(),
	}
}

// bucketOf returns the bucket of a key, and makes it if there is none. It also removes some full
// ones.
func (b *buckets) bucketOf(key string, now time.Time) *rate.Limiter {
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
		if len(b.byKey) <= b.maxKeys && (oldest.TokensAt(now) < float64(b.burst) || now.Sub(oldest.used) < b.refill) {
			break
		}
		b.used.Remove(b.used.Back())
		delete(b.byKey, oldest.key)
	}
	return e.Value.(*bucket).Limiter
}
