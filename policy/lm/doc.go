// Package lm is the native language-model engine: a decoder-only transformer of
// the Llama family (RMSNorm, rotary positions, SwiGLU, grouped-query attention)
// with explicit forward and backward passes in Go.
//
// The mental model has three parts. A Model is an architecture and its weights,
// read-only while shared. A Trainer owns gradients and optimiser state and
// changes a Model's weights in Update. An Engine holds a private packed copy of
// some Model's weights and continues many token sequences at once; new weights
// are handed to it between tokens.
//
// Matrices have Hugging Face's [out, in] layout, so that safetensors load
// without transposing. Nothing here knows about rewards, episodes or algorithms:
// a loss arrives as a function from log-probabilities to their gradients.
//
// Anybody at layer 2 or above may import it; it imports the root package,
// policy and its own kernels.
package lm
