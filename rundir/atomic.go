package rundir

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// tempPrefix marks what is being written. Whatever still has it when a run
// directory is opened was left by a killed process.
const tempPrefix = ".tmp-"

// writeFile puts data under path whole or not at all, and on disk before it
// returns.
func writeFile(path string, data []byte) (err error) {
	dir, name := filepath.Split(path)
	if dir == "" {
		dir = "."
	}
	temp, err := os.CreateTemp(dir, tempPrefix+name+"-")
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("write %s: %w", path, errors.Join(err, os.Remove(temp.Name())))
		}
	}()
	_, err = temp.Write(data)
	if err == nil {
		err = temp.Chmod(0o644)
	}
	if err == nil {
		err = temp.Sync()
	}
	if err = errors.Join(err, temp.Close()); err != nil {
		return err
	}
	if err = os.Rename(temp.Name(), path); err != nil {
		return err
	}
	if syncErr := syncPath(dir); syncErr != nil { // in place already: nothing to remove
		return syncErr
	}
	return nil
}

// syncPath brings a file's bytes, or a folder's names, to disk, so that they
// survive a power loss.
func syncPath(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("sync: %w", err)
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("sync %s: %w", path, err)
	}
	return nil
}
