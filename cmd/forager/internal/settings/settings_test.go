package settings

import (
	"math"
	"reflect"
	"strings"
	"testing"
	"time"
)

type part struct {
	Size int `mapstructure:"size"`
}

type base struct {
	Count int `mapstructure:"count"`
}

type tree struct {
	base    `mapstructure:",squash"`
	Name    string             `mapstructure:"name"`
	Wait    time.Duration      `mapstructure:"wait"`
	On      bool               `mapstructure:"on"`
	Rate    float32            `mapstructure:"rate"`
	Seed    uint64             `mapstructure:"seed"`
	Small   int8               `mapstructure:"small"`
	Weights map[string]float64 `mapstructure:"weights"`
	Parts   []part             `mapstructure:"parts"`
	Sub     part               `mapstructure:"sub"`
	Hidden  int                `mapstructure:"-"`
	Untold  int
}

func TestList(t *testing.T) {
	var names []string
	for _, s := range List(&tree{}) {
		names = append(names, s.Name)
	}
	got := strings.Join(names, " ")
	want := "count name wait on rate seed small weights parts parts[].size sub sub.size"
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestAssign(t *testing.T) {
	for _, c := range []struct {
		key  string
		raw  any
		want any // a string is the end of the error
	}{
		{"name", "x", "=x"},
		{"name", 7, "=7"},
		{"name", []any{1}, "got a list, want text"},
		{"wait", "90s", 90 * time.Second},
		{"wait", 0, time.Duration(0)},
		{"wait", 30, "got 30, want a duration such as 30s or 5m"},
		{"wait", 1.5, "got 1.5, want a duration such as 30s or 5m"},
		{"on", true, true},
		{"on", "false", false},
		{"on", 2, "got 2, want true or false"},
		{"rate", 1, float32(1)},
		{"rate", "1e-5", float32(1e-5)},
		{"rate", true, "got true, want a number"},
		{"rate", math.NaN(), "got NaN, want a number"},
		{"rate", "x", `got "x", want a number`},
		{"seed", "18446744073709551615", uint64(math.MaxUint64)},
		{"seed", uint64(math.MaxUint64), uint64(math.MaxUint64)},
		{"seed", -1, "got -1, want a whole number, 0 or more"},
		{"small", 1e2, int8(100)},
		{"small", 300, "got 300, want a whole number"},
		{"small", 2.5, "got 2.5, want a whole number"},
		{"small", nil, "got nothing, want a whole number"},
		{"small", true, "got true, want a whole number"},
		{"weights", map[string]any{"em": 1, "f1": "0.5"}, map[string]float64{"em": 1, "f1": 0.5}},
		{"weights", map[string]any{"em": "x"}, `em: got "x", want a number`},
		{"weights", 3, "got 3, want a map of names, each to a number"},
		{"weights", map[string]any{}, map[string]float64(nil)},
		{"parts", []any{map[string]any{"size": 3}}, []part{{3}}},
		{"parts", []any{map[string]any{"siez": 3}}, `entry 1: unknown key "siez"; did you mean "size"?`},
	} {
		config := &tree{Small: 1}
		s, _, err := Find(List(config), c.key)
		if err != nil {
			t.Fatal(err)
		}
		before := s.Value.Interface()
		err = Assign(s.Value, c.raw)
		want, isText := c.want.(string)
		switch {
		case isText && strings.HasPrefix(want, "="):
			if s.Value.String() != want[1:] {
				t.Errorf("%s = %v: got %v, want %s", c.key, c.raw, s.Value, want)
			}
		case isText:
			if err == nil || err.Error() != want {
				t.Errorf("%s = %v: got error %v, want %s", c.key, c.raw, err, want)
			}
			if !reflect.DeepEqual(before, s.Value.Interface()) {
				t.Errorf("%s = %v: the old value is gone", c.key, c.raw)
			}
		case err != nil || !reflect.DeepEqual(s.Value.Interface(), c.want):
			t.Errorf("%s = %v: got %v, %v, want %v", c.key, c.raw, s.Value, err, c.want)
		}
	}
}

func TestFind(t *testing.T) {
	all := List(&tree{})
	for name, want := range map[string]string{
		"waights":    `unknown key "waights"; did you mean "weights"?`,
		"sub":        `"sub" is a section, not a setting; did you mean "sub.size"?`,
		"parts.size": `unknown key "parts.size"; did you mean "parts"?`,
		"hidden":     `unknown key "hidden"; did you mean "name"?`,
	} {
		if _, _, err := Find(all, name); err == nil || err.Error() != want {
			t.Errorf("%s: got %v, want %s", name, err, want)
		}
	}
	s, rest, err := Find(all, "weights.em")
	if err != nil || s.Name != "weights" || rest != "em" {
		t.Errorf("weights.em: got %s, %q, %v", s.Name, rest, err)
	}
}

func TestText(t *testing.T) {
	for want, v := range map[string]any{
		`""`: "", "plain/path.yaml": "plain/path.yaml", `"true"`: "true", `"12"`: "12", `"a b"`: "a b", `"x: #\n"`: "x: #\n",
		"5m": 5 * time.Minute, "1h": time.Hour, "1h5m": 65 * time.Minute, "1m30s": 90 * time.Second, "0s": time.Duration(0), "10s": 10 * time.Second,
		"0.00012": 1.2e-4, "0.9": float32(0.9), "{a: 1, b: 2}": map[string]float64{"b": 2, "a": 1}, "{}": map[string]float64(nil),
		"[{size: 1}]": []part{{1}},
	} {
		if got := Text(reflect.ValueOf(v)); got != want {
			t.Errorf("%v: got %s, want %s", v, got, want)
		}
	}
}
