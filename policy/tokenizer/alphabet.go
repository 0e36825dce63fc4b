package tokenizer

// alphabet is GPT-2's spelling of bytes as printable characters, in which
// vocabularies and merges are written: printable Latin-1 stands for itself, the
// other 68 bytes are numbered from U+0100 in order.
// Source: Radford et al. 2019, encoder.py, bytes_to_unicode.
type alphabet struct {
	char [256]rune
	byte map[rune]byte
}

func newAlphabet() *alphabet {
	a := &alphabet{byte: make(map[rune]byte, 256)}
	next := rune(256)
	for b := range 256 {
		char := rune(b)
		if printable := '!' <= char && char <= '~' || '¡' <= char && char <= '¬' || '®' <= char && char <= 'ÿ'; !printable {
			char = next
			next++
		}
		a.char[b] = char
		a.byte[char] = byte(b)
	}
	return a
}

// unspell reads bytes back. A token with a character outside the alphabet
// stands for its own UTF-8, as in the tokenizers library.
func (a *alphabet) unspell(token string) []byte {
	out := make([]byte, 0, len(token))
	for _, char := range token {
		b, ok := a.byte[char]
		if !ok {
			return []byte(token)
		}
		out = append(out, b)
	}
	return out
}
