package batch

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"os"
	"slices"
	"time"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/memory"
	"github.com/apache/arrow/go/v15/parquet"
	"github.com/apache/arrow/go/v15/parquet/compress"
	"github.com/apache/arrow/go/v15/parquet/pqarrow"

	"github.com/forager-rl/forager"
)

// Format is a form of file for labels.
type Format string

// The forms: one row per label, with the columns of the schema "annotation".
const (
	Arrow   Format = "arrow"   // Arrow IPC file, which ReadAnnotations reads back
	Parquet Format = "parquet" // Snappy; the latency is latency_ns, since Parquet has no durations
	JSONL   Format = "jsonl"   // one object a line; the latency in nanoseconds, value null where there is no label
)

// Formats lists the forms of file.
func Formats() []Format { return []Format{Arrow, Parquet, JSONL} }

// WriteAnnotations writes labels to a file, under the rules of EncodeAnnotations
// and in their order. The file appears under its name whole and synced, or not
// at all; an older one is replaced.
func WriteAnnotations(path string, format Format, labels []forager.Annotation) error {
	for i := range labels {
		if err := checkAnnotation(&labels[i]); err != nil {
			return fmt.Errorf("write %s: %w", path, err)
		}
	}
	return writeWhole(path, func(f *os.File) error {
		switch format {
		case Arrow:
			return annotationTable.writeFile(f, pointers(labels))
		case Parquet:
			return parquetTable(annotationTable).writeParquet(f, pointers(labels))
		case JSONL:
			return writeLines(f, labels)
		}
		return fmt.Errorf("format %q, want one of %v", format, Formats())
	})
}

// ReadAnnotations reads an Arrow file of WriteAnnotations, under the rules of
// DecodeAnnotations. A missing file wraps fs.ErrNotExist.
func ReadAnnotations(path string) ([]forager.Annotation, error) {
	var labels []forager.Annotation
	err := readWhole(path, func(m *messages) (err error) {
		labels, err = decodeRows(memory.DefaultAllocator, annotationTable, m, checkAnnotation)
		return err
	})
	return labels, err
}

// parquetTable is the annotation table with a number in place of the duration,
// which Parquet does not know.
func parquetTable(t table[forager.Annotation]) table[forager.Annotation] {
	t.columns = slices.Clone(t.columns)
	for i := range t.columns {
		if t.columns[i].typ.ID() == arrow.DURATION {
			t.columns[i] = signed("latency_ns", func(a *forager.Annotation) *time.Duration { return &a.Latency })
		}
	}
	return t
}

// labelsPerRowGroup bounds what a reader of Parquet must hold at one time.
const labelsPerRowGroup = 64 << 10

// writeParquet writes the rows as a Parquet file.
func (t table[R]) writeParquet(f io.Writer, rows iter.Seq[*R]) error {
	schema := t.schema()
	properties := parquet.NewWriterProperties(parquet.WithCompression(compress.Codecs.Snappy), parquet.WithMaxRowGroupLength(labelsPerRowGroup))
	onlyWriter := struct{ io.Writer }{f} // the Parquet writer would close the file
	w, err := pqarrow.NewFileWriter(schema, onlyWriter, properties, pqarrow.DefaultWriterProps())
	if err != nil {
		return err
	}
	return t.write(bufferedParquet{w}, schema, memory.DefaultAllocator, rows)
}

// bufferedParquet gathers records into row groups; plain Write would make one of
// each.
type bufferedParquet struct{ *pqarrow.FileWriter }

// Write adds a record to the row group.
func (w bufferedParquet) Write(r arrow.Record) error { return w.WriteBuffered(r) }

// writeLines writes one flat JSON object a line: the names of the columns.
func writeLines(f io.Writer, labels []forager.Annotation) error {
	type line struct {
		forager.Annotation
		forager.Judgement
		Value  *float64  `json:"value"`               // null where there is no label
		Nested *struct{} `json:"judgement,omitempty"` // its fields stand beside the others
	}
	out := bufio.NewWriter(f)
	encoder := json.NewEncoder(out)
	for _, a := range labels {
		if err := encoder.Encode(line{Annotation: a, Judgement: a.Judgement, Value: a.Value}); err != nil {
			return err
		}
	}
	return out.Flush()
}
