package search

import (
	"context"
	"sync/atomic"

	"github.com/hashicorp/golang-lru/v2"

	"github.com/forager-rl/forager"
)

// Retriever answers queries with passages, best first, Score set.
//
// Search returns one list per query, in the order of the queries, each of at
// most k passages. A query that matches nothing gets an empty list, not an
// error. Implementations are safe for concurrent use. The passages are shared:
// callers do not modify them.
type Retriever interface {
	Search(ctx context.Context, queries []string, k int) ([][]forager.Passage, error)
}

// Cache is a Retriever that remembers the answers to the most recent queries
// of another. Groups of rollouts ask the same things again and again.
type Cache struct {
	inner        Retriever
	answers      *lru.Cache[cacheKey, []forager.Passage]
	hits, misses atomic.Uint64
}

type cacheKey struct {
	query string
	k     int
}

// Cached wraps a retriever in a least-recently-used cache of size answers. A
// size below 1 caches nothing.
func Cached(r Retriever, size int) *Cache {
	c := &Cache{inner: r}
	if size > 0 {
		// New fails only on sizes below 1.
		c.answers, _ = lru.New[cacheKey, []forager.Passage](size)
	}
	return c
}

// Search answers from memory where it can and asks the wrapped retriever for
// the rest in one call. Errors are not remembered.
func (c *Cache) Search(ctx context.Context, queries []string, k int) ([][]forager.Passage, error) {
	if c.answers == nil {
		c.misses.Add(uint64(len(queries)))
		return c.inner.Search(ctx, queries, k)
	}
	results := make([][]forager.Passage, len(queries))
	var missing []string
	var positions []int
	for i, query := range queries {
		if found, ok := c.answers.Get(cacheKey{query, k}); ok {
			results[i] = found
			continue
		}
		missing = append(missing, query)
		positions = append(positions, i)
	}
	c.hits.Add(uint64(len(queries) - len(missing)))
	c.misses.Add(uint64(len(missing)))
	if len(missing) == 0 {
		return results, nil
	}
	found, err := c.inner.Search(ctx, missing, k)
	if err != nil {
		return nil, err
	}
	for i, passages := range found {
		c.answers.Add(cacheKey{missing[i], k}, passages)
		results[positions[i]] = passages
	}
	return results, nil
}

// Counts tells how many queries were answered from memory and how many were
// not.
func (c *Cache) Counts() (hits, misses uint64) { return c.hits.Load(), c.misses.Load() }
