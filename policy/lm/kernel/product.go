package kernel

// Block sizes of a product. Results do not depend on them.
const (
	depthBlock   = 512     // inner dimension: a panel of it and the rows it meets stay near
	columnBlock  = 4096    // columns packed at once, which bounds the scratch
	rowBlock     = 192     // rows of one piece of work: their part of A stays in a core's cache
	pieceWork    = 1 << 20 // multiply-adds of a piece of work, about
	pieces       = 8       // of work for each worker: more do not help them to finish together
	inlineWork   = 1 << 20 // multiply-adds below which no worker is woken
	memoryRows   = 16      // a product of fewer rows takes as long as to read B from memory
	gatherStride = 1 << 13 // floats between rows of a transposed A from which they are copied together
	gatherPanels = 8       // if as many panels use them
)

// product is one matrix product under way.
type product struct {
	isa *instructionSet

	c   []float32
	ldc int

	a                []float32
	rowStride, stepA int // A[i,p] is a[i·rowStride + p·stepA]

	b          []float32 // row-major k×n, or n×k if transposed; unless packed
	ldb        int
	transposed bool
	packed     *Packed
	format     Format // of the panels

	m, n, k int
	load    bool // start from C instead of 0

	// The block under way.
	j0, cols   int       // columns
	p0, depth  int       // inner dimension
	direct     bool      // b is read in place, but for a last narrow panel
	panels     []float32 // packed panels, depth×tileCols each
	panelCount int
	rowBlocks  int         // pieces of work that the rows are cut into
	groups     int         // and the panels
	edges      [][]float32 // by worker: a tile for the last columns
	gathered   [][]float32 // by worker: rows of A, see rowsOfA
}

// multiply computes t with p's workers and scratch.
func (p *Pool) multiply(t product) {
	if t.m == 0 || t.n == 0 {
		return
	}
	if t.k == 0 {
		if !t.load {
			for i := range t.m {
				clear(t.c[i*t.ldc : i*t.ldc+t.n])
			}
		}
		return
	}
	lent := p.lend()
	defer p.giveBack(lent)
	lent.runProduct(t)
}

func (p *Pool) runProduct(t product) {
	isa := t.isa
	width := isa.tileCols
	for worker, edge := range p.edges {
		p.edges[worker] = aligned(edge, isa.tileRows*width)
	}
	t.edges, t.gathered = p.edges, p.gathered
	// To pack B pays only if several tiles of rows use it.
	t.direct = t.packed == nil && !t.transposed && t.m <= isa.tileRows
	columns, depth := columnBlock, evenBlock(t.k, depthBlock, 8)
	if t.packed != nil {
		columns = t.n // there is no scratch to bound
		if t.m <= 2*isa.tileRows {
			depth = t.k // each panel is read from memory once, from end to end
		}
	}
	for t.j0 = 0; t.j0 < t.n; t.j0 += columns {
		t.cols = min(columns, t.n-t.j0)
		t.panelCount = (t.cols + width - 1) / width
		load := t.load
		for t.p0 = 0; t.p0 < t.k; t.p0 += depth {
			t.depth = min(depth, t.k-t.p0)
			if t.packed == nil {
				p.panels = aligned(p.panels, t.panelCount*width*t.depth)
				t.panels = p.panels
			}
			work := max(t.m, memoryRows) * t.cols * t.depth
			inline := p.size == 1 || work < inlineWork
			t.rowBlocks, t.groups = (t.m+rowBlock-1)/rowBlock, 1
			if !inline {
				if t.rowBlocks > 1 {
					t.rowBlocks = (t.rowBlocks + p.size - 1) / p.size * p.size
				}
				wanted := min(pieces, max(1, work/pieceWork/p.size)) * p.size
				t.groups = min((wanted+t.rowBlocks-1)/t.rowBlocks, t.panelCount)
			}

			p.product = t
			p.product.load = load
			if t.packed == nil {
				p.each(t.panelCount, inline, p.pack)
			}
			p.each(t.rowBlocks*t.groups, inline, p.compute)
			load = true
		}
	}
	p.product = product{}
}

// evenBlock is the size of blocks of at most largest that cut n evenly, but for
// rounding up to a multiple of unit.
func evenBlock(n, largest, unit int) int {
	count := (n + largest - 1) / largest
	size := (n + count - 1) / count
	return (size + unit - 1) / unit * unit
}

func (p *Pool) each(n int, inline bool, f func(worker, i int)) {
	if !inline {
		p.spread(n, f)
		return
	}
	for i := range n {
		f(0, i)
	}
}

