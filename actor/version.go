package actor

import (
	"context"
	"fmt"
	"sync"

	"github.com/forager-rl/forager"
)

// PlayedVersion is the policy version that a process plays. Its actors wait here
// for the one that a credit asks for: notices of weights and credits come by
// different ways, and weights take their time. It may be used by many goroutines at
// once; the zero value plays version 0.
type PlayedVersion struct {
	mu      sync.Mutex
	version forager.Version
	newer   chan struct{} // closed at the next change; nil while nobody waits
}

// Reach tells that episodes which begin from now on are played with a version. An
// older one than before changes nothing.
func (p *PlayedVersion) Reach(version forager.Version) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if version <= p.version {
		return
	}
	p.version = version
	if p.newer != nil {
		close(p.newer)
		p.newer = nil
	}
}

// Version is what is played.
func (p *PlayedVersion) Version() forager.Version {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.version
}

// Await returns once the version, or a newer one, is played. It fails when ctx ends
// before.
func (p *PlayedVersion) Await(ctx context.Context, version forager.Version) error {
	for {
		p.mu.Lock()
		played := p.version
		if played >= version {
			p.mu.Unlock()
			return nil
		}
		if p.newer == nil {
			p.newer = make(chan struct{})
		}
		newer := p.newer
		p.mu.Unlock()
		select {
		case <-newer:
		case <-ctx.Done():
			return fmt.Errorf("this actor plays policy v%d, v%d has not come: %w", played, version, context.Cause(ctx))
		}
	}
}
