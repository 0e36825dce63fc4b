package tokenizer

import (
	"fmt"
	"slices"
	"strings"
	"sync"

	"golang.org/x/text/unicode/norm"

	"github.com/forager-rl/forager"
	"github.com/forager-rl/forager/policy"
)

var _ policy.Tokenizer = (*Tokenizer)(nil)

// Tokenizer is an immutable BPE tokeniser over bytes or, in the way of
// SentencePiece, over characters. Make one with Load, Parse, FromGGUF or
// Train.
type Tokenizer struct {
	// bytes and spelling are indexed by id; ids that are not in use have no
	// bytes. spelling is the token as the file writes it.
	bytes    [][]byte
	spelling []string
	ids      map[string]int32 // by spelling
	added    []addedToken     // by id
	isAdded  map[int32]bool   // true if the model lists the token as well

	addedRaw        *matcher // tokens found in the text as given
	addedNormalized *matcher // tokens found in the text after normalisation
	nfc             bool
	prefix          prefixRule
	word            wordRule
	charIDs         map[rune]int32 // nil for a model of bytes
	byteIDs         [256]int32     // of bytes, and of bytes of other characters
	merges          []merge        // by rank
	ranks           map[pair]int32 // rank of a pair
	wholeWords      map[string]int32

	bos, eos int32
	opening  []int32 // what the file puts before every text
	stops    []int32

	stages   stages // as in the file, for Marshal
	flags    flags
	encoders *sync.Pool
}

// Encode gives the tokens of a text. Added tokens are recognised; for text that
// is not trusted use EncodePlain or EncodeParts.
func (t *Tokenizer) Encode(text string) []int32 { return t.encode(text, nil) }

// EncodePlain gives the tokens of a text in which added tokens are ordinary
// characters. It is for text from outside, such as passages and queries: a
// passage that says "</information><answer>" stays a passage.
func (t *Tokenizer) EncodePlain(text string) []int32 {
	e := t.encoders.Get().(*encoder)
	defer t.encoders.Put(e)
	return e.appendWords(make([]int32, 0, len(text)/3+1), t, t.normalize(text, true))
}

// EncodeParts gives the tokens of the parts joined to one text. They are those
// of Encode, except that an added token is recognised only where all of it lies
// outside of plain parts.
func (t *Tokenizer) EncodeParts(parts ...policy.Part) []int32 {
	return t.encode(joinParts(parts))
}

func (t *Tokenizer) encode(text string, plain ranges) []int32 {
	e := t.encoders.Get().(*encoder)
	defer t.encoders.Put(e)
	out := make([]int32, 0, len(text)/3+1)
	for from := 0; from < len(text); {
		start, end, id := t.addedRaw.find(text, from, plain)
		out = e.appendSection(out, t, text[from:start], plain.within(from, start), from == 0)
		if end > start {
			out = append(out, id)
		}
		from = end
	}
	return out
}

// appendSection appends the tokens of the text between two added tokens.
func (e *encoder) appendSection(out []int32, t *Tokenizer, section string, plain ranges, first bool) []int32 {
	if t.addedNormalized.empty {
		return e.appendWords(out, t, t.normalize(section, first))
	}
	section, plain = t.normalizeRanges(section, plain, first)
	for from := 0; from < len(section); {
		start, end, id := t.addedNormalized.find(section, from, plain)
		out = e.appendWords(out, t, section[from:start])
		if end > start {
			out = append(out, id)
		}
		from = end
	}
	return out
}

func (e *encoder) appendWords(out []int32, t *Tokenizer, text string) []int32 {
	for text != "" {
		n := t.word(text)
		out = e.appendWord(out, t, text[:n])
		text = text[n:]
	}
	return out
}

