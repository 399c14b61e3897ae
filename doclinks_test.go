package wherry_test

import (
	"go/ast"
	"go/doc"
	"go/doc/comment"
	"go/parser"
	"go/token"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// A doc comment that names something in brackets links to it on pkg.go.dev; where
// the name is wrong, or is that of a field, which has no link, the brackets stay.
func TestDoc_ItsLinksNameSomething(t *testing.T) {
	t.Parallel()
	all, err := packages()
	require.NoError(t, err)
	shown, links := map[string]*doc.Package{}, 0
	for _, p := range all {
		if p.Name != "main" && !strings.Contains(p.ImportPath+"/", "/internal/") && !within(short(p.ImportPath), "examples") {
			shown[p.ImportPath] = shownOf(t, p.ImportPath)
		}
	}
	require.Greater(t, len(shown), 7)
	for path, p := range shown {
		check := func(name, text string) {
			for _, block := range p.Parser().Parse(text).Content {
				walk(block, func(link *comment.DocLink) {
					links++
					if to := shown[link.ImportPath]; to != nil && link.Name != "" && !to.Parser().LookupSym(link.Recv, link.Name) {
						t.Errorf("%s: %s: there is no %s.%s.%s", path, name, link.ImportPath, link.Recv, link.Name)
					}
				}, func(plain string) {
					for _, m := range bracketed.FindAllStringSubmatch(plain, -1) {
						t.Errorf("%s: %s: %s names nothing", path, name, m[1])
					}
				})
			}
		}
		check("package", p.Doc)
		values := func(all []*doc.Value) {
			for _, v := range all {
				check(v.Names[0], textOf(v.Doc, v.Decl))
			}
		}
		functions := func(all []*doc.Func) {
			for _, f := range all {
				check(f.Recv+" "+f.Name, f.Doc)
			}
		}
		values(p.Consts)
		values(p.Vars)
		functions(p.Funcs)
		for _, typ := range p.Types {
			check(typ.Name, textOf(typ.Doc, typ.Decl))
			values(typ.Consts)
			values(typ.Vars)
			functions(typ.Funcs)
			functions(typ.Methods)
		}
	}
	require.Greater(t, links, 300)
}

// bracketed is text that was meant for a link.
var bracketed = regexp.MustCompile(`(?:^|[\s(])(\[\*?[A-Za-z_][\w./]*\])`)

// shownOf returns what go doc shows of a package.
func shownOf(t *testing.T, path string) *doc.Package {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(".", short(path), "*.go"))
	require.NoError(t, err)
	fset, files := token.NewFileSet(), []*ast.File(nil)
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(fset, name, nil, parser.ParseComments)
		require.NoError(t, err)
		files = append(files, f)
	}
	p, err := doc.NewFromFiles(fset, files, path)
	require.NoError(t, err)
	return p
}

// textOf is the doc comment of a declaration, with those of its fields and values.
func textOf(text string, decl *ast.GenDecl) string {
	ast.Inspect(decl, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.Field:
			text += "\n\n" + n.Doc.Text() + "\n\n" + n.Comment.Text()
		case *ast.ValueSpec:
			text += "\n\n" + n.Doc.Text() + "\n\n" + n.Comment.Text()
		}
		return true
	})
	return text
}

// walk goes through the links and the plain text of a block.
func walk(block comment.Block, link func(*comment.DocLink), plain func(string)) {
	texts := func(all []comment.Text) {
		for _, t := range all {
			switch t := t.(type) {
			case *comment.DocLink:
				link(t)
			case comment.Plain:
				plain(string(t))
			}
		}
	}
	switch b := block.(type) {
	case *comment.Paragraph:
		texts(b.Text)
	case *comment.Heading:
		texts(b.Text)
	case *comment.List:
		for _, item := range b.Items {
			for _, inner := range item.Content {
				walk(inner, link, plain)
			}
		}
	}
}
