package sagatest_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// fake is a test that may fail.
type fake struct {
	testing.TB // nil: what is not below is not to be called
	mu         sync.Mutex
	failed     bool
	text       strings.Builder
	cleanups   []func()
}

func (f *fake) Helper()          {}
func (f *fake) Cleanup(g func()) { f.cleanups = append(f.cleanups, g) }
func (f *fake) Failed() bool     { return f.failed }

func (f *fake) Logf(format string, args ...any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	fmt.Fprintf(&f.text, format+"\n", args...)
}

func (f *fake) Errorf(format string, args ...any) {
	f.Logf(format, args...)
	f.failed = true
}

type stopped struct{}

func (f *fake) Fatalf(format string, args ...any) {
	f.Errorf(format, args...)
	panic(stopped{})
}

// run runs a test, with its cleanups.
func (f *fake) run(test func(t testing.TB)) {
	defer func() {
		if p := recover(); p != nil && p != any(stopped{}) {
			panic(p)
		}
		for _, g := range f.cleanups {
			g()
		}
	}()
	test(f)
}

// fails runs a test that must fail, with all of these in its message.
func fails(t *testing.T, test func(t testing.TB), texts ...string) string {
	t.Helper()
	f := &fake{}
	f.run(test)
	require.True(t, f.failed, "the test did not fail")
	for _, text := range texts {
		require.Contains(t, f.text.String(), text)
	}
	return f.text.String()
}

// passes runs a test that must not, and returns what it logged.
func passes(t *testing.T, test func(t testing.TB)) string {
	t.Helper()
	f := &fake{}
	f.run(test)
	require.False(t, f.failed, f.text.String())
	return f.text.String()
}
