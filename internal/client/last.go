package client

import (
	"context"

	"github.com/twmb/franz-go/pkg/kgo"
)

// last is a record's context that says when it is sent. It is the outermost one.
type last struct {
	context.Context //nolint:containedctx // it is one
}

// Last marks an output to be sent when all others of its record are
// acknowledged: it tells others that the record is done. In a transaction all
// are one, and the mark means nothing.
func Last(r *kgo.Record) {
	ctx := r.Context
	if ctx == nil {
		ctx = context.Background()
	}
	r.Context = last{ctx}
}

// IsLast reports whether Last marked r.
func IsLast(r *kgo.Record) bool {
	_, ok := r.Context.(last)
	return ok
}
