// Package archtest keeps the import graph as docs/architecture.md draws it. The
// two tables below are the rule; everything else reads the graph and compares.
package archtest

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/forager-rl/forager"

// layers names, for every package, the packages of this module that it may
// import. Lower layers never import higher ones, and packages of layer 2 never
// import each other.
var layers = map[string][]string{
	// 0: the vocabulary, and how files are written
	".":                  {},
	"internal/spans":     {"."},
	"internal/realdata":  {},
	"internal/wholefile": {},

	// 1: one concern each
	"batch":                {".", "internal/wholefile"},
	"bus":                  {".", "internal/spans"},
	"cluster":              {"."},
	"rundir":               {".", "internal/wholefile"},
	"security":             {".", "internal/wholefile"},
	"tracing":              {},
	"tracing/tracetest":    {},
	"reward":               {"."},
	"policy":               {"."},
	"policy/chat":          {".", "policy", "policy/tokenizer"},
	"policy/tokenizer":     {".", "internal/wholefile", "policy"},
	"policy/internal/half": {},
	"policy/gguf":          {".", "policy/internal/half"},
	"policy/safetensors":   {".", "internal/wholefile", "policy/internal/half"},
	"policy/lm":            {".", "policy", "policy/gguf", "policy/lm/kernel", "policy/safetensors"},
	"policy/lm/kernel":     {},
	"policy/builtin":       {".", "policy/lm", "policy/tokenizer"},
	"policy/remote":        {".", "policy"},
	"search":               {".", "internal/wholefile"},
	"search/protocol":      {"."},
	"search/worldfacts":    {"."},

	// 2: the services
	"actor":                     {".", "internal/spans", "policy", "reward", "search", "search/protocol"},
	"rewardsrv":                 {".", "internal/spans", "reward", "rewardsrv/judge", "rewardsrv/labelstore", "rewardsrv/rewardmodel", "rewardsrv/rubric"},
	"rewardsrv/audit":           {".", "internal/wholefile", "reward", "rewardsrv/rubric"},
	"rewardsrv/judge":           {"."},
	"rewardsrv/judge/judgetest": {},
	"rewardsrv/labelstore":      {"."},
	"rewardsrv/rewardmodel":     {"."},
	"rewardsrv/rubric":          {".", "reward"},
	"rewardsrv/rubric/attack":   {},
	"replay":                    {".", "internal/spans", "batch"},
	"replay/flight":             {".", "batch"},
	"eval":                      {".", "reward"},
	"learner":                   {".", "internal/spans"},
	"learner/rlmath":            {},
	"learner/grpo":              {".", "learner", "learner/rlmath"},

	// 3: what puts them together
	"node": {
		".", "internal/wholefile", "batch", "bus", "cluster", "rundir", "reward", "policy", "policy/builtin", "policy/chat", "policy/gguf", "policy/lm", "policy/remote", "policy/tokenizer",
		"search", "search/worldfacts", "security", "tracing", "actor", "rewardsrv", "rewardsrv/labelstore", "rewardsrv/rewardmodel", "replay", "replay/flight", "eval", "learner", "learner/grpo", "warmstart",
	},
	"warmstart": {".", "actor", "policy", "policy/lm", "policy/tokenizer", "search", "search/worldfacts"},

	// 4: the command
	"cmd/forager":                            {"*"},
	"cmd/forager/internal/settings":          {},
	"cmd/forager/internal/settings/generate": {"cmd/forager/internal/settings", "node", "warmstart"},

	// 4: our sides of the peer comparisons
	"bench/cluster":   {".", "actor", "batch", "bus", "cluster", "learner", "policy", "replay", "search"},
	"bench/chaos":     {".", "batch", "learner", "replay", "rundir"},
	"bench/distill":   {".", "rewardsrv", "rewardsrv/rewardmodel", "rewardsrv/rubric", "rundir", "search", "search/protocol"},
	"bench/logits":    {"policy/gguf", "policy/lm", "policy/tokenizer"},
	"bench/native":    {"policy", "policy/lm", "policy/lm/kernel"},
	"bench/rewardsrv": {"rundir"},
	"bench/tokens":    {"policy", "policy/chat", "policy/gguf", "policy/tokenizer"},

	// tests alone
	"internal/archtest": {},
}

