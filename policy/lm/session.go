package lm

import "slices"

// session is one token sequence and its KV cache.
type session struct {
	tokens []int32 // whose keys and values are in the pages
	pages  []*page
	call   *call  // the call that extends it, or nil
	used   uint64 // engine clock of the last use
	// stale says that some keys and values are of weights that were swapped
	// since. The sequence goes on with them; no other sequence may share them.
	stale bool
}

// plan is the tokens that are in the cache or will be when the call's context
// is processed.
func (s *session) plan() []int32 {
	if s.call != nil && len(s.call.req.Context) > len(s.tokens) {
		return s.call.req.Context
	}
	return s.tokens
}

// admit gives calls that wait a session and room in the cache, in order of
// arrival.
func (e *Engine) admit() {
	waiting := e.waiting[:0]
	full := false
	for _, c := range e.waiting {
		if err := c.ctx.Err(); err != nil {
			c.finished <- callError(err)
			continue
		}
		if full || c.awaitsPrefix() {
			waiting = append(waiting, c)
			continue
		}
		source, n := e.source(c)
		if source != nil && n > len(source.tokens) {
			c.leader, c.prefix = source.call, n
			waiting = append(waiting, c)
			continue
		}
		if full = !e.enter(c, source, n); full {
			waiting = append(waiting, c)
		}
	}
	clear(e.waiting[len(waiting):])
	e.waiting = waiting
}

// awaitsPrefix reports whether another call is still computing the beginning of
// c's context, which c will share.
func (c *call) awaitsPrefix() bool {
	l := c.leader
	if l != nil && l.session.call == l && !l.session.stale && l.processed < c.prefix {
		return true
	}
	c.leader = nil
	return false
}

// source finds the session that has, or will have, most of the call's context:
// its own, or one of the same weights. The last token of a context is always
// processed again, since its hidden state predicts the next.
func (e *Engine) source(c *call) (best *session, most int) {
	context := c.req.Context[:len(c.req.Context)-1]
	if own := e.sessions[c.req.Session]; own != nil && own.call == nil {
		best, most = own, commonPrefix(own.tokens, context)
	}
	for _, s := range e.sessions {
		if s.stale || s == best {
			continue
		}
		n := commonPrefix(s.plan(), context)
		if n > most || n == most && n > 0 && min(len(s.tokens), n) > min(len(best.tokens), n) {
			best, most = s, n
		}
	}
	return best, most
}

// enter makes a call active with the first n tokens of source in its cache, if
// there is room for all the positions it may come to. A second call of a
// session that is in use gets a cache of its own.
func (e *Engine) enter(c *call, source *session, n int) bool {
	s := e.sessions[c.req.Session]
	if s == nil || s.call != nil {
		s = &session{}
	}
	e.clock++
	if source != nil {
		source.used = e.clock // evicted last
	}
	if s == source {
		e.cut(s, n)
	} else {
		e.share(s, source, n)
	}
	s.used, s.call = e.clock, c
	need := pagesFor(min(len(c.req.Context)+c.req.MaxTokens, e.limit)) - len(s.pages)
	if s.sharesLast() {
		need++
	}
	if !e.makeRoom(need) {
		s.call = nil
		if e.sessions[c.req.Session] != s {
			e.cut(s, 0)
		}
		return false
	}
	c.promised = need
	e.cache.promised += need
	if s.sharesLast() {
		last := len(s.pages) - 1
		own := e.takePage(c)
		copy(own.data, s.pages[last].data)
		e.cache.drop(s.pages[last:])
		s.pages[last] = own
	}
	s.tokens = slices.Grow(s.tokens, min(len(c.req.Context)+c.req.MaxTokens, e.limit)-len(s.tokens))
	c.session, c.processed = s, n
	e.sessions[c.req.Session] = s
	e.active = append(e.active, c)
	e.counts.Reused += uint64(n)
	return true
}

// sharesLast reports whether the session's last page has space left but other
// holders too, so that it must be copied before it is written.
func (s *session) sharesLast() bool {
	return len(s.tokens)%pageTokens != 0 && s.pages[len(s.pages)-1].holders > 1
}

// cut keeps the first n positions of a session.
func (e *Engine) cut(s *session, n int) {
	keep := pagesFor(n)
	e.cache.drop(s.pages[keep:])
	clear(s.pages[keep:])
	s.pages, s.tokens = s.pages[:keep], s.tokens[:n]
	s.stale = s.stale && n > 0
}

// share makes s begin with the first n positions of source.
func (e *Engine) share(s, source *session, n int) {
	e.cut(s, 0)
	if n == 0 {
		return
	}
	s.pages = append(s.pages, source.pages[:pagesFor(n)]...)
	s.tokens = append(s.tokens, source.tokens[:n]...)
	for _, p := range s.pages {
		p.holders++
	}
}

// takePage takes a page that was promised to a call.
func (e *Engine) takePage(c *call) *page {
	c.promised--
	e.cache.promised--
	return e.cache.take()
}

// makeRoom evicts idle sessions, the longest idle first, until n pages are
// free. It reports false if calls in progress hold too many.
func (e *Engine) makeRoom(n int) bool {
	for e.cache.room() < n {
		var oldest uint64
		found := false
		for id, s := range e.sessions {
			if s.call == nil && (!found || s.used < e.sessions[oldest].used) {
				oldest, found = id, true
			}
		}
		if !found {
			return false
		}
		e.cut(e.sessions[oldest], 0)
		delete(e.sessions, oldest)
	}
	return true
}

// release forgets a session. A call that still extends it drops the cache when
// it ends.
func (e *Engine) release(id uint64) {
	if s := e.sessions[id]; s != nil {
		delete(e.sessions, id)
		if s.call == nil {
			e.cut(s, 0)
		}
	}
}

// finish answers a call and keeps its session for the next turn.
func (e *Engine) finish(c *call, err error) {
	e.cache.promised -= c.promised
	c.session.call = nil
	if e.sessions[c.req.Session] != c.session {
		e.cut(c.session, 0)
	}
	c.finished <- err
}

func commonPrefix(a, b []int32) int {
	n := min(len(a), len(b))
	for i := range n {
		if a[i] != b[i] {
			return i
		}
	}
	return n
}
