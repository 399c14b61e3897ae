package apache

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// tick is the time between two looks at a node that starts.
const tick = 10 * time.Millisecond

// await returns when each of the nodes listens, answers, sees all nodes that are
// up and is in sync; and when the users can log in.
func (c *Cluster) await(ctx context.Context, nodes ...*node) error {
	for _, n := range nodes {
		if err := n.listens(ctx); err != nil {
			return fmt.Errorf("node %d: %w", n.id, err)
		}
	}
	for i, n := range nodes {
		cl, err := kgo.NewClient(
			kgo.SeedBrokers(n.addr(n.inner)),
			kgo.DisableClientMetrics(),
			kgo.MetadataMinAge(tick), // kadm answers from kgo's cache for as long
			kgo.RetryBackoffFn(func(int) time.Duration { return tick }),
		)
		if err != nil {
			return err
		}
		defer cl.Close()
		if err := c.complete(ctx, n, kadm.NewClient(cl)); err != nil {
			return fmt.Errorf("node %d: %w", n.id, err)
		}
		if err := c.addUsers(ctx, kadm.NewClient(cl), i == 0); err != nil {
			return fmt.Errorf("node %d: %w", n.id, err)
		}
	}
	return nil
}

// listens returns when the node's client port is open.
func (n *node) listens(ctx context.Context) error {
	var dialer net.Dialer
	for {
		conn, err := dialer.DialContext(ctx, "tcp", n.addr(n.client))
		if err == nil {
			return conn.Close()
		}
		if !pause(ctx) {
			return fmt.Errorf("its port does not open: %w; the end of its log:\n%s", ctx.Err(), n.tail())
		}
	}
}

// complete returns when the node asked sees all nodes that are up, and is in
// sync with the leaders there are: the next node may be lost then.
func (c *Cluster) complete(ctx context.Context, n *node, adm *kadm.Client) error {
	for {
		up := 0
		for _, n := range c.nodes {
			if n.up() {
				up++
			}
		}
		meta, err := adm.Metadata(ctx)
		lagging := behind(meta.Topics, int32(n.id))
		if err == nil && len(meta.Brokers) >= up && meta.Controller >= 0 && lagging == "" {
			return nil
		}
		if !pause(ctx) {
			return errors.Join(fmt.Errorf("it sees %d of %d nodes and is not in sync with %q: %w", len(meta.Brokers), up, lagging, ctx.Err()), err)
		}
	}
}

// behind returns a partition of which the node is a replica and not in sync.
func behind(topics kadm.TopicDetails, node int32) (partition string) {
	topics.EachPartition(func(p kadm.PartitionDetail) {
		if p.Leader >= 0 && slices.Contains(p.Replicas, node) && !slices.Contains(p.ISR, node) {
			partition = fmt.Sprintf("%s/%d", p.Topic, p.Partition)
		}
	})
	return partition
}

// addUsers gives the users of PLAIN their SCRAM secrets, once, and returns when
// the node asked knows them.
func (c *Cluster) addUsers(ctx context.Context, adm *kadm.Client, first bool) error {
	if len(c.Users) == 0 {
		return nil
	}
	if first {
		var upserts []kadm.UpsertSCRAM
		for user, password := range c.Users {
			upserts = append(upserts, kadm.UpsertSCRAM{User: user, Password: password, Mechanism: kadm.ScramSha256, Iterations: 4096})
		}
		altered, err := adm.AlterUserSCRAMs(ctx, nil, upserts)
		if err == nil {
			err = altered.Error()
		}
		if err != nil {
			return fmt.Errorf("add the users: %w", err)
		}
	}
	for {
		known, err := adm.DescribeUserSCRAMs(ctx)
		if err == nil && len(known) >= len(c.Users) {
			return nil
		}
		if !pause(ctx) {
			return errors.Join(fmt.Errorf("it knows %d of %d users: %w", len(known), len(c.Users), ctx.Err()), err)
		}
	}
}

// pause waits for one tick, and says whether there is time left.
func pause(ctx context.Context) bool {
	timer := time.NewTimer(tick)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// checkUsers refuses what would break out of the quotes of a JAAS entry.
func checkUsers(users map[string]string) error {
	for user, password := range users {
		if user == "" || strings.ContainsAny(user, " =;\"\\\n\r") || strings.ContainsAny(password, "\"\\\n\r") {
			return fmt.Errorf("user %q: the name or the password has a character that server.properties cannot hold", user)
		}
	}
	return nil
}
