package rubric

import (
	"bytes"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/forager-rl/forager"
)

//go:embed builtin/*.yaml
var builtin embed.FS

//go:embed template.yaml
var template []byte

// builtinPrefix starts the Source of built-in rubrics.
const builtinPrefix = "built-in:"

// maxFileBytes is the largest rubric file that is read.
const maxFileBytes = 256 << 10

// Builtin names the rubrics that come with Forager, sorted.
func Builtin() []string {
	files, err := fs.Glob(builtin, "builtin/*.yaml") // sorted
	if err != nil {
		panic(err) // only for a malformed pattern
	}
	for i, f := range files {
		files[i] = strings.TrimSuffix(filepath.Base(f), ".yaml")
	}
	return files
}

// Template is a rubric to start one's own from: a YAML file that loads as it is
// and explains every field of every kind.
func Template() []byte { return bytes.Clone(template) }

// Load reads a built-in rubric by its name, or else a YAML file. Its errors name
// every mistake as file:line with what is expected there; an unknown name wraps
// forager.ErrNotFound.
func Load(nameOrPath string) (*Rubric, error) {
	if data, err := builtin.ReadFile("builtin/" + nameOrPath + ".yaml"); err == nil {
		return parse(builtinPrefix+nameOrPath, data)
	}
	data, err := readFile(nameOrPath)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, forager.WithHint(fmt.Errorf("rubric %q: no such file and no such built-in rubric: %w", nameOrPath, forager.ErrNotFound),
			fmt.Sprintf("name a YAML file or one of %s; the nearest name is %s", strings.Join(Builtin(), ", "), nearest(nameOrPath, Builtin())))
	} else if err != nil {
		return nil, fmt.Errorf("read rubric: %w", err)
	}
	return parse(nameOrPath, data)
}

func readFile(path string) (data []byte, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	data, err = io.ReadAll(io.LimitReader(f, maxFileBytes+1))
	if err == nil && len(data) > maxFileBytes {
		err = fmt.Errorf("%s has more than %d bytes", path, maxFileBytes)
	}
	return data, err
}

// parse reads one rubric. Its error joins all mistakes found.
func parse(source string, data []byte) (*Rubric, error) {
	dec := yaml.NewDecoder(bytes.NewReader(data))
	var doc yaml.Node
	if err := dec.Decode(&doc); errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%s:1: the file is empty; expected the fields name, kind, instructions and those of the kind", source)
	} else if err != nil {
		return nil, syntaxError(source, err)
	}
	p := parser{source: source}
	if len(doc.Content) == 0 { // a document of comments
		doc.Content = []*yaml.Node{&doc}
	}
	c := p.content(doc.Content[0])
	var next yaml.Node
	if err := dec.Decode(&next); err == nil {
		p.fail(&next, "a second document; a file holds one rubric")
	} else if !errors.Is(err, io.EOF) {
		return nil, syntaxError(source, err)
	}
	if err := errors.Join(p.problems...); err != nil {
		return nil, err
	}
	return newRubric(source, c)
}

func newRubric(source string, c content) (*Rubric, error) {
	text, err := json.Marshal(c)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", source, err)
	}
	frame := []string{
		introTurn, introPair, introRollout, warning,
		askOne, askFacts, askEach, askPoints, formLine, formObject, remindLine, remindObject,
	}
	version := "sha256:" + forager.Digest(append(frame, string(text))...)
	return &Rubric{Name: c.Name, Kind: c.Kind, Source: source, content: c, version: version}, nil
}

var yamlLine = regexp.MustCompile(`^yaml: (?:line (\d+): )?`)

// syntaxError moves the line that the YAML library names to where ours stands.
func syntaxError(source string, err error) error {
	message := err.Error()
	line := "1"
	if m := yamlLine.FindStringSubmatch(message); m != nil {
		message = message[len(m[0]):]
		if m[1] != "" {
			line = m[1]
		}
	}
	return fmt.Errorf("%s:%s: no valid YAML: %s", source, line, message)
}
