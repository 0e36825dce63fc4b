package settings

import (
	_ "embed"
	"strings"
	"sync"
)

// comments.txt has one line a setting's Place: the place, a tab, the comment.
//
//go:embed comments.txt
var commentFile string

var comments = sync.OnceValue(func() map[string]string {
	all := make(map[string]string)
	for line := range strings.Lines(commentFile) {
		place, comment, _ := strings.Cut(strings.TrimSpace(line), "\t")
		all[place] = comment
	}
	return all
})

// Placeholder stands in a section's comment for the section's name, which
// depends on where the struct is used.
const Placeholder = "§"

// Comment says what a setting means, on one line: for a section the comment of
// its struct, for a value that of its field. It is empty when the source has
// none.
func (s Setting) Comment() string {
	return strings.Replace(comments()[s.Place()], Placeholder, "`"+s.Name+"`", 1)
}

// Place is where in the source a setting is explained: package.Type for a
// section, package.Type.Field for a value.
func (s Setting) Place() string {
	if s.Kind == Section {
		t := s.Value.Type()
		return t.PkgPath() + "." + t.Name()
	}
	return s.Owner.PkgPath() + "." + s.Owner.Name() + "." + s.Field
}
