package chat

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"time"
	"unicode"

	"github.com/nikolalohinski/gonja/v2/builtins"
	"github.com/nikolalohinski/gonja/v2/exec"
)

// libraryMethods are the methods of str that are used as the library has them.
var libraryMethods = []string{
	"capitalize", "endswith", "find", "isalnum", "isalpha", "isdigit", "islower", "isspace", "isupper", "join", "lower",
	"removeprefix", "removesuffix", "rfind", "splitlines", "startswith", "swapcase", "title", "upper",
}

// stringMethods are Python's methods of str. Those that templates cut contents
// with are written here, where the library's differ from Python's; any other is
// an error.
func stringMethods() *exec.MethodSet[string] {
	methods := map[string]exec.Method[string]{
		"strip":   strip(strings.TrimFunc),
		"lstrip":  strip(strings.TrimLeftFunc),
		"rstrip":  strip(strings.TrimRightFunc),
		"split":   split,
		"replace": replace,
	}
	for _, name := range libraryMethods {
		if method, ok := builtins.Methods.Str.Get(name); ok {
			methods[name] = func(self string, value *exec.Value, arguments *exec.VarArgs) (any, error) {
				result, err := method(self, value, arguments)
				return unwrap(reflect.ValueOf(result)), err
			}
		}
	}
	return exec.NewMethodSet(methods)
}

// unwrap makes the library's own types of strings and lists ordinary ones, which
// compare and count as Python's do.
func unwrap(v reflect.Value) any {
	switch v.Kind() {
	case reflect.Invalid:
		return nil
	case reflect.String:
		return v.String()
	case reflect.Slice:
		out := make(list, v.Len())
		for i := range out {
			out[i] = v.Index(i).Interface()
			if element := reflect.ValueOf(out[i]); element.Kind() == reflect.String {
				out[i] = element.String()
			}
		}
		return out
	}
	return v.Interface()
}

// isSpace is Python's str.isspace of one character.
func isSpace(char rune) bool {
	return unicode.IsSpace(char) || 0x1c <= char && char <= 0x1f
}

// strip makes strip, lstrip or rstrip: without an argument they take white space
// away, with one the characters in it.
func strip(trim func(string, func(rune) bool) string) exec.Method[string] {
	return func(self string, _ *exec.Value, arguments *exec.VarArgs) (any, error) {
		texts, err := textArguments(arguments, 0, 1)
		if err != nil {
			return nil, err
		}
		if len(texts) == 0 {
			return trim(self, isSpace), nil
		}
		return trim(self, func(char rune) bool { return strings.ContainsRune(texts[0], char) }), nil
	}
}

// split is str.split with a separator and without a limit, or without either.
func split(self string, _ *exec.Value, arguments *exec.VarArgs) (any, error) {
	texts, err := textArguments(arguments, 0, 1)
	if err != nil {
		return nil, err
	}
	words := strings.FieldsFunc(self, isSpace)
	if len(texts) > 0 {
		if texts[0] == "" {
			return nil, errors.New("split by an empty separator")
		}
		words = strings.Split(self, texts[0])
	}
	out := make(list, len(words))
	for i, word := range words {
		out[i] = word
	}
	return out, nil
}

// replace is str.replace of all occurrences.
func replace(self string, _ *exec.Value, arguments *exec.VarArgs) (any, error) {
	texts, err := textArguments(arguments, 2, 2)
	if err != nil {
		return nil, err
	}
	return strings.ReplaceAll(self, texts[0], texts[1]), nil
}

// textArguments are the arguments of a method: least to most strings.
func textArguments(arguments *exec.VarArgs, least, most int) ([]string, error) {
	if n := len(arguments.Args) + len(arguments.KwArgs); n < least || n > most || len(arguments.KwArgs) > 0 {
		return nil, fmt.Errorf("%d arguments are not supported", n)
	}
	texts := make([]string, len(arguments.Args))
	for i, argument := range arguments.Args {
		if !argument.IsString() {
			return nil, fmt.Errorf("want a string, not %s", argument.String())
		}
		texts[i] = argument.String()
	}
	return texts, nil
}

// strftime writes a time in the directives that templates use.
func strftime(now time.Time, format string) (string, error) {
	layouts := map[byte]string{
		'Y': "2006", 'y': "06", 'm': "01", 'b': "Jan", 'B': "January", 'd': "02", 'j': "002", 'a': "Mon", 'A': "Monday",
		'H': "15", 'I': "03", 'M': "04", 'S': "05", 'p': "PM",
	}
	var out strings.Builder
	for i := 0; i < len(format); i++ {
		if format[i] != '%' {
			out.WriteByte(format[i])
			continue
		}
		i++
		if i < len(format) && format[i] == '%' {
			out.WriteByte('%')
			continue
		}
		if i == len(format) || layouts[format[i]] == "" {
			return "", fmt.Errorf("strftime_now: format %q is not supported", format)
		}
		out.WriteString(now.Format(layouts[format[i]]))
	}
	return out.String(), nil
}
