package rundir

import (
	"errors"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/forager-rl/forager"
)

func openMetrics(tb testing.TB, d *Dir, resumeStep uint64) *Metrics {
	tb.Helper()
	m, err := d.OpenMetrics(resumeStep, always)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := m.Close(); err != nil {
			tb.Error(err)
		}
	})
	return m
}

func appendSteps(tb testing.TB, m *Metrics, steps ...uint64) {
	tb.Helper()
	for _, s := range steps {
		if err := m.Append(s, map[string]float64{"reward": float64(s) / 10, "em": 0.5}); err != nil {
			tb.Fatal(err)
		}
	}
}

func metricSteps(tb testing.TB, d *Dir) []uint64 {
	tb.Helper()
	rows, err := ReadMetrics(d.MetricsPath())
	if err != nil {
		tb.Fatal(err)
	}
	var steps []uint64
	for _, r := range rows {
		steps = append(steps, r.Step)
	}
	return steps
}

func TestMetricsLine(t *testing.T) {
	d := create(t)
	m := openMetrics(t, d, 0)
	if err := m.Append(7, map[string]float64{"b": math.NaN(), "a": 0.25, "c\"": math.Inf(1), "z": 1e-9}); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(d.MetricsPath())
	if want := `{"step":7,"a":0.25,"b":null,"c\"":null,"z":1e-9}` + "\n"; err != nil || string(data) != want {
		t.Fatalf("got %s, %v", data, err)
	}
	rows, err := ReadMetrics(d.MetricsPath())
	if err != nil || len(rows) != 1 || rows[0].Step != 7 || rows[0].Values["a"] != 0.25 || !math.IsNaN(rows[0].Values["b"]) || len(rows[0].Values) != 4 {
		t.Fatalf("got %+v, %v", rows, err)
	}
	for _, step := range []uint64{7, 6, 0, math.MaxUint64} {
		if err := m.Append(step, nil); !errors.Is(err, forager.ErrStale) {
			t.Errorf("step %d after 7: %v", step, err)
		}
	}
	if err := m.Append(8, map[string]float64{"step": 1}); err == nil {
		t.Error("a value was named step")
	}
}

func TestMetricsResume(t *testing.T) {
	d := create(t)
	appendSteps(t, openMetrics(t, d, 0), 0, 1, 2, 3, 4, 5)
	f, err := os.OpenFile(d.MetricsPath(), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteString(`{"step":6,"rew`) // killed while writing
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	if got := metricSteps(t, d); !reflect.DeepEqual(got, []uint64{0, 1, 2, 3, 4, 5}) {
		t.Fatalf("got %v", got)
	}
	m := openMetrics(t, d, 3)
	if err := m.Append(3, nil); !errors.Is(err, forager.ErrStale) {
		t.Fatalf("a kept step was written again: %v", err)
	}
	appendSteps(t, m, 4, 5, 6)
	if got := metricSteps(t, d); !reflect.DeepEqual(got, []uint64{0, 1, 2, 3, 4, 5, 6}) {
		t.Fatalf("got %v", got)
	}
}

// TestMetricsOfAReplacedLearner: whoever still has the file open from before
// writes where nobody reads, and one that lost its lease does not take it over.
func TestMetricsOfAReplacedLearner(t *testing.T) {
	d := create(t)
	old := openMetrics(t, d, 0)
	appendSteps(t, old, 1, 2, 3)
	successor := openMetrics(t, d, 2)
	appendSteps(t, old, 4, 5)
	appendSteps(t, successor, 3)
	if got := metricSteps(t, d); !reflect.DeepEqual(got, []uint64{1, 2, 3}) {
		t.Fatalf("got %v", got)
	}
	if _, err := d.OpenMetrics(1, func() error { return forager.ErrFenced }); !errors.Is(err, forager.ErrFenced) {
		t.Fatalf("got %v", err)
	}
	appendSteps(t, successor, 4)
	if got := metricSteps(t, d); !reflect.DeepEqual(got, []uint64{1, 2, 3, 4}) {
		t.Fatalf("got %v", got)
	}
	if err := os.WriteFile(filepath.Join(d.Path(), ".tmp-"+metricsFile+"-1"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	appendSteps(t, openMetrics(t, d, 4), 5)
	for _, name := range names(t, d.Path()) {
		if strings.HasPrefix(name, ".tmp-") {
			t.Errorf("left: %s", name)
		}
	}
}

func TestMetricsDamaged(t *testing.T) {
	d := create(t)
	for _, bad := range []string{"{", "[]", `{"step":-1}`, `{"a":1}`, `{"step":1.5}`, `{"step":1,"a":"x"}`, `{"step":1}{}`, `{"step":0}`} {
		text := `{"step":0}` + "\n" + bad + "\n" + `{"step":2}` + "\n"
		if err := os.WriteFile(d.MetricsPath(), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, readErr := ReadMetrics(d.MetricsPath())
		_, openErr := d.OpenMetrics(2, always)
		for _, err := range []error{readErr, openErr} {
			if !errors.Is(err, forager.ErrCorrupt) || !strings.Contains(err.Error(), "line 2") {
				t.Errorf("%s: got %v", bad, err)
			}
		}
		if data, err := os.ReadFile(d.MetricsPath()); err != nil || string(data) != text {
			t.Errorf("%s: a damaged file was changed", bad)
		}
	}
	if _, err := ReadMetrics(d.MetricsPath() + "x"); !errors.Is(err, forager.ErrNotFound) {
		t.Errorf("got %v", err)
	}
}

// FuzzMetricsTorn cuts a file anywhere and resumes anywhere: the steps kept are
// a prefix, and the run can go on from there.
func FuzzMetricsTorn(f *testing.F) {
	f.Add(uint16(0), uint8(0))
	f.Add(uint16(37), uint8(1))
	f.Add(uint16(1000), uint8(9))
	f.Fuzz(func(t *testing.T, cut uint16, resume uint8) {
		d := create(t)
		appendSteps(t, openMetrics(t, d, 0), 1, 2, 3, 4, 5, 6, 7, 8, 9, 10)
		info, err := os.Stat(d.MetricsPath())
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(d.MetricsPath(), int64(cut)%(info.Size()+1)); err != nil {
			t.Fatal(err)
		}
		m := openMetrics(t, d, uint64(resume))
		appendSteps(t, m, max(uint64(resume), 10)+1)
		steps := metricSteps(t, d)
		for i, s := range steps[:len(steps)-1] {
			if s != uint64(i+1) || s > uint64(resume) {
				t.Fatalf("cut at %d, resumed at %d: %v", cut, resume, steps)
			}
		}
	})
}

// FuzzReadMetrics: no input panics, and what is read is in order.
func FuzzReadMetrics(f *testing.F) {
	f.Add("{\"step\":1}\n{\"step\":2,\"a\":null}\n{")
	f.Fuzz(func(t *testing.T, text string) {
		last := int64(-1)
		_ = scanMetrics(strings.NewReader(text), "x", func(row MetricsRow, end int64) bool {
			if int64(row.Step) <= last || end > int64(len(text)) {
				t.Fatalf("step %d after %d", row.Step, last)
			}
			last = int64(row.Step)
			return true
		})
	})
}
