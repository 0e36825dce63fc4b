package settings

import (
	"bytes"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Text writes a value as YAML on one line, such that Assign reads it back.
func Text(v reflect.Value) string {
	if v.Type() == durationType {
		return shortDuration(time.Duration(v.Int()))
	}
	switch v.Kind() {
	case reflect.String:
		return quoted(v.String())
	case reflect.Float32, reflect.Float64:
		return strconv.FormatFloat(v.Float(), 'f', -1, v.Type().Bits())
	case reflect.Map:
		var parts []string
		for _, k := range v.MapKeys() {
			parts = append(parts, quoted(k.String())+": "+Text(v.MapIndex(k)))
		}
		slices.Sort(parts)
		return "{" + strings.Join(parts, ", ") + "}"
	case reflect.Slice:
		var parts []string
		for i := range v.Len() {
			parts = append(parts, Text(v.Index(i)))
		}
		return "[" + strings.Join(parts, ", ") + "]"
	case reflect.Struct:
		var parts []string
		for _, s := range list(v, "", false) {
			parts = append(parts, s.Name+": "+Text(s.Value))
		}
		return "{" + strings.Join(parts, ", ") + "}"
	}
	return fmt.Sprint(v.Interface())
}

// bare is text that is the same with and without quotes in YAML, also of
// version 1.1.
var bare = regexp.MustCompile(`^[A-Za-z_/][A-Za-z0-9_./-]*$`)

func quoted(s string) string {
	switch strings.ToLower(s) {
	case "true", "false", "null", "yes", "no", "on", "off", "y", "n":
		return strconv.Quote(s)
	}
	if bare.MatchString(s) {
		return s
	}
	return strconv.Quote(s)
}

// shortDuration leaves out the zero seconds of 5m0s.
func shortDuration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// YAML writes all settings of the struct that config points to, each with its
// comment.
func YAML(config any) []byte {
	var out bytes.Buffer
	for _, s := range List(config) {
		if s.Kind == Entry {
			continue
		}
		depth := strings.Count(s.Name, ".")
		indent := strings.Repeat("  ", depth)
		key := s.Name[strings.LastIndex(s.Name, ".")+1:]
		if s.Kind == Section && depth == 0 && out.Len() > 0 {
			out.WriteByte('\n')
		}
		for _, line := range wrap(s.Comment(), 92-len(indent)) {
			fmt.Fprintf(&out, "%s# %s\n", indent, line)
		}
		if s.Kind == Section {
			fmt.Fprintf(&out, "%s%s:\n", indent, key)
			continue
		}
		fmt.Fprintf(&out, "%s%s: %s\n", indent, key, Text(s.Value))
	}
	return out.Bytes()
}

// wrap cuts text into lines of at most width bytes where words allow it.
func wrap(text string, width int) []string {
	var lines []string
	for _, word := range strings.Fields(text) {
		if n := len(lines); n > 0 && len(lines[n-1])+1+len(word) <= width {
			lines[n-1] += " " + word
			continue
		}
		lines = append(lines, word)
	}
	return lines
}

// Markdown writes a table of all settings for each section, with the values
// that they have in config as their defaults.
func Markdown(config any) []byte {
	var out bytes.Buffer
	open := false // whether the last lines are a table
	for _, s := range List(config) {
		if s.Kind == Section {
			fmt.Fprintf(&out, "\n%s `%s`\n\n%s\n", strings.Repeat("#", 2+strings.Count(s.Name, ".")), s.Name, s.Comment())
			open = false
			continue
		}
		if !open {
			out.WriteString("\n| key | takes | default | meaning |\n|---|---|---|---|\n")
			open = true
		}
		value := "`" + Text(s.Value) + "`"
		if s.Kind == Entry {
			value = "" // an entry left out is the zero value
		}
		fmt.Fprintf(&out, "| `%s` | %s | %s | %s |\n", s.Name, TypeName(s.Value.Type()), cell(value), cell(s.Comment()))
	}
	return out.Bytes()
}

// cell keeps text from ending a table's cell.
func cell(s string) string { return strings.ReplaceAll(s, "|", `\|`) }
