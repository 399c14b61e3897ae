package crashlab

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry/internal/planted"
)

// Child is what a process of the laboratory is told.
type Child struct {
	Subject string        `json:"subject"` // which of the subjects of its program
	Brokers []string      `json:"brokers"`
	Run     string        `json:"run"` // whose topics
	Name    string        `json:"name"`
	Variant Variant       `json:"variant"`
	Seed    uint64        `json:"seed"`
	Session time.Duration `json:"session"`
	Death   Death         `json:"death"`
	Plant   string        `json:"plant,omitempty"` // a fault of package planted
}

const (
	childEnv = "WHERRY_CRASHLAB_CHILD"
	diedCode = 86 // of a process that ended itself as it was told
)

// Subjects are those of this package, by their names.
func Subjects() map[string]Subject {
	return map[string]Subject{"wherry": Wherry, "saga engine": SagaEngine, "saga participants": SagaParticipants}
}

// subjectsOf are those that have the processes of a variant.
func subjectsOf(v Variant) []string {
	if v == Sagas {
		return []string{"saga engine", "saga participants"}
	}
	return []string{"wherry"}
}

// RunChild is to be called first by the main function of a program whose
// processes are those of a laboratory. In such a process it does what the parent
// says, and does not return; in any other it returns at once.
func RunChild(subjects map[string]Subject) {
	told := os.Getenv(childEnv)
	if told == "" {
		return
	}
	var c Child
	err := json.Unmarshal([]byte(told), &c)
	if err == nil {
		err = planted.FromEnv(os.Getenv)
	}
	if err == nil {
		err = c.run(subjects[c.Subject])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "crashlab child:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// run handles the workload until SIGTERM, or until the parent is gone.
func (c Child) run(subject Subject) error {
	if subject == nil {
		return fmt.Errorf("there is no subject %q", c.Subject)
	}
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin) // the parent holds the other end
		os.Exit(2)
	}()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	wire := &Wire{DialFunc: (&net.Dialer{Timeout: 10 * time.Second}).DialContext, Death: c.Death, Die: func() { os.Exit(diedCode) }}
	err := subject(ctx, Member{
		Name: c.Name, Run: c.Run, Seed: c.Seed, Topics: Named(c.Run), Variant: c.Variant, Session: c.Session,
		Logger: slog.New(slog.NewTextHandler(os.Stderr, nil)).With("process", c.Name),
		Opts: []kgo.Opt{
			kgo.SeedBrokers(c.Brokers...), kgo.Dialer(wire.Dial), kgo.ClientID(c.Name), kgo.DisableClientMetrics(),
			kgo.ProducerLinger(0), kgo.MetadataMinAge(50 * time.Millisecond), kgo.FetchMaxWait(500 * time.Millisecond),
		},
	}, func() { _, _ = fmt.Println("ready") })
	counts, _ := json.Marshal(wire.Counts()) // numbers by name
	_, _ = fmt.Printf("counts %s\n", counts)
	return err
}
