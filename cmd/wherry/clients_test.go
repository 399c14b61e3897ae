package main_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// need skips the test when a program is missing; with KAFKATEST_REQUIRE=1 in
// the environment it fails instead.
func need(t *testing.T, programs ...string) {
	t.Helper()
	for _, name := range programs {
		if _, err := exec.LookPath(name); err != nil {
			lack(t, "there is no "+name+" on the PATH")
		}
	}
}

func lack(t *testing.T, why string) {
	t.Helper()
	if os.Getenv("KAFKATEST_REQUIRE") == "1" {
		t.Fatal("KAFKATEST_REQUIRE=1, and " + why)
	}
	t.Skip(why)
}

// program runs a program to its end and returns what it wrote.
func program(t *testing.T, stdin, name string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdin = strings.NewReader(stdin)
	var errs strings.Builder
	cmd.Stderr = &errs
	out, err := cmd.Output()
	require.NoError(t, err, "%s %s\n%s%s", name, strings.Join(args, " "), out, errs.String())
	return string(out)
}

func TestKcat(t *testing.T) {
	t.Parallel()
	need(t, "kcat")
	dir := t.TempDir()
	p := broker(t, dir, "-partitions", "2")

	program(t, "k:one\nk:two\nk:three\n", "kcat", "-b", p.addr, "-t", "greetings", "-P", "-K:")
	list := program(t, "", "kcat", "-b", p.addr, "-L")
	require.Contains(t, list, "broker 0 at "+p.addr)
	require.Contains(t, list, `topic "greetings" with 2 partitions`)

	want := "one\ntwo\nthree\n"
	require.Equal(t, want, program(t, "", "kcat", "-b", p.addr, "-t", "greetings", "-C", "-o", "beginning", "-e", "-q"))
	group := []string{"-b", p.addr, "-q", "-c", "3", "-X", "auto.offset.reset=earliest", "-G", "readers", "greetings"}
	require.Equal(t, want, program(t, "", "kcat", group...))

	// The group's offsets outlive the broker.
	require.NoError(t, p.Process.Signal(os.Interrupt))
	require.Zero(t, p.wait(t))
	p = broker(t, dir)
	program(t, "k:four\n", "kcat", "-b", p.addr, "-t", "greetings", "-P", "-K:")
	group[1], group[4] = p.addr, "1"
	require.Equal(t, "four\n", program(t, "", "kcat", group...))
}

// kafkaJSVersion is the last one; the project rests since 2023.
const kafkaJSVersion = "2.2.4"

func TestKafkaJS(t *testing.T) {
	t.Parallel()
	need(t, "node", "npm")
	modules := kafkaJS(t)
	p := broker(t, t.TempDir())
	script, err := filepath.Abs("testdata/kafkajs.js")
	require.NoError(t, err)
	out := program(t, "", "env", "NODE_PATH="+modules, "KAFKAJS_NO_PARTITIONER_WARNING=1", "node", script, p.addr)
	require.Equal(t, "created with 3 partitions\nread one\nread three\nread two\nok\n", out)
	require.Len(t, read(t, p.addr, "from-js", 3), 3)
}

// kafkaJS installs KafkaJS into the user's cache, once, and returns the folder
// of modules.
func kafkaJS(t *testing.T) string {
	t.Helper()
	cache, err := os.UserCacheDir()
	require.NoError(t, err)
	dir := filepath.Join(cache, "wherry", "kafkajs-"+kafkaJSVersion)
	modules := filepath.Join(dir, "node_modules")
	if _, err := os.Stat(filepath.Join(modules, "kafkajs", "package.json")); err == nil {
		return modules
	}
	require.NoError(t, os.MkdirAll(filepath.Dir(dir), 0o755))
	fresh, err := os.MkdirTemp(filepath.Dir(dir), "installing-")
	require.NoError(t, err)
	defer os.RemoveAll(fresh)
	ctx, cancel := context.WithTimeout(context.Background(), 4*limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, "npm", "install", "--prefix", fresh, "--no-audit", "--no-fund", "--ignore-scripts", "kafkajs@"+kafkaJSVersion)
	if out, err := cmd.CombinedOutput(); err != nil {
		lack(t, "kafkajs cannot be installed: "+err.Error()+": "+string(out))
	}
	if err := os.Rename(fresh, dir); err != nil { // another run was faster
		require.FileExists(t, filepath.Join(modules, "kafkajs", "package.json"), err)
	}
	return modules
}
