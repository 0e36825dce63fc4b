package replay

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"

	"github.com/forager-rl/forager"
	"github.com/forager-rl/forager/internal/spans"
)

// Delivery is one batch from actors. Ack says that it is stored; Nak asks for it
// again.
type Delivery struct {
	Data  []byte
	Trace forager.Trace // of its publication
	Ack   func() error
	Nak   func() error
}

// Batches is the stream of batches from actors.
type Batches interface {
	// Next blocks until a batch comes or ctx is done.
	Next(ctx context.Context) (Delivery, error)
}

// Labels is the stream of annotations.
type Labels interface {
	// Follow calls each for all annotations, in order, until ctx is done, which
	// is no error.
	Follow(ctx context.Context, each func([]forager.Annotation) error) error
}

// Archive keeps finished rollouts for people.
type Archive interface {
	// Put stores groups that a learner has committed, with their labels. After a
	// crash the same groups may be put again, in the same call.
	Put(groups []forager.Group) error
}

// archiveGroups bounds the groups of one Archive.Put, readGroups those of one read.
const (
	archiveGroups = 1024
	readGroups    = 64
)

// ServiceDeps is what a Service needs from outside.
type ServiceDeps struct {
	Batches    Batches
	Labels     Labels
	Archive    Archive // nil keeps nothing
	Logger     *slog.Logger
	Registerer prometheus.Registerer // nil exports nothing
	Tracer     trace.Tracer          // nil traces nothing
}

// Service fills a table from the bus and answers a learner's requests.
type Service struct {
	ServiceDeps
	dir, run string
	config   Config

	ready       chan struct{} // closed when table is open
	table       *Table
	turn        sync.Mutex // one learner begins or commits at a time
	quarantined atomic.Uint64
	unarchived  atomic.Uint64
}

// NewService makes a service for the table of a run in a directory.
func NewService(dir, run string, config Config, deps ServiceDeps) (*Service, error) {
	if err := config.Validate(); err != nil {
		return nil, err
	}
	if run == "" || deps.Batches == nil || deps.Labels == nil || deps.Logger == nil {
		return nil, errors.New("replay service: run, batches, labels and logger are required")
	}
	deps.Tracer = spans.TracerOrNone(deps.Tracer)
	s := &Service{ServiceDeps: deps, dir: dir, run: run, config: config, ready: make(chan struct{})}
	if deps.Registerer != nil {
		if err := s.export(deps.Registerer); err != nil {
			return nil, fmt.Errorf("replay metrics: %w", err)
		}
	}
	return s, nil
}

// Run opens the table and serves until ctx is done, then closes it. Call it
// once.
func (s *Service) Run(ctx context.Context) error {
	table, err := Open(s.dir, s.run, s.config, s.Logger)
	if err != nil {
		return err
	}
	s.table = table
	close(s.ready)
	stats := table.Stats()
	s.Logger.Info("replay table is open", "groups", stats.Groups, "bytes", stats.Bytes)

	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	results := make(chan error, 2)
	go func() { results <- s.fill(ctx) }()
	go func() {
		results <- s.Labels.Follow(ctx, func(list []forager.Annotation) error {
			table.Annotate(list)
			return nil
		})
	}()
	var errs []error
	for range cap(results) {
		err := <-results
		if err != nil && ctx.Err() == nil {
			errs = append(errs, err)
		}
		cancel() // neither works alone
	}
	return errors.Join(append(errs, table.Close())...)
}

// acksAhead is how many batches are stored and not yet acknowledged while the
// next ones come in: each acknowledgement is a round trip.
const acksAhead = 8

// fill moves batches from the bus into the table.
func (s *Service) fill(ctx context.Context) error {
	slots := make(chan struct{}, acksAhead)
	var acks sync.WaitGroup
	defer acks.Wait()
	for {
		if err := s.table.WaitRoom(ctx); err != nil {
			return err
		}
		delivery, err := s.Batches.Next(ctx)
		if err != nil {
			return fmt.Errorf("next batch: %w", err)
		}
		err = s.insert(ctx, delivery)
		switch {
		case err == nil:
		case errors.Is(err, forager.ErrSchema), errors.Is(err, forager.ErrCorrupt), errors.Is(err, ErrRefused):
			s.quarantine(delivery.Data, err)
		default:
			return errors.Join(err, delivery.Nak())
		}
		slots <- struct{}{} // an acknowledgement is bounded in time
		acks.Go(func() {
			defer func() { <-slots }()
			if err := delivery.Ack(); err != nil {
				// It will be delivered again and be recognised.
				s.Logger.Warn("batch is stored but could not be acknowledged", "error", err)
			}
		})
	}
}

