package main

import (
	"fmt"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
)

// shortcut is a flag that stands for a setting.
type shortcut struct{ flag, key, usage string }

// settingFlags gives a command --config, --set and some shortcuts. The returned
// function resolves the settings once the flags are parsed; base, if not empty,
// is a settings file that lies below --config.
func settingFlags(cmd *cobra.Command, shortcuts ...shortcut) func(base string) (config, error) {
	flags := cmd.Flags()
	file := flags.StringP("config", "c", "", "read settings from this YAML `file`")
	sets := flags.StringArray("set", nil, "give any setting as `key=value`, such as learner.lag=2; may be repeated")
	for _, s := range shortcuts {
		flags.String(s.flag, "", fmt.Sprintf("%s (setting %s)", s.usage, s.key))
	}
	return func(base string) (config, error) {
		var from sources
		for _, name := range []string{base, *file} {
			if name != "" {
				from.files = append(from.files, name)
			}
		}
		for _, set := range *sets {
			key, value, ok := strings.Cut(set, "=")
			if !ok {
				return config{}, usageError{fmt.Errorf("--set %s: want key=value, such as learner.lag=2", set)}
			}
			from.overrides = append(from.overrides, override{key: key, value: value, flag: "--set"})
		}
		for _, s := range shortcuts {
			if f := flags.Lookup(s.flag); f.Changed {
				from.overrides = append(from.overrides, override{key: s.key, value: f.Value.String(), flag: "--" + s.flag})
			}
		}
		return from.load()
	}
}

// runConfig is the settings file of a run directory, "" for no directory.
func runConfig(runDir string) string {
	if runDir == "" {
		return ""
	}
	return filepath.Join(runDir, "config.yaml")
}
