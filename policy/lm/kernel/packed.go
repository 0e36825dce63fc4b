package kernel

// Packed is a matrix B of n×k, packed for MatMulPacked.
type Packed struct {
	isa    *instructionSet
	format Format
	n, k   int
	step   int       // words of a panel's row
	panels []float32 // panel after panel, each k×step words
}

// Pack packs B, which is n×k with ldb floats between row starts, in a format:
// Float32 for exact products, a narrower one where B is read from memory again
// and again for few rows of A, as in generating text.
func Pack(b []float32, ldb, n, k int, format Format) *Packed {
	isa := active
	w := &Packed{isa: isa, format: format, n: n, k: k, step: format.stepWords(isa.tileCols)}
	w.panels = aligned(nil, (n+isa.tileCols-1)/isa.tileCols*w.step*k)
	w.Repack(b, ldb)
	return w
}

// Repack packs other values of the same shape into the same memory, in the same
// format. No product may use w meanwhile.
func (w *Packed) Repack(b []float32, ldb int) {
	checkMatrix("Repack", "b", b, ldb, w.n, w.k)
	if w.k == 0 {
		return
	}
	width := w.isa.tileCols
	var panel []float32 // in float32, of the narrow formats
	if w.format != Float32 {
		panel = make([]float32, width*w.k)
	}
	for j := 0; j < w.n; j += width {
		dst := w.panels[j/width*w.step*w.k:][:w.step*w.k]
		n := min(width, w.n-j)
		if w.format == Float32 {
			packTransposed(w.isa, dst, b[j*ldb:], ldb, n, w.k)
			continue
		}
		packTransposed(w.isa, panel, b[j*ldb:], ldb, n, w.k)
		w.isa.roundPairs(dst, panel)
	}
}

// Shape returns B's numbers of rows and columns.
func (w *Packed) Shape() (n, k int) { return w.n, w.k }

// Format returns the format B is held in.
func (w *Packed) Format() Format { return w.format }
