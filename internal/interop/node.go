package interop

import (
	"bufio"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// Node runs a program of internal/interop/nest for the length of t's test, and
// returns when it has said "ready": what it reads, and what it writes, by line.
func Node(t testing.TB, program string, args ...string) (in io.Writer, out *bufio.Scanner) {
	t.Helper()
	Need(t, "node")
	root, err := moduleRoot()
	fatal(t, err)
	fixture := filepath.Join(root, "internal", "interop", "nest")
	manifest, err := os.ReadFile(filepath.Join(fixture, "package.json"))
	fatal(t, err)
	version := regexp.MustCompile(`"@nestjs/microservices": "(.*)"`).FindSubmatch(manifest)[1]
	cache, err := os.UserCacheDir()
	fatal(t, err)
	modules := filepath.Join(cache, "wherry", "nest-"+string(version))
	if _, err := os.Stat(filepath.Join(modules, "complete")); err != nil {
		lack(t, "NestJS is not there: scripts/nest-modules brings it")
	}
	source, err := os.ReadFile(filepath.Join(fixture, program))
	fatal(t, err)
	dir := t.TempDir() // node looks for modules beside the program
	fatal(t, os.WriteFile(filepath.Join(dir, program), source, 0o600))
	fatal(t, os.Symlink(filepath.Join(modules, "node_modules"), filepath.Join(dir, "node_modules")))

	cmd := exec.Command("node", append([]string{filepath.Join(dir, program)}, args...)...) //nolint:noctx // killed below
	cmd.Env = append(os.Environ(), "KAFKAJS_NO_PARTITIONER_WARNING=1")
	errs := &tail{}
	cmd.Stderr = errs
	stdin, err := cmd.StdinPipe()
	fatal(t, err)
	stdout, err := cmd.StdoutPipe()
	fatal(t, err)
	fatal(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("the end of %s's stderr:\n%s", strings.Join(cmd.Args[1:], " "), errs.String())
		}
	})
	out = bufio.NewScanner(stdout)
	out.Buffer(nil, 16<<20)
	for out.Scan() {
		if out.Text() == "ready" {
			return stdin, out
		}
	}
	t.Fatalf("%s ended before it was ready", program)
	return nil, nil
}

func fatal(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
