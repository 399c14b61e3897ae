package interop

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
)

// jvm is the one Spring peer of a test binary: starting Java is what costs. It
// ends when the binary does, which closes its input.
var jvm struct {
	sync.Mutex // for what is written, and the fields
	started    bool
	err        error // of starting it
	in         io.Writer
	last       int
	waiting    map[int]chan json.RawMessage
	log        tail
}

// springWait is how long a Spring application may take to open, to answer and to
// close, on a machine under load.
const springWait = 2 * time.Minute

// A Spring is a Spring Boot application for one test. It is closed when the
// test ends.
type Spring struct{ name string }

// OpenSpring runs the application of that class (Asks, Answers or Letters, in
// internal/interop/spring) with these properties, and returns when its
// listeners have their partitions.
func OpenSpring(t testing.TB, app string, brokers []string, properties map[string]string) *Spring {
	t.Helper()
	startJVM(t)
	all := map[string]string{
		"spring.kafka.bootstrap-servers":                       strings.Join(brokers, ","),
		"spring.kafka.consumer.auto-offset-reset":              "earliest",
		"spring.kafka.consumer.fetch-max-wait":                 "50ms",
		"spring.kafka.consumer.heartbeat-interval":             "100ms",
		"spring.kafka.listener.poll-timeout":                   "100ms",
		"spring.kafka.properties.retry.backoff.ms":             "20",
		"spring.kafka.properties.metadata.max.age.ms":          "1000",
		"spring.kafka.producer.properties.enable.metrics.push": "false",
	}
	for k, v := range properties {
		all[k] = v
	}
	jvm.Lock()
	jvm.last++
	s := &Spring{name: fmt.Sprintf("%s-%d", t.Name(), jvm.last)}
	jvm.Unlock()
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("what the Spring peer logged last:\n%s", jvm.log.String())
		}
	})
	s.Do(t, "open", map[string]any{"app": app, "properties": all})
	t.Cleanup(func() { s.Do(t, "close", nil) })
	return s
}

// A SpringAnswer is what the application answered.
type SpringAnswer struct {
	Error     string            `json:"error"` // the class of an exception
	Message   string            `json:"message"`
	Listener  string            `json:"listener"`
	Type      string            `json:"type"` // the class of Value
	Value     json.RawMessage   `json:"value"`
	Headers   map[string]string `json:"headers"` // bytes as Latin-1
	Key       string            `json:"key"`
	Partition int32             `json:"partition"`
}

// Ask asks with the ReplyingKafkaTemplate: fields are those of Peer.java.
func (s *Spring) Ask(t testing.TB, topic string, fields map[string]any) SpringAnswer {
	t.Helper()
	all := map[string]any{"topic": topic}
	for k, v := range fields {
		all[k] = v
	}
	a, err := s.do("ask", all)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// Heard returns the next that a listener heard.
func (s *Spring) Heard(t testing.TB) SpringAnswer {
	t.Helper()
	return s.Do(t, "heard", nil)
}

// Do has the application do something, and fails the test where it cannot.
func (s *Spring) Do(t testing.TB, op string, fields map[string]any) SpringAnswer {
	t.Helper()
	a, err := s.do(op, fields)
	if err == nil && a.Error != "" {
		err = fmt.Errorf("the Spring peer, %s: %s: %s", op, a.Error, a.Message)
	}
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func (s *Spring) do(op string, fields map[string]any) (a SpringAnswer, err error) {
	request := map[string]any{"op": op, "name": s.name}
	for k, v := range fields {
		request[k] = v
	}
	answer := make(chan json.RawMessage, 1)
	jvm.Lock()
	jvm.last++
	request["id"] = jvm.last
	jvm.waiting[jvm.last] = answer
	line, err := json.Marshal(request)
	if err == nil {
		_, err = jvm.in.Write(append(line, '\n'))
	}
	jvm.Unlock()
	if err != nil {
		return a, fmt.Errorf("the Spring peer, %s: %w\n%s", op, err, jvm.log.String())
	}
	select {
	case raw, ok := <-answer:
		if !ok {
			return a, fmt.Errorf("the Spring peer ended\n%s", jvm.log.String())
		}
		err = json.Unmarshal(raw, &a)
	case <-time.After(springWait):
		err = fmt.Errorf("the Spring peer did not answer %s within %v\n%s", line, springWait, jvm.log.String())
	}
	return a, err
}

// startJVM starts the peer unless it runs.
func startJVM(t testing.TB) {
	t.Helper()
	Need(t, "java")
	dir, err := springFolder()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "complete")); err != nil {
		lack(t, "the Spring peer is not there: scripts/spring-peer builds it")
	}
	jvm.Lock()
	defer jvm.Unlock()
	if !jvm.started {
		jvm.started, jvm.waiting = true, map[int]chan json.RawMessage{}
		jvm.err = runJVM(dir)
	}
	if jvm.err != nil {
		t.Fatalf("the Spring peer does not start: %v\n%s", jvm.err, jvm.log.String())
	}
}

