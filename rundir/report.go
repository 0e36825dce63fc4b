package rundir

import (
	"fmt"
	"path/filepath"
	"strings"
)

const (
	reportFile = "report.md"
	curveFile  = "curve.svg"
)

// Report is what report.md says. Empty parts are left out.
type Report struct {
	Title   string
	Summary string // a paragraph or two of Markdown
	Curve   Chart
	Tables  []Table // the held-out table first
	Config  []Entry // the settings that tell this run from others
	Links   []Link
}

// Table is one table of a report.
type Table struct {
	Title   string
	Note    string // what the numbers are: unit, interval, number of questions
	Columns []string
	Rows    [][]string // cells by column; the first column is set to the left, others to the right
}

// Entry is a name and its value.
type Entry struct{ Name, Value string }

// Link is a file that belongs to the report.
type Link struct {
	Text string
	Path string // relative to the report
}

// WriteReport writes report.md and its curve.svg into the folder dir. The
// picture is written first; each of the two is replaced whole or not at all.
func WriteReport(dir string, r Report) error {
	text, err := r.markdown()
	if err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	if len(r.Curve.Series) > 0 {
		if err := writeFile(filepath.Join(dir, curveFile), r.Curve.SVG()); err != nil {
			return fmt.Errorf("write report: %w", err)
		}
	}
	if err := writeFile(filepath.Join(dir, reportFile), []byte(text)); err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	return nil
}

// markdown gives the text of the report.
func (r Report) markdown() (string, error) {
	var b strings.Builder
	fmt.Fprintf(&b, "# %s\n", oneLine(r.Title))
	if r.Summary != "" {
		fmt.Fprintf(&b, "\n%s\n", strings.TrimSpace(r.Summary))
	}
	if len(r.Curve.Series) > 0 {
		fmt.Fprintf(&b, "\n![%s](%s)\n", markdownText(r.Curve.Title), curveFile)
	}
	for _, t := range r.Tables {
		if err := t.markdown(&b); err != nil {
			return "", err
		}
	}
	if len(r.Config) > 0 {
		b.WriteString("\n## Settings\n\n| setting | value |\n|---|---|\n")
		for _, e := range r.Config {
			fmt.Fprintf(&b, "| %s | %s |\n", markdownText(e.Name), markdownText(e.Value))
		}
	}
	if len(r.Links) > 0 {
		b.WriteString("\n## Files\n\n")
		for _, l := range r.Links {
			fmt.Fprintf(&b, "- [%s](<%s>)\n", markdownText(l.Text), strings.NewReplacer("<", "%3C", ">", "%3E", "\n", " ").Replace(l.Path))
		}
	}
	return b.String(), nil
}

func (t Table) markdown(b *strings.Builder) error {
	fmt.Fprintf(b, "\n## %s\n\n", oneLine(t.Title))
	row := func(cells []string) {
		for _, c := range cells {
			fmt.Fprintf(b, "| %s ", markdownText(c))
		}
		b.WriteString("|\n")
	}
	row(t.Columns)
	b.WriteString("|---" + strings.Repeat("|---:", max(0, len(t.Columns)-1)) + "|\n")
	for i, cells := range t.Rows {
		if len(cells) != len(t.Columns) {
			return fmt.Errorf("table %q: row %d has %d cells for %d columns", t.Title, i+1, len(cells), len(t.Columns))
		}
		row(cells)
	}
	if t.Note != "" {
		fmt.Fprintf(b, "\n%s\n", oneLine(t.Note))
	}
	return nil
}

// markdownText keeps a value from ending its cell, line or link.
func markdownText(s string) string {
	return strings.NewReplacer("|", `\|`, "[", `\[`, "]", `\]`, "<", "&lt;").Replace(oneLine(s))
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }
