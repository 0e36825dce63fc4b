package check

import (
	"fmt"
	"os"
	"regexp"
	"strings"
)

var documentedKey = regexp.MustCompile("(?m)^\\| `([a-z0-9_.]+)` \\|")

// Settings gives the environment variables of all settings, as docs/configuration.md
// lists them.
func Settings(path string) (map[string]bool, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	names := map[string]bool{}
	for _, match := range documentedKey.FindAllStringSubmatch(string(text), -1) {
		names["FORAGER_"+strings.ToUpper(strings.ReplaceAll(match[1], ".", "_"))] = true
	}
	if len(names) == 0 {
		return nil, fmt.Errorf("%s lists no settings", path)
	}
	return names, nil
}

// Unknown gives those names of variables that would be read as settings and are none.
func Unknown(settings map[string]bool, names []string) (bad []string) {
	for _, name := range names {
		if strings.HasPrefix(name, "FORAGER_") && !settings[name] {
			bad = append(bad, name)
		}
	}
	return bad
}
