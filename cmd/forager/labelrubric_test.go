package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/forager-rl/forager/rewardsrv/rubric"
)

// The template is a good rubric, all built-in ones are listed, and the example
// fits every kind.
func TestLabelsRubric(t *testing.T) {
	_, list, _ := execute("labels", "rubric", "list")
	for _, name := range rubric.Builtin() {
		if !strings.Contains(list, "\n"+name+" ") {
			t.Errorf("%s is not listed:\n%s", name, list)
		}
		code, text, stderr := execute("labels", "rubric", "check", name, "--prompt", "--gold")
		if code != 0 || !strings.Contains(text, "Puno port Lake Titicaca country") || !strings.Contains(text, "--- user") {
			t.Errorf("%s: exit code %d %s\n%s", name, code, stderr, text)
		}
	}
	code, text, stderr := execute("labels", "rubric", "template")
	path := filepath.Join(t.TempDir(), "mine.yaml")
	if err := os.WriteFile(path, []byte(text), 0o644); code != 0 || err != nil {
		t.Fatal(err, stderr)
	}
	if code, text, stderr := execute("labels", "rubric", "check", path); code != 0 || !strings.Contains(text, ": good; ") {
		t.Errorf("the template: exit code %d %s%s", code, text, stderr)
	}
}
