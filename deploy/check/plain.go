package check

import (
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"
)

// plainHeader begins every plain manifest.
const plainHeader = "# Rendered from deploy/helm/forager by deploy/k8s/render.sh. Do not edit.\n"

// Plain gives the plain manifests by file name: the chart with its defaults,
// without what only Helm can use.
func Plain(chart string) (map[string]string, error) {
	manifests, err := Render(chart, "")
	if err != nil {
		return nil, err
	}
	files := map[string]string{}
	var names []string
	for _, m := range manifests {
		if strings.Contains(m.Template, "/tests/") {
			continue
		}
		name := path.Base(m.Template)
		text := plainHeader
		for _, document := range m.Documents {
			text += "---\n" + withoutHelm(document)
		}
		files[name] = text
		names = append(names, name)
	}
	kustomization := plainHeader + "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nnamespace: " + Release.Namespace + "\nresources:\n"
	for _, name := range names {
		kustomization += "  - " + name + "\n"
	}
	files["kustomization.yaml"] = kustomization
	return files, nil
}

// withoutHelm leaves out the labels that say that Helm looks after an object, and
// blank lines.
func withoutHelm(document string) string {
	var b strings.Builder
	for line := range strings.Lines(document) {
		trimmed := strings.TrimSpace(line)
		if trimmed == "" || strings.HasPrefix(trimmed, "app.kubernetes.io/managed-by:") || strings.HasPrefix(trimmed, "helm.sh/chart:") {
			continue
		}
		b.WriteString(strings.TrimRight(line, " \n") + "\n")
	}
	return b.String()
}

// WritePlain replaces the manifests in a folder by those of a chart.
func WritePlain(chart, folder string) error {
	files, err := Plain(chart)
	if err != nil {
		return err
	}
	old, err := filepath.Glob(filepath.Join(folder, "*.yaml"))
	if err != nil {
		return err
	}
	for _, file := range old {
		if _, stays := files[filepath.Base(file)]; !stays {
			err = errors.Join(err, os.Remove(file))
		}
	}
	for name, text := range files {
		err = errors.Join(err, os.WriteFile(filepath.Join(folder, name), []byte(text), 0o644))
	}
	if err != nil {
		return fmt.Errorf("write plain manifests: %w", err)
	}
	return nil
}
