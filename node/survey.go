package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"time"

	"github.com/forager-rl/forager"
	"github.com/forager-rl/forager/bus"
	"github.com/forager-rl/forager/cluster"
	"github.com/forager-rl/forager/rewardsrv"
	"github.com/forager-rl/forager/rundir"
	"github.com/forager-rl/forager/security"
)

// ReadStatus asks the bus of a run, within seconds, how the run is. The run is
// cfg.Run.ID; without cfg.Bus.URL its bus is that of its run directory. That
// something does not answer is no error but a finding.
func ReadStatus(ctx context.Context, cfg Config, logger *slog.Logger) (Status, error) {
	if cfg.Run.ID == "" {
		return Status{}, forager.WithHint(errors.New("no run is named"), "name it with --run ID")
	}
	url, err := statusURL(&cfg)
	if err != nil {
		return Status{}, err
	}
	s := survey{cfg: &cfg, run: cfg.Run.ID, clock: time.Now, logger: logger}
	cfg.Bus.Run, cfg.Bus.URL = cfg.Run.ID, url
	cfg.Bus.ConnectTimeout, cfg.Bus.Timeout = min(cfg.Bus.ConnectTimeout, statusWait), min(cfg.Bus.Timeout, statusWait)
	credentials, err := loadCredentials(cfg.Security, logger, security.Roles()...)
	if err != nil {
		return Status{}, err
	}
	secureBus(&cfg.Bus, credentials, false)
	b, err := bus.OpenReader(ctx, cfg.Bus, logger)
	if err != nil {
		return s.without(url, err), nil
	}
	s.bus = b
	status := s.take(ctx)
	return status, b.Close()
}

// statusURL is where the bus of a run is.
func statusURL(cfg *Config) (string, error) {
	if cfg.Bus.URL != "" {
		return cfg.Bus.URL, nil
	}
	dir, err := rundir.Open(filepath.Join(cfg.Run.Root, cfg.Run.ID))
	if err != nil {
		return "", forager.WithHint(fmt.Errorf("no bus is named, and run %s has no directory here: %w", cfg.Run.ID, err), "name the bus with --nats URL")
	}
	url, err := liveBus(dir)
	if err == nil && url == "" {
		err = forager.WithHint(fmt.Errorf("run %s: no process here carries its bus: it is not running", dir.ID()), "name a bus that is elsewhere with --nats URL")
	}
	return url, err
}

// survey asks everything of a run that there is to ask.
type survey struct {
	cfg    *Config
	run    string
	bus    *bus.Bus
	clock  func() time.Time
	logger *slog.Logger
}

// blank is a status in which nothing has been asked.
func (s survey) blank() Status {
	return Status{
		Run: s.run, Time: s.clock().UTC(), Version: programVersion(), Errors: map[string]string{},
		expects: expectation{
			retriever: s.cfg.Search.Client.URL == "",
			judge:     s.cfg.Judge.Judge != rewardsrv.JudgeNone,
		},
	}
}

// without is the status of a run whose bus is not to be reached.
func (s survey) without(url string, err error) Status {
	status := s.blank()
	status.Bus, status.Errors[askedBus] = url, err.Error()
	status.judge()
	return status
}

// take asks, all at once, and judges the answers.
func (s survey) take(ctx context.Context) Status {
	ctx, cancel := context.WithTimeout(ctx, statusWait)
	defer cancel()
	status := s.blank()
	status.Bus = s.bus.URL()
	var mu sync.Mutex // of status
	var asking sync.WaitGroup
	ask := func(name string, question func() (note func(), err error)) {
		asking.Go(func() {
			note, err := question()
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				note()
			case errors.Is(err, forager.ErrNotFound):
				status.unknown = true
				fallthrough
			default:
				status.Errors[name] = err.Error()
			}
		})
	}
	var state cluster.State
	ask(askedMembers, func() (func(), error) {
		members, err := cluster.NewRoster(s.bus, cluster.Member{}, s.logger).Members(ctx)
		return func() { status.Members = members }, err
	})
	ask(askedCluster, func() (func(), error) {
		got, err := clusterClient(s.bus).State(ctx)
		return func() { state = got }, err
	})
	for _, name := range []bus.Stream{bus.Credits, bus.Rollouts, bus.Digests, bus.Annotations} {
		ask(string(name), func() (func(), error) {
			info, err := s.bus.StreamInfo(ctx, name)
			return func() { status.Streams = append(status.Streams, streamStatus(string(name), info)) }, err
		})
	}
	ask(objectStore, func() (func(), error) {
		info, err := s.bus.ObjectsInfo(ctx)
		return func() { status.Streams = append(status.Streams, streamStatus(objectStore, info)) }, err
	})
	asking.Wait()
	status.combine(state)
	status.judge()
	return status
}
