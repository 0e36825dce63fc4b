// Package wholefile writes files that are there whole or not at all: who opens
// one sees the content before or the content after, also when the writer was
// killed, the disk was full or the power went. Every package of this module may
// import it; it imports the standard library alone.
package wholefile

import (
	"errors"
	"os"
	"path/filepath"
)

// TempPrefix begins the name of a file that is being written, which lies beside
// its final place. Whatever still has it when nobody writes was left by a killed
// process.
const TempPrefix = ".tmp-"

// Write puts what fill writes under path, for everybody to read, and replaces
// the file that is there. It is on disk when Write returns. An error leaves the
// older file; only if the folder could not be synced (the last step) is the new
// one in place already. Errors do not name path.
func Write(path string, fill func(*os.File) error) error { return write(path, 0o644, fill) }

// WritePrivate is Write for a file that its owner alone may read.
func WritePrivate(path string, fill func(*os.File) error) error { return write(path, 0o600, fill) }

func write(path string, mode os.FileMode, fill func(*os.File) error) error {
	folder, name := filepath.Split(filepath.Clean(path))
	if folder == "" {
		folder = "."
	}
	temp, err := os.CreateTemp(folder, TempPrefix+name+"-")
	if err != nil {
		return err
	}
	err = fill(temp)
	if err == nil {
		err = errors.Join(temp.Chmod(mode), temp.Sync())
	}
	if err = errors.Join(err, temp.Close()); err == nil {
		err = os.Rename(temp.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(temp.Name()))
	}
	return Sync(folder)
}

// Sync brings a file's bytes, or a folder's names, to disk, so that they survive
// a power loss.
func Sync(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
