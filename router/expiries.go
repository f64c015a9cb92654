package router

import (
	"container/heap"

	"github.com/pentrough/pentrough/handlers"
)

// expiries are held messages by when they expire. What is removed stays in the heap until it would be the first, or until most of the heap is such.
type expiries struct {
	in   map[*handlers.Held]struct{}
	heap byExpiry
}

// add reports whether the message is the first to expire.
func (x *expiries) add(held *handlers.Held) bool {
	if held.Expires.IsZero() {
		return false
	}
	if _, ok := x.in[held]; !ok {
		x.in[held] = struct{}{}
		heap.Push(&x.heap, held)
	}
	return x.first() == held
}

func (x *expiries) remove(held *handlers.Held) {
	delete(x.in, held)
	if len(x.heap) > 2*len(x.in)+1000 {
		x.heap = x.heap[:0]
		for held := range x.in {
			x.heap = append(x.heap, held)
		}
		heap.Init(&x.heap)
	}
}

// first returns the message that expires first, nil if none does.
func (x *expiries) first() *handlers.Held {
	for len(x.heap) > 0 {
		if _, ok := x.in[x.heap[0]]; ok {
			return x.heap[0]
		}
		heap.Pop(&x.heap)
	}
	return nil
}

type byExpiry []*handlers.Held

func (b byExpiry) Len() int           { return len(b) }
func (b byExpiry) Less(i, j int) bool { return b[i].Expires.Before(b[j].Expires) }
func (b byExpiry) Swap(i, j int)      { b[i], b[j] = b[j], b[i] }
func (b *byExpiry) Push(x any)        { *b = append(*b, x.(*handlers.Held)) }

func (b *byExpiry) Pop() any {
	last := len(*b) - 1
	held := (*b)[last]
	(*b)[last] = nil
	*b = (*b)[:last]
	return held
}
