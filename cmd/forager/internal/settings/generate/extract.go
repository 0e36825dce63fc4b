package main

import (
	"fmt"
	"go/ast"
	"go/doc"
	"go/parser"
	"go/token"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"

	"github.com/forager-rl/forager/cmd/forager/internal/settings"
)

// extract reads the comments of the given settings from the source of the
// module that lies at root, as the content of comments.txt. Go field names in
// them become setting names.
func extract(root, module string, all []settings.Setting) (string, error) {
	packages := make(map[string]*doc.Package)
	var out strings.Builder
	done := make(map[string]bool)
	for _, s := range all {
		if done[s.Place()] {
			continue
		}
		done[s.Place()] = true
		t := s.Owner
		if s.Kind == settings.Section {
			t = s.Value.Type()
		}
		if packages[t.PkgPath()] == nil {
			p, err := parse(filepath.Join(root, strings.TrimPrefix(t.PkgPath(), module)), t.PkgPath())
			if err != nil {
				return "", err
			}
			packages[t.PkgPath()] = p
		}
		declared, comment := find(packages[t.PkgPath()], t.Name())
		if declared == nil {
			return "", fmt.Errorf("no source of struct %s.%s", t.PkgPath(), t.Name())
		}
		if s.Kind == settings.Section {
			comment = strings.Replace(oneLine(comment), t.Name(), settings.Placeholder, 1)
		} else {
			comment = rename(fieldComment(declared, s.Field), t, s.Field)
		}
		fmt.Fprintf(&out, "%s\t%s\n", s.Place(), comment)
	}
	return out.String(), nil
}

func parse(dir, path string) (*doc.Package, error) {
	files := token.NewFileSet()
	names, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		return nil, err
	}
	var syntax []*ast.File
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(files, name, nil, parser.ParseComments)
		if err != nil {
			return nil, err
		}
		syntax = append(syntax, f)
	}
	if len(syntax) == 0 {
		return nil, fmt.Errorf("no Go files in %s", dir)
	}
	return doc.NewFromFiles(files, syntax, path, doc.AllDecls)
}

func find(p *doc.Package, name string) (*ast.StructType, string) {
	for _, t := range p.Types {
		if t.Name != name {
			continue
		}
		for _, spec := range t.Decl.Specs {
			if spec, ok := spec.(*ast.TypeSpec); ok && spec.Name.Name == name {
				s, _ := spec.Type.(*ast.StructType)
				return s, t.Doc
			}
		}
	}
	return nil, ""
}

// fieldComment is the comment above a field or beside it; fields that follow
// each other without a comment share the first one's.
func fieldComment(s *ast.StructType, name string) string {
	shared := ""
	var end token.Pos
	for _, field := range s.Fields.List {
		switch {
		case field.Doc != nil:
			shared = field.Doc.Text()
		case field.Comment != nil:
			shared = field.Comment.Text()
		case field.Pos()-end > 3: // more than a line break and a tab: a blank line
			shared = ""
		}
		end = field.End()
		for _, n := range field.Names {
			if n.Name == name {
				return oneLine(shared)
			}
		}
	}
	return ""
}

func oneLine(text string) string { return strings.Join(strings.Fields(text), " ") }

var camel = regexp.MustCompile(`\b(?:[A-Z][A-Za-z0-9]*)\b`)

// rename writes the names of a struct's fields as settings: always at the start,
// elsewhere where the name is no ordinary word, such as MaxTokens.
func rename(comment string, owner reflect.Type, field string) string {
	names := make(map[string]string)
	for i := range owner.NumField() {
		f := owner.Field(i)
		if tag := f.Tag.Get("mapstructure"); tag != "" && !strings.HasPrefix(tag, ",") && tag != "-" {
			names[f.Name] = "`" + tag + "`"
		}
	}
	start := true
	return camel.ReplaceAllStringFunc(comment, func(word string) string {
		atStart := start && strings.HasPrefix(comment, word) && word == field
		start = false
		name, known := names[word]
		if known && (atStart || strings.ContainsAny(word[1:], "ABCDEFGHIJKLMNOPQRSTUVWXYZ")) {
			return name
		}
		return word
	})
}
