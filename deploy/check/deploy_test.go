package check

import (
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

const (
	composeFile    = "../../docker-compose.yml"
	metricsPage    = "../../docs/metrics.md"
	operationsPage = "../../docs/operations.md"
	dashboardsPath = "../monitoring/grafana/dashboards"
	rulesFile      = "../monitoring/alerts.yml"
)

func unmarshal(text string, into any) error { return yaml.Unmarshal([]byte(text), into) }

func TestCompose(t *testing.T) {
	known := settings(t)
	for name, c := range map[string]struct{ files, variables []string }{
		"default": {[]string{composeFile}, nil},
		"llm":     {[]string{composeFile}, []string{"FORAGER_SETTINGS=deploy/settings.llm.env"}},
		"nats":    {[]string{composeFile, "../compose.nats.yml"}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			project, err := Compose(t.Context(), c.variables, c.files...)
			if err != nil {
				t.Fatal(err)
			}
			roles, network := ComposeRoles(project)
			if name == "nats" {
				network["nats"] = []int{4222}
			}
			for _, problem := range append(ComposeHygiene(project), Wiring(roles, network, known)...) {
				t.Error(problem)
			}
			for service, s := range project.Services {
				if !ours(s) {
					continue
				}
				for key := range s.Environment {
					if bad := Unknown(known, []string{key}); len(bad) > 0 {
						t.Errorf("%s: variable %s is no setting", service, key)
					}
				}
			}
			for _, service := range []string{"nats", "cluster-1", "cluster-2", "cluster-3", "replay", "rewardsrv", "retriever", "learner-1", "learner-2", "actor", "operator"} {
				if _, ok := project.Services[service]; !ok {
					t.Errorf("there is no service %s", service)
				}
			}
		})
	}
}

