package saga

// ForgetRecent has the Engine forget the last records of the sagas that have
// ended, as it does when there are too many.
func (e *Engine[S]) ForgetRecent() {
	for _, x := range e.shell_.clock.all() {
		x.mu.Lock()
		x.recent = recents{}
		x.mu.Unlock()
	}
}

// Waiting is how many wait for the end of a saga at this owner.
func (e *Engine[S]) Waiting() int {
	e.shell_.desk.mu.Lock()
	defer e.shell_.desk.mu.Unlock()
	return e.shell_.desk.waiting
}

// FillWaits has the owner believe that as many wait as may, until undo is called.
func (e *Engine[S]) FillWaits() (undo func()) {
	d := e.shell_.desk
	d.mu.Lock()
	defer d.mu.Unlock()
	d.waiting += maxWaits
	return func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.waiting -= maxWaits
	}
}

// Asks reports whether the Engine has a Caller of its own open.
func (e *Engine[S]) Asks() bool {
	i := e.inspector()
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.line != nil
}
