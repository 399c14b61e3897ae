package wherry_test

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

const module = "github.com/wherry-go/wherry"

// goPackage is what go list tells of a package of this module.
type goPackage struct {
	ImportPath   string
	Name         string
	Imports      []string
	TestImports  []string
	XTestImports []string
	Deps         []string
}

// short is the path within the module: "" for the root.
func short(path string) string {
	return strings.TrimPrefix(strings.TrimPrefix(path, module), "/")
}

func ours(path string) bool { return path == module || strings.HasPrefix(path, module+"/") }

// within reports whether a path of the module is dir or below it.
func within(path, dir string) bool { return path == dir || strings.HasPrefix(path, dir+"/") }

// packages are those of this module.
var packages = sync.OnceValues(func() (all []goPackage, err error) {
	cmd := exec.Command("go", "list", "-tags", "synctests", "-json=ImportPath,Name,Imports,TestImports,XTestImports,Deps", "./...")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, errors.New("go list: " + err.Error() + ": " + stderr.String())
	}
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p goPackage
		switch err := d.Decode(&p); {
		case errors.Is(err, io.EOF):
			return all, nil
		case err != nil:
			return nil, err
		}
		all = append(all, p)
	}
})

// The packages of this module may import each other as written here, and no
// other way. A pattern ends its path, or goes on below it with "/...". Tests
// may import more.
var arrows = []struct {
	from string
	to   []string // nothing else of this module
}{
	{"internal/lane", nil},
	{"internal/header", []string{"internal/planted"}},
	{"internal/client", nil},
	{"internal/table", []string{"internal/client", "internal/planted"}},
	{"internal/planted", nil},
	{"internal/raced", nil},
	{"internal/txn", []string{"internal/client", "internal/header", "internal/planted"}},
	{"internal/embedded", nil},
	{"internal/apache", nil},
	{"internal/interop", nil},
	{"internal/apache/with", []string{"internal/apache"}},
	{"internal/interop/...", []string{"", "examples/shop/events", "internal/interop/nest"}},
	{"internal/crashlab", []string{"", "retry", "dlq", "reqreply", "saga", "internal/..."}},
	{"internal/crashlab/soak", []string{"internal/crashlab"}},
	{"", []string{"internal/lane", "internal/txn", "internal/table", "internal/header", "internal/client", "internal/planted"}},
	{"kafkatest", []string{"internal/apache"}},
	{"retry", []string{"", "internal/header", "internal/client"}},
	{"dlq", []string{"", "internal/header", "internal/client", "internal/txn"}},
	{"ratelimit", []string{"", "internal/header", "internal/client"}},
	{"reqreply", []string{"", "internal/header", "internal/client"}},
	{"saga", []string{"", "dlq", "retry", "reqreply", "internal/..."}},
	{"saga/sagatest", []string{"", "saga", "retry", "reqreply", "kafkatest"}},
	{"docs", nil}, // tests of the pages
	{"cmd/...", []string{"..."}},
	{"examples/...", []string{"..."}},
}

func matches(pattern, path string) bool {
	if dir, below := strings.CutSuffix(pattern, "..."); below {
		return strings.HasPrefix(path+"/", dir)
	}
	return pattern == path
}

func TestArrows_PackagesImportEachOtherAsTheArchitectureSays(t *testing.T) {
	t.Parallel()
	all, err := packages()
	require.NoError(t, err)
	require.NotEmpty(t, all)
	for _, p := range all {
		from := short(p.ImportPath)
		i := slices.IndexFunc(arrows, func(a struct {
			from string
			to   []string
		},
		) bool {
			return matches(a.from, from)
		})
		if i < 0 {
			t.Errorf("package %s has no line in the arrows of arrows_test.go: say there what it may import of this module", p.ImportPath)
			continue
		}
		for _, path := range p.Imports {
			if !ours(path) || within(from, "cmd") && within(short(path), from) || within(from, "examples") && within(short(path), from) {
				continue
			}
			if to := short(path); !slices.ContainsFunc(arrows[i].to, func(pattern string) bool { return matches(pattern, to) }) {
				t.Errorf("package %s imports %s, which the architecture does not allow: it may import %q of this module (see arrows_test.go)", p.ImportPath, path, arrows[i].to)
			}
		}
	}
}

