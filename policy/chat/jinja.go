package chat

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"

	"github.com/nikolalohinski/gonja/v2/builtins"
	"github.com/nikolalohinski/gonja/v2/config"
	"github.com/nikolalohinski/gonja/v2/exec"
	"github.com/nikolalohinski/gonja/v2/loaders"
	"github.com/nikolalohinski/gonja/v2/nodes"
	"github.com/nikolalohinski/gonja/v2/parser"
	"github.com/nikolalohinski/gonja/v2/tokens"
)

// compile parses a template under the rules of transformers: blocks trim the
// line they stand on.
func compile(source string) (compiled *exec.Template, err error) {
	defer recovered(&err)
	settings := config.New()
	settings.TrimBlocks, settings.LeftStripBlocks = true, true
	compiled, err = exec.NewTemplate("chat", settings, onlySource(source), environment())
	if err != nil {
		if inner := errors.Unwrap(err); inner != nil {
			err = inner // without the whole source in its text
		}
		return nil, err
	}
	return compiled, nil
}

func execute(t *exec.Template, variables map[string]any) (text string, err error) {
	defer recovered(&err)
	var out bytes.Buffer
	if err := t.Execute(&out, exec.NewContext(variables)); err != nil {
		return "", err
	}
	return out.String(), nil
}

// recovered makes a panic in the library an error: a template is input.
func recovered(err *error) {
	if r := recover(); r != nil {
		*err = fmt.Errorf("the template engine failed: %v", r)
	}
}

// onlySource is a loader that has one template and nothing to include.
type onlySource string

// Read gives the template.
func (s onlySource) Read(name string) (io.Reader, error) {
	if name != "chat" {
		return nil, fmt.Errorf("a chat template cannot read %q", name)
	}
	return strings.NewReader(string(s)), nil
}

// Resolve gives the name back.
func (onlySource) Resolve(name string) (string, error) { return name, nil }

// Inherit gives the loader back.
func (s onlySource) Inherit(string) (loaders.Loader, error) { return s, nil }

// environment is Jinja as transformers has it.
func environment() *exec.Environment {
	filters := exec.NewFilterSet(map[string]exec.FilterFunction{}).Update(builtins.Filters)
	blocks := exec.NewControlStructureSet(map[string]parser.ControlStructureParser{}).Update(builtins.ControlStructures)
	errs := []error{
		filters.Replace("tojson", toJSON),
		filters.Replace("list", toList),
		filters.Replace("trim", trim),
		blocks.Register("generation", parseGeneration),
	}
	for _, name := range []string{"format", "items", "dictsort"} { // other results than Python's
		errs = append(errs, filters.Replace(name, func(*exec.Evaluator, *exec.Value, *exec.VarArgs) *exec.Value {
			return exec.AsValue(fmt.Errorf("filter %s is not supported", name))
		}))
	}
	if err := errors.Join(errs...); err != nil {
		panic(err) // names that the library has or lacks
	}
	return &exec.Environment{
		Context: exec.EmptyContext().Update(builtins.GlobalFunctions).Update(builtins.GlobalVariables),
		Filters: filters, Tests: builtins.Tests, ControlStructures: blocks,
		Methods: exec.Methods{
			Bool: builtins.Methods.Bool, Int: builtins.Methods.Int, Float: builtins.Methods.Float,
			Dict: builtins.Methods.Dict, List: builtins.Methods.List, Str: stringMethods(),
		},
	}
}

func raise(message string) (string, error) { return "", errors.New(message) }

// toJSON writes simple values as json.dumps does.
func toJSON(_ *exec.Evaluator, in *exec.Value, params *exec.VarArgs) *exec.Value {
	if in.IsError() {
		return in
	}
	if in.IsList() || in.IsDict() || len(params.Args) > 0 {
		return exec.AsValue(errors.New("tojson of lists and objects is not supported"))
	}
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(in.Interface()); err != nil {
		return exec.AsValue(fmt.Errorf("tojson: %w", err))
	}
	return exec.AsValue(strings.TrimSuffix(out.String(), "\n"))
}

// trim is str.strip as a filter.
func trim(_ *exec.Evaluator, in *exec.Value, params *exec.VarArgs) *exec.Value {
	if in.IsError() {
		return in
	}
	out, err := strip(strings.TrimFunc)(in.String(), in, params)
	if err != nil {
		return exec.AsValue(fmt.Errorf("trim: %w", err))
	}
	return exec.AsValue(out)
}

// toList is the library's filter, whose lists count from the end as well.
func toList(e *exec.Evaluator, in *exec.Value, params *exec.VarArgs) *exec.Value {
	filter, _ := builtins.Filters.Get("list")
	out := filter(e, in, params)
	if out.IsError() || !out.IsList() {
		return out
	}
	return exec.AsValue(unwrap(reflect.ValueOf(out.Interface())))
}

// list is a list whose first element is also the one at minus its length, which
// the library overlooks.
type list []any

// GetItem finds an element by its index.
func (l list) GetItem(key any) (*exec.Value, bool) {
	i, ok := key.(int)
	if !ok {
		return exec.AsValue(nil), false
	}
	if i < 0 {
		i += len(l)
	}
	if i < 0 || i >= len(l) {
		return exec.AsValue(nil), false
	}
	return exec.AsValue(l[i]), true
}

// generation is the tag that marks what the model says, for training masks; its
// content is written as it is.
type generation struct {
	*nodes.Wrapper
	at *tokens.Token
}

// Position is where the tag stands.
func (g generation) Position() *tokens.Token { return g.at }

// String names the tag in messages.
func (g generation) String() string { return "generation" }

// Execute writes the content.
func (g generation) Execute(r *exec.Renderer, _ *nodes.ControlStructureBlock) error {
	return r.ExecuteWrapper(g.Wrapper)
}

func parseGeneration(p, args *parser.Parser) (nodes.ControlStructure, error) {
	at := p.Current()
	if !args.End() {
		return nil, args.Error("generation takes no arguments", nil)
	}
	content, _, err := p.WrapUntil("endgeneration")
	if err != nil {
		return nil, err
	}
	return generation{content, at}, nil
}
