package web

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"os"
)

const (
	// maxBody is the largest body that is taken, in bytes: Express's "100kb".
	maxBody = 100 << 10
	// maxHeader is the largest header, in bytes. Beyond twice as much net/http
	// answers by itself, with plain text, and does not read on.
	maxHeader = 32 << 10
)

// shortHeader answers 431 where a header is longer than maxHeader.
func shortHeader(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		size := 0
		for name, values := range r.Header {
			for _, v := range values {
				size += len(name) + len(v) + len(": \r\n")
			}
		}
		if size > maxHeader {
			fault{status: http.StatusRequestHeaderFieldsTooLarge, message: "request header fields too large"}.write(w, r)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// bounded reads the body before its operation is asked, whatever the operation
// makes of it, and answers 413 where it is longer than maxBody, says so or not.
// A short rest of it net/http reads away, so that the connection can be used
// again; it closes the connection where the rest is long.
func bounded(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Body == nil || r.Body == http.NoBody {
			next.ServeHTTP(w, r)
			return
		}
		var body bytes.Buffer
		var err error
		if r.ContentLength <= maxBody {
			_, err = io.Copy(&body, io.LimitReader(r.Body, maxBody+1))
		}
		switch {
		case r.ContentLength > maxBody || body.Len() > maxBody:
			fault{status: http.StatusRequestEntityTooLarge, message: "request entity too large"}.write(w, r)
		case errors.Is(err, os.ErrDeadlineExceeded):
			w.Header().Set("Connection", "close") // RFC 9110, 15.5.9
			fault{status: http.StatusRequestTimeout, message: "the body did not come in time"}.write(w, r)
		case err != nil: // it is not as its header says, or its client is gone
			w.Header().Set("Connection", "close")
			fault{status: http.StatusBadRequest, message: "the body cannot be read"}.write(w, r)
		default:
			r.Body = io.NopCloser(&body)
			next.ServeHTTP(w, r)
		}
	})
}