func TestArrows_OnlyProgramsUseTheEmbeddedBroker(t *testing.T) {
	t.Parallel()
	all, err := packages()
	require.NoError(t, err)
	for _, p := range all {
		from := short(p.ImportPath)
		if within(from, "cmd") || within(from, "examples") || from == "internal/embedded" {
			continue
		}
		if slices.Contains(p.Deps, module+"/internal/embedded") {
			t.Errorf("package %s depends on internal/embedded, which is for cmd and examples: libraries talk to the broker that they are given", p.ImportPath)
		}
	}
}

// library reports whether users import the package, or it is part of one that
// they do.
func library(p goPackage) bool {
	from := short(p.ImportPath)
	return p.Name != "main" && !within(from, "cmd") && !within(from, "examples") && from != "internal/embedded"
}

func TestArrows_WhatLibrariesDependOn(t *testing.T) {
	t.Parallel()
	all, err := packages()
	require.NoError(t, err)
	forbidden := []struct {
		path   string
		except []string
		why    string
	}{
		{"github.com/stretchr/testify", nil, "testify belongs in _test.go files: users would compile it into their services"},
		{"go.opentelemetry.io/otel/sdk", nil, "libraries use OpenTelemetry's API alone, the SDK is the program's to choose"},
		{"github.com/twmb/franz-go/pkg/kfake", []string{"kafkatest", "saga/sagatest"}, "the embedded broker is for tests and programs"},
		{"github.com/danielgtaylor/huma", nil, "web frameworks belong in examples"},
		{"testing", []string{"kafkatest", "saga/sagatest", "internal/interop"}, "package testing belongs in test helpers: it adds flags to programs"},
		{"go.opentelemetry.io/contrib", nil, "who exports telemetry, and how, is the program's to choose"},
		{"go.opentelemetry.io/otel/exporters", nil, "who exports telemetry, and how, is the program's to choose"},
		{"go.opentelemetry.io/proto", nil, "what a collector speaks belongs in programs"},
		{"github.com/prometheus", nil, "how metrics are read is the program's to choose"},
		{"google.golang.org", nil, "gRPC and protobuf come with exporters, which belong in programs"},
		{"github.com/redis", nil, "ratelimit takes a function, so that users choose their Redis client"},
		{"github.com/jackc", nil, "saga.Barrier takes a *sql.Tx, so that users choose their driver"},
		{"github.com/ncruces", nil, "saga.Barrier takes a *sql.Tx, so that users choose their driver"},
	}
	for _, p := range all {
		for _, f := range forbidden {
			if !library(p) || slices.Contains(f.except, short(p.ImportPath)) {
				continue
			}
			for _, dep := range p.Deps {
				if dep == f.path || strings.HasPrefix(dep, f.path+"/") && f.path != "testing" {
					t.Errorf("package %s depends on %s: %s", p.ImportPath, dep, f.why)
				}
			}
		}
	}
}

func TestArrows_ProgramsDoNotCompileTestifyIn(t *testing.T) {
	t.Parallel()
	all, err := packages()
	require.NoError(t, err)
	for _, p := range all {
		for _, dep := range p.Deps {
			if strings.HasPrefix(dep, "github.com/stretchr/testify") {
				t.Errorf("package %s depends on %s, which belongs in _test.go files", p.ImportPath, dep)
			}
		}
	}
}

func TestArrows_WhatTheRootImports(t *testing.T) {
	t.Parallel()
	all, err := packages()
	require.NoError(t, err)
	allowed := []string{"github.com/twmb/franz-go/pkg/kgo", "github.com/twmb/franz-go/pkg/kadm", "github.com/twmb/franz-go/pkg/kerr", "github.com/twmb/franz-go/pkg/kmsg", "github.com/twmb/franz-go/plugin/kotel", "go.opentelemetry.io/otel/...", module + "/..."}
	for _, p := range all {
		if p.ImportPath != module {
			continue
		}
		for _, path := range p.Imports {
			if first, _, _ := strings.Cut(path, "/"); !strings.Contains(first, ".") {
				continue // the standard library
			}
			if !slices.ContainsFunc(allowed, func(pattern string) bool { return matches(pattern, path) }) {
				t.Errorf("the root package imports %s: it stays with franz-go and OpenTelemetry's API, or say in arrows_test.go why not", path)
			}
		}
	}
}
