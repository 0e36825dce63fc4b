// Package safetensors reads and writes weights in the safetensors format of
// Hugging Face, so that PyTorch, transformers and vLLM load what Forager saves
// and the reverse.
//
// A file is an 8-byte little-endian header length, a JSON header that maps
// every tensor name to its dtype, shape and byte range, and the tensors' bytes
// without gaps (https://huggingface.co/docs/safetensors). A file is data from
// elsewhere: the whole header is checked before the first tensor is read, and
// no allocation exceeds the size of the file.
//
// Errors name the file and the tensor. They wrap [forager.ErrCorrupt] for
// damaged or hostile bytes, [forager.ErrSchema] for a dtype that is not known,
// [forager.ErrNotFound] for a tensor that is not there, and
// [forager.ErrArchitecture] for one of another shape or dtype than asked for.
//
// Any package may import this one. It imports the root package only.
package safetensors
