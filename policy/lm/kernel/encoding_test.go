package kernel

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// TestVectorsStayInTheirSet: registers 16 to 31 and 512-bit vectors exist with
// AVX-512 alone. A processor that has it runs them in any kernel, so that only the
// text shows a kernel for AVX2 that would be an illegal instruction elsewhere.
func TestVectorsStayInTheirSet(t *testing.T) {
	text, err := os.ReadFile("vector_amd64.s")
	if err != nil {
		t.Fatal(err)
	}
	beyond := regexp.MustCompile(`\b(Z\d+|[XYK](1[6-9]|2\d|3[01])|K\d)\b`)
	function, checked := "", 0
	for i, line := range strings.Split(string(text), "\n") {
		if after, ok := strings.CutPrefix(line, "TEXT ·"); ok {
			function, _, _ = strings.Cut(after, "(")
			if strings.HasSuffix(function, "AVX2") {
				checked++
			}
		}
		if strings.HasSuffix(function, "AVX2") && beyond.MatchString(line) {
			t.Errorf("line %d, %s: %s", i+1, function, strings.TrimSpace(line))
		}
	}
	if checked == 0 {
		t.Error("no kernel for AVX2 was found")
	}
}
