// Package realdata finds the real data sets that tests use in place. They are not
// part of the project: their licences differ from the code's.
//
// Only tests import it.
package realdata

import (
	"os"
	"path/filepath"
	"testing"
)

// Path is a file or folder of the data sets in FORAGER_DATA_DIR. Where that is not
// set the test is skipped, and "make unit" lists it; where it is set and the path
// is not there the test fails.
func Path(t testing.TB, path ...string) string {
	t.Helper()
	root := os.Getenv("FORAGER_DATA_DIR")
	if root == "" {
		t.Skipf("NOT CHECKED: what needs the real %s; set FORAGER_DATA_DIR to the folder of the data sets", filepath.Join(path...))
	}
	name := filepath.Join(append([]string{root}, path...)...)
	if _, err := os.Stat(name); err != nil {
		t.Fatal(err)
	}
	return name
}
