// Package web is the HTTP side that all services have in common: the server,
// the envelope that answers come in, and the health of the process.
package web
