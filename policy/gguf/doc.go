// Package gguf reads models in GGUF, the file format of llama.cpp: metadata,
// tensors, and the tables of the tokenizer.
//
// A file is a header with typed key-value pairs and a directory of tensors,
// then the tensors' bytes, each aligned
// (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, versions 2 and 3,
// little-endian). Most tensors are quantised in blocks: 32 or 256 numbers of 4
// to 8 bits share a scale. Tensors are read as float32, whatever they were.
//
// A file is data from elsewhere: the whole header is checked before the first
// tensor is read, and what it makes this package allocate is bounded.
//
// Errors name the file and the tensor or key. They wrap [forager.ErrCorrupt]
// for damaged or hostile bytes, [forager.ErrSchema] for a version or an
// encoding that is not known, [forager.ErrNotFound] for a tensor or key that is
// not there, and [forager.ErrArchitecture] for a tensor of another shape than
// asked for.
//
// Any package may import this one. It imports the root package and the 16-bit
// floats.
package gguf
