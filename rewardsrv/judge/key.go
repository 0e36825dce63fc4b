package judge

import (
	"fmt"
	"os"
	"strings"
)

// keySource is where an endpoint's API key comes from. The key itself is kept
// nowhere.
type keySource struct{ env, file string }

// read gives the key, "" for none.
func (k keySource) read() (string, error) {
	if k.file != "" {
		raw, err := os.ReadFile(k.file)
		if err != nil {
			return "", fmt.Errorf("read the API key: %w", err)
		}
		return strings.TrimSpace(string(raw)), nil
	}
	if k.env != "" {
		return strings.TrimSpace(os.Getenv(k.env)), nil
	}
	return "", nil
}

// advice names the setting to change when an endpoint refuses the key.
func (k keySource) advice() string {
	switch {
	case k.file != "":
		return "put a valid key into " + k.file + " (api_key_file)"
	case k.env == "":
		return "set api_key_env or api_key_file of this endpoint"
	case os.Getenv(k.env) == "":
		return "set the variable " + k.env + " (api_key_env), which is empty"
	}
	return "put a valid key into the variable " + k.env + " (api_key_env) and restart, or use api_key_file"
}
