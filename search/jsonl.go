package search

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/forager-rl/forager/internal/wholefile"
)

// maxLine bounds one line of a JSONL file, in bytes.
const maxLine = 16 << 20

// lineError places an error in a file: "tasks.jsonl:17: not JSON: ...".
func lineError(path string, line int, err error) error {
	return fmt.Errorf("%s:%d: %w", path, line, err)
}

// openText opens a file for reading and unpacks it when its name ends in .gz.
func openText(path string) (io.ReadCloser, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	if !strings.HasSuffix(path, ".gz") {
		return file, nil
	}
	unpacked, err := gzip.NewReader(file)
	if err != nil {
		_ = file.Close()
		return nil, fmt.Errorf("%s: not gzip: %w", path, err)
	}
	return &gzipFile{Reader: unpacked, file: file}, nil
}

type gzipFile struct {
	*gzip.Reader
	file *os.File
}

func (g *gzipFile) Close() error { return errors.Join(g.Reader.Close(), g.file.Close()) }

// eachLine calls visit with every non-blank line of a text file and its
// number, from 1. The bytes are valid during the call only. Errors of visit
// come back with file and line.
func eachLine(path string, visit func(line int, text []byte) error) error {
	file, err := openText(path)
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }() // only read from
	scanner := bufio.NewScanner(file)
	scanner.Buffer(make([]byte, 0, 64<<10), maxLine)
	line := 0
	for scanner.Scan() {
		line++
		text := scanner.Bytes()
		if line == 1 {
			text = bytes.TrimPrefix(text, []byte("\xef\xbb\xbf"))
		}
		if text = bytes.TrimSpace(text); len(text) == 0 {
			continue
		}
		if err := visit(line, text); err != nil {
			return lineError(path, line, err)
		}
	}
	if errors.Is(scanner.Err(), bufio.ErrTooLong) {
		return lineError(path, line+1, fmt.Errorf("line is longer than %d MB", maxLine>>20))
	}
	if err := scanner.Err(); err != nil {
		return fmt.Errorf("read %s after line %d: %w", path, line, err)
	}
	return nil
}

// decodeObject reads one JSON object; numbers stay text, so that large ids
// keep all their digits.
func decodeObject(text []byte) (map[string]any, error) {
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	var row map[string]any
	if err := decoder.Decode(&row); err != nil {
		return nil, fmt.Errorf("not JSON: %w", err)
	}
	if row == nil {
		return nil, errors.New("not JSON: null instead of an object")
	}
	if decoder.More() {
		return nil, errors.New("not JSON: more than one value on the line")
	}
	return row, nil
}

// writeLines writes values as JSONL, packed when the name ends in .gz. The
// file appears whole or not at all.
func writeLines[T any](path string, values []T) error {
	err := wholefile.Write(path, func(f *os.File) error {
		buffer := bufio.NewWriter(f)
		if err := encodeLines(buffer, values, strings.HasSuffix(path, ".gz")); err != nil {
			return err
		}
		return buffer.Flush()
	})
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

func encodeLines[T any](w io.Writer, values []T, packed bool) error {
	if packed {
		packer := gzip.NewWriter(w)
		if err := encodeLines(packer, values, false); err != nil {
			return err
		}
		return packer.Close()
	}
	encoder := json.NewEncoder(w)
	encoder.SetEscapeHTML(false)
	for _, value := range values {
		if err := encoder.Encode(value); err != nil {
			return err
		}
	}
	return nil
}
