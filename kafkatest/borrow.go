package kafkatest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// realBrokers returns the addresses of KAFKATEST_BROKERS.
func realBrokers() []string {
	return strings.FieldsFunc(os.Getenv("KAFKATEST_BROKERS"), func(r rune) bool { return r == ',' || r == ' ' })
}

// borrow makes k the real cluster at brokers, for t's test alone: it waits for
// its turn, makes the topics anew, and takes away at the end what the test left.
func (k *Cluster) borrow(t testing.TB, brokers []string, topics []Topic) {
	t.Helper()
	disposable(t, "KAFKATEST_BROKERS", brokers)
	k.connect(t, brokers)
	ctx, cancel := context.WithTimeout(context.Background(), k.adminTimeout())
	defer cancel()
	adm := kadm.NewClient(k.admin)
	meta, err := adm.BrokerMetadata(ctx)
	if err != nil {
		t.Fatalf("kafkatest: the brokers of KAFKATEST_BROKERS=%s do not answer: %v; unset it to use the embedded broker", strings.Join(brokers, ","), err)
	}
	var advertised []string
	for _, b := range meta.Brokers {
		advertised = append(advertised, net.JoinHostPort(b.Host, strconv.Itoa(int(b.Port))))
	}
	disposable(t, "the cluster behind KAFKATEST_BROKERS", advertised)
	holdCluster(t, meta.Cluster)

	// The wait for our turn may have been long.
	ctx, cancel = context.WithTimeout(context.Background(), k.adminTimeout())
	defer cancel()
	before, err := k.look(ctx, topics)
	if err == nil {
		t.Cleanup(func() { k.sweep(t, before) })
		err = k.renew(ctx, before, topics)
	}
	if err != nil {
		t.Fatalf("kafkatest: prepare the cluster: %v", err)
	}
}

// disposable ends the test unless all addresses are on this machine: a real
// cluster's topics and groups would be deleted. It is asked twice, before we dial
// and for what the brokers say of themselves: a tunnel to somebody's cluster has
// a loopback address too.
func disposable(t testing.TB, what string, addrs []string) {
	t.Helper()
	if os.Getenv("KAFKATEST_DISPOSABLE") == "1" {
		return
	}
	for _, addr := range addrs {
		host, _, err := net.SplitHostPort(addr)
		if err != nil {
			host = addr
		}
		if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
			t.Fatalf("kafkatest: %s has %s, which is not this machine, and tests delete topics and groups: "+
				"set KAFKATEST_DISPOSABLE=1 if nothing there is worth keeping", what, addr)
		}
	}
}

// inventory is what a borrowed cluster had before the test, but for the topics
// that the test named: those are the test's, whoever made them.
type inventory struct {
	topics, groups, stale map[string]bool
}

// look takes the inventory, and notes where topics that stay end.
func (k *Cluster) look(ctx context.Context, named []Topic) (before inventory, err error) {
	adm := kadm.NewClient(k.admin)
	before = inventory{map[string]bool{}, map[string]bool{}, map[string]bool{}}
	topics, err := adm.ListTopics(fresh(ctx))
	if err != nil {
		return before, err
	}
	for _, name := range topics.Names() {
		if slices.ContainsFunc(named, func(t Topic) bool { return t.Name == name }) {
			before.stale[name] = true
		} else {
			before.topics[name] = true
		}
	}
	groups, err := adm.ListGroups(ctx)
	if err != nil {
		return before, err
	}
	for _, name := range groups.Groups() {
		before.groups[name] = true
	}
	if len(before.topics) > 0 {
		ends, err := adm.ListEndOffsets(ctx, keys(before.topics)...)
		if err != nil {
			return before, err
		}
		k.begin = ends.Offsets()
	}
	return before, nil
}

