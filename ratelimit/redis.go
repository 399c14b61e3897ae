package ratelimit

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

var (
	//go:embed together.lua
	togetherScript string
	//go:embed nestjs.lua
	nestjsScript string
)

// Redis is a [Store] in a Redis, or what speaks its language, version 5 or
// newer, for Limiters in many processes. It is as exact as [Memory]: each
// decision, for all tiers, is one script, and one round trip, and time is that
// of the server's clock (TIME, in µs). When that is put back by D, a key's
// events move back with it rather than block it for D; when it is put ahead
// events are forgotten early. The Limiter's MaxEvents is at most 8,192 here: to
// thin more would hold up the server for others.
//
// A Limiter's key is one sorted set, or, in Mode NestJS, a hash and a sorted set
// for each tier. They have the same hash tag, so that they are in one slot of
// a Redis Cluster, and expire when they cannot matter any more. Limiters of one
// Name should have the same Tiers: one with shorter ones forgets what another
// needs. What the server loses or evicts begins anew; use a maxmemory-policy that
// keeps it.
type Redis struct {
	// Eval runs a script on the server and returns what it returns, here a
	// string. With github.com/redis/go-redis it is
	//
	//	func(ctx context.Context, script string, keys []string, args ...any) (any, error) {
	//		return redis.NewScript(script).Run(ctx, client, keys, args...).Result()
	//	}
	//
	// It should end with ctx. There is no default.
	Eval func(ctx context.Context, script string, keys []string, args ...any) (any, error)
	// Prefix is what keys begin with, "{" and "}" are not for it. "" means
	// "wherry:rate:".
	Prefix string
	// Timeout is how long a decision may take; beyond it, the store does not
	// answer. An event may then have been counted. 0 means 500ms.
	Timeout time.Duration
}

func (s *Redis) check() (faults []error) {
	if s.Eval == nil {
		faults = append(faults, errors.New("Redis.Eval is nil, and is what reaches the server"))
	}
	if strings.ContainsAny(s.Prefix, "{}") {
		faults = append(faults, fmt.Errorf("Redis.Prefix %q has a brace, and would be a hash tag of its own", s.Prefix))
	}
	if s.Timeout < 0 {
		faults = append(faults, fmt.Errorf("Redis.Timeout is %v, and must not be negative", s.Timeout))
	}
	return faults
}

// redisMaxEvents bounds how long the server is busy with one script.
const redisMaxEvents = 1 << 13

// Take implements [Store].
func (s *Redis) Take(ctx context.Context, r *Rules, key string, cost int) (Decision, error) {
	if err := r.tooMuch(cost); err != nil {
		return Decision{}, err
	}
	timeout := s.Timeout
	if timeout == 0 {
		timeout = 500 * time.Millisecond
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	base := s.key(r.Name, key)
	keys, script := []string{base}, togetherScript
	args := []any{cost, min(r.MaxEvents, redisMaxEvents)}
	for _, t := range r.Tiers {
		args = append(args, t.Limit, micros(t.Per))
	}
	if r.Mode == NestJS {
		script = nestjsScript
		keys[0] += ":nestjs"
		for _, t := range r.Tiers {
			keys = append(keys, base+":"+t.Name)
			args = append(args, micros(t.Block))
		}
	}
	reply, err := s.Eval(ctx, script, keys, args...)
	if err != nil {
		return Decision{}, err
	}
	return decision(reply, r)
}

// key is the name of what a Limiter's key has on the server: prefix{tag}.
func (s *Redis) key(name, key string) string {
	prefix := s.Prefix
	if prefix == "" {
		prefix = "wherry:rate:"
	}
	return prefix + "{" + tag.Replace(name) + ":" + tag.Replace(key) + "}"
}

// tag keeps the end of a hash tag out of it, and the name from running into the
// key.
var tag = strings.NewReplacer("%", "%25", "{", "%7B", "}", "%7D", ":", "%3A")

// micros is d in µs, rounded up: a window may be longer, never shorter.
func micros(d time.Duration) int64 {
	return int64((d + time.Microsecond - 1) / time.Microsecond)
}

// decision reads the scripts' answer: numbers with blanks between them, 1 for OK,
// the wait, and for each tier asked whether it refused, what remains and when
// there is more.
func decision(reply any, r *Rules) (d Decision, err error) {
	var text string
	switch reply := reply.(type) {
	case string:
		text = reply
	case []byte:
		text = string(reply)
	default:
		return d, fmt.Errorf("the script's answer is a %T, and should be a string", reply)
	}
	fields := strings.Fields(text)
	numbers := make([]int64, len(fields))
	for i, f := range fields {
		if numbers[i], err = strconv.ParseInt(f, 10, 64); err != nil || numbers[i] < 0 {
			return Decision{}, fmt.Errorf("the script's answer %.100q is not its own", text)
		}
	}
	if len(numbers) < 5 || (len(numbers)-2)%3 != 0 || (len(numbers)-2)/3 > len(r.Tiers) {
		return Decision{}, fmt.Errorf("the script's answer %.100q is not its own", text)
	}
	d.OK, d.Wait = numbers[0] == 1, time.Duration(numbers[1])*time.Microsecond
	for i, n := 0, numbers[2:]; len(n) > 0; i, n = i+1, n[3:] {
		d.Tiers[i] = Left{Asked: true, Refused: n[0] == 1, Remaining: int(n[1]), Reset: time.Duration(n[2]) * time.Microsecond}
	}
	return d, nil
}
