// Package tokenizer turns text into token ids and back by byte-pair encoding
// (BPE). It reads and writes the tokenizer.json of Hugging Face, reads the tables
// of GGUF files, and trains vocabularies of its own.
//
// A text passes four stages. Added tokens such as "<search>" are cut out whole.
// A normaliser may compose Unicode (NFC) or put a space in front. The
// pre-tokeniser cuts the rest into words by the rule of GPT-2, SmolLM, Qwen2 or
// Llama 3. Merges join the bytes of each word in order of rank; or its characters
// in files made of SentencePiece models, such as those of Llama 2 and Mistral,
// where characters without a token fall back to bytes.
//
// Without NFC, Decode(Encode(s)) == s for every string, valid UTF-8 or not; with
// it, the result is the composed s. Two kinds of published files lose a little, as they do
// with every reader: a Metaspace pre-tokeniser drops one space at the beginning
// of a text, and SmolLM2 has no tokens for 21 bytes, none of which occurs in
// ordinary text.
//
// Text that the policy must not be able to act through (passages, queries) goes
// through [Tokenizer.EncodePlain], where "<search>" is just characters, or is a
// plain part of [Tokenizer.EncodeParts].
//
// Ids are those of the tokenizers library, but for the character U+2581 in a
// SentencePiece model, which would come back as a space and is spelled in bytes.
//
// A Tokenizer is immutable and safe for concurrent use. A file that asks for
// something this package does not do is an error that names it and wraps
// [forager.ErrSchema]; a damaged file wraps [forager.ErrCorrupt].
//
// Any package may import this one. It imports the root package and package
// policy, and golang.org/x/text for NFC.
package tokenizer