// owners names third-party modules and the only packages that may import them.
var owners = map[string][]string{
	"github.com/apache/arrow/go":          {"batch", "replay/flight"},
	"github.com/nats-io/nats-server":      {"bus"},
	"github.com/nats-io/nats.go":          {"bus"},
	"github.com/nats-io/nkeys":            {"bus", "security"},
	"github.com/hashicorp/raft":           {"cluster"},
	"github.com/hashicorp/raft-boltdb":    {"cluster"},
	"github.com/hashicorp/go-hclog":       {"cluster"},
	"go.etcd.io/bbolt":                    {"cluster", "rewardsrv/labelstore"},
	"github.com/gofrs/flock":              {"rundir"},
	"golang.org/x/sys/cpu":                {"policy/lm/kernel"},
	"golang.org/x/text/unicode/norm":      {"policy/tokenizer", "rewardsrv/rubric"},
	"github.com/nikolalohinski/gonja":     {"policy/chat"},
	"github.com/blevesearch":              {"search"},
	"github.com/hashicorp/golang-lru":     {"search", "rewardsrv"},
	"github.com/pariz/gountries":          {"search/worldfacts"},
	"github.com/openai/openai-go":         {"rewardsrv/judge"},
	"github.com/sony/gobreaker":           {"policy/remote", "rewardsrv/judge"},
	"github.com/prometheus/client_golang": {"search", "actor", "rewardsrv", "rewardsrv/judge", "replay", "replay/flight", "tracing", "node", "bench/cluster"},
	"github.com/spf13/cobra":              {"cmd/forager"},
	"github.com/spf13/viper":              {"cmd/forager"},
	"github.com/schollz/progressbar":      {"cmd/forager"},
	"github.com/fatih/color":              {"cmd/forager"},
	"github.com/agnivade/levenshtein":     {"cmd/forager", "cmd/forager/internal/settings", "rewardsrv/rubric"},
	"go.yaml.in/yaml":                     {"rewardsrv/rubric"},

	// All but the API of OpenTelemetry is in one package. The module's root, which
	// sets what is global, is nobody's.
	"go.opentelemetry.io/otel/attribute":   {"tracing", "actor", "learner", "replay", "rewardsrv"},
	"go.opentelemetry.io/otel/codes":       {"internal/spans"},
	"go.opentelemetry.io/otel/exporters":   {"tracing"},
	"go.opentelemetry.io/otel/propagation": {"bus", "internal/spans"},
	"go.opentelemetry.io/otel/sdk":         {"tracing"},
	"go.opentelemetry.io/otel/trace":       {"tracing", "internal/spans", "actor", "learner", "replay", "rewardsrv", "node"},
	"go.opentelemetry.io/proto/otlp":       {"tracing/tracetest"},
	"google.golang.org/grpc":               {"replay/flight"},
	"google.golang.org/protobuf":           {"tracing/tracetest"},
}

// pkg is what "go list" says of one package. Imports of tests are left out:
// tests may use what they like.
type pkg struct {
	ImportPath string
	Imports    []string
}

func TestImportsFollowTheLayers(t *testing.T) {
	cmd := exec.Command("go", "list", "-json=ImportPath,Imports", "./...")
	cmd.Dir = "../.."
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var all []pkg
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p pkg
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
	for _, v := range violations(all, layers, owners) {
		t.Error(v)
	}
}

