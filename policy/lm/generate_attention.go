package lm

import "github.com/forager-rl/forager/policy/lm/kernel"

// Attention is a product of queries and keys, a softmax of each row, and a
// product with the values, page by page and tile by tile. All query heads of a
// KV head are rows of one product (grouped-query attention, Ainslie et al. 2023,
// arXiv 2305.13245), and so are neighbouring queries of a sequence that is
// prefilled. A row's result is one chain of additions in the order of positions,
// whatever tile it is part of.

const (
	tileRows   = 64      // most positions of a tile
	tileScores = 1 << 15 // scores of a tile that has several rows: they stay in a core's cache
)

// cutTiles cuts runs into tiles of attention.
func (p *forwardPass) cutTiles(runs []run) {
	share := p.arch.Heads / p.arch.KVHeads
	p.tiles = p.tiles[:0]
	for _, r := range runs {
		for r.rows > 0 {
			tile := r
			tile.rows = min(r.rows, tileRows, max(1, tileScores/(share*(r.position+1))))
			p.tiles = append(p.tiles, tile)
			r.row, r.position, r.rows = r.row+tile.rows, r.position+tile.rows, r.rows-tile.rows
		}
	}
}

// attend computes the attention of all rows.
func (p *forwardPass) attend() {
	scores := 0
	for _, t := range p.tiles {
		scores += t.rows * (t.position + t.rows)
	}
	p.spread(len(p.tiles)*p.arch.KVHeads, scores*p.arch.Heads, p.attention)
}

// attendTile computes one tile for one KV head. Tiles of a head are neighbours,
// so that pages which several sequences share are still near.
func (p *forwardPass) attendTile(thread, i int) {
	a, c, own, s := p.arch, p.cache, p.workers.inline[thread], &p.threads[thread]
	t, head := p.tiles[i%len(p.tiles)], i/len(p.tiles)
	dim, share := a.HeadDim, a.Heads/a.KVHeads
	q, width := a.Heads*dim, (a.Heads+2*a.KVHeads)*dim
	n := t.position + t.rows // keys up to the last query
	pages := t.session.pages[:pagesFor(n)]
	m, ld := t.rows*share, len(pages)*pageTokens
	s.query, s.scores, s.out, s.sums = grow(s.query, m*dim), grow(s.scores, m*ld), grow(s.out, m*dim), grow(s.sums, m)

	for r := range t.rows {
		copy(s.query[r*share*dim:][:share*dim], p.qkv[(t.row+r)*width+head*share*dim:])
	}
	for j, page := range pages {
		own.MatMul(s.scores[j*pageTokens:], ld, s.query, dim, c.keys(page, p.l, head), pageTokens, m, pageTokens, dim, false)
	}
	for r := range m {
		row := s.scores[r*ld:][:n]
		visible := row[:t.position+r/share+1]
		s.sums[r] = kernel.ExpShiftSum(visible, visible, kernel.Max(visible))
		clear(row[len(visible):])
	}
	for j, page := range pages {
		positions := min(pageTokens, n-j*pageTokens)
		own.MatMul(s.out, dim, s.scores[j*pageTokens:], ld, c.values(page, p.l, head), dim, m, dim, positions, j > 0)
	}
	for r := range m {
		out := p.attn[(t.row+r/share)*q+(head*share+r%share)*dim:][:dim]
		copy(out, s.out[r*dim:])
		kernel.Scale(1/s.sums[r], out)
	}
}
