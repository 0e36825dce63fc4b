package rewardmodel

import (
	"math"
	"unicode"
	"unicode/utf8"
)

// word is one word of a text. Words are told apart by their hash alone.
type word struct {
	hash    uint32 // of its letters and digits, in lower case
	capital bool   // begins with an upper-case letter
	number  bool   // begins with a digit
}

// FNV-1a (Fowler, Noll and Vo).
const (
	fnvOffset uint32 = 2166136261
	fnvPrime  uint32 = 16777619
)

// nextWord finds the first word of a text: a run of letters and digits. Rest is
// the text after it. The s of a possessive is no word of its own.
func nextWord(text string) (w word, rest string, ok bool) {
	hash, letters, apostrophe := fnvOffset, 0, false
	for i := 0; i < len(text); {
		r, size := rune(text[i]), 1
		if r >= utf8.RuneSelf {
			r, size = utf8.DecodeRuneInString(text[i:])
		}
		if lower, isWord := fold(r); isWord {
			if letters == 0 {
				w.capital, w.number = lower != r, r >= '0' && r <= '9'
			}
			hash = (hash ^ uint32(lower)) * fnvPrime
			letters++
		} else {
			if letters > 1 || letters == 1 && !(apostrophe && hash == possessive) {
				w.hash = hash
				return w, text[i:], true
			}
			hash, letters, apostrophe = fnvOffset, 0, r == '\'' || r == '’'
		}
		i += size
	}
	w.hash = hash
	return w, "", letters > 1 || letters == 1 && !(apostrophe && hash == possessive)
}

// possessive is the hash of the word "s".
const possessive = uint32(uint64(fnvOffset^'s') * uint64(fnvPrime) & math.MaxUint32)

// fold gives a letter or digit in lower case.
func fold(r rune) (lower rune, isWord bool) {
	switch {
	case r >= 'a' && r <= 'z' || r >= '0' && r <= '9':
		return r, true
	case r >= 'A' && r <= 'Z':
		return r + ('a' - 'A'), true
	case r < utf8.RuneSelf:
		return r, false
	case unicode.IsLetter(r) || unicode.IsDigit(r):
		return unicode.ToLower(r), true
	}
	return r, false
}

// bucketBits sets the number of buckets that words share (feature hashing,
// Weinberger et al. 2009).
const bucketBits = 14

// bucket maps a hash to a bucket. The multiplication (Knuth's multiplicative
// hashing) spreads what differs in the low bits of FNV.
func bucket(hash uint32) uint16 { return uint16(hash * 2654435769 >> (32 - bucketBits)) }