// violations compares the packages with the tables, both ways.
func violations(all []pkg, layers, owners map[string][]string) []string {
	var bad []string
	report := func(format string, args ...any) { bad = append(bad, fmt.Sprintf(format, args...)) }
	seen, used := make(map[string]bool), make(map[string]bool)
	for _, p := range all {
		name, _ := local(p.ImportPath)
		seen[name] = true
		allowed, listed := layers[name]
		if !listed {
			report("%s is in no layer: add it to layers and to docs/architecture.md", name)
			continue
		}
		for _, imported := range p.Imports {
			dep, ours := local(imported)
			switch {
			case ours && !slices.Contains(allowed, dep) && !slices.Contains(allowed, "*"):
				report("%s imports %s, which its layer does not allow", name, dep)
			case ours || standard(imported):
			default:
				library := owned(imported, owners)
				used[library] = true
				if library == "" {
					report("%s imports %s, which nobody owns: add it to owners", name, imported)
				} else if !slices.Contains(owners[library], name) {
					report("%s imports %s; only %s may", name, imported, strings.Join(owners[library], ", "))
				}
			}
		}
	}
	for name := range layers {
		if !seen[name] {
			report("layers names %s, which does not exist", name)
		}
	}
	for library := range owners {
		if !used[library] {
			report("owners names %s, which nobody imports", library)
		}
	}
	slices.Sort(bad)
	return bad
}

// local gives the path of a package inside this module, "." for the root.
func local(path string) (name string, ours bool) {
	if path == module {
		return ".", true
	}
	return strings.CutPrefix(path, module+"/")
}

func standard(path string) bool {
	first, _, _ := strings.Cut(path, "/")
	return !strings.Contains(first, ".")
}

// owned finds the entry of owners that a package belongs to, "" for none.
func owned(path string, owners map[string][]string) string {
	for library := range owners {
		if path == library || strings.HasPrefix(path, library+"/") {
			return library
		}
	}
	return ""
}

// The check itself: each planted mistake is found, a clean graph passes.
func TestViolations(t *testing.T) {
	table := map[string][]string{".": {}, "low": {"."}, "high": {".", "low"}}
	libraries := map[string][]string{"example.com/bus": {"low"}}
	graph := func(edit func(map[string][]string)) []pkg {
		imports := map[string][]string{
			"":      {"fmt"},
			"/low":  {module, "example.com/bus/v2"},
			"/high": {module + "/low", "net/http"},
		}
		edit(imports)
		var all []pkg
		for path, list := range imports {
			all = append(all, pkg{module + path, list})
		}
		return all
	}
	for name, c := range map[string]struct {
		edit func(map[string][]string)
		want string
	}{
		"clean":             {func(map[string][]string) {}, ""},
		"upwards":           {func(g map[string][]string) { g["/low"] = append(g["/low"], module+"/high") }, "low imports high, which its layer does not allow"},
		"root imports":      {func(g map[string][]string) { g[""] = []string{module + "/low"} }, ". imports low, which its layer does not allow"},
		"root third party":  {func(g map[string][]string) { g[""] = []string{"example.com/bus"} }, ". imports example.com/bus; only low may"},
		"not the owner":     {func(g map[string][]string) { g["/high"] = []string{"example.com/bus"} }, "high imports example.com/bus; only low may"},
		"nobody's library":  {func(g map[string][]string) { g["/high"] = []string{"example.com/new"} }, "high imports example.com/new, which nobody owns: add it to owners"},
		"similar name":      {func(g map[string][]string) { g["/low"] = append(g["/low"], "example.com/busy") }, "low imports example.com/busy, which nobody owns: add it to owners"},
		"unlisted package":  {func(g map[string][]string) { g["/new"] = nil }, "new is in no layer: add it to layers and to docs/architecture.md"},
		"stale layer entry": {func(g map[string][]string) { delete(g, "/high") }, "layers names high, which does not exist"},
		"stale owner entry": {func(g map[string][]string) { g["/low"] = nil }, "owners names example.com/bus, which nobody imports"},
	} {
		t.Run(name, func(t *testing.T) {
			got := strings.Join(violations(graph(c.edit), table, libraries), "\n")
			if got != c.want {
				t.Errorf("got  %q\nwant %q", got, c.want)
			}
		})
	}
}
