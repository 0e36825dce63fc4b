package kernel

import "fmt"

// MatMul computes C = A·B, or C += A·B if acc. C is m×n, A is m×k and B is k×n,
// all row-major; ldc, lda and ldb are the distances between row starts in
// floats. C must not overlap A or B. Any of m, n and k may be 0. It panics if a
// slice is too short for its shape.
func (p *Pool) MatMul(c []float32, ldc int, a []float32, lda int, b []float32, ldb int, m, n, k int, acc bool) {
	check("MatMul", c, ldc, m, n, a, lda, m, k, b, ldb, k, n)
	p.multiply(product{
		isa: active, c: c, ldc: ldc, a: a, rowStride: lda, stepA: 1,
		b: b, ldb: ldb, m: m, n: n, k: k, load: acc,
	})
}

// MatMulTransB computes C = A·Bᵀ, or C += A·Bᵀ if acc. C is m×n, A is m×k and B
// is n×k. See MatMul for the rest.
func (p *Pool) MatMulTransB(c []float32, ldc int, a []float32, lda int, b []float32, ldb int, m, n, k int, acc bool) {
	check("MatMulTransB", c, ldc, m, n, a, lda, m, k, b, ldb, n, k)
	p.multiply(product{
		isa: active, c: c, ldc: ldc, a: a, rowStride: lda, stepA: 1,
		b: b, ldb: ldb, transposed: true, m: m, n: n, k: k, load: acc,
	})
}

// MatMulTransA computes C = Aᵀ·B, or C += Aᵀ·B if acc. C is m×n, A is k×m and B
// is k×n. See MatMul for the rest.
func (p *Pool) MatMulTransA(c []float32, ldc int, a []float32, lda int, b []float32, ldb int, m, n, k int, acc bool) {
	check("MatMulTransA", c, ldc, m, n, a, lda, k, m, b, ldb, k, n)
	p.multiply(product{
		isa: active, c: c, ldc: ldc, a: a, rowStride: 1, stepA: lda,
		b: b, ldb: ldb, m: m, n: n, k: k, load: acc,
	})
}

// MatMulPacked computes C = A·Bᵀ, or C += A·Bᵀ if acc, with a B that was packed
// before. C is m×n and A is m×k, with B's n and k. See MatMul for the rest. It
// spares the packing, which with few rows costs more than the product.
func (p *Pool) MatMulPacked(c []float32, ldc int, a []float32, lda int, w *Packed, m int, acc bool) {
	check("MatMulPacked", c, ldc, m, w.n, a, lda, m, w.k, nil, 0, 0, 0)
	p.multiply(product{
		isa: w.isa, c: c, ldc: ldc, a: a, rowStride: lda, stepA: 1,
		packed: w, format: w.format, m: m, n: w.n, k: w.k, load: acc,
	})
}

// packTransposed packs n rows of k floats, n at most tileCols, as a panel
// of k×tileCols, and fills the missing columns with zeros.
func packTransposed(isa *instructionSet, dst, b []float32, ldb, n, k int) {
	if n < isa.tileCols {
		clear(dst)
	}
	isa.transpose(dst, b, ldb, n, k)
}

// packRows packs k rows of n floats, n at most tileCols, likewise.
func packRows(isa *instructionSet, dst, b []float32, ldb, n, k int) {
	width := isa.tileCols
	if n == width {
		isa.packRows(dst, b, ldb, k)
		return
	}
	for p := range k {
		row := dst[p*width : (p+1)*width]
		copy(row, b[p*ldb:p*ldb+n])
		clear(row[n:])
	}
}

func check(op string, c []float32, ldc, m, n int, a []float32, lda, rowsA, colsA int, b []float32, ldb, rowsB, colsB int) {
	checkMatrix(op, "c", c, ldc, m, n)
	checkMatrix(op, "a", a, lda, rowsA, colsA)
	checkMatrix(op, "b", b, ldb, rowsB, colsB)
}

func checkMatrix(op, name string, x []float32, ld, rows, cols int) {
	if rows < 0 || cols < 0 {
		panic(fmt.Sprintf("kernel: %s: %s has negative shape %d×%d", op, name, rows, cols))
	}
	if rows == 0 || cols == 0 {
		return
	}
	if ld < cols || len(x) < (rows-1)*ld+cols {
		panic(fmt.Sprintf("kernel: %s: %s is %d×%d with %d floats between rows, but holds %d floats", op, name, rows, cols, ld, len(x)))
	}
}
