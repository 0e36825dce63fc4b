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
		tiles: []tileShape{
			{},
			{tile1x1AVX2, tile1x4AVX2, 4},
			{tile2x1AVX2, tile2x2AVX2, 2},
			{tile3x1AVX2, tile3x2AVX2, 2},
			{tile4x1AVX2, tile4x1AVX2, 1},
			{tile5x1AVX2, tile5x1AVX2, 1},
			{tile6x1AVX2, tile6x1AVX2, 1},
		},
		transpose:       func(dst, src []float32, ld, k int) { transposeAVX(16, dst, src, ld, k) },
		dot:             dotAVX2,
		axpy:            axpyAVX2,
		scale:           scaleAVX2,
		add:             addAVX2,
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
		tiles: []tileShape{
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
		transpose:       func(dst, src []float32, ld, k int) { transposeAVX(32, dst, src, ld, k) },
		dot:             dotAVX512,
		axpy:            axpyAVX512,
		scale:           scaleAVX512,
		add:             addAVX512,
		sumSquares:      sumSquaresAVX512,
		max:             maxAVX512,
		expShiftSum:     expShiftSumAVX512,
		siluMul:         siluMulAVX512,
		siluMulBackward: siluMulBackwardAVX512,
		adamW:           adamWAVX512,
	}
}

// transposeAVX transposes width rows, a multiple of 8, of k floats.
func transposeAVX(width int, dst, src []float32, ld, k int) {
	blocks := k / 8
	for i := 0; i < width; i += 8 {
		rows := src[i*ld:]
		if blocks > 0 {
			transpose8(dst[i:], width, rows, ld, blocks)
		}
		for p := blocks * 8; p < k; p++ {
			for r := range 8 {
				dst[p*width+i+r] = rows[r*ld+p]
			}
		}
	}
}
