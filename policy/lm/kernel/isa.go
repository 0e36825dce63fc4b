package kernel

// tileKernel computes a register tile: rows·(panels·tileCols) elements of C,
//
//	C[i, q·tileCols+j] = (load ? C : 0) + Σ_p A[i,p] · B_q[p,j]
//
// for as many rows and panels as the kernel is made for. Row i of C starts at
// c[i·ldc]; A[i,p] is a[i·rowStride + p·step]; B_q[p,j] is
// b[q·panelStride + p·stepB + j], or what a Format makes of it.
type tileKernel func(c []float32, ldc int, a []float32, rowStride, stepA int,
	b []float32, stepB, panelStride, k int, load bool)

// tileShape is the pair of micro-kernels for one number of rows. A tile of few
// rows has too few accumulators to hide the latency of the multiply-add, so
// wide does several panels at once.
type tileShape struct {
	one        tileKernel
	wide       tileKernel
	widePanels int
}

// instructionSet is one implementation of everything the package computes.
type instructionSet struct {
	name     string
	tileRows int                  // most rows of a register tile
	tileCols int                  // columns of a panel
	tiles    [formats][]tileShape // by number of rows; entry 0 is unused

	// transpose sets dst[p·tileCols+i] = src[i·ld+p] for i < rows, p < k.
	transpose func(dst, src []float32, ld, rows, k int)

	// packRows sets dst[p·tileCols+j] = src[p·ld+j] for j < tileCols, p < k.
	packRows func(dst, src []float32, ld, k int)

	// roundPairs rounds a panel to bfloat16, see goRoundPairs.
	roundPairs func(dst, src []float32)

	dot             func(a, b []float32) float32
	axpy            func(alpha float32, x, y []float32)
	scale           func(alpha float32, x []float32)
	add             func(dst, x []float32)
	mul             func(dst, x, y []float32, alpha float32)
	mulAdd          func(dst, x, y []float32, alpha float32)
	rotate          func(x, y, cos, sin []float32)
	sumSquares      func(x []float32) float64
	max             func(x []float32) float32
	expShiftSum     func(dst, src []float32, shift float32) float32
	siluMul         func(dst, gate, up []float32)
	siluMulBackward func(dGate, dUp, dOut, gate, up []float32)
	adamW           func(w, g, m, v []float32, lr, rest1, rest2, eps, decay, scale1, scale2, gradScale float32)
}

// active is the best implementation this processor has. Only tests replace it.
var active = available()[0]
