package embedded_test

import (
	"encoding/json"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/wherry-go/wherry/internal/embedded"
)

func TestFolderIsLockedWithinTheProcess(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	first := start(t, &embedded.Broker{Dir: dir})
	_, err := try(t, &embedded.Broker{Dir: dir})
	require.ErrorContains(t, err, "is in use by process ")
	require.ErrorContains(t, err, first.Address())
	require.ErrorContains(t, err, filepath.Base(os.Args[0]))
	require.ErrorContains(t, err, "choose another folder")

	require.NoError(t, first.stop(t))
	start(t, &embedded.Broker{Dir: dir})
}

func TestFolderIsLockedAgainstOtherProcesses(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cmd, addr := startChild(t, dir)
	_, err := try(t, &embedded.Broker{Dir: dir})
	require.ErrorContains(t, err, "is in use by process ")
	require.ErrorContains(t, err, addr)
	require.ErrorContains(t, err, "started 2")

	require.NoError(t, cmd.Process.Kill())
	_ = cmd.Wait()
	b := start(t, &embedded.Broker{Dir: dir}) // the lock file is still there
	require.Contains(t, b.logs.String(), "did not end cleanly")
	require.Contains(t, b.logs.String(), addr)
	require.NoError(t, b.stop(t))
	require.NotContains(t, start(t, &embedded.Broker{Dir: dir}).logs.String(), "did not end cleanly")
}

func TestFolderIsFreeAfterFailedStart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	first := start(t, &embedded.Broker{Dir: dir})
	require.NoError(t, first.stop(t))
	taken := start(t, &embedded.Broker{})
	_, err := try(t, &embedded.Broker{Dir: dir, Addr: taken.Address()})
	require.ErrorContains(t, err, "is taken")
	require.NotContains(t, start(t, &embedded.Broker{Dir: dir}).logs.String(), "level=WARN", "the folder is as clean as it was")
}

func TestFolderCannotBeUsed(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, []byte("x"), 0o600))
	home := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(home, "thesis.tex"), []byte("x"), 0o600))

	for name, row := range map[string]struct{ dir, want string }{
		"a file":                {file, "choose another folder"},
		"below a file":          {filepath.Join(file, "data"), "choose another folder"},
		"full of other things":  {home, "holds other things (thesis.tex)"},
		"no place for a folder": {"/dev/null/data", "choose another folder"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := try(t, &embedded.Broker{Dir: row.dir})
			require.ErrorContains(t, err, row.want)
		})
	}
}

func TestFolderNotWritable(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "data")
	if os.Geteuid() == 0 {
		if runtime.GOOS != "linux" {
			t.Skip("root can write everywhere")
		}
		dir = "/proc/wherry-data" // where root cannot
	} else {
		require.NoError(t, os.Mkdir(dir, 0o500))
	}
	_, err := try(t, &embedded.Broker{Dir: dir})
	require.ErrorContains(t, err, dir)
	require.ErrorContains(t, err, "cannot be")
}

// The damage of a folder that was closed cleanly: an error, or a warning in
// the log and what is left.
func TestDamagedFolder(t *testing.T) {
	t.Parallel()
	all := []string{"a", "b", "c", "d"}
	for name, row := range map[string]struct {
		damage func(t *testing.T, dir string)
		err    string   // Run's error, or
		warn   string   // a warning and
		left   []string // what is left of the records
	}{
		"meta.json is garbage":   {damage: write("meta.json", "{"), err: "meta.json"},
		"meta.json is missing":   {damage: remove("meta.json"), err: "meta.json is missing"},
		"topics.json is garbage": {damage: write("topics.json", "\x00\x00"), err: "topics.json"},
		"topics.json is missing": {damage: remove("topics.json"), err: "topics.json is missing"},
		"acls.json is garbage":   {damage: write("acls.json", "nonsense"), err: "acls.json"},
		"seq_windows is garbage": {damage: write("seq_windows.json", "nonsense"), err: "seq_windows.json"},
		"partitions is a file":   {damage: func(t *testing.T, dir string) { remove("partitions")(t, dir); write("partitions", "")(t, dir) }, err: "not a folder"},
		"the records are a folder": {damage: func(t *testing.T, dir string) {
			remove("partitions/t-0/0.dat")(t, dir)
			makeDir(t, dir, "partitions/t-0/0.dat")
		}, err: "partition t/0"},
		"groups.log is garbage":      {damage: write("groups.log", "\x01\x02\x03"), warn: "group offsets", left: all},
		"pids.log is garbage":        {damage: write("pids.log", strings.Repeat("x", 100)), warn: "transactional ids", left: all},
		"session_state is garbage":   {damage: write("session_state.json", "{{"), warn: "session_state.json", left: all},
		"a summary is garbage":       {damage: write("partitions/t-0/snapshot.json", "{"), warn: "summary is damaged", left: all},
		"an index is missing":        {damage: remove("partitions/t-0/0.idx"), left: all},
		"an index is garbage":        {damage: write("partitions/t-0/0.idx", strings.Repeat("x", 60)), left: all},
		"the records are cut short":  {damage: edit("partitions/t-0/0.dat", func(b []byte) []byte { return b[:len(b)-5] }), warn: "cut off", left: all[:3]},
		"a bit is wrong in the last": {damage: edit("partitions/t-0/0.dat", func(b []byte) []byte { b[len(b)-1] ^= 1; return b }), warn: "from_offset=3", left: all[:3]},
		"a bit is wrong in the 2nd":  {damage: edit("partitions/t-0/0.dat", func(b []byte) []byte { b[len(b)/4+20] ^= 1; return b }), warn: "from_offset=1", left: all[:1]},
		"zeros follow":               {damage: edit("partitions/t-0/0.dat", func(b []byte) []byte { return append(b, make([]byte, 4096)...) }), warn: "cut off", left: all},
		"all records are missing":    {damage: remove("partitions/t-0/0.dat"), warn: "missing from the data folder", left: nil},
		"the partition is missing":   {damage: remove("partitions/t-0"), warn: "missing from the data folder", left: nil},
		"a partition of no topic":    {damage: func(t *testing.T, dir string) { makeDir(t, dir, "partitions/gone-7") }, warn: "set aside", left: all},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			b := start(t, &embedded.Broker{Dir: dir})
			topic(t, b.Address(), "t", 1, nil)
			send(t, client(t, b.Address()), all...)
			require.NoError(t, b.stop(t))

			row.damage(t, dir)
			b, err := try(t, &embedded.Broker{Dir: dir})
			if row.err != "" {
				require.ErrorContains(t, err, row.err)
				require.ErrorContains(t, err, dir)
				return
			}
			require.NoError(t, err)
			if row.warn != "" {
				require.Contains(t, b.logs.String(), row.warn)
				require.Contains(t, b.logs.String(), "level=WARN")
			}
			require.Equal(t, append([]string{}, row.left...), read(t, b.Address(), "t"))

			// It works, and the next start has nothing to say.
			send(t, client(t, b.Address()), "new")
			require.NoError(t, b.stop(t))
			b = start(t, &embedded.Broker{Dir: dir})
			require.NotContains(t, b.logs.String(), "level=WARN")
			require.Equal(t, append(slices.Clone(row.left), "new"), read(t, b.Address(), "t"))
		})
	}
}

