package rewardsrv

import (
	"context"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/forager-rl/forager"
	"github.com/forager-rl/forager/rewardsrv/rewardmodel"
	"github.com/forager-rl/forager/rewardsrv/rubric"
)

func newHarnessRandom() *rand.Rand { return rand.New(rand.NewPCG(7, 7)) }

// shelf is Models in memory.
type shelf struct {
	mu       sync.Mutex
	versions []uint64
	data     []byte
}

func (s *shelf) Publish(_ context.Context, version uint64, _ string, data []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.versions, s.data = append(s.versions, version), data
	return nil
}

func (s *shelf) Latest(context.Context) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.data == nil {
		return nil, forager.ErrNotFound
	}
	return s.data, nil
}

func (s *shelf) model(t *testing.T) *rewardmodel.Model {
	t.Helper()
	data, err := s.Latest(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	m, err := rewardmodel.Decode(data)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// lesson is a digest that shows whether it is good: the passage has the query's
// words or has not.
func lesson(i int) forager.TurnDigest {
	d := digestOf(fmt.Sprint("r", i), 0, fmt.Sprintf("founder of company%d", i))
	d.Observation = fmt.Sprintf("Doc 1(Title: \"Weather\") It rained in town%d.", i)
	if i%2 == 0 {
		d.Observation = fmt.Sprintf("Doc 1(Title: \"Company%d\") The founder of company%d was person%d.", i, i, i)
	}
	d.Passages = []forager.Passage{{ID: fmt.Sprint("p", i), Text: d.Observation}}
	return d
}

func example(i int) rewardmodel.Example {
	d := lesson(i)
	return rewardmodel.Example{Question: d.Question, Query: d.Query, Observation: d.Observation}
}

// accuracy is the share of pairs of unseen lessons that a model orders right.
func accuracy(m *rewardmodel.Model) float64 {
	right := 0
	for i := 10_000; i < 10_200; i += 2 {
		if m.Score(example(i)) > m.Score(example(i+1)) {
			right++
		}
	}
	return float64(right) / 100
}

func even(_ context.Context, item rubric.Item) (Verdict, error) {
	var i int
	if _, err := fmt.Sscanf(item.Query, "founder of company%d", &i); err != nil {
		return Verdict{}, err
	}
	return Verdict{Value: float64(1 - i%2)}, nil
}

func distilling(kind rewardmodel.Kind, models Models) func(*Config, *Deps) {
	return func(c *Config, d *Deps) {
		c.RewardModel.Kind, c.RewardModel.PublishInterval, c.RewardModel.MinLabels = kind, 10*time.Second, 50
		c.RewardModel.Steps, c.RewardModel.BatchSize, c.RewardModel.MaxExamples = 8, 32, 1000
		d.Models = models
	}
}

func TestRewardModelIsDistilled(t *testing.T) {
	for _, kind := range []rewardmodel.Kind{rewardmodel.Classification, rewardmodel.Ranking} {
		t.Run(string(kind), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, models := newStream(), &shelf{}
				r := start(t, s, newScripted(even), distilling(kind, models))
				for i := range 400 {
					s.digests <- lesson(i)
					time.Sleep(100 * time.Millisecond)
				}
				time.Sleep(time.Minute)
				synctest.Wait()
				r.stop()
				if n := len(models.versions); n < 3 || n > 6 {
					t.Errorf("%d versions in 40 s, one every 10 s at most: %v", n, models.versions)
				}
				m := models.model(t)
				if a := accuracy(m); a < 0.9 || m.Kind() != kind {
					t.Errorf("%s model after %d labels and %d steps: accuracy %v", m.Kind(), m.Labels(), m.Version(), a)
				}
			})
		})
	}
}

// TestRewardModelOutlivesTheServer: the trainer goes on where it was; on another
// machine it learns from the stream and publishes nothing older.
func TestRewardModelOutlivesTheServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, models, path := newStream(), &shelf{}, filepath.Join(t.TempDir(), "labels.db")
		labels := func(server string) uint64 {
			r := start(t, s, newScripted(even), func(c *Config, d *Deps) {
				distilling(rewardmodel.Classification, models)(c, d)
				d.Index = openIndex(t, path)
				if server == "elsewhere" {
					d.Index = openIndex(t, filepath.Join(t.TempDir(), "labels.db"))
				}
			})
			for range 100 {
				s.digests <- lesson(len(s.labels()))
				time.Sleep(100 * time.Millisecond)
			}
			time.Sleep(time.Minute)
			synctest.Wait()
			r.stop()
			if err := r.deps.Index.Close(); err != nil {
				t.Error(err)
			}
			return models.model(t).Labels()
		}
		for i, server := range []string{"here", "here again", "elsewhere"} {
			if n := labels(server); n != uint64(100*(i+1)) && server != "elsewhere" {
				t.Errorf("%s: %d labels behind the model", server, n)
			}
		}
		for i := 1; i < len(models.versions); i++ {
			if models.versions[i] <= models.versions[i-1] {
				t.Errorf("versions %v", models.versions)
			}
		}
	})
}

// TestOneServerTrains: the other one takes over when it is stopped or killed.
func TestOneServerTrains(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, claims := newStream(), newBucket()
		server := func(name string) (running, *mortal, *shelf) {
			m, models := &mortal{Labels: s, Claims: claims.of(name)}, &shelf{}
			return start(t, s, newScripted(even), func(c *Config, d *Deps) {
				distilling(rewardmodel.Classification, models)(c, d)
				d.Labels, d.Claims, c.ClaimLease = m, m, 4*time.Second
			}), m, models
		}
		a, mortalA, fromA := server("a")
		synctest.Wait()
		b, _, fromB := server("b")
		teach := func(from int) {
			for i := range 100 {
				s.digests <- lesson(from + i)
				time.Sleep(100 * time.Millisecond)
			}
			time.Sleep(time.Minute)
			synctest.Wait()
		}
		teach(0)
		if len(fromA.versions) == 0 || len(fromB.versions) != 0 {
			t.Errorf("before: %v and %v", fromA.versions, fromB.versions)
		}
		mortalA.kill(a)
		teach(100)
		if len(fromB.versions) == 0 || fromB.model(t).Labels() < 190 {
			t.Errorf("after: %v", fromB.versions)
		}
		b.stop()
	})
}

// TestFewLabelsAreNotPublished, and waiting for more costs nothing.
func TestFewLabelsAreNotPublished(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, models := newStream(), &shelf{}
		r := start(t, s, newScripted(even), distilling(rewardmodel.Classification, models))
		for i := range 20 {
			s.digests <- lesson(i)
		}
		time.Sleep(time.Hour)
		synctest.Wait() // would not return while somebody is busy
		r.stop()
		if len(models.versions) != 0 {
			t.Errorf("published %v", models.versions)
		}
	})
}

func TestDistillerNeedsLabels(t *testing.T) {
	for name, change := range map[string]func(*Config, *Deps){
		"no models":  func(c *Config, d *Deps) { d.Models = nil },
		"pairs only": func(c *Config, d *Deps) { d.Judges[0].(fixed).Grader.(*scripted).unit = rubric.Pair },
		"source":     func(c *Config, d *Deps) { c.RewardModel.Source = "other" },
	} {
		config := DefaultConfig()
		deps := testDeps(t, newStream(), nil, newScripted(yes))
		distilling(rewardmodel.Classification, &shelf{})(&config, &deps)
		change(&config, &deps)
		if _, err := New(config, deps); err == nil {
			t.Errorf("%s passes", name)
		}
	}
}
