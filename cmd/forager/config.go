package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"

	"github.com/agnivade/levenshtein"
	"github.com/spf13/viper"

	"github.com/forager-rl/forager"
	"github.com/forager-rl/forager/cmd/forager/internal/settings"
	"github.com/forager-rl/forager/node"
	"github.com/forager-rl/forager/warmstart"
)

//go:generate go run ./internal/settings/generate
//go:generate go run . config docs --out ../../docs/configuration.md

// config is every setting of every command, so that one file serves them all.
type config struct {
	node.Config `mapstructure:",squash"`
	Warmstart   warmstart.Config `mapstructure:"warmstart"`
}

func defaultConfig() config {
	return config{Config: node.DefaultConfig(), Warmstart: warmstart.DefaultConfig()}
}

// override is a setting given on the command line.
type override struct {
	key, value string
	flag       string // what the user typed, "--steps" or "--set"
}

// sources says where settings come from, in rising order of precedence: the
// defaults, the files in order, the environment, the overrides.
type sources struct {
	files     []string
	overrides []override
}

const envPrefix = "FORAGER"

// envName is the environment variable of a setting.
func envName(key string) string {
	return envPrefix + "_" + strings.ToUpper(strings.ReplaceAll(key, ".", "_"))
}

// load resolves the settings. Whatever it cannot understand is an error that
// names the setting and where it was given.
//
// Viper decides which source wins; the values are stored by package settings,
// whose conversions lose nothing silently. Variables are bound one by one,
// because with AutomaticEnv a variable named like a section would hide the
// whole section.
func (s sources) load() (config, error) {
	c := defaultConfig()
	all := settings.List(&c)
	v := viper.New()
	v.SetEnvPrefix(envPrefix)
	v.SetEnvKeyReplacer(strings.NewReplacer(".", "_"))
	for _, setting := range all {
		if setting.Kind != settings.Value {
			continue
		}
		v.SetDefault(setting.Name, setting.Value.Interface())
		if err := v.BindEnv(setting.Name); err != nil {
			return c, err
		}
	}
	given := make(map[string]string) // the last file that gives a key
	for _, file := range s.files {
		if err := s.readFile(v, all, file, given); err != nil {
			return c, err
		}
	}
	if err := checkEnvironment(all, os.Environ()); err != nil {
		return c, err
	}
	for _, o := range s.overrides {
		if err := applyOverride(v, all, o); err != nil {
			return c, err
		}
	}
	for _, setting := range all {
		if setting.Kind != settings.Value {
			continue
		}
		raw, err := structured(setting, v.Get(setting.Name))
		if err == nil {
			err = settings.Assign(setting.Value, raw)
		}
		if err != nil {
			return c, s.blame(setting.Name, given, err)
		}
	}
	return c, nil
}

// readFile merges a YAML file into v. It is read on its own first, because
// viper does not tell unknown keys from known ones.
func (s sources) readFile(v *viper.Viper, all []settings.Setting, file string, given map[string]string) error {
	name := filepath.Base(file)
	alone := viper.New()
	for _, one := range []*viper.Viper{alone, v} {
		one.SetConfigFile(file)
		one.SetConfigType("yaml")
		err := one.MergeInConfig()
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return forager.WithHint(fmt.Errorf("%s: no such file", file), `"forager config show > forager.yaml" writes one with all defaults`)
		case errors.As(err, new(viper.ConfigParseError)):
			return fmt.Errorf("%s: not YAML: %w", name, errors.Unwrap(err))
		case err != nil:
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	for _, key := range alone.AllKeys() {
		if alone.Get(key) == nil && strings.Contains(sectionNames(all), " "+key+" ") {
			continue // a section whose lines are all commented out
		}
		setting, _, err := settings.Find(all, key)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		given[setting.Name] = name
	}
	return nil
}

func sectionNames(all []settings.Setting) string {
	names := " "
	for _, s := range all {
		if s.Kind == settings.Section {
			names += s.Name + " "
		}
	}
	return names
}

// applyOverride sets a key. One entry of a map joins the others.
func applyOverride(v *viper.Viper, all []settings.Setting, o override) error {
	key := strings.ToLower(o.key)
	setting, entry, err := settings.Find(all, key)
	if err != nil {
		return usageError{fmt.Errorf("%s: %w", o.flag, err)}
	}
	if entry == "" {
		v.Set(key, o.value)
		return nil
	}
	old, err := structured(setting, v.Get(setting.Name))
	if err != nil {
		return err
	}
	merged := map[string]any{}
	for m := reflect.ValueOf(old).MapRange(); m.Next(); {
		merged[fmt.Sprint(m.Key().Interface())] = m.Value().Interface()
	}
	if merged[entry], err = yamlValue(o.value); err != nil {
		return usageError{fmt.Errorf("%s %s: %w", o.flag, key, err)}
	}
	v.Set(setting.Name, merged)
	return nil
}

// structured reads the text that an environment variable or a flag gives for a
// map or a list as YAML, such as {em: 1, f1: 0.5}.
func structured(s settings.Setting, raw any) (any, error) {
	text, isText := raw.(string)
	if kind := s.Value.Kind(); !isText || (kind != reflect.Map && kind != reflect.Slice) {
		return raw, nil
	}
	return yamlValue(text)
}

func yamlValue(text string) (any, error) {
	v := viper.New()
	v.SetConfigType("yaml")
	if err := v.ReadConfig(strings.NewReader("value: " + text)); err != nil {
		return nil, fmt.Errorf("%q is no YAML value", text)
	}
	return v.Get("value"), nil
}

// blame adds to an error the setting and where its value was given.
func (s sources) blame(key string, given map[string]string, err error) error {
	for i := len(s.overrides) - 1; i >= 0; i-- {
		o := s.overrides[i]
		name := strings.ToLower(o.key)
		switch {
		case name != key && !strings.HasPrefix(name, key+"."):
		case o.flag == "--set":
			return usageError{fmt.Errorf("--set %s: %w", name, err)}
		default:
			return usageError{fmt.Errorf("%s: %w", o.flag, err)}
		}
	}
	if os.Getenv(envName(key)) != "" {
		return fmt.Errorf("environment variable %s: %w", envName(key), err)
	}
	return fmt.Errorf("%s: %s: %w", given[key], key, err)
}

var variable = regexp.MustCompile(`^` + envPrefix + `_[A-Z0-9_]+$`)

// checkEnvironment finds variables that are most likely a mistyped setting.
// Others are left alone: schedulers and tests have FORAGER_ variables too.
func checkEnvironment(all []settings.Setting, environment []string) error {
	var names []string
	known := make(map[string]bool)
	for _, s := range all {
		if s.Kind == settings.Value {
			names = append(names, envName(s.Name))
			known[envName(s.Name)] = true
		}
	}
	for _, line := range environment {
		name, _, _ := strings.Cut(line, "=")
		if !variable.MatchString(name) || known[name] {
			continue
		}
		if near := settings.Nearest(names, name); levenshtein.ComputeDistance(name, near) <= 2 {
			return fmt.Errorf("environment variable %s is no setting; did you mean %s?", name, near)
		}
	}
	return nil
}
