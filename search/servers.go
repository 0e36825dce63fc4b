package search

import (
	"context"
	"math/rand/v2"
	"net/url"
	"strings"
	"sync"
	"time"
)

// Finder gives the addresses of the retrievers that are there now, at least one,
// or an error.
type Finder func(ctx context.Context) ([]string, error)

// findTimeout bounds one question to a Finder.
const findTimeout = 2 * time.Second

// servers is which retriever is asked, of those that are there. All callers of a
// process ask the same one until it fails.
type servers struct {
	find    Finder     // nil: there is one, and no other
	finding sync.Mutex // held while find is asked, before mu

	mu      sync.Mutex
	address string
}

func newServers(address string, find Finder) (*servers, error) {
	address, err := retrieveURL(address)
	return &servers{find: find, address: address}, err
}

// retrieveURL adds the path that an address may leave out.
func retrieveURL(address string) (string, error) {
	parsed, err := url.Parse(address)
	if err != nil {
		return "", err
	}
	if strings.Trim(parsed.Path, "/") == "" {
		parsed.Path = "/retrieve"
	}
	return parsed.String(), nil
}

func (s *servers) current() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.address
}

// moveOn reports whether there is another server to ask than the one that
// failed, from now on any of the others with equal probability. Of several
// callers that saw one fail, the first looks for another and the rest follow it.
func (s *servers) moveOn(ctx context.Context, failed string) bool {
	if s.find == nil {
		return false
	}
	s.finding.Lock()
	defer s.finding.Unlock()
	if s.current() != failed {
		return true
	}
	ctx, cancel := context.WithTimeout(ctx, findTimeout)
	defer cancel()
	found, err := s.find(ctx)
	if err != nil {
		return false // the one that is known may come back
	}
	var others []string
	for _, address := range found {
		if address, err := retrieveURL(address); err == nil && address != failed {
			others = append(others, address)
		}
	}
	if len(others) == 0 {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.address = others[rand.N(len(others))]
	return true
}
