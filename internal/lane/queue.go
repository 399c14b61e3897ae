package lane

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

func (q *queue) pushFront(it *Item) {
	it.next = q.head
	q.head = it
	if q.tail == nil {
		q.tail = it
	}
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

// heap has the item of the lowest sequence number at its front.
type heap []*Item

func (h *heap) push(it *Item) {
	s := append(*h, it)
	for i := len(s) - 1; i > 0; {
		up := (i - 1) / 2
		if s[up].seq <= s[i].seq {
			break
		}
		s[up], s[i] = s[i], s[up]
		i = up
	}
	*h = s
}

// pop must not be called on an empty heap.
func (h *heap) pop() *Item {
	s := *h
	it, n := s[0], len(s)-1
	s[0], s[n] = s[n], nil
	s = s[:n]
	for i := 0; ; {
		low := i
		for _, down := range []int{2*i + 1, 2*i + 2} {
			if down < n && s[down].seq < s[low].seq {
				low = down
			}
		}
		if low == i {
			break
		}
		s[low], s[i] = s[i], s[low]
		i = low
	}
	*h = s
	return it
}
