package lm

import "github.com/forager-rl/forager/policy/lm/kernel"

// pageTokens is the number of positions in a page: two panels of the widest
// kernel, so that scores are computed in place.
const pageTokens = 128

// page holds the keys and values of up to pageTokens consecutive positions, in
// every layer. Full pages may have several holders and do not change; the last
// page of a sequence that goes on has one.
type page struct {
	holders int
	data    []float32 // [layers, KV heads, 2, dim·pageTokens]
}

// cache is the memory for keys and values, in pages so that sequences with a
// common prefix share it (PagedAttention, Kwon et al. 2023, arXiv 2309.06180).
// Pages are made when they are first needed and used again after that.
type cache struct {
	arch     Architecture
	limit    int // pages that may be in use
	used     int // pages in use
	promised int // pages that calls in progress may still take
	free     []*page
}

func newCache(a Architecture, bytes int64) *cache {
	c := &cache{arch: a}
	c.limit = int(bytes / c.pageBytes())
	return c
}

func (c *cache) pageFloats() int {
	return c.arch.Layers * c.arch.KVHeads * 2 * c.arch.HeadDim * pageTokens
}

func (c *cache) pageBytes() int64 { return 4 * int64(c.pageFloats()) }

// room is the number of pages that nobody uses or may claim.
func (c *cache) room() int { return c.limit - c.used - c.promised }

// take gives a page with one holder.
func (c *cache) take() *page {
	if len(c.free) == 0 {
		c.grow()
	}
	last := len(c.free) - 1
	p := c.free[last]
	c.free = c.free[:last]
	c.used++
	p.holders = 1
	return p
}

// grow makes free pages, several at once so that they fill huge pages of the
// system.
func (c *cache) grow() {
	const bytes = 16 << 20
	size := c.pageFloats()
	n := min(max(1, int(bytes/c.pageBytes())), c.limit-c.used)
	data := kernel.Alloc(n * size)
	for i := range n {
		c.free = append(c.free, &page{data: data[i*size:][:size:size]})
	}
}

// drop ends one hold of each page.
func (c *cache) drop(pages []*page) {
	for _, p := range pages {
		if p.holders--; p.holders == 0 {
			c.used--
			c.free = append(c.free, p)
		}
	}
}

// keys are one layer's and KV head's keys [dim, pageTokens]: one dimension's
// values lie together, so that a query's scores are a product in place.
func (c *cache) keys(p *page, layer, head int) []float32 {
	size := c.arch.HeadDim * pageTokens
	return p.data[(layer*c.arch.KVHeads+head)*2*size:][:size]
}

// values are one layer's and KV head's values [pageTokens, dim].
func (c *cache) values(p *page, layer, head int) []float32 {
	size := c.arch.HeadDim * pageTokens
	return p.data[((layer*c.arch.KVHeads+head)*2+1)*size:][:size]
}

// write stores the keys and values [KV heads · dim] of one position.
func (c *cache) write(p *page, layer, position int, keys, values []float32) {
	dim, at := c.arch.HeadDim, position%pageTokens
	for h := range c.arch.KVHeads {
		column := c.keys(p, layer, h)[at:]
		for i, k := range keys[h*dim:][:dim] {
			column[i*pageTokens] = k
		}
		copy(c.values(p, layer, h)[at*dim:][:dim], values[h*dim:])
	}
}

// pagesFor is the number of pages that n positions take.
func pagesFor(n int) int { return (n + pageTokens - 1) / pageTokens }
