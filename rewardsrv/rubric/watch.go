package rubric

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"
)

// Watcher holds a rubric and reads its file anew when its content changes. Its
// methods are safe for concurrent use.
type Watcher struct {
	path    string // "" for a built-in rubric
	every   time.Duration
	log     *slog.Logger
	current atomic.Pointer[Rubric]
	broken  atomic.Pointer[error]

	used, seen []byte // content of the rubric in use and of the previous look; of Run alone
}

// NewWatcher loads a rubric as Load does. Run looks at its file at intervals of
// every, which is above 0; what it finds goes to log.
func NewWatcher(nameOrPath string, every time.Duration, log *slog.Logger) (*Watcher, error) {
	r, err := Load(nameOrPath)
	if err != nil {
		return nil, err
	}
	w := &Watcher{every: every, log: log}
	if !strings.HasPrefix(r.Source, builtinPrefix) {
		w.path = nameOrPath
	}
	w.current.Store(r)
	return w, nil
}

// Current is the rubric in use.
func (w *Watcher) Current() *Rubric { return w.current.Load() }

// Err says why the file as it stands is not in use, or nil.
func (w *Watcher) Err() error {
	if err := w.broken.Load(); err != nil {
		return *err
	}
	return nil
}

// Run reloads the rubric until ctx is done. A broken file, and one that asks
// about another unit (which needs a restart), leaves the old rubric in use and
// is logged once.
func (w *Watcher) Run(ctx context.Context) {
	if w.path == "" {
		<-ctx.Done()
		return
	}
	ticker := time.NewTicker(w.every)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			w.look()
		}
	}
}

// look reads the file. New content counts when two looks in a row find it, so
// that a file which is just being written is left alone.
func (w *Watcher) look() {
	data, err := readFile(w.path)
	if err != nil {
		w.refuse(fmt.Errorf("read rubric: %w", err))
		w.seen, w.used = nil, nil
		return
	}
	settled := bytes.Equal(data, w.seen)
	w.seen = data
	if !settled || w.used != nil && bytes.Equal(data, w.used) {
		return
	}
	w.used = data
	old := w.Current()
	r, err := parse(w.path, data)
	if err == nil && r.Unit() != old.Unit() {
		err = fmt.Errorf("%s: unit %s instead of %s takes effect at the next start", w.path, r.Unit(), old.Unit())
	}
	if err != nil {
		w.refuse(err)
		return
	}
	w.broken.Store(nil)
	if r.Version() == old.Version() {
		return
	}
	w.current.Store(r)
	w.log.Info("rubric changed", "rubric", r.Name, "version", r.Version(), "before", old.Version())
}

func (w *Watcher) refuse(err error) {
	if last := w.Err(); last == nil || last.Error() != err.Error() {
		w.log.Error("rubric not reloaded; the old one stays in use", "rubric", w.Current().Name, "err", err)
	}
	w.broken.Store(&err)
}
