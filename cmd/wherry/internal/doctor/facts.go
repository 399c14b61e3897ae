package doctor

import (
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
)

// Facts is what is known of a cluster. What is not known is in Missed, and is
// empty here; the fields say where empty would mean something.
type Facts struct {
	Now       time.Time // by this machine's clock
	Bootstrap string    // what follows --bootstrap-server in the commands of findings
	ClusterID string
	Brokers   []Broker        // by id
	Features  map[string]Span // by name; nil: not known
	Clocks    []Clock
	Groups    []Group // those asked for
	Topics    []Topic // those looked at, by name
	// Seen are all topics that the brokers tell of, by name: those that may be
	// described.
	Seen         map[string]Topic
	Veiled       bool          // whether there may be others, which may not be described
	Transactions []Transaction // those that are open
	Missed       []Missed
}

// Broker is a broker of the cluster.
type Broker struct {
	ID       int32
	Version  string // of Kafka, guessed from the requests that it knows; "" if not known
	Down     bool   // registered, or holding replicas, and not there
	Silent   string // why one that is listed as being there counts as down: what came of asking it
	Settings Settings
}

// Settings are a resource's settings by name; nil: not known.
type Settings map[string]Setting

// Setting is one setting.
type Setting struct {
	Value string
	Fixed bool // whether it can be changed in the broker's file alone
}

// Span are versions of a feature (KIP-584).
type Span struct {
	Finalized, Supported int16 // what the cluster has agreed on, and the most that every broker can do
}

// Clock compares a broker's clock with this machine's.
type Clock struct {
	Of    string        // whose clock
	Ahead time.Duration // of this machine's; negative: behind
	Give  time.Duration // how wrong Ahead may be: half of the time that asking took
}

// Topic is a topic.
type Topic struct {
	Name       string
	ID         kadm.TopicID
	Exists     bool
	Internal   bool // made and used by the brokers
	Partitions []Partition
	Settings   Settings
	// Why says why a topic is looked at that does not exist, such as "named in
	// the call".
	Why string
}

// Partition is a partition. Offsets are -1 when they are not known.
type Partition struct {
	ID            int32
	Leader        int32 // -1: none
	Replicas, ISR []int32
	Start         int64 // the first offset that is still there
	Stable        int64 // the end for read_committed
	End           int64 // the end
	Producers     []Producer
}

// Producer is a producer that a partition's leader remembers (KIP-664). It
// forgets those that were silent for producer.id.expiration.ms, a day.
type Producer struct {
	ID            int64
	Epoch         int16
	Transactional bool // whether a transaction of it has ended there, or is open
	OpenFrom      int64
	Last          time.Time // of its last batch, by its own clock
}

// Group is a consumer group.
type Group struct {
	Name     string
	Exists   bool
	State    string
	Protocol string // classic, or consumer (KIP-848)
	Assignor string
	Members  []Member
	Commits  []Commit
}

// Member is a member of a group.
type Member struct {
	ID, Instance, Client, Host string
	Subscribed                 []string
	Assigned                   map[string][]int32 // partitions by topic
}

// Commit is an offset that a group has committed. Offset is -1 if it has none,
// and only the pending one is held.
type Commit struct {
	Topic     string
	Partition int32
	Offset    int64
	Metadata  string
	Held      bool // by a transaction that is open (UNSTABLE_OFFSET_COMMIT, KIP-447)
}

// Transaction is an open transaction.
type Transaction struct {
	ID         string // the transactional id
	State      string
	ProducerID int64
	Timeout    time.Duration
	Began      time.Time          // by the clock of its coordinator
	Partitions map[string][]int32 // by topic
}

// Missed is something that could not be looked at.
type Missed struct {
	What string `json:"what"`
	Why  string `json:"why"`
	// Named is set where it was asked for in the call, so that a report
	// without it is none.
	Named bool `json:"named,omitempty"`
}
