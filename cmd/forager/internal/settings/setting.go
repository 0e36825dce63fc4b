package settings

import (
	"fmt"
	"reflect"
	"strings"

	"github.com/agnivade/levenshtein"
)

// Kind tells what a Setting stands for.
type Kind int

// The kinds of settings.
const (
	Value   Kind = iota // one value
	Section             // a struct of settings
	Entry               // a field of the entries of a list or map, for documentation
)

// Setting is one named place in a configuration.
type Setting struct {
	Kind  Kind
	Name  string        // "learner.lag"
	Value reflect.Value // settable; for an Entry the zero value of its type
	Owner reflect.Type  // the struct that declares it
	Field string        // its Go name there
}

// List gives the settings of the struct that config points to, in the order of
// their declaration, each section before its parts. Field names come from
// mapstructure tags; fields without a tag, or with "-", are not settings.
func List(config any) []Setting {
	return list(reflect.ValueOf(config).Elem(), "", false)
}

func list(config reflect.Value, prefix string, entry bool) []Setting {
	var all []Setting
	for i := range config.NumField() {
		field := config.Type().Field(i)
		tag := field.Tag.Get("mapstructure")
		switch {
		case tag == ",squash":
			all = append(all, list(config.Field(i), prefix, entry)...)
			continue
		case tag == "" || tag == "-":
			continue
		}
		s := Setting{Name: prefix + tag, Value: config.Field(i), Owner: config.Type(), Field: field.Name}
		if entry {
			s.Kind = Entry
		}
		if s.Value.Kind() == reflect.Struct {
			s.Kind = Section
			all = append(all, s)
			all = append(all, list(s.Value, s.Name+".", entry)...)
			continue
		}
		all = append(all, s)
		if part, ok := entries(field.Type); ok {
			all = append(all, list(reflect.New(field.Type.Elem()).Elem(), s.Name+part, true)...)
		}
	}
	return all
}

// entries tells how the fields of a list's or map's structs are named.
func entries(t reflect.Type) (part string, ok bool) {
	switch {
	case t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.Struct:
		return "[].", true
	case t.Kind() == reflect.Map && t.Elem().Kind() == reflect.Struct:
		return ".NAME.", true
	}
	return "", false
}

// Find gives the setting that a name belongs to: the setting of that name, or
// the map that has room for it (reward.weights for reward.weights.em, rest "em").
func Find(all []Setting, name string) (s Setting, rest string, err error) {
	for _, s := range all {
		switch {
		case s.Kind == Entry:
		case s.Name == name && s.Kind == Section:
			return Setting{}, "", fmt.Errorf("%q is a section, not a setting; did you mean %q?", name, first(all, name+"."))
		case s.Name == name:
			return s, "", nil
		case s.Value.Kind() == reflect.Map && strings.HasPrefix(name, s.Name+"."):
			return s, name[len(s.Name)+1:], nil
		}
	}
	return Setting{}, "", fmt.Errorf("unknown key %q; did you mean %q?", name, nearest(all, name))
}

func first(all []Setting, prefix string) string {
	for _, s := range all {
		if s.Kind == Value && strings.HasPrefix(s.Name, prefix) {
			return s.Name
		}
	}
	return ""
}

func nearest(all []Setting, name string) string {
	var names []string
	for _, s := range all {
		if s.Kind == Value {
			names = append(names, s.Name)
		}
	}
	return Nearest(names, name)
}

// Nearest is the candidate with the fewest edits to name, the first of several.
func Nearest(candidates []string, name string) string {
	best, least := "", -1
	for _, c := range candidates {
		if d := levenshtein.ComputeDistance(name, c); least < 0 || d < least {
			best, least = c, d
		}
	}
	return best
}
