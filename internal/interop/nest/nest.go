// Package nest runs programs in NestJS as processes, for tests and measurements
// beside wherry's: the shop's services (folder shop), and the payments of
// examples/checkout.
package nest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/examples/shop/events"
)

// Version is that of NestJS in package.json, which the name of the modules'
// folder has; TestVersionIsThatOfTheManifest keeps it.
const Version = "12.1.1"

// Shop returns the command that runs services, named as in shop/main.ts, on the
// brokers, until ctx is done. env has more of shop/settings.ts, as "NAME=value". Its error says what
// is not installed.
func Shop(ctx context.Context, brokers, services []string, env ...string) (*exec.Cmd, error) {
	return command(ctx, "dist/main.js", brokers, append([]string{"SERVICES=" + strings.Join(services, ",")}, env...))
}

// Payments returns the command that runs the payments of examples/checkout on the
// brokers, until ctx is done. env has more of its settings.ts, as "NAME=value". Its
// error says what is not installed.
func Payments(ctx context.Context, brokers []string, env ...string) (*exec.Cmd, error) {
	return command(ctx, "dist-checkout/payments.js", brokers, env)
}

// command runs a program that scripts/nest-modules has compiled.
func command(ctx context.Context, program string, brokers, env []string) (*exec.Cmd, error) {
	node, err := exec.LookPath("node")
	if err != nil {
		return nil, errors.New("there is no node on the PATH")
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return nil, err
	}
	program = filepath.Join(cache, "wherry", "nest-"+Version, filepath.FromSlash(program))
	if _, err := os.Stat(program); err != nil {
		return nil, fmt.Errorf("the program in NestJS is not there: scripts/nest-modules brings it: %w", err)
	}
	cmd := exec.CommandContext(ctx, node, program)
	cmd.Env = append(os.Environ(), "NO_COLOR=1", "KAFKAJS_NO_PARTITIONER_WARNING=1", "KAFKA_BROKERS="+strings.Join(brokers, ","))
	cmd.Env = append(cmd.Env, env...)
	return cmd, nil
}

// Topics are the topics of the shop, and those of requests for users and their
// replies: NestJS ends at its start where they are missing.
func Topics() []wherry.TopicSpec {
	specs := events.Topics()
	for _, name := range []string{"user.getUser", "user.getUser.reply"} {
		if !slices.ContainsFunc(specs, func(s wherry.TopicSpec) bool { return s.Name == name }) {
			specs = append(specs, wherry.TopicSpec{Name: name, Partitions: specs[0].Partitions})
		}
	}
	return specs
}

// Joins is how many lines of Joined a process of services writes until it has
// all its partitions: orders reads replies besides.
func Joins(services ...string) int {
	n := len(services)
	for _, s := range services {
		if s == "orders" {
			n++
		}
	}
	return n
}

// What the processes write when they are ready: NestJS's group members one by
// one, and its HTTP server with the address.
const (
	Joined    = `Consumer has joined the group`
	Listening = `listening on (http://\S+)`
)