func runJVM(dir string) error {
	// What starts fastest: it lives for seconds.
	cmd := exec.Command("java", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xshare:auto", "-Xmx384m", //nolint:noctx // it ends with its input
		"-cp", filepath.Join(dir, "classes")+string(os.PathListSeparator)+filepath.Join(dir, "jars", "*"), "wherry.Peer")
	cmd.Stderr = &jvm.log
	in, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 16<<20)
	if !lines.Scan() || lines.Text() != "ready" {
		return errors.Join(fmt.Errorf("it said %q before it was ready", lines.Text()), cmd.Wait())
	}
	jvm.in = in
	go func() {
		for lines.Scan() {
			var answer struct{ ID int }
			raw := bytes.Clone(lines.Bytes())
			if json.Unmarshal(raw, &answer) != nil {
				continue // somebody's print
			}
			jvm.Lock()
			to := jvm.waiting[answer.ID]
			delete(jvm.waiting, answer.ID)
			jvm.Unlock()
			if to != nil {
				to <- raw
			}
		}
		_ = cmd.Wait()
		jvm.Lock()
		defer jvm.Unlock()
		for id, to := range jvm.waiting {
			delete(jvm.waiting, id)
			close(to)
		}
	}()
	return nil
}

// springFolder is where scripts/spring-peer puts what it builds.
func springFolder() (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	root, err := moduleRoot()
	if err != nil {
		return "", err
	}
	fixture := filepath.Join(root, "internal", "interop", "spring")
	sources, err := filepath.Glob(filepath.Join(fixture, "src", "main", "java", "wherry", "*.java")) // sorted
	if err != nil {
		return "", err
	}
	hash := sha256.New()
	var version string
	for _, name := range append([]string{filepath.Join(fixture, "pom.xml")}, sources...) {
		b, err := os.ReadFile(name)
		if err != nil {
			return "", err
		}
		if m := regexp.MustCompile(`(?s)<parent>.*<version>(.*?)</version>.*</parent>`).FindSubmatch(b); m != nil {
			version = string(m[1])
		}
		hash.Write(b)
	}
	return filepath.Join(cache, "wherry", fmt.Sprintf("spring-%s-%x", version, hash.Sum(nil)[:6])), nil
}

// moduleRoot is the folder of go.mod: tests run in that of their package.
func moduleRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", errors.New("interop: no go.mod above the working folder")
		}
		dir = filepath.Dir(dir)
	}
}

// tail keeps the end of what is written to it.
type tail struct {
	mu sync.Mutex
	b  []byte
}

const tailBytes = 32 << 10

func (l *tail) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.b = append(l.b, p...)
	l.b = l.b[max(len(l.b)-tailBytes, 0):]
	return len(p), nil
}

func (l *tail) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return string(l.b)
}
