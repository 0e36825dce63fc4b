package check

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"helm.sh/helm/v3/pkg/chart"
	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/engine"
	"sigs.k8s.io/yaml"
)

// Release is where a chart is rendered for.
var Release = chartutil.ReleaseOptions{Name: "forager", Namespace: "forager", Revision: 1, IsInstall: true}

// Manifest is one rendered template.
type Manifest struct {
	Template  string   // path within the chart
	Documents []string // YAML, one object each, none empty
}

// Render renders the chart in a folder with values that go before its own, given
// as YAML. Values that the chart's schema refuses are an error.
func Render(folder, values string) ([]Manifest, error) {
	loaded, err := loader.Load(folder)
	if err != nil {
		return nil, fmt.Errorf("load chart: %w", err)
	}
	return render(loaded, values)
}

func render(loaded *chart.Chart, values string) ([]Manifest, error) {
	var given map[string]any
	if err := yaml.UnmarshalStrict([]byte(values), &given); err != nil {
		return nil, fmt.Errorf("values: %w", err)
	}
	all, err := chartutil.ToRenderValues(loaded, given, Release, chartutil.DefaultCapabilities)
	if err != nil {
		return nil, fmt.Errorf("values: %w", err)
	}
	rendered, err := engine.Engine{Strict: true}.Render(loaded, all)
	if err != nil {
		return nil, fmt.Errorf("render: %w", err)
	}
	var list []Manifest
	for _, name := range slices.Sorted(maps.Keys(rendered)) {
		if path.Ext(name) != ".yaml" {
			continue
		}
		m := Manifest{Template: strings.TrimPrefix(name, loaded.Name()+"/")}
		for _, document := range strings.Split("\n"+rendered[name], "\n---") {
			if document = strings.TrimSpace(document); !blank(document) {
				m.Documents = append(m.Documents, document)
			}
		}
		if len(m.Documents) > 0 {
			list = append(list, m)
		}
	}
	return list, nil
}

// blank says whether a document has nothing but comments.
func blank(document string) bool {
	for line := range strings.Lines(document) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
			return false
		}
	}
	return true
}
