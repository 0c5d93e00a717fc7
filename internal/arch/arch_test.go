package arch

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/packetboat/packetboat/"

// rows gives every package its row; an import goes to a lower one. A new
// package finds its place here first.
var rows = map[string]int{
	"internal/arch":        9, // tests and chores: nothing imports them
	"internal/chores":      9,
	"internal/e2e":         9,
	"internal/conformance": 9,

	"cmd/edge":     6,
	"cmd/hub":      6,
	"firmware-sim": 6,

	"firmware-sim/bench":     5,
	"firmware-sim/linkbench": 5,
	"firmware-sim/demo":      5,
	"firmware-sim/soak":      5,

	"internal/edge":      4,
	"internal/hub":       4,
	"firmware-sim/prove": 4,
	"firmware-sim/fleet": 4,
	"firmware-sim/proc":  4,

	"internal/uplink":      3,
	"internal/sensors":     3,
	"pkg/ingest":           3,
	"internal/httpapi":     3,
	"internal/audit":       3,
	"firmware-sim/signals": 3,

	"pkg/buffer":             2,
	"pkg/commitlog/local":    2,
	"internal/mqttfront":     2,
	"internal/wire":          2,
	"internal/rig/badlink":   2,
	"internal/rig/recording": 2,
	"internal/rig/receipts":  2,
	"internal/rig/publisher": 2,
	"internal/rig/rawmqtt":   2, // an MQTT client that can break every rule
	"internal/rig/hostile":   3, // hostile clients built on it

	"pkg/commitlog":         1,
	"pkg/commitlog/logtest": 2, // the contract's test suite, imported by tests only
	"pkg/codec":             1,
	"pkg/codec/entropy":     0,
	"internal/config":       1,
	"internal/obs":          1,
	"internal/pki":          1,
	"internal/cli":          1,
	"internal/gate":         1, // listeners of both doors: rate, handshakes, TLS, WebSocket
	"internal/acl":          1, // who may publish and see which topics

	"pkg/stream":          0,
	"proto/packetboat/v1": 0,
}

type source struct {
	dir  string // below the module
	name string
	test bool
	file *ast.File
}

