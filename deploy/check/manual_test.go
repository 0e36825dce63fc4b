package check

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
)

// What a command of the manual names: KIND/NAME, a pod, claim or voter by
// "KIND NAME", namespaces, and values of the chart.
var (
	namedObjects = regexp.MustCompile(`\b(deployment|statefulset|pod)/([\w-]+)|\b(pod|pvc|voters (?:add|remove|transfer)) (forager-[\w-]+|data-[\w-]+)`)
	namespaces   = regexp.MustCompile(`(?:-n|--namespace|create namespace) (\S+)`)
	setValues    = regexp.MustCompile(`--set ([\w.]+)=`)
)

// TestManualNamesWhatThereIs: objects, namespaces and values in the commands of
// docs/operations.md are those of the chart, with as many voters as the manual
// has at most.
func TestManualNamesWhatThereIs(t *testing.T) {
	page, err := os.ReadFile(operationsPage)
	if err != nil {
		t.Fatal(err)
	}
	problems, found := manualProblems(string(page), objects(t, "cluster: {replicas: 5, join: true}"), chartValues(t))
	for _, problem := range problems {
		t.Error(problem)
	}
	if found < 15 {
		t.Errorf("the manual names %d things only: this test no longer reads it", found)
	}
	planted := "kubectl -n forger delete pod forager-cluster-5\nrun voters add forager-voter-0\nhelm upgrade forager x --set cluster.joins=true\nkubectl get deployment/operator"
	if problems, _ := manualProblems(planted, objects(t, ""), chartValues(t)); len(problems) != 5 {
		t.Errorf("of five planted mistakes these are found: %q", problems)
	}
}

// manualProblems compares the commands of a page with a rendered chart and its
// values. It also tells how many names it has compared.
func manualProblems(page string, list []Object, values map[string]any) (problems []string, found int) {
	known := map[string]bool{"namespace " + Release.Namespace: true}
	for _, o := range list {
		known[strings.ToLower(o.Kind)+" "+o.GetName()] = true
		s, ok := o.Object.(*appsv1.StatefulSet)
		if !ok {
			continue
		}
		known["pod "+s.Name+"-"], known["voters "+s.Name+"-"] = true, s.Name == "forager-cluster" // $n follows, in a loop
		for i := range *s.Spec.Replicas {
			pod := fmt.Sprintf("%s-%d", s.Name, i)
			known["pod "+pod] = true
			known["voters "+pod] = s.Name == "forager-cluster"
			for _, claim := range s.Spec.VolumeClaimTemplates {
				known["pvc "+claim.Name+"-"+pod] = true
			}
		}
	}
	want := func(kind, name string) {
		found++
		if !known[kind+" "+name] {
			problems = append(problems, fmt.Sprintf("the manual names %s %s, which the chart does not make", kind, name))
		}
	}
	for line := range strings.Lines(page) {
		for _, m := range namedObjects.FindAllStringSubmatch(line, -1) {
			kind, _, _ := strings.Cut(m[1]+m[3], " ") // "voters add" is about a voter
			want(kind, m[2]+m[4])
		}
		if !strings.Contains(line, "kubectl ") && !strings.Contains(line, "helm ") {
			continue
		}
		for _, m := range namespaces.FindAllStringSubmatch(line, -1) {
			want("namespace", m[1])
		}
		for _, m := range setValues.FindAllStringSubmatch(line, -1) {
			found++
			if !hasValue(values, strings.Split(m[1], ".")) {
				problems = append(problems, "the manual sets "+m[1]+", which is no value of the chart")
			}
		}
	}
	return problems, found
}

// chartValues are the chart's defaults.
func chartValues(t *testing.T) (values map[string]any) {
	t.Helper()
	text, err := os.ReadFile(chartFolder + "/values.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if err := unmarshal(string(text), &values); err != nil {
		t.Fatal(err)
	}
	return values
}

func hasValue(values map[string]any, path []string) bool {
	value, ok := values[path[0]]
	if !ok || len(path) == 1 {
		return ok
	}
	section, ok := value.(map[string]any)
	return ok && hasValue(section, path[1:])
}
