// Package events is all that the shop's services share: what happened, how it
// looks on the wire, and the topics it travels on.
//
// Keys and values are those of the NestJS system that the shop rebuilds, so
// that a service of the one can take the place of a service of the other.
package events