// quarantine keeps a batch that cannot be used.
func (s *Service) quarantine(data []byte, cause error) {
	n := s.quarantined.Add(1)
	s.Logger.Warn("batch put aside", "bytes", len(data), "error", cause)
	dir := filepath.Join(s.dir, "quarantine")
	kept, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil || len(kept) >= s.config.MaxQuarantined {
		return
	}
	digest := sha256.Sum256(data)
	path := filepath.Join(dir, hex.EncodeToString(digest[:8])+".batch")
	if err := errors.Join(os.MkdirAll(dir, 0o755), os.WriteFile(path, data, 0o644)); err != nil {
		s.Logger.Warn("batch put aside is not kept", "total", n, "error", err)
	}
}

// Handle answers one encoded request. What goes wrong in the table is part of
// the answer; an error means that there is none. It may be called at any time
// and waits for Run to open the table.
func (s *Service) Handle(ctx context.Context, data []byte) ([]byte, error) {
	var r request
	if err := json.Unmarshal(data, &r); err != nil {
		return encodeResponse(failure(fmt.Errorf("%w: request: %w", forager.ErrSchema, err)), Loan{})
	}
	select {
	case <-s.ready:
	case <-ctx.Done():
		return nil, fmt.Errorf("wait for the replay table: %w", context.Cause(ctx))
	}
	answer, loan, err := s.answer(ctx, r)
	if err != nil {
		answer, loan = failure(err), Loan{}
	}
	return encodeResponse(answer, loan)
}

func (s *Service) answer(ctx context.Context, r request) (answer response, loan Loan, err error) {
	switch r.Op {
	case opBegin:
		s.turn.Lock()
		defer s.turn.Unlock()
		inventory, err := s.table.Begin(r.Epoch, r.From)
		answer.Held = inventory.Held
		for _, key := range inventory.Gone {
			answer.Gone.add(key)
		}
		return answer, loan, err
	case opSample:
		wait, cancel := context.WithTimeout(ctx, min(max(r.Wait, 0), s.config.MaxWait))
		defer cancel()
		if q := &r.Query; q.MaxBytes <= 0 || q.MaxBytes > s.config.ResponseBytes {
			q.MaxBytes = s.config.ResponseBytes
		}
		loan, err = s.table.Sample(wait, r.Epoch, r.Sequence, r.Query)
		s.traceSample(ctx, r, &loan)
		return answer, loan, err
	case opCommit:
		s.turn.Lock()
		defer s.turn.Unlock()
		// The archive has no epochs: what a learner that was replaced wants to
		// commit must not get there.
		if err := s.table.Admit(r.Epoch); err != nil {
			return answer, loan, err
		}
		s.archive(r.Keys, r.Used)
		return answer, loan, s.table.Commit(r.Epoch, r.Keys)
	case opStats:
		stats := s.table.Stats()
		answer.Stats = &stats
		return answer, loan, nil
	}
	return answer, loan, fmt.Errorf("%w: operation %q", forager.ErrSchema, r.Op)
}

// Each hands over the groups that are in the table when it is called, with their
// labels, from key from on, in order of key and in pieces, until yield fails. It lends
// nothing: groups that leave the table meanwhile are missing. It may be called at any
// time and waits for Run to open the table.
func (s *Service) Each(ctx context.Context, from uint64, yield func([]forager.Group) error) error {
	select {
	case <-s.ready:
	case <-ctx.Done():
		return fmt.Errorf("wait for the replay table: %w", context.Cause(ctx))
	}
	keys, err := s.table.Held(from)
	if err != nil {
		return err
	}
	for part := range slices.Chunk(keys, readGroups) {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		groups, err := s.table.Read(part)
		if err != nil {
			return err
		}
		if err := yield(groups); err != nil {
			return err
		}
	}
	return nil
}

// archive keeps the groups of a commit for people, with the annotations that they
// were learned from with, if the learner says so. Training does not depend on it:
// a failure is logged and counted.
func (s *Service) archive(keys []uint64, used []byte) {
	if s.Archive == nil {
		return
	}
	for part := range slices.Chunk(keys, archiveGroups) {
		groups, err := s.table.Read(s.table.given(part))
		if err == nil && len(used) > 0 {
			err = putUsed(groups, used)
		}
		if err == nil && len(groups) > 0 {
			err = s.Archive.Put(groups)
		}
		if err != nil {
			s.unarchived.Add(uint64(len(part)))
			s.Logger.Warn("rollouts are not archived", "groups", len(part), "error", err)
		}
	}
}
