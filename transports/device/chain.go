package device

// chain is a doubly linked list of items, sorted by their order. An item is in two chains: the
// backlog's and its device's. It has links of its own for each.
type chain struct {
	head, tail *item
}

// links are the neighbours of an item in one chain.
type links struct {
	prev, next *item
}

func allLinks(it *item) *links { return &it.all }

func ownLinks(it *item) *links { return &it.own }

// insertItem inserts the item at the place that its order gives. A new item goes to the end, and a
// redelivered one near the front.
func (c *chain) insertItem(it *item, in func(*item) *links) {
	l := in(it)
	if c.tail == nil || c.tail.order < it.order {
		l.prev = c.tail
	} else {
		l.next = c.head
		for l.next.order < it.order {
			l.next = in(l.next).next
		}
		l.prev = in(l.next).prev
	}
	if l.prev == nil {
		c.head = it
	} else {
		in(l.prev).next = it
	}
	if l.next == nil {
		c.tail = it
	} else {
		in(l.next).prev = it
	}
}

func (c *chain) removeItem(it *item, in func(*item) *links) {
	l := in(it)
	if l.prev == nil {
		c.head = l.next
	} else {
		in(l.prev).next = l.next
	}
	if l.next == nil {
		c.tail = l.prev
	} else {
		in(l.next).prev = l.prev
	}
	*l = links{}
}
