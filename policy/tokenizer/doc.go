// Package tokenizer turns text into token ids and back: byte-level BPE, read
// from and written to the tokenizer.json of Hugging Face, and trained here.
//
// A text passes four stages. Added tokens such as "<search>" are cut out whole.
// A normaliser may compose Unicode (NFC). The pre-tokeniser cuts the rest into
// words by the rule of GPT-2, Qwen2 or Llama 3. Merges join the bytes of each
// word in order of rank. Without a normaliser Decode(Encode(s)) == s for every
// string, valid UTF-8 or not; with one it is the normalised s.
//
// Text that the policy must not be able to act through (passages, queries) goes
// through [Tokenizer.EncodePlain], where "<search>" is just characters.
//
// A Tokenizer is immutable and safe for concurrent use. A file that asks for
// something this package does not do is an error that names it and wraps
// [forager.ErrSchema]; a damaged file wraps [forager.ErrCorrupt].
//
// Any package may import this one. It imports the root package and package
// policy, and golang.org/x/text for NFC.
package tokenizer
