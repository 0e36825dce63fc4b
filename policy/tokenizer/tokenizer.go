package tokenizer

import (
	"fmt"
	"strings"
	"sync"

	"golang.org/x/text/unicode/norm"

	"github.com/forager-rl/forager"
	"github.com/forager-rl/forager/policy"
)

var _ policy.Tokenizer = (*Tokenizer)(nil)

// Tokenizer is an immutable byte-level BPE tokeniser. Make one with Load,
// Parse, FromGPT2 or Train.
type Tokenizer struct {
	// bytes and spelling are indexed by id; ids that are not in use have no
	// bytes. spelling is the token as the file writes it.
	bytes    [][]byte
	spelling []string
	ids      map[string]int32 // by spelling
	added    []addedToken     // by id
	eos      int32

	addedRaw        *matcher // tokens found in the text as given
	addedNormalized *matcher // tokens found in the text after normalisation
	nfc             bool
	word            wordRule
	byteIDs         [256]int32
	merges          []merge        // by rank
	ranks           map[pair]int32 // rank of a pair
	wholeWords      map[string]int32

	inModel  map[int32]bool // added tokens that the model lists as well
	stages   stages         // as in the file, for Marshal
	encoders *sync.Pool
}

// Encode gives the tokens of a text. Added tokens are recognised; for text that
// is not trusted use EncodePlain.
func (t *Tokenizer) Encode(text string) []int32 {
	e := t.encoders.Get().(*encoder)
	defer t.encoders.Put(e)
	out := make([]int32, 0, len(text)/3+1)
	for text != "" {
		start, end, id := t.addedRaw.find(text)
		piece := t.normalize(text[:start])
		for piece != "" {
			from, to, normalizedID := t.addedNormalized.find(piece)
			out = e.appendWords(out, t, piece[:from])
			if to > from {
				out = append(out, normalizedID)
			}
			piece = piece[to:]
		}
		if end > start {
			out = append(out, id)
		}
		text = text[end:]
	}
	return out
}

// EncodePlain gives the tokens of a text in which added tokens are ordinary
// characters. It is for text from outside, such as passages and queries: a
// passage that says "</information><answer>" stays a passage.
func (t *Tokenizer) EncodePlain(text string) []int32 {
	e := t.encoders.Get().(*encoder)
	defer t.encoders.Put(e)
	return e.appendWords(make([]int32, 0, len(text)/3+1), t, t.normalize(text))
}

func (e *encoder) appendWords(out []int32, t *Tokenizer, text string) []int32 {
	for text != "" {
		n := t.word(text)
		out = e.appendWord(out, t, text[:n])
		text = text[n:]
	}
	return out
}

// normalize composes characters where the file asks for it. More than 30
// combining marks in a row are split by U+034F (Unicode's stream-safe format),
// which other implementations do not do.
func (t *Tokenizer) normalize(text string) string {
	if t.nfc {
		return norm.NFC.String(text)
	}
	return text
}

// Decode joins the bytes of the tokens, which may not be valid UTF-8. Unknown
// ids are skipped.
func (t *Tokenizer) Decode(ids []int32) string {
	var out strings.Builder
	for _, id := range ids {
		out.Write(t.TokenBytes(id))
	}
	return out.String()
}

// TokenBytes gives the bytes of one token, nil for an unknown id. The slice is
// shared and must not be changed.
func (t *Tokenizer) TokenBytes(id int32) []byte {
	if id < 0 || int(id) >= len(t.bytes) {
		return nil
	}
	return t.bytes[id]
}

// ID finds a token by its spelling in tokenizer.json: the text of an added
// token, or the byte alphabet ("Ġthe") of another.
func (t *Tokenizer) ID(token string) (int32, bool) {
	id, ok := t.ids[token]
	return id, ok
}

// VocabSize is one more than the largest id.
func (t *Tokenizer) VocabSize() int { return len(t.bytes) }

// EOS is the end-of-sequence token, -1 if the file names none.
//
// tokenizer.json does not say which token it is. Load reads it from
// tokenizer_config.json beside the file. Failing that, it is the only special
// token, or "<|endoftext|>" among several.
func (t *Tokenizer) EOS() int32 { return t.eos }

// WithEOS gives the same tokeniser with another end-of-sequence token.
func (t *Tokenizer) WithEOS(id int32) (*Tokenizer, error) {
	if t.TokenBytes(id) == nil {
		return nil, fmt.Errorf("end-of-sequence token %d: %w", id, forager.ErrNotFound)
	}
	other := *t
	other.eos = id
	return &other, nil
}
