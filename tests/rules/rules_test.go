// Package rules holds the tests of the repository's own shape: who may import whom, and one version of each dependency. It reads
// source and go.mod files and must not import anything of ours.
package rules

import (
	"encoding/json"
	"fmt"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const (
	root   = "../.."
	prefix = "github.com/carillon-rt/carillon/"
)

// mayImport lists for each module the other modules of ours that it may import. A module that is not here is an error: say what
// it may know when you add one.
var mayImport = map[string][]string{
	"proto":      {},
	"kit":        {},
	"gateway":    {"proto", "kit"},
	"router":     {"proto", "kit"},
	"authsvc":    {"proto", "kit"},
	"presence":   {"proto", "kit"},
	"api":        {"proto", "kit"},
	"standalone": {"proto", "kit", "gateway", "router", "authsvc", "presence", "api", "tests/load"},
	"tests":      {"proto", "kit", "standalone", "tests/load"},
	"tests/load": {"proto"},
}

// onlyFrom lists packages that few may import: path prefix of the import -> directories (with all below) that may.
var onlyFrom = []struct {
	path   string
	dirs   []string
	tests  bool // test files may import it from anywhere
	reason string
}{
	{
		path: "github.com/nats-io/nats-server/", dirs: []string{"kit/natsembed", "kit/natstest", "standalone", "tests"},
		reason: "a service that connects to NATS does not carry the server's code",
	},
	{
		path: prefix + "kit/natsembed", dirs: []string{"kit/natsembed", "kit/natstest", "standalone", "tests"}, tests: true,
		reason: "a service that connects to NATS does not carry the server's code",
	},
	{path: prefix + "kit/natstest", dirs: []string{"kit/natstest", "tests"}, tests: true, reason: "it is for tests"},
	{path: prefix + "kit/leaktest", dirs: []string{"kit/leaktest", "tests"}, tests: true, reason: "it is for tests"},
	{path: prefix + "kit/await", dirs: []string{"kit/await", "tests"}, tests: true, reason: "it is for tests"},
	{path: prefix + "kit/certtest", dirs: []string{"kit/certtest", "tests"}, tests: true, reason: "it is for tests"},
	{path: prefix + "gateway/internal/transcript", tests: true, reason: "it is for tests"},
	{
		path: "testing", dirs: []string{"kit/natstest", "kit/leaktest", "kit/await", "kit/certtest", "gateway/internal/transcript", "tests"}, tests: true,
		reason: "it is for tests",
	},
}

// pure lists directories whose code, tests aside, must not reach for the outside world, with what they must not import.
var pure = map[string][]string{
	"gateway/internal/dialect": {"net", "os", "github.com/nats-io/"},
	"gateway/internal/session": {"net", "os", "github.com/nats-io/"},
	"gateway/internal/hub":     {"net", "os", "github.com/nats-io/"},
	"gateway/internal/edge":    {"github.com/nats-io/"},
	"gateway/internal/loop":    {"github.com/nats-io/"},
}

// source is one Go file: its path from the root and what it imports.
type source struct {
	path    string
	imports []string
}

func (s source) module() string { return moduleOf(s.path) }
func (s source) test() bool     { return strings.HasSuffix(s.path, "_test.go") }

// moduleOf gives the module that a path is in: tests/load is one of its own, so that the binary can have the load generator
// without the tests.
func moduleOf(path string) string {
	if strings.HasPrefix(path, "tests/load/") || path == "tests/load" {
		return "tests/load"
	}
	module, _, _ := strings.Cut(path, "/")
	return module
}

// in says whether the file is in dir or below.
func (s source) in(dir string) bool { return strings.HasPrefix(s.path, dir+"/") }

func sources(t *testing.T) []source {
	t.Helper()
	var list []source
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if name := d.Name(); name == "node_modules" || name == "testdata" || (len(name) > 2 && name[0] == '.') {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(path, ".go") {
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		s := source{path: filepath.ToSlash(rel)}
		for _, spec := range file.Imports {
			imported, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			s.imports = append(s.imports, imported)
		}
		list = append(list, s)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(list) < 50 {
		t.Fatalf("only %d Go files found: the walk is broken", len(list))
	}
	return list
}

func TestModulesImportOnlyWhatTheyMay(t *testing.T) {
	for _, s := range sources(t) {
		for _, imported := range s.imports {
			if why := refuse(s, imported); why != "" {
				t.Errorf("%s imports %s: %s", s.path, imported, why)
			}
		}
	}
}

// refuse says why a file must not import a package, "" if it may.
func refuse(s source, imported string) string {
	if rest, ours := strings.CutPrefix(imported, prefix); ours {
		module := moduleOf(rest)
		allowed, known := mayImport[s.module()]
		if !known {
			return "module " + s.module() + " is missing in mayImport"
		}
		if module != s.module() && !slices.Contains(allowed, module) {
			return fmt.Sprintf("module %s may import %v and no other of ours", s.module(), allowed)
		}
	}
	for _, rule := range onlyFrom {
		if !matches(imported, rule.path) || (rule.tests && s.test()) {
			continue
		}
		if !slices.ContainsFunc(rule.dirs, s.in) {
			return "only " + strings.Join(rule.dirs, ", ") + " may: " + rule.reason
		}
	}
	if s.test() {
		return ""
	}
	for dir, banned := range pure {
		if s.in(dir) && slices.ContainsFunc(banned, func(b string) bool { return matches(imported, b) }) {
			return dir + " must not: it is tested without the outside world"
		}
	}
	return ""
}

// matches says whether an import path is path, or below it.
func matches(imported, path string) bool {
	return imported == path || strings.HasPrefix(imported, strings.TrimSuffix(path, "/")+"/")
}

func TestRefuse(t *testing.T) {
	for _, c := range []struct {
		file, imports string
		refused       bool
	}{
		{"gateway/gateway.go", prefix + "kit/run", false},
		{"gateway/gateway.go", prefix + "gateway/internal/loop", false},
		{"gateway/gateway.go", prefix + "router", true},
		{"proto/app/app.go", prefix + "kit/run", true},
		{"kit/run/run.go", prefix + "proto/app", true},
		{"standalone/standalone.go", prefix + "router", false},
		{"tests/e2e/e2e_test.go", prefix + "gateway", true},
		{"router/router.go", "github.com/nats-io/nats-server/v2/server", true},
		{"router/router_test.go", "github.com/nats-io/nats-server/v2/server", true},
		{"kit/natsembed/natsembed.go", "github.com/nats-io/nats-server/v2/server", false},
		{"router/router_test.go", prefix + "kit/natstest", false},
		{"router/router.go", prefix + "kit/natstest", true},
		{"router/router.go", "testing", true},
		{"gateway/internal/dialect/pusher/pusher.go", "net/http", true},
		{"gateway/internal/dialect/pusher/pusher.go", "netip", false},
		{"gateway/internal/edge/edge.go", "github.com/nats-io/nats.go", true},
		{"standalone/internal/cli/cli.go", prefix + "tests/load", false},
		{"standalone/internal/cli/cli.go", prefix + "tests/env", true},
		{"tests/load/run.go", prefix + "standalone", true},
		{"newmodule/x.go", prefix + "proto/app", true},
	} {
		why := refuse(source{path: c.file}, c.imports)
		if (why != "") != c.refused {
			t.Errorf("%s imports %s: refused %q, want refused %v", c.file, c.imports, why, c.refused)
		}
	}
}

// goMod is what `go mod edit -json` says of a module.
type goMod struct {
	Module  struct{ Path string }
	Go      string
	Require []struct{ Path, Version string }
	Replace []struct {
		Old, New struct{ Path, Version string }
	}
}

func goMods(t *testing.T) map[string]goMod {
	t.Helper()
	files, err := filepath.Glob(root + "/*/go.mod")
	if err != nil || len(files) == 0 {
		t.Fatalf("no go.mod found: %v", err)
	}
	files = append(files, root+"/tests/load/go.mod")
	mods := map[string]goMod{}
	for _, file := range files {
		out, err := exec.Command("go", "mod", "edit", "-json", file).Output()
		if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		var m goMod
		if err := json.Unmarshal(out, &m); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		name, err := filepath.Rel(root, filepath.Dir(file))
		if err != nil {
			t.Fatal(err)
		}
		mods[filepath.ToSlash(name)] = m
	}
	return mods
}

func TestModuleFiles(t *testing.T) {
	mods := goMods(t)
	work, err := os.ReadFile(root + "/go.work")
	if err != nil {
		t.Fatal(err)
	}
	for name, m := range mods {
		if m.Module.Path != prefix+name {
			t.Errorf("%s/go.mod: module is %s, want %s", name, m.Module.Path, prefix+name)
		}
		if !strings.Contains(string(work), "./"+name+"\n") {
			t.Errorf("go.work does not use ./%s", name)
		}
		for _, r := range m.Require {
			sibling, ours := strings.CutPrefix(r.Path, prefix)
			if ours && !slices.Contains(mayImport[name], sibling) && name != "tests" {
				t.Errorf("%s/go.mod requires %s, which it may not import", name, sibling)
			}
		}
		for _, r := range m.Replace {
			sibling, ours := strings.CutPrefix(r.Old.Path, prefix)
			if !ours || path.Join(name, r.New.Path) != sibling {
				t.Errorf("%s/go.mod replaces %s by %s: only modules of ours are replaced, by their folders", name, r.Old.Path, r.New.Path)
			}
		}
	}
	for name := range mayImport {
		if _, ok := mods[name]; !ok {
			t.Errorf("module %s has no go.mod", name)
		}
	}
}

// The workspace builds every module with the highest version that any asks for, so what is tested would not be what a module's
// own go.mod says.
func TestOneVersionOfEachDependency(t *testing.T) {
	versions := map[string]map[string][]string{} // dependency -> version -> modules
	goVersions := map[string][]string{}
	for name, m := range goMods(t) {
		goVersions[m.Go] = append(goVersions[m.Go], name)
		for _, r := range m.Require {
			if versions[r.Path] == nil {
				versions[r.Path] = map[string][]string{}
			}
			versions[r.Path][r.Version] = append(versions[r.Path][r.Version], name)
		}
	}
	for dependency, by := range versions {
		if len(by) > 1 {
			t.Errorf("%s is required in several versions: %v", dependency, by)
		}
	}
	if len(goVersions) > 1 {
		t.Errorf("modules name several Go versions: %v", goVersions)
	}
}
