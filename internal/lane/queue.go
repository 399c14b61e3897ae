package lane

import "slices"

// queue is a list of items, first in first out, linked through the items.
type queue struct {
	head, tail *Item
	len        int
}

func (q *queue) push(it *Item) {
	if q.tail == nil {
		q.head = it
	} else {
		q.tail.next = it
	}
	q.tail = it
	q.len++
}

// insert puts an item before the first that comes after it in the partition.
// It is for those that are among the first.
func (q *queue) insert(it *Item) {
	at := &q.head
	for *at != nil && (*at).seq < it.seq {
		at = &(*at).next
	}
	if it.next = *at; it.next == nil {
		q.tail = it
	}
	*at = it
	q.len++
}

// pop returns nil when the queue is empty.
func (q *queue) pop() *Item {
	it := q.head
	if it == nil {
		return nil
	}
	q.head, it.next = it.next, nil
	if q.head == nil {
		q.tail = nil
	}
	q.len--
	return it
}

// remove takes an item out, if it is there. It looks at all before it.
func (q *queue) remove(it *Item) {
	var before *Item
	for at := &q.head; *at != nil; at = &(*at).next {
		if *at == it {
			if *at, it.next = it.next, nil; q.tail == it {
				q.tail = before
			}
			q.len--
			return
		}
		before = *at
	}
}

// heap has the item of the lowest sequence number at its front.
type heap []*Item

func (h *heap) push(it *Item) {
	*h = append(*h, it)
	h.up(len(*h) - 1)
}

// pop must not be called on an empty heap.
func (h *heap) pop() *Item {
	it := (*h)[0]
	h.removeAt(0)
	return it
}

// remove reports whether the item was there. It looks at all.
func (h *heap) remove(it *Item) bool {
	i := slices.Index(*h, it)
	if i >= 0 {
		h.removeAt(i)
	}
	return i >= 0
}

func (h *heap) removeAt(i int) {
	s := *h
	n := len(s) - 1
	s[i], s[n] = s[n], nil
	*h = s[:n]
	if i < n {
		h.down(i)
		h.up(i)
	}
}

func (h *heap) up(i int) {
	s := *h
	for i > 0 {
		up := (i - 1) / 2
		if s[up].seq <= s[i].seq {
			break
		}
		s[up], s[i] = s[i], s[up]
		i = up
	}
}

func (h *heap) down(i int) {
	s := *h
	for {
		low := i
		for _, down := range [2]int{2*i + 1, 2*i + 2} {
			if down < len(s) && s[down].seq < s[low].seq {
				low = down
			}
		}
		if low == i {
			return
		}
		s[low], s[i] = s[i], s[low]
		i = low
	}
}
