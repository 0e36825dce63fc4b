// Package kernel computes what a transformer needs on a CPU in float32: matrix
// products, and a handful of vector functions. Package policy/lm is its only
// importer; it imports nothing of this module.
//
// # Instruction sets
//
// One of three implementations is chosen when the program starts: AVX-512
// (amd64 with AVX512F), AVX2 with FMA, or plain Go, which runs everywhere and
// passes the same tests. GODEBUG=cpu.avx512f=off (and cpu.avx2=off) choose a
// lesser one by hand.
//
// # Batch invariance
//
// An element of a matrix product is one chain of operations over the inner
// dimension in ascending order,
//
//	c = round(c + a[i,0]·b[0,j]); c = round(c + a[i,1]·b[1,j]); ...
//
// starting at 0, or at the old C when accumulating; each step is one fused
// multiply-add in the vector sets. The chain does not depend on the number of
// rows or columns, on the place of the element in a tile, on threads, or on
// which product function computes it. So the log-probability of a token is the
// same, bit for bit, alone or in a batch, as long as the instruction set is.
// The two vector sets agree with one another as well; plain Go rounds the
// product before the addition and so differs from them in the last bits.
//
// The element-wise functions (ExpShiftSum's dst, SiluMul, AdamW, ...) likewise
// give an element the same result wherever it stands. Sums over a vector (Dot,
// SumSquares, the sum of ExpShiftSum) depend on its length only.
//
// # Method
//
// The products follow BLIS (Van Zee and van de Geijn, 2015): B is packed into
// panels as wide as a register tile, and a micro-kernel keeps a tile of C in
// registers while it walks down the inner dimension. Up to some 16 rows a
// product takes as long as to read B from memory; a B that is used again and
// again is packed once (Pack), as bfloat16 to read half of the bytes.
package kernel
