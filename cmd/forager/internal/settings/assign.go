package settings

import (
	"errors"
	"fmt"
	"math"
	"reflect"
	"strconv"
	"time"
)

var durationType = reflect.TypeFor[time.Duration]()

// Assign stores a value as YAML, an environment variable or a flag gives it
// into a setting. Text is parsed; a number with a fraction is no whole number,
// and a duration needs its unit. A map or list replaces the old one whole. The
// setting keeps its old value when the new one does not fit, and the error says
// what was given and what is wanted.
func Assign(target reflect.Value, raw any) error {
	fresh := reflect.New(target.Type()).Elem()
	if err := assign(fresh, raw); err != nil {
		return err
	}
	target.Set(fresh)
	return nil
}

func assign(target reflect.Value, raw any) error {
	if raw == nil {
		return misfit(raw, target.Type())
	}
	given := reflect.ValueOf(raw)
	if given.Type() == target.Type() {
		target.Set(given)
		return nil
	}
	switch {
	case target.Type() == durationType:
		d, err := duration(raw)
		if err != nil {
			return misfit(raw, target.Type())
		}
		target.SetInt(int64(d))
		return nil
	case target.Kind() == reflect.Map && given.Kind() == reflect.Map:
		return assignMap(target, given)
	case target.Kind() == reflect.Slice && given.Kind() == reflect.Slice:
		return assignList(target, given)
	case target.Kind() == reflect.Slice && target.Type().Elem().Kind() == reflect.String && given.Kind() == reflect.String:
		return assignList(target, reflect.ValueOf([]any{raw})) // a list of one, without brackets
	case target.Kind() == reflect.Struct && given.Kind() == reflect.Map:
		return assignStruct(target, given)
	}
	return assignScalar(target, raw)
}

func assignScalar(target reflect.Value, raw any) error {
	text, isText := raw.(string)
	bits := 0
	if k := target.Kind(); k >= reflect.Int && k <= reflect.Float64 {
		bits = target.Type().Bits()
	}
	var err error
	switch target.Kind() {
	case reflect.String:
		if !isText { // a name such as 7 or true, written without quotes
			text = fmt.Sprint(raw)
			if k := reflect.TypeOf(raw).Kind(); k == reflect.Map || k == reflect.Slice {
				err = errors.New("no text")
			}
		}
		target.SetString(text)
	case reflect.Bool:
		b, ok := raw.(bool)
		if !ok {
			b, err = strconv.ParseBool(text)
		}
		target.SetBool(b)
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		var n int64
		n, err = strconv.ParseInt(whole(raw), 10, bits)
		target.SetInt(n)
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		var n uint64
		n, err = strconv.ParseUint(whole(raw), 10, bits)
		target.SetUint(n)
	case reflect.Float32, reflect.Float64:
		var x float64
		if _, isBool := raw.(bool); isBool {
			err = errors.New("no number")
		} else {
			x, err = strconv.ParseFloat(fmt.Sprint(raw), bits)
		}
		if math.IsNaN(x) || math.IsInf(x, 0) {
			err = errors.New("not finite")
		}
		target.SetFloat(x)
	default:
		err = errors.New("unlike")
	}
	if err != nil {
		return misfit(raw, target.Type())
	}
	return nil
}

// whole gives the digits of a whole number, also of one written as 1e6, and
// something that does not parse for anything else.
func whole(raw any) string {
	text := fmt.Sprint(raw)
	if _, err := strconv.ParseInt(text, 10, 64); err == nil {
		return text
	}
	x, err := strconv.ParseFloat(text, 64)
	if err != nil || x != math.Trunc(x) || math.Abs(x) > 1<<53 {
		return text
	}
	return strconv.FormatFloat(x, 'f', 0, 64)
}

func duration(raw any) (time.Duration, error) {
	switch raw := raw.(type) {
	case string:
		return time.ParseDuration(raw)
	case int:
		if raw == 0 {
			return 0, nil
		}
	}
	return 0, errors.New("no unit")
}

func assignMap(target, given reflect.Value) error {
	if given.Len() == 0 { // nil, as in a default that has no entries
		return nil
	}
	target.Set(reflect.MakeMapWithSize(target.Type(), given.Len()))
	for entry := given.MapRange(); entry.Next(); {
		name := fmt.Sprint(entry.Key().Interface())
		value := reflect.New(target.Type().Elem()).Elem()
		if err := assign(value, entry.Value().Interface()); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		target.SetMapIndex(reflect.ValueOf(name).Convert(target.Type().Key()), value)
	}
	return nil
}

func assignList(target, given reflect.Value) error {
	if given.Len() == 0 {
		return nil
	}
	target.Set(reflect.MakeSlice(target.Type(), given.Len(), given.Len()))
	for i := range given.Len() {
		if err := assign(target.Index(i), given.Index(i).Interface()); err != nil {
			return fmt.Errorf("entry %d: %w", i+1, err)
		}
	}
	return nil
}

func assignStruct(target, given reflect.Value) error {
	fields := list(target, "", false)
	for entry := given.MapRange(); entry.Next(); {
		field, rest, err := Find(fields, fmt.Sprint(entry.Key().Interface()))
		if err != nil || rest != "" {
			return err
		}
		if err := assign(field.Value, entry.Value().Interface()); err != nil {
			return fmt.Errorf("%s: %w", field.Name, err)
		}
	}
	return nil
}

func misfit(raw any, want reflect.Type) error {
	wanted := "a " + TypeName(want)
	switch {
	case want == durationType:
		wanted += " such as 30s or 5m"
	case want.Kind() == reflect.String, want.Kind() == reflect.Bool:
		wanted = TypeName(want)
	}
	return fmt.Errorf("got %s, want %s", describe(raw), wanted)
}

func describe(raw any) string {
	switch reflect.ValueOf(raw).Kind() {
	case reflect.Invalid:
		return "nothing"
	case reflect.String:
		return fmt.Sprintf("%q", raw)
	case reflect.Map:
		return "a map"
	case reflect.Slice:
		return "a list"
	}
	return fmt.Sprint(raw)
}

// TypeName says in words what values a type takes.
func TypeName(t reflect.Type) string {
	if t == durationType {
		return "duration"
	}
	switch t.Kind() {
	case reflect.String:
		return "text"
	case reflect.Bool:
		return "true or false"
	case reflect.Float32, reflect.Float64:
		return "number"
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return "whole number, 0 or more"
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return "whole number"
	case reflect.Slice:
		return "list"
	case reflect.Map:
		return "map of names, each to a " + TypeName(t.Elem())
	}
	return "section"
}
