package check

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql/parser"
)

var (
	documentedMetric = regexp.MustCompile("`(forager_[a-z0-9_]+|_[a-z0-9_]+)(?:\\{[a-z_,]*\\})?`")
	documentedField  = regexp.MustCompile("(?m)^\\| (`[a-z_]+`(?:, `[a-z_]+`)*) \\|")
	variable         = regexp.MustCompile(`\$\{?(\w+)\}?`)
)

// Metrics gives the names that docs/metrics.md lists. There "_b_total" after
// "forager_x_a" stands for forager_x_b_total, and forager_learner_NAME for every
// field of metrics.jsonl.
func Metrics(path string) (map[string]bool, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	fields, tables, found := strings.Cut(string(data), "\n## Prometheus")
	if !found {
		return nil, fmt.Errorf("%s has no section Prometheus", path)
	}
	names := map[string]bool{}
	for line := range strings.Lines(tables) {
		prefix := ""
		for _, match := range documentedMetric.FindAllStringSubmatch(line, -1) {
			name := match[1]
			if strings.HasPrefix(name, "_") {
				name = prefix + name
			} else if words := strings.SplitN(name, "_", 3); len(words) > 2 {
				prefix = words[0] + "_" + words[1]
			}
			names[name] = true
		}
	}
	for _, match := range documentedField.FindAllStringSubmatch(fields, -1) {
		for _, field := range strings.Split(match[1], ", ") {
			if field = strings.Trim(field, "`"); field != "step" { // it numbers the others
				names["forager_learner_"+field] = true
			}
		}
	}
	return names, nil
}

// alwaysThere are the metrics that every scraped process has.
func alwaysThere(name string) bool {
	return name == "up" || name == "ALERTS" || strings.HasPrefix(name, "go_") || strings.HasPrefix(name, "process_")
}

// Undocumented gives the metrics of an expression that docs/metrics.md does not
// list; series of histograms are known by the histogram's name.
func Undocumented(expression string, documented map[string]bool) (bad []string, err error) {
	parsed, err := parser.NewParser(parser.Options{}).ParseExpr(expression)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", expression, err)
	}
	parser.Inspect(parsed, func(node parser.Node, _ []parser.Node) error {
		selector, ok := node.(*parser.VectorSelector)
		if !ok {
			return nil
		}
		name := selector.Name
		base := name
		for _, suffix := range []string{"_bucket", "_sum", "_count"} {
			base = strings.TrimSuffix(base, suffix)
		}
		if !documented[name] && !documented[base] && !alwaysThere(name) {
			bad = append(bad, name)
		}
		return nil
	})
	return bad, nil
}

// Alert is one alert rule.
type Alert struct{ Name, Expression, Runbook, Summary string }

// Alerts reads a rule file of Prometheus, strictly.
func Alerts(path string) ([]Alert, error) {
	groups, errs := rulefmt.ParseFile(path, false, model.UTF8Validation, parser.NewParser(parser.Options{}), slog.New(slog.DiscardHandler))
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	var list []Alert
	for _, g := range groups.Groups {
		for _, r := range g.Rules {
			if r.Alert != "" {
				list = append(list, Alert{Name: r.Alert, Expression: r.Expr, Runbook: r.Annotations["runbook"], Summary: r.Annotations["summary"]})
			}
		}
	}
	return list, nil
}

// Dashboard is what is checked of a Grafana dashboard.
type Dashboard struct {
	UID    string  `json:"uid"`
	Title  string  `json:"title"`
	Panels []Panel `json:"panels"`
}

// Panel is a panel, or a row of them.
type Panel struct {
	ID      int    `json:"id"`
	Title   string `json:"title"`
	Type    string `json:"type"`
	GridPos struct {
		X, Y, W, H int
	} `json:"gridPos"`
	Targets []struct {
		Expr string `json:"expr"`
	} `json:"targets"`
	Panels []Panel `json:"panels"`
}

// Expressions gives the queries of a dashboard with variables replaced. Panels
// that overlap, or share an id, are errors.
func (d Dashboard) Expressions() (list []string, err error) {
	var flat []Panel
	for _, p := range d.Panels {
		flat = append(append(flat, p), p.Panels...)
	}
	for i, p := range flat {
		if p.Type != "row" && len(p.Targets) == 0 {
			return nil, fmt.Errorf("panel %q asks nothing", p.Title)
		}
		for _, q := range flat[:i] {
			if p.ID == q.ID {
				return nil, fmt.Errorf("panels %q and %q have one id", q.Title, p.Title)
			}
			a, b := p.GridPos, q.GridPos
			if a.X < b.X+b.W && b.X < a.X+a.W && a.Y < b.Y+b.H && b.Y < a.Y+a.H {
				return nil, fmt.Errorf("panels %q and %q overlap", q.Title, p.Title)
			}
		}
		for _, t := range p.Targets {
			list = append(list, variable.ReplaceAllStringFunc(t.Expr, func(name string) string {
				if slices.Contains([]string{"$__rate_interval", "$__interval", "$__range"}, name) {
					return "5m"
				}
				return "x"
			}))
		}
	}
	return list, nil
}

// ReadDashboard reads a dashboard from its JSON.
func ReadDashboard(path string) (d Dashboard, err error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return d, err
	}
	if err := json.Unmarshal(data, &d); err != nil {
		return d, fmt.Errorf("%s: %w", path, err)
	}
	return d, nil
}
