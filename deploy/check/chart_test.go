package check

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"helm.sh/helm/v3/pkg/lint"
	"helm.sh/helm/v3/pkg/lint/support"
)

const (
	chartFolder   = "../helm/forager"
	configuration = "../../docs/configuration.md"
)

// outside is what the chart does not make: docs/operations.md says who does.
var outside = []string{
	"Secret forager-nats", "Secret forager-cluster", "Secret forager-replay", "Secret forager-rewardsrv", "Secret forager-retriever",
	"Secret forager-learner", "Secret forager-actor", "Secret forager-operator",
	"PersistentVolumeClaim models", "PersistentVolumeClaim runs",
}

// valueSets are the values that the chart is tried with, by name.
func valueSets(t *testing.T) map[string]string {
	t.Helper()
	sets := map[string]string{"default": ""}
	files, err := filepath.Glob("testdata/values/*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range append(files, filepath.Join(chartFolder, "values-vllm.yaml")) {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		sets[strings.TrimSuffix(filepath.Base(file), ".yaml")] = string(data)
	}
	return sets
}

func objects(t *testing.T, values string) []Object {
	t.Helper()
	manifests, err := Render(chartFolder, values)
	if err != nil {
		t.Fatal(err)
	}
	list, err := Objects(manifests)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func settings(t *testing.T) map[string]bool {
	t.Helper()
	names, err := Settings(configuration)
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func TestChart(t *testing.T) {
	known := settings(t)
	for name, values := range valueSets(t) {
		t.Run(name, func(t *testing.T) {
			list := objects(t, values)
			bad := append(Hygiene(list), References(list, outside)...)
			roles, network := KubernetesRoles(list)
			network["nats.messaging"] = []int{4222} // of external.yaml
			for _, problem := range append(bad, Wiring(roles, network, known)...) {
				t.Error(problem)
			}
			if count := len(list); count < 20 {
				t.Errorf("%d objects were rendered, which cannot be all", count)
			}
		})
	}
}

func TestChartLint(t *testing.T) {
	for name, values := range valueSets(t) {
		given := map[string]any{}
		if err := unmarshal(values, &given); err != nil {
			t.Fatal(err)
		}
		result := lint.AllWithKubeVersion(chartFolder, given, Release.Namespace, nil)
		for _, m := range result.Messages {
			if m.Severity > support.InfoSev {
				t.Errorf("%s: %s", name, m)
			}
		}
	}
}

func TestValuesAreRefused(t *testing.T) {
	for name, c := range map[string]struct{ values, want string }{
		"unknown key":        {"actors: {}", "actors"},
		"an even number":     {"cluster: {replicas: 2}", "replicas"},
		"latest":             {"image: {tag: latest}", "tag"},
		"latest vllm":        {"vllm: {image: 'vllm/vllm-openai:latest'}", "image"},
		"no tag":             {"vllm: {image: vllm/vllm-openai}", "image"},
		"chart's own":        {"settings: {bus.url: 'nats://elsewhere:4222'}", "bus.url"},
		"model without name": {"vllm: {enabled: true}", "vllm.modelClaim"},
		"both scalers":       {"autoscaling: {kind: both}", "kind"},
		"soon killed":        {"terminationGracePeriodSeconds: 10", "terminationGracePeriodSeconds"},
		"no memory limit":    {"actor: {resources: {limits: null, requests: {cpu: 1}}}", "limits"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Render(chartFolder, c.values)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got error %v, want one about %s", err, c.want)
			}
		})
	}
}

