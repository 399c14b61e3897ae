package apache

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
)

// checkpoint is the file that a controller without a log reads its first records
// from. Without it a cluster begins without group.version and
// transaction.version: no KIP-848 groups, no KIP-890 transactions.
const checkpoint = "bootstrap.checkpoint"

// format prepares the storage of nodes that have none: a meta.properties, which
// we write, and the records that a new cluster begins with (the versions of its
// features). Those are the same for all clusters of one Kafka, so that its own
// tool, a second of work, runs once and leaves them beside the jars.
func (c *Cluster) format(ctx context.Context) error {
	var blank []*node
	for _, n := range c.nodes {
		if _, err := os.Stat(n.file("data/meta.properties")); errors.Is(err, fs.ErrNotExist) {
			blank = append(blank, n)
		}
	}
	if len(blank) == 0 {
		return nil
	}
	records, err := c.bootstrap(ctx, blank[0])
	if err != nil {
		return fmt.Errorf("format the storage: %w", err)
	}
	cluster := uuid()
	for _, n := range blank {
		meta := fmt.Sprintf("version=1\ncluster.id=%s\nnode.id=%d\ndirectory.id=%s\n", cluster, n.id, uuid())
		if err := errors.Join(
			os.MkdirAll(n.file("data"), 0o755),
			os.WriteFile(n.file("data/"+checkpoint), records, 0o644),
			os.WriteFile(n.file("data/meta.properties"), []byte(meta), 0o644),
		); err != nil {
			return err
		}
	}
	return nil
}

// bootstrap returns the first records, from beside the jars or from Kafka's
// tool, which formats node n for it.
func (c *Cluster) bootstrap(ctx context.Context, n *node) ([]byte, error) {
	kept := filepath.Join(c.Jars, checkpoint)
	if records, err := os.ReadFile(kept); err == nil {
		return records, nil
	}
	args, _ := c.jvm.args(false)
	args = append(args, "kafka.tools.StorageTool", "format", "-t", uuid(), "-c", n.file("server.properties"))
	if out, err := exec.CommandContext(ctx, c.java, args...).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("%w: %s", err, out)
	}
	records, err := os.ReadFile(n.file("data/" + checkpoint))
	if err != nil {
		return nil, err
	}
	if err := os.RemoveAll(n.file("data")); err != nil {
		return nil, err
	}
	// Where the folder is not ours to write in, the tool runs each time.
	if f, err := os.CreateTemp(c.Jars, "new-*"+filepath.Ext(checkpoint)); err == nil {
		_, err = f.Write(records)
		if errors.Join(err, f.Chmod(0o644), f.Close(), os.Rename(f.Name(), kept)) != nil {
			_ = os.Remove(f.Name())
		}
	}
	return records, nil
}

// uuid returns a random id as Kafka writes them. The tool takes one that begins
// with a dash for an option.
func uuid() string {
	for {
		var id [16]byte
		rand.Read(id[:])
		if s := base64.RawURLEncoding.EncodeToString(id[:]); s[0] != '-' {
			return s
		}
	}
}
