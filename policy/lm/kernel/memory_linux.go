package kernel

import (
	"syscall"
	"unsafe"
)

// adviseHugePages asks for huge pages for the part of x that fills whole ones.
// It is advice: where the kernel takes none, x lies in small pages.
func adviseHugePages(x []float32) {
	const hugePage = 2 << 20 // of amd64, and of arm64 with 4 KiB pages
	bytes := unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(x))), 4*len(x))
	start := int(-uintptr(unsafe.Pointer(unsafe.SliceData(x))) % hugePage)
	if end := start + (len(bytes)-start)/hugePage*hugePage; end > start && len(bytes) > start {
		_ = syscall.Madvise(bytes[start:end], syscall.MADV_HUGEPAGE)
	}
}