// Each planted mistake in docker-compose.yml is found.
func TestComposeMistakesAreFound(t *testing.T) {
	text, err := os.ReadFile(composeFile)
	if err != nil {
		t.Fatal(err)
	}
	known := settings(t)
	for name, c := range map[string]struct{ old, new, want string }{
		"root":        {`user: "65532:65532"`, `user: "0:0"`, "want a number that is not root's"},
		"writable":    {"read_only: true", "read_only: false", "may write to its root"},
		"published":   {"127.0.0.1:9464:9464", "9464:9464", "beyond this machine"},
		"credentials": {"certs-actor:/certs:ro", "certs-learner:/certs:ro", "does not have the credentials of actor"},
		"changed":     {"certs-actor:/certs:ro", "certs-actor:/certs", "may change its credentials"},
		"fixed name":  {"command: [actor]", "command: [actor]\n    container_name: actor", "cannot be scaled"},
		"setting":     {"FORAGER_ADMIN_LISTEN: 0", "FORAGER_ADMIN_LISTENS: 0", "FORAGER_ADMIN_LISTENS is no setting"},
		"voter":       {"cluster-3=cluster-3:7400", "cluster-4=cluster-4:7400", "is not among the voters"},
		"bus":         {"tls://nats:4222", "tls://bus:4222", "there is no host bus"},
		"unlimited":   {"mem_limit: 3g", "mem_reservation: 3g", "no limit of memory"},
		"latest":      {":-forager:dev}", ":-forager:latest}", "may be another one tomorrow"},
	} {
		t.Run(name, func(t *testing.T) {
			changed := strings.Replace(string(text), c.old, c.new, 1)
			if changed == string(text) {
				t.Fatalf("there is no %q any more", c.old)
			}
			folder := t.TempDir()
			if err := os.MkdirAll(filepath.Join(folder, "deploy"), 0o755); err != nil {
				t.Fatal(err)
			}
			for file, data := range map[string]string{"docker-compose.yml": changed, "deploy/settings.env": "FORAGER_LEARNER_STEPS=120\n"} {
				if err := os.WriteFile(filepath.Join(folder, file), []byte(data), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			project, err := Compose(t.Context(), nil, filepath.Join(folder, "docker-compose.yml"))
			if err != nil {
				t.Fatal(err)
			}
			roles, network := ComposeRoles(project)
			found := strings.Join(append(ComposeHygiene(project), Wiring(roles, network, known)...), "\n")
			if !strings.Contains(found, c.want) {
				t.Errorf("found %q, want %q in it", found, c.want)
			}
		})
	}
}

func TestAlertsAndDashboards(t *testing.T) {
	documented, err := Metrics(metricsPage)
	if err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile(operationsPage)
	if err != nil {
		t.Fatal(err)
	}
	alerts, err := Alerts(rulesFile)
	if err != nil {
		t.Fatal(err)
	}
	expressions := map[string][]string{}
	for _, a := range alerts {
		expressions["alert "+a.Name] = []string{a.Expression}
		if !strings.Contains(string(page), "\n### "+a.Name+"\n") {
			t.Errorf("docs/operations.md does not explain %s", a.Name)
		}
		if want := "docs/operations.md#" + strings.ToLower(a.Name); a.Runbook != want || a.Summary == "" {
			t.Errorf("%s: runbook is %q, want %q, and a summary", a.Name, a.Runbook, want)
		}
	}
	for _, heading := range regexp.MustCompile(`(?m)^### (Forager\w+)$`).FindAllStringSubmatch(string(page), -1) {
		if !slices.ContainsFunc(alerts, func(a Alert) bool { return a.Name == heading[1] }) {
			t.Errorf("docs/operations.md explains %s, which is no alert", heading[1])
		}
	}
	files, err := filepath.Glob(filepath.Join(dashboardsPath, "*.json"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no dashboards (%v)", err)
	}
	for _, file := range files {
		dashboard, err := ReadDashboard(file)
		if err != nil {
			t.Fatal(err)
		}
		if expressions[file], err = dashboard.Expressions(); err != nil {
			t.Errorf("%s: %v", file, err)
		}
		if dashboard.UID == "" || dashboard.Title == "" || len(expressions[file]) == 0 {
			t.Errorf("%s is not a dashboard: it has no uid, no title or no queries", file)
		}
	}
	for _, list := range objectsWithQueries(t) {
		maps.Copy(expressions, list)
	}
	for where, list := range expressions {
		for _, expression := range list {
			bad, err := Undocumented(expression, documented)
			if err != nil {
				t.Errorf("%s: %v", where, err)
			}
			for _, name := range bad {
				t.Errorf("%s: docs/metrics.md does not list %s", where, name)
			}
		}
	}
}

// objectsWithQueries gives the queries of the chart's autoscalers.
func objectsWithQueries(t *testing.T) (list []map[string][]string) {
	t.Helper()
	for _, o := range objects(t, "autoscaling: {kind: keda}") {
		if s, ok := o.Object.(*ScaledObject); ok {
			list = append(list, map[string][]string{o.String(): {s.Spec.Triggers[0].Metadata["query"]}})
		}
	}
	if len(list) != 1 {
		t.Errorf("%d autoscalers, want 1", len(list))
	}
	return list
}

func TestMetricNames(t *testing.T) {
	documented, err := Metrics(metricsPage)
	if err != nil {
		t.Fatal(err)
	}
	for expression, want := range map[string]string{
		"rate(forager_actor_group_duration_seconds_bucket[5m])": "",
		"forager_replay_lent_groups + forager_learner_em":       "",
		"forager_judge_tokens_total":                            "",
		"forager_learner_step":                                  "forager_learner_step", // numbers the lines, and is no gauge
		"sum(forager_replay_lent)":                              "forager_replay_lent",
		"up == 0":                                               "",
	} {
		bad, err := Undocumented(expression, documented)
		if err != nil || strings.Join(bad, " ") != want {
			t.Errorf("%s: got %v and %v, want %q", expression, bad, err, want)
		}
	}
	if _, err := Undocumented("sum(", documented); err == nil {
		t.Error("an expression that cannot be read is accepted")
	}
}

// Prometheus looks for hosts that the compose file has, on the admin port.
func TestScrapedHosts(t *testing.T) {
	var config struct {
		ScrapeConfigs []struct {
			DNS []struct {
				Names []string `json:"names"`
				Port  int      `json:"port"`
			} `json:"dns_sd_configs"`
		} `json:"scrape_configs"`
	}
	data, err := os.ReadFile("../monitoring/prometheus.yml")
	if err != nil {
		t.Fatal(err)
	}
	if err := unmarshal(string(data), &config); err != nil {
		t.Fatal(err)
	}
	project, err := Compose(t.Context(), nil, composeFile)
	if err != nil {
		t.Fatal(err)
	}
	_, network := ComposeRoles(project)
	scraped := map[string]bool{}
	for _, s := range config.ScrapeConfigs {
		for _, d := range s.DNS {
			for _, host := range d.Names {
				scraped[host] = true
				if !slices.Contains(network[host], d.Port) {
					t.Errorf("%s has no port %d", host, d.Port)
				}
			}
		}
	}
	for host, ports := range network {
		if slices.Contains(ports, 9464) && !scraped[host] && host != "operator" {
			t.Errorf("nobody reads the metrics of %s", host)
		}
	}
}