// What is cut off is not thrown away.
func TestDamagedBytesAreKept(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b := start(t, &embedded.Broker{Dir: dir})
	topic(t, b.Address(), "t", 1, nil)
	send(t, client(t, b.Address()), "a", "b")
	require.NoError(t, b.stop(t))
	before, err := os.ReadFile(segment(t, dir, "t-0"))
	require.NoError(t, err)
	edit("partitions/t-0/0.dat", func(b []byte) []byte { b[30] ^= 1; return b })(t, dir)
	start(t, &embedded.Broker{Dir: dir})

	kept, err := filepath.Glob(filepath.Join(dir, "damaged", "t-0.0.dat.at0.*"))
	require.NoError(t, err)
	require.Len(t, kept, 1)
	data, err := os.ReadFile(kept[0])
	require.NoError(t, err)
	require.Len(t, data, len(before))
}

// Offsets go on where they were: an offset that a group has committed never
// means another record.
func TestLostRecordsLeaveTheirOffsets(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b := start(t, &embedded.Broker{Dir: dir})
	topic(t, b.Address(), "t", 1, nil)
	send(t, client(t, b.Address()), "a", "b", "c")
	require.NoError(t, b.stop(t))
	edit("partitions/t-0/0.dat", func(b []byte) []byte { return b[:10] })(t, dir)

	b = start(t, &embedded.Broker{Dir: dir})
	send(t, client(t, b.Address()), "new")
	got := records(t, b.Address(), "t")
	require.Len(t, got, 1)
	require.EqualValues(t, 3, got[0].Offset)
}

func TestLockFileSaysWhoHoldsIt(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b := start(t, &embedded.Broker{Dir: dir})
	var says struct {
		PID     int
		Address string
		Closed  bool
	}
	data, err := os.ReadFile(filepath.Join(dir, "wherry.lock"))
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(data, &says))
	require.Equal(t, os.Getpid(), says.PID)
	require.Equal(t, b.Address(), says.Address)
	require.False(t, says.Closed)
	require.NoError(t, b.stop(t))
	data, err = os.ReadFile(filepath.Join(dir, "wherry.lock"))
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(data, &says))
	require.True(t, says.Closed)
}

func write(name, content string) func(*testing.T, string) {
	return func(t *testing.T, dir string) {
		t.Helper()
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600))
	}
}

func remove(name string) func(*testing.T, string) {
	return func(t *testing.T, dir string) {
		t.Helper()
		require.NoError(t, os.RemoveAll(filepath.Join(dir, name)))
	}
}

func makeDir(t *testing.T, dir, name string) {
	t.Helper()
	require.NoError(t, os.Mkdir(filepath.Join(dir, name), 0o700))
}

func edit(name string, change func([]byte) []byte) func(*testing.T, string) {
	return func(t *testing.T, dir string) {
		t.Helper()
		path := filepath.Join(dir, name)
		data, err := os.ReadFile(path)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(path, change(data), 0o600))
	}
}

// Names of topics that are no names of files.
func TestFolderOfOddTopicNames(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b := start(t, &embedded.Broker{Dir: dir})
	name := "a.b_c-1"
	topic(t, b.Address(), name, 2, nil)
	require.DirExists(t, dir)
	require.NoError(t, b.stop(t))
	require.DirExists(t, filepath.Join(dir, "partitions", url.PathEscape(name)+"-1"))
	require.NotContains(t, start(t, &embedded.Broker{Dir: dir}).logs.String(), "set aside")
}