// renew deletes those of the test's topics that are there and makes all anew.
func (k *Cluster) renew(ctx context.Context, before inventory, topics []Topic) error {
	if err := k.deleteTopics(ctx, keys(before.stale)); err != nil {
		return err
	}
	if len(topics) == 0 {
		return nil
	}
	return k.create(ctx, topics)
}

// sweep deletes the topics and groups that were not there before. It runs after
// the cleanups of the test's own clients, and what it cannot delete fails the
// test, for the next one would meet it.
func (k *Cluster) sweep(t testing.TB, before inventory) {
	k.closeReaders()
	ctx, cancel := context.WithTimeout(context.Background(), k.adminTimeout())
	defer cancel()
	adm := kadm.NewClient(k.admin)
	groups, err := adm.ListGroups(ctx)
	if err == nil {
		err = k.deleteGroups(ctx, keys(groups, before.groups))
	}
	topics, err2 := adm.ListTopics(fresh(ctx))
	if err2 == nil {
		err2 = k.deleteTopics(ctx, keys(topics, before.topics))
	}
	if err := errors.Join(err, err2); err != nil {
		t.Errorf("kafkatest: clean the cluster: %v", err)
	}
}

// deleteTopics deletes topics and returns when no broker has them any more.
func (k *Cluster) deleteTopics(ctx context.Context, topics []string) error {
	if len(topics) == 0 {
		return nil
	}
	deleted, err := kadm.NewClient(k.admin).DeleteTopics(ctx, topics...)
	if err != nil {
		return fmt.Errorf("delete topics: %w", err)
	}
	want := map[string]wanted{}
	for name, d := range deleted {
		if d.Err != nil && !errors.Is(d.Err, kerr.UnknownTopicOrPartition) {
			return fmt.Errorf("delete topic %q: %w", name, d.Err)
		}
		want[name] = wanted{}
	}
	return k.await(ctx, want)
}

// deleteGroups deletes groups. Members that have not left, because their client
// was not closed or has an instance id, are put out: their group would otherwise
// hold partitions of the next test's group of that name.
func (k *Cluster) deleteGroups(ctx context.Context, groups []string) error {
	if len(groups) == 0 {
		return nil
	}
	adm := kadm.NewClient(k.admin)
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for {
		deleted, err := adm.DeleteGroups(ctx, groups...)
		if err != nil {
			return fmt.Errorf("delete groups: %w", err)
		}
		var left []string
		for name, d := range deleted {
			switch {
			case errors.Is(d.Err, kerr.NonEmptyGroup):
				left = append(left, name)
				k.putOut(ctx, name)
			case d.Err != nil && !errors.Is(d.Err, kerr.GroupIDNotFound):
				return fmt.Errorf("delete group %q: %w", name, d.Err)
			}
		}
		if groups = left; len(groups) == 0 {
			return nil
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return fmt.Errorf("delete groups: %q still have members: close their clients in the test", groups)
		}
	}
}

// putOut removes the members of a classic group, those with an instance id by
// that id. What fails is tried again by the caller, whose group then still has
// members. It is not meant for KIP-848 groups: their members must be closed.
func (k *Cluster) putOut(ctx context.Context, group string) {
	described, err := kadm.NewClient(k.admin).DescribeGroups(ctx, group)
	if err != nil {
		return
	}
	req := kmsg.NewPtrLeaveGroupRequest()
	req.Group = group
	for _, m := range described[group].Members {
		rm := kmsg.NewLeaveGroupRequestMember()
		if m.InstanceID != nil {
			rm.InstanceID = m.InstanceID // the broker knows its member id
		} else {
			rm.MemberID = m.MemberID
		}
		req.Members = append(req.Members, rm)
	}
	_, _ = req.RequestWith(ctx, k.admin)
}

// keys returns the sorted keys of m that are in none of the maps without.
func keys[V any](m map[string]V, without ...map[string]bool) (names []string) {
	for name := range m {
		if !slices.ContainsFunc(without, func(w map[string]bool) bool { return w[name] }) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}