// Each planted mistake in the default rendering is found.
func TestMistakesAreFound(t *testing.T) {
	manifests, err := Render(chartFolder, "autoscaling: {kind: hpa}")
	if err != nil {
		t.Fatal(err)
	}
	known := settings(t)
	for name, c := range map[string]struct{ template, old, new, want string }{
		"unknown field":   {"actor.yaml", "maxUnavailable:", "maxUnavailabel:", `unknown field "maxUnavailabel"`},
		"twice":           {"config.yaml", "kind: ServiceAccount\nmetadata:\n  name: forager", "kind: ConfigMap\nmetadata:\n  name: forager-settings", "automountServiceAccountToken"},
		"root":            {"actor.yaml", "runAsNonRoot: true", "runAsNonRoot: false", "restricted pods must not"},
		"capabilities":    {"nats.yaml", "drop: [ALL]", "drop: [CHOWN]", "restricted pods must not"},
		"writable root":   {"nats.yaml", "readOnlyRootFilesystem: true", "readOnlyRootFilesystem: false", "may write to its root"},
		"latest":          {"replay.yaml", "forager:dev", "forager:latest", "may be another one tomorrow"},
		"unlimited":       {"replay.yaml", "memory: 2Gi", "ephemeral-storage: 2Gi", "no limit of memory"},
		"token":           {"replay.yaml", "automountServiceAccountToken: false", "automountServiceAccountToken: true", "mounts a token"},
		"host":            {"actor.yaml", "enableServiceLinks: false", "enableServiceLinks: false\n      hostPID: true", "shares a namespace"},
		"service links":   {"actor.yaml", "enableServiceLinks: false", "enableServiceLinks: true", "look like settings"},
		"no probe":        {"learner.yaml", "readinessProbe:", "x-readinessProbe:", "unknown field"},
		"selector":        {"actor.yaml", "matchLabels: \n      app.kubernetes.io/name: forager", "matchLabels:\n      app.kubernetes.io/name: other", "matches no pods"},
		"service port":    {"retriever.yaml", "targetPort: search", "targetPort: find", "have no port find"},
		"policy port":     {"networkpolicy.yaml", "{port: raft}", "{port: rafts}", "none of its pods has port"},
		"policy egress":   {"networkpolicy.yaml", "{port: 7400}", "{port: 7401}", "have no port 7401"},
		"secret":          {"actor.yaml", "secretName: forager-actor", "secretName: forager-player", "there is no Secret forager-player"},
		"claim":           {"learner.yaml", "claimName: forager-run", "claimName: forager-runs", "there is no PersistentVolumeClaim forager-runs"},
		"scale target":    {"autoscaling.yaml", "name: forager-actor}", "name: forager-actors}", "there is no Deployment forager-actors"},
		"headless":        {"cluster.yaml", "serviceName: forager-cluster", "serviceName: forager-voters", "there is no Service forager-voters"},
		"setting":         {"nats.yaml", "FORAGER_BUS_LISTEN", "FORAGER_BUS_LISTENS", "variable FORAGER_BUS_LISTENS is no setting"},
		"listener":        {"nats.yaml", "0.0.0.0:4222", "0.0.0.0:4223", "declares no such port"},
		"loopback":        {"nats.yaml", "0.0.0.0:4222", "127.0.0.1:4222", "others do not reach"},
		"bus":             {"actor.yaml", "tls://forager-nats:4222", "tls://forager-bus:4222", "there is no host forager-bus"},
		"voters":          {"cluster.yaml", "forager-cluster-2=", "forager-cluster-3=", "is not among the voters"},
		"even voters":     {"cluster.yaml", ", forager-cluster-2=forager-cluster-2.forager-cluster:7400", "", "an odd number is wanted"},
		"raft port":       {"cluster.yaml", "forager-cluster-1.forager-cluster:7400", "forager-cluster-1.forager-cluster:7401", "has no port 7401"},
		"two of a volume": {"actor.yaml", "name: tmp, mountPath: /tmp", "name: temp, mountPath: /tmp", "which is no volume"},
	} {
		t.Run(name, func(t *testing.T) {
			changed := slices.Clone(manifests)
			planted := false
			for i, m := range changed {
				if filepath.Base(m.Template) != c.template {
					continue
				}
				changed[i].Documents = slices.Clone(m.Documents)
				for j, document := range m.Documents {
					changed[i].Documents[j] = strings.ReplaceAll(document, c.old, c.new)
					planted = planted || changed[i].Documents[j] != document
				}
			}
			if !planted {
				t.Fatalf("%s has no %q any more", c.template, c.old)
			}
			var found []string
			list, err := Objects(changed)
			if err != nil {
				found = []string{err.Error()}
			} else {
				roles, network := KubernetesRoles(list)
				found = slices.Concat(Hygiene(list), References(list, outside), Wiring(roles, network, known))
			}
			if !strings.Contains(strings.Join(found, "\n"), c.want) {
				t.Errorf("found %q, want %q among it", found, c.want)
			}
		})
	}
}

func TestPlainManifestsAreRendered(t *testing.T) {
	const folder = "../k8s"
	files, err := Plain(chartFolder)
	if err != nil {
		t.Fatal(err)
	}
	there, err := filepath.Glob(filepath.Join(folder, "*.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range there {
		if _, ok := files[filepath.Base(file)]; !ok {
			t.Errorf("%s is not rendered: run deploy/k8s/render.sh", file)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		data, err := os.ReadFile(filepath.Join(folder, name))
		if err != nil || !bytes.Equal(data, []byte(files[name])) {
			t.Errorf("%s is not what the chart renders: run deploy/k8s/render.sh (%v)", name, err)
		}
	}
}

// The documentation of values is complete: every top-level key of values.yaml is
// in the schema, and the other way round.
func TestSchemaCoversValues(t *testing.T) {
	var values map[string]any
	data, err := os.ReadFile(filepath.Join(chartFolder, "values.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if err := unmarshal(string(data), &values); err != nil {
		t.Fatal(err)
	}
	var schema struct {
		Properties map[string]struct {
			Properties map[string]any `json:"properties"`
		} `json:"properties"`
	}
	if data, err = os.ReadFile(filepath.Join(chartFolder, "values.schema.json")); err != nil {
		t.Fatal(err)
	}
	if err := unmarshal(string(data), &schema); err != nil {
		t.Fatal(err)
	}
	var missing []string
	for key, section := range schema.Properties {
		value, ok := values[key]
		if !ok && key != "global" { // which Helm adds
			missing = append(missing, key)
		}
		given, isSection := value.(map[string]any)
		for name := range section.Properties {
			if _, ok := given[name]; !ok && isSection {
				missing = append(missing, fmt.Sprintf("%s.%s", key, name))
			}
		}
	}
	if len(missing) > 0 {
		t.Errorf("values.yaml does not show %v", missing)
	}
}
