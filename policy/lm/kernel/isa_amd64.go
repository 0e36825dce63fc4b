package kernel

import "golang.org/x/sys/cpu"

//go:generate go -C internal/gen run . -out ../../vector_amd64.s -stubs ../../vector_amd64.go -pkg kernel

// available lists the implementations for this processor, best first.
func available() []*instructionSet {
	sets := []*instructionSet{portable()}
	x86 := &cpu.X86
	if x86.HasAVX2 && x86.HasFMA {
		sets = append([]*instructionSet{avx2()}, sets...)
		if x86.HasAVX512F && x86.HasBMI2 {
			sets = append([]*instructionSet{avx512()}, sets...)
		}
	}
	return sets
}

func avx2() *instructionSet {
	return &instructionSet{
		name:     "avx2",
		tileRows: 6,
		tileCols: 16,
		tiles: [formats][]tileShape{
			Float32: {
				{},
				{tile1x1AVX2, tile1x4AVX2, 4},
				{tile2x1AVX2, tile2x2AVX2, 2},
				{tile3x1AVX2, tile3x2AVX2, 2},
				{tile4x1AVX2, tile4x1AVX2, 1},
				{tile5x1AVX2, tile5x1AVX2, 1},
				{tile6x1AVX2, tile6x1AVX2, 1},
			},
			BFloat16: {
				{},
				{tile1x1BFloat16AVX2, tile1x4BFloat16AVX2, 4},
				{tile2x1BFloat16AVX2, tile2x2BFloat16AVX2, 2},
				{tile3x1BFloat16AVX2, tile3x2BFloat16AVX2, 2},
				{tile4x1BFloat16AVX2, tile4x1BFloat16AVX2, 1},
				{tile5x1BFloat16AVX2, tile5x1BFloat16AVX2, 1},
				{tile6x1BFloat16AVX2, tile6x1BFloat16AVX2, 1},
			},
		},
		transpose:       func(dst, src []float32, ld, rows, k int) { transposeAVX(16, dst, src, ld, rows, k) },
		packRows:        packRowsAVX2,
		roundPairs:      roundPairsAVX2,
		dot:             dotAVX2,
		axpy:            axpyAVX2,
		scale:           scaleAVX2,
		add:             addAVX2,
		mul:             mulAVX2,
		mulAdd:          mulAddAVX2,
		rotate:          rotateAVX2,
		sumSquares:      sumSquaresAVX2,
		max:             maxAVX2,
		expShiftSum:     expShiftSumAVX2,
		siluMul:         siluMulAVX2,
		siluMulBackward: siluMulBackwardAVX2,
		adamW:           adamWAVX2,
	}
}

func avx512() *instructionSet {
	return &instructionSet{
		name:     "avx512",
		tileRows: 12,
		tileCols: 32,
		tiles: [formats][]tileShape{
			Float32: {
				{},
				{tile1x1AVX512, tile1x4AVX512, 4},
				{tile2x1AVX512, tile2x4AVX512, 4},
				{tile3x1AVX512, tile3x2AVX512, 2},
				{tile4x1AVX512, tile4x1AVX512, 1},
				{tile5x1AVX512, tile5x1AVX512, 1},
				{tile6x1AVX512, tile6x1AVX512, 1},
				{tile7x1AVX512, tile7x1AVX512, 1},
				{tile8x1AVX512, tile8x1AVX512, 1},
				{tile9x1AVX512, tile9x1AVX512, 1},
				{tile10x1AVX512, tile10x1AVX512, 1},
				{tile11x1AVX512, tile11x1AVX512, 1},
				{tile12x1AVX512, tile12x1AVX512, 1},
			},
			BFloat16: {
				{},
				{tile1x1BFloat16AVX512, tile1x4BFloat16AVX512, 4},
				{tile2x1BFloat16AVX512, tile2x4BFloat16AVX512, 4},
				{tile3x1BFloat16AVX512, tile3x2BFloat16AVX512, 2},
				{tile4x1BFloat16AVX512, tile4x1BFloat16AVX512, 1},
				{tile5x1BFloat16AVX512, tile5x1BFloat16AVX512, 1},
				{tile6x1BFloat16AVX512, tile6x1BFloat16AVX512, 1},
				{tile7x1BFloat16AVX512, tile7x1BFloat16AVX512, 1},
				{tile8x1BFloat16AVX512, tile8x1BFloat16AVX512, 1},
				{tile9x1BFloat16AVX512, tile9x1BFloat16AVX512, 1},
				{tile10x1BFloat16AVX512, tile10x1BFloat16AVX512, 1},
				{tile11x1BFloat16AVX512, tile11x1BFloat16AVX512, 1},
				{tile12x1BFloat16AVX512, tile12x1BFloat16AVX512, 1},
			},
		},
		transpose:       func(dst, src []float32, ld, rows, k int) { transposeAVX(32, dst, src, ld, rows, k) },
		packRows:        packRowsAVX512,
		roundPairs:      roundPairsAVX512,
		dot:             dotAVX512,
		axpy:            axpyAVX512,
		scale:           scaleAVX512,
		add:             addAVX512,
		mul:             mulAVX512,
		mulAdd:          mulAddAVX512,
		rotate:          rotateAVX512,
		sumSquares:      sumSquaresAVX512,
		max:             maxAVX512,
		expShiftSum:     expShiftSumAVX512,
		siluMul:         siluMulAVX512,
		siluMulBackward: siluMulBackwardAVX512,
		adamW:           adamWAVX512,
	}
}

// transposeAVX transposes rows rows of k floats into columns of a panel that is
// width wide: squares of 8×8, and one by one what is left.
func transposeAVX(width int, dst, src []float32, ld, rows, k int) {
	wholeRows, whole := rows&^7, k&^7
	for i := 0; i < wholeRows && whole > 0; i += 8 {
		transpose8(dst[i:], width, src[i*ld:], ld, whole/8)
	}
	for i := range rows {
		from := whole
		if i >= wholeRows {
			from = 0
		}
		for p := from; p < k; p++ {
			dst[p*width+i] = src[i*ld+p]
		}
	}
}