// packPanel packs panel q of the block.
func (t *product) packPanel(_, q int) {
	width := t.isa.tileCols
	n := min(width, t.cols-q*width)
	dst := t.panels[q*width*t.depth : (q+1)*width*t.depth]
	j := t.j0 + q*width
	switch {
	case t.transposed:
		packTransposed(t.isa, dst, t.b[j*t.ldb+t.p0:], t.ldb, n, t.depth)
	case !t.direct || n < width:
		packRows(t.isa, dst, t.b[t.p0*t.ldb+j:], t.ldb, n, t.depth)
	}
}

// panel returns where panel q of the block starts and the distances from one
// inner index and from one panel to the next.
func (t *product) panel(q int) (b []float32, step, stride int) {
	width := t.isa.tileCols
	switch {
	case t.packed != nil:
		step = t.packed.step
		return t.packed.panels[((t.j0/width+q)*t.k+t.p0)*step:], step, t.k * step
	case t.direct && (q+1)*width <= t.cols:
		return t.b[t.p0*t.ldb+t.j0+q*width:], t.ldb, width
	}
	return t.panels[q*width*t.depth:], width, t.depth * width
}

// computeBlock computes one block of rows by a group of panels.
func (t *product) computeBlock(worker, block int) {
	tileRows := t.isa.tileRows
	tiles := (t.m + tileRows - 1) / tileRows
	rows, group := block%t.rowBlocks, block/t.rowBlocks
	i0 := rows * tiles / t.rowBlocks * tileRows
	i1 := min((rows+1)*tiles/t.rowBlocks*tileRows, t.m)
	q0 := group * t.panelCount / t.groups
	q1 := (group + 1) * t.panelCount / t.groups
	a := t.rowsOfA(worker, i0, i1, q1-q0)
	edge := t.edges[worker]
	rest := i1 - (i1-i0)%tileRows
	// The last rows, fewer than a tile: several panels at once if that helps.
	rows = i1 - rest
	last := t.isa.tiles[t.format][rows]
	whole := t.cols / t.isa.tileCols // panels
	for q := q0; q < q1; {
		next := q + 1
		if rows > 0 && q+last.widePanels <= min(q1, whole) {
			next = q + last.widePanels
		}
		for p := q; p < next; p++ {
			for i := i0; i < rest; i += tileRows {
				t.tile(edge, a, i, tileRows, p)
			}
		}
		switch {
		case next > q+1:
			b, step, stride := t.panel(q)
			last.wide(t.c[rest*t.ldc+t.j0+q*t.isa.tileCols:], t.ldc, a.from(rest), a.rowStride, a.step,
				b, step, stride, t.depth, t.load)
		case rows > 0:
			t.tile(edge, a, rest, rows, q)
		}
		q = next
	}
}

// rowsOfA are the rows of A for a block, from i0 on: A[i,p0+p] is
// x[(i-i0)·rowStride + p·step].
type rowsOfA struct {
	x                   []float32
	i0, rowStride, step int
}

func (r rowsOfA) from(i int) []float32 { return r.x[(i-r.i0)*r.rowStride:] }

// rowsOfA gives rows i0..i1 of A. When a transposed A has very long rows, those
// of the block lie in as many pages and compete for the same places of the
// cache; if enough panels use them, they are copied together first.
func (t *product) rowsOfA(worker, i0, i1, panels int) rowsOfA {
	rows := rowsOfA{t.a[i0*t.rowStride+t.p0*t.stepA:], i0, t.rowStride, t.stepA}
	if t.stepA < gatherStride || panels < gatherPanels {
		return rows
	}
	n := i1 - i0
	near := aligned(t.gathered[worker], n*t.depth)
	t.gathered[worker] = near
	for p := range t.depth {
		copy(near[p*n:][:n], rows.x[p*t.stepA:])
	}
	return rowsOfA{near, i0, 1, n}
}

// tile computes rows rows from row i on of panel q. A panel that C has not all
// columns of goes through edge, so that every element meets the same kernel.
func (t *product) tile(edge []float32, a rowsOfA, i, rows, q int) {
	width := t.isa.tileCols
	kernel := t.isa.tiles[t.format][rows].one
	b, step, stride := t.panel(q)
	c := t.c[i*t.ldc+t.j0+q*width:]
	n := t.cols - q*width
	if n >= width {
		kernel(c, t.ldc, a.from(i), a.rowStride, a.step, b, step, stride, t.depth, t.load)
		return
	}
	if t.load {
		for r := range rows {
			copy(edge[r*width:r*width+n], c[r*t.ldc:])
		}
	}
	kernel(edge, width, a.from(i), a.rowStride, a.step, b, step, stride, t.depth, t.load)
	for r := range rows {
		copy(c[r*t.ldc:r*t.ldc+n], edge[r*width:])
	}
}
