package lm

import (
	"fmt"

	"github.com/forager-rl/forager"
	"github.com/forager-rl/forager/policy"
)

// step runs one batch: context tokens of new calls up to the prefill bound, the
// last token of all others, and samples a token for every sequence whose
// context is complete.
func (e *Engine) step() {
	b := &e.batch
	b.reset()
	budget := e.cfg.PrefillTokens
	live := e.active[:0]
	for _, c := range e.active {
		if err := c.ctx.Err(); err != nil {
			e.finish(c, callError(err))
			continue
		}
		live = append(live, c)
		todo := len(c.req.Context) + len(c.out.Tokens) - c.processed
		n := min(todo, max(1, budget))
		if todo > 1 {
			budget -= n
		}
		e.feed(c, n)
		if n == todo {
			b.sample(c)
		}
	}
	clear(e.active[len(live):])
	e.active = live
	if len(b.rows) == 0 {
		return
	}
	e.forward.run(b)
	for i, c := range b.calls {
		e.extend(c, b.drawn[i])
	}
	live = e.active[:0]
	for _, c := range e.active {
		if c.out.Stop == "" {
			live = append(live, c)
		} else {
			e.finish(c, nil)
		}
	}
	clear(e.active[len(live):])
	e.active = live
}

// feed adds the next n tokens of a call to the batch and to its cache.
func (e *Engine) feed(c *call, n int) {
	s := c.session
	for len(s.pages) < pagesFor(c.processed+n) {
		s.pages = append(s.pages, e.takePage(c))
	}
	e.batch.addRun(s, c.processed, n)
	for range n {
		token := c.token(c.processed)
		s.tokens = append(s.tokens, token)
		e.batch.rows = append(e.batch.rows, row{s.pages[c.processed/pageTokens], c.processed, token})
		c.processed++
	}
	if len(c.out.Tokens) == 0 {
		e.counts.Prefilled += uint64(n)
	}
}

func (c *call) token(i int) int32 {
	if i < len(c.req.Context) {
		return c.req.Context[i]
	}
	return c.out.Tokens[i-len(c.req.Context)]
}

// extend adds a sampled token to a call and decides whether it ends.
func (e *Engine) extend(c *call, d draw) {
	n := len(c.out.Tokens)
	c.out.Tokens = append(c.out.Tokens, d.token)
	c.out.Logprobs = append(c.out.Logprobs, d.logprob)
	if v := c.out.Versions; len(v) > 0 && v[len(v)-1].Version == e.current {
		v[len(v)-1].End = int32(n) + 1
	} else {
		c.out.Versions = append(v, forager.VersionSpan{Span: forager.Span{Start: int32(n), End: int32(n) + 1}, Version: e.current})
	}
	e.counts.Sampled++
	stopped := c.stops.add(e.vocab.TokenBytes(d.token))
	n++
	switch {
	case stopped && n >= c.req.MinTokens:
		c.out.Stop = policy.StopString
	case c.ends(d.token):
		c.out.Stop = policy.StopEOS
	case n >= c.req.MaxTokens || len(c.req.Context)+n >= e.limit:
		c.out.Stop = policy.StopLength
	}
}

// ends reports whether a token ends the completion. It is not sampled before
// the minimum.
func (c *call) ends(token int32) bool {
	for _, id := range c.enders {
		if id == token {
			return true
		}
	}
	return false
}

// excluded lists the tokens that must not be sampled next.
func (c *call) excluded() []int32 {
	if len(c.out.Tokens) < c.req.MinTokens {
		return c.enders
	}
	return nil
}

func callError(err error) error { return fmt.Errorf("generate: %w", err) }

// batch is the rows of one step.
type batch struct {
	rows  []row
	runs  []run   // of all rows
	last  []run   // of the rows whose successors are sampled, one row each
	calls []*call // of those rows
	drawn []draw  // what was sampled for them
}

// row is one token.
type row struct {
	page     *page
	position int
	token    int32
}

// run is consecutive positions of one sequence, in consecutive rows.
type run struct {
	session  *session
	row      int
	position int // of the first row
	rows     int
}

// draw is a sampled token.
type draw struct {
	token   int32
	logprob float32
}

func (b *batch) reset() {
	clear(b.rows)
	clear(b.runs)
	clear(b.last)
	clear(b.calls)
	b.rows, b.runs, b.last, b.calls, b.drawn = b.rows[:0], b.runs[:0], b.last[:0], b.calls[:0], b.drawn[:0]
}

func (b *batch) addRun(s *session, position, n int) {
	b.runs = append(b.runs, run{s, len(b.rows), position, n})
}

// sample asks for the successor of the row that was added last.
func (b *batch) sample(c *call) {
	b.last = append(b.last, run{c.session, len(b.rows) - 1, c.processed - 1, 1})
	b.calls = append(b.calls, c)
	b.drawn = append(b.drawn, draw{})
}
