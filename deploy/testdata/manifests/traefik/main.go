// Command traefik says which keys of a file for Traefik's file provider Traefik
// does not know. It knows them from the source of Traefik's own types, since
// Traefik itself cannot be built as a dependency.
//
//	traefik SOURCE/pkg/config/dynamic FILE
package main

import (
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"

	"sigs.k8s.io/yaml"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) != 2 {
		return errors.New("usage: traefik SOURCE/pkg/config/dynamic FILE")
	}
	known, err := load(args[0])
	if err != nil {
		return err
	}
	data, err := os.ReadFile(args[1])
	if err != nil {
		return err
	}
	var file any
	if err := yaml.UnmarshalStrict(data, &file); err != nil {
		return err
	}
	var wrong []error
	known.check("", file, ast.NewIdent("Configuration"), &wrong)
	return errors.Join(wrong...)
}

// structs are the struct types of a package by name.
type structs map[string]*ast.StructType

// load parses the package's files.
func load(dir string) (structs, error) {
	names, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		return nil, err
	}
	known := structs{}
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
		if err != nil {
			return nil, err
		}
		ast.Inspect(file, func(node ast.Node) bool {
			if spec, ok := node.(*ast.TypeSpec); ok {
				if s, ok := spec.Type.(*ast.StructType); ok {
					known[spec.Name.Name] = s
				}
			}
			return true
		})
	}
	if known["Configuration"] == nil {
		return nil, fmt.Errorf("%s: %w: no type Configuration", dir, fs.ErrNotExist)
	}
	return known, nil
}

// check walks the value along the type. Types of other packages are leaves.
func (s structs) check(path string, value any, of ast.Expr, wrong *[]error) {
	switch t := of.(type) {
	case *ast.StarExpr:
		s.check(path, value, t.X, wrong)
	case *ast.ArrayType:
		list, ok := value.([]any)
		if !ok {
			*wrong = append(*wrong, fmt.Errorf("%s is no list", path))
		}
		for _, element := range list {
			s.check(path+"[]", element, t.Elt, wrong)
		}
	case *ast.MapType:
		object, ok := value.(map[string]any)
		if !ok {
			*wrong = append(*wrong, fmt.Errorf("%s is no object", path))
		}
		for name, element := range object {
			s.check(path+"."+name, element, t.Value, wrong)
		}
	case *ast.Ident:
		known, ok := s[t.Name]
		if !ok {
			return
		}
		object, ok := value.(map[string]any)
		if !ok {
			*wrong = append(*wrong, fmt.Errorf("%s is no object", path))
		}
		for name, element := range object {
			field := member(known, name)
			if field == nil {
				*wrong = append(*wrong, fmt.Errorf("%s has no member %s", strings.TrimPrefix(path, "."), name))
				continue
			}
			s.check(path+"."+name, element, field, wrong)
		}
	}
}

// member finds the type of the field that the name in YAML stands for.
func member(of *ast.StructType, name string) ast.Expr {
	for _, field := range of.Fields.List {
		if field.Tag == nil {
			continue
		}
		tag := reflect.StructTag(strings.Trim(field.Tag.Value, "`")).Get("yaml")
		if known, _, _ := strings.Cut(tag, ","); known == name {
			return field.Type
		}
	}
	return nil
}