// sources parses the tree itself: a test that asks the go command would pass
// from the test cache on a broken tree.
func sources(t *testing.T) (all []source) {
	t.Helper()
	root := filepath.Join("..", "..")
	fset := token.NewFileSet()
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := d.Name()
		if d.IsDir() {
			if p != root && (strings.HasPrefix(name, ".") || name == "testdata" || name == "tools" || name == "out" || name == "bin") {
				return fs.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(name, ".go") {
			return nil
		}
		text, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		f, err := parser.ParseFile(fset, p, text, parser.ParseComments)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, filepath.Dir(p))
		if err != nil {
			return err
		}
		all = append(all, source{filepath.ToSlash(rel), name, strings.HasSuffix(name, "_test.go"), f})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(all) == 0 {
		t.Fatal("no Go files found")
	}
	return all
}

func imports(s source) (dirs []string) {
	for _, i := range s.file.Imports {
		p, err := strconv.Unquote(i.Path.Value)
		if err == nil && strings.HasPrefix(p, module) {
			dirs = append(dirs, strings.TrimPrefix(p, module))
		}
	}
	return dirs
}

func TestImportsGoDown(t *testing.T) {
	for _, s := range sources(t) {
		row, ok := rows[s.dir]
		if !ok {
			t.Errorf("%s/%s: the package has no row in the table", s.dir, s.name)
			continue
		}
		for _, to := range imports(s) {
			switch {
			case s.test:
				if s.dir == "internal/edge" && to == "internal/hub" || s.dir == "internal/hub" && to == "internal/edge" {
					t.Errorf("%s/%s: edge and hub never import each other", s.dir, s.name)
				}
			case rows[to] >= row:
				t.Errorf("%s (row %d) imports %s (row %d): an import goes down", s.dir, row, to, rows[to])
			}
		}
	}
}

// The verifier shares with what it judges only the words and the readers.
func TestProofStandsApart(t *testing.T) {
	may := map[string]bool{"pkg/stream": true, "pkg/commitlog": true, "internal/rig/receipts": true, "internal/httpapi": true, "internal/cli": true}
	for _, s := range sources(t) {
		if s.dir != "firmware-sim/prove" || s.test {
			continue
		}
		for _, to := range imports(s) {
			if !may[to] {
				t.Errorf("firmware-sim/prove imports %s", to)
			}
		}
	}
}

func TestStreamImportsOnlyTheStandardLibrary(t *testing.T) {
	for _, s := range sources(t) {
		if s.dir != "pkg/stream" || s.test {
			continue
		}
		for _, i := range s.file.Imports {
			if p, _ := strconv.Unquote(i.Path.Value); strings.Contains(p, ".") {
				t.Errorf("%s imports %s", s.name, p)
			}
		}
	}
}

func TestEveryPackageSaysWhatItIs(t *testing.T) {
	said := map[string]bool{}
	for _, s := range sources(t) {
		if s.test {
			continue
		}
		said[s.dir] = said[s.dir] || s.file.Doc != nil && len(strings.Fields(s.file.Doc.Text())) >= 8
	}
	for dir, ok := range said {
		if !ok && !strings.HasPrefix(dir, "proto/") {
			t.Errorf("%s: no package comment that says what it is", dir)
		}
	}
	for dir := range rows {
		if _, ok := said[dir]; !ok && dir != "internal/e2e" {
			t.Errorf("the table names %s, which does not exist", dir)
		}
	}
}

// An exported declaration below pkg/ names no type of internal/: who imports
// pkg/ from another module could not write it down.
func TestPublicAPINamesNothingInternal(t *testing.T) {
	for _, s := range sources(t) {
		if s.test || !strings.HasPrefix(s.dir, "pkg/") {
			continue
		}
		internal := map[string]bool{}
		for _, i := range s.file.Imports {
			p, _ := strconv.Unquote(i.Path.Value)
			if !strings.HasPrefix(p, module+"internal/") {
				continue
			}
			name := path.Base(p)
			if i.Name != nil {
				name = i.Name.Name
			}
			internal[name] = true
		}
		if len(internal) == 0 {
			continue
		}
		check := func(what string, n ast.Node) {
			ast.Inspect(n, func(n ast.Node) bool {
				if sel, ok := n.(*ast.SelectorExpr); ok {
					if x, ok := sel.X.(*ast.Ident); ok && internal[x.Name] {
						t.Errorf("%s/%s: exported %s names %s.%s", s.dir, s.name, what, x.Name, sel.Sel.Name)
					}
				}
				return true
			})
		}
		for _, d := range s.file.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				if d.Name.IsExported() && (d.Recv == nil || exportedReceiver(d.Recv)) {
					check(d.Name.Name, d.Type)
				}
			case *ast.GenDecl:
				for _, spec := range d.Specs {
					checkSpec(spec, check)
				}
			}
		}
	}
}

func exportedReceiver(r *ast.FieldList) bool {
	x := r.List[0].Type
	for {
		switch y := x.(type) {
		case *ast.StarExpr:
			x = y.X
		case *ast.IndexExpr:
			x = y.X
		case *ast.Ident:
			return y.IsExported()
		default:
			return false
		}
	}
}

func checkSpec(spec ast.Spec, check func(string, ast.Node)) {
	switch spec := spec.(type) {
	case *ast.TypeSpec:
		if !spec.Name.IsExported() {
			return
		}
		st, ok := spec.Type.(*ast.StructType)
		if !ok {
			check(spec.Name.Name, spec.Type)
			return
		}
		for _, f := range st.Fields.List {
			for _, n := range f.Names {
				if n.IsExported() {
					check(spec.Name.Name+"."+n.Name, f.Type)
				}
			}
			if len(f.Names) == 0 {
				check(spec.Name.Name, f.Type)
			}
		}
	case *ast.ValueSpec:
		for _, n := range spec.Names {
			if n.IsExported() && spec.Type != nil {
				check(n.Name, spec.Type)
			}
		}
	}
}
