// Command gen writes the AVX2 and AVX-512 functions of package kernel with
// avo. It is a module of its own, so that the main module needs no avo. Run
// "go generate" in package kernel.
package main

import (
	"github.com/mmcloughlin/avo/build"
)

func main() {
	for _, s := range []*vectorSet{avx2(), avx512()} {
		for _, shape := range s.tiles {
			tile(s, shape.rows, shape.panels, false)
			tile(s, shape.rows, shape.panels, true)
		}
		packRows(s)
		dot(s)
		sumSquares(s)
		greatest(s)
		linear(s)
		expShiftSum(s)
		siluMul(s)
		siluMulBackward(s)
		adamW(s)
		roundPairs(s)
	}
	transpose8()
	pause()
	build.Generate()
}
