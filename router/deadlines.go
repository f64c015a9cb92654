package router

import (
	"container/heap"
	"time"
)

// deadlines is a list of items in the order of their deadlines. The heap may have stale entries:
// those of items that were removed, or that got another deadline. A call of first drops the stale
// entries at the top. A call of compact drops all stale entries if they are most of the heap.
type deadlines[T comparable] struct {
	due  map[T]time.Time
	heap dueHeap[T]
}

// set sets the deadline of an item, and reports whether it is the first to be due.
func (d *deadlines[T]) set(item T, at time.Time) bool {
	if d.due == nil {
		d.due = map[T]time.Time{}
	}
	if old, ok := d.due[item]; !ok || !old.Equal(at) {
		d.due[item] = at
		heap.Push(&d.heap, dueItem[T]{item, at})
		d.compact()
	}
	first, _, _ := d.first()
	return first == item
}

// remove removes an item.
func (d *deadlines[T]) remove(item T) {
	delete(d.due, item)
	d.compact()
}

// first returns the first item to be due and its deadline. ok is false if the list is empty.
func (d *deadlines[T]) first() (item T, at time.Time, ok bool) {
	for len(d.heap) > 0 {
		first := d.heap[0]
		if at, ok := d.due[first.item]; ok && at.Equal(first.at) {
			return first.item, at, true
		}
		heap.Pop(&d.heap)
	}
	return item, at, false
}

// compact builds a new heap when most of the old one is stale.
func (d *deadlines[T]) compact() {
	if len(d.heap) <= 2*len(d.due)+1000 {
		return
	}
	d.heap = make(dueHeap[T], 0, len(d.due))
	for item, at := range d.due {
		d.heap = append(d.heap, dueItem[T]{item, at})
	}
	heap.Init(&d.heap)
}

type dueItem[T comparable] struct {
	item T
	at   time.Time
}

type dueHeap[T comparable] []dueItem[T]

func (h dueHeap[T]) Len() int           { return len(h) }
func (h dueHeap[T]) Less(i, j int) bool { return h[i].at.Before(h[j].at) }
func (h dueHeap[T]) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *dueHeap[T]) Push(x any)        { *h = append(*h, x.(dueItem[T])) }

func (h *dueHeap[T]) Pop() any {
	last := len(*h) - 1
	item := (*h)[last]
	(*h)[last] = dueItem[T]{}
	*h = (*h)[:last]
	return item
}