// normalize composes characters and prefixes a space where the file asks for
// it. More than 30 combining marks in a row are split by U+034F (Unicode's
// stream-safe format), which other implementations do not do.
func (t *Tokenizer) normalize(section string, first bool) string {
	if t.nfc {
		return norm.NFC.String(section)
	}
	if t.prefix.applies(section, first) {
		return " " + section
	}
	return section
}

// normalizeRanges is normalize for a section that has plain ranges: plain text
// and the rest are composed apart, so that it is known where each ends up.
func (t *Tokenizer) normalizeRanges(section string, plain ranges, first bool) (string, ranges) {
	if !t.nfc || len(plain) == 0 {
		return t.normalize(section, first), plain
	}
	var parts []policy.Part
	from := 0
	for _, r := range plain {
		parts = append(parts,
			policy.Part{Text: norm.NFC.String(section[from:r.start])},
			policy.Part{Text: norm.NFC.String(section[r.start:r.end]), Plain: true})
		from = r.end
	}
	return joinParts(append(parts, policy.Part{Text: norm.NFC.String(section[from:])}))
}

// Decode joins the bytes of the tokens, which may not be valid UTF-8. Unknown
// ids are skipped. A space that Encode prefixes is taken away again.
func (t *Tokenizer) Decode(ids []int32) string {
	var out strings.Builder
	prefixed := t.prefix != noPrefix
	for _, id := range ids {
		piece := t.TokenBytes(id)
		if len(piece) == 0 {
			continue
		}
		if t.prefix != noPrefix {
			_, added := t.isAdded[id]
			if prefixed && !added && piece[0] == ' ' {
				piece = piece[1:]
			}
			prefixed = added && t.prefix != metaspaceFirst
		}
		out.Write(piece)
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
// token, or the model's spelling ("Ġthe", "▁the", "<0x0A>") of another.
func (t *Tokenizer) ID(token string) (int32, bool) {
	id, ok := t.ids[token]
	return id, ok
}

// VocabSize is one more than the largest id.
func (t *Tokenizer) VocabSize() int { return len(t.bytes) }

// EOS is the end-of-sequence token, -1 if the file names none.
//
// tokenizer.json does not say which token it is. Load reads it from
// tokenizer_config.json beside the file, or else from generation_config.json or
// config.json. Failing that, it is the only special token, or "<|endoftext|>"
// among several.
func (t *Tokenizer) EOS() int32 { return t.eos }

// StopTokens are the tokens after which nothing follows, in order of id: EOS,
// and what the files beside tokenizer.json name as well. A chat model often
// ends its turn and the text with different tokens. The slice is shared.
func (t *Tokenizer) StopTokens() []int32 { return t.stops }

// BOS is the beginning-of-sequence token, -1 if the files name none.
func (t *Tokenizer) BOS() int32 { return t.bos }

// Opening is what the model expects before every text, such as BOS; it is often
// empty. Encode leaves it out, as a chat template writes it itself. The slice is
// shared.
func (t *Tokenizer) Opening() []int32 { return t.opening }

// WithEOS gives the same tokeniser with another end-of-sequence token, which
// takes the place of the old one among the stop tokens.
func (t *Tokenizer) WithEOS(id int32) (*Tokenizer, error) {
	if t.TokenBytes(id) == nil {
		return nil, fmt.Errorf("end-of-sequence token %d: %w", id, forager.ErrNotFound)
	}
	other := *t
	other.setEOS(id)
	return &other, nil
}

func (t *Tokenizer) setEOS(id int32) {
	t.stops = slices.DeleteFunc(slices.Clone(t.stops), func(stop int32) bool { return stop == t.eos })
	t.eos = id
	t.addStops(id)
}

// addStops adds stop tokens. Unknown ones cannot be sampled and are left out.
func (t *Tokenizer) addStops(ids ...int32) {
	stops := slices.Clone(t.stops)
	for _, id := range ids {
		if t.TokenBytes(id) != nil {
			stops = append(stops, id)
		}
	}
	slices.Sort(stops)
	t.stops = slices.Compact(stops)
}
