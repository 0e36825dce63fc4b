package rundir

import (
	"fmt"
	"os"

	"github.com/forager-rl/forager/internal/wholefile"
)

// writeFile puts data under path whole or not at all, and on disk before it
// returns.
func writeFile(path string, data []byte) error {
	err := wholefile.Write(path, func(f *os.File) error {
		_, err := f.Write(data)
		return err
	})
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}
