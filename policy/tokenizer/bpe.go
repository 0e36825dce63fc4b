package tokenizer

import (
	"strings"
	"unicode/utf8"
)

const (
	// Each encoder remembers this many words of at most this many bytes; when
	// full it starts anew. At most about 3 MB for an encoder in use.
	maxCachedWords = 1 << 14
	maxCachedBytes = 64
)

type pair struct{ left, right int32 }

// merge joins a pair into one token. Its index is its rank.
type merge struct {
	pair
	id int32
}

// encoder is the scratch space of one Encode call. Encoders are pooled, so that
// concurrent calls share no lock.
type encoder struct {
	cache map[string][]int32
	// One word as a doubly linked list of symbols; a merge keeps the left one.
	token, prev, next []int32
	queue             rankQueue
}

func newEncoder() *encoder { return &encoder{cache: make(map[string][]int32)} }

// appendWord appends the tokens of one word.
func (e *encoder) appendWord(out []int32, t *Tokenizer, word string) []int32 {
	if len(word) == 1 && t.charIDs == nil {
		return t.appendSymbols(out, word)
	}
	if cached, ok := e.cache[word]; ok {
		return append(out, cached...)
	}
	from := len(out)
	if id, ok := t.wholeWords[word]; ok {
		out = append(out, id)
	} else {
		out = e.merge(out, t, word)
	}
	if len(word) <= maxCachedBytes {
		if len(e.cache) >= maxCachedWords {
			clear(e.cache)
		}
		e.cache[strings.Clone(word)] = append([]int32(nil), out[from:]...)
	}
	return out
}

// appendSymbols appends the tokens that merging begins with: the bytes of a word,
// or its characters, of which unknown ones fall back to their bytes.
func (t *Tokenizer) appendSymbols(out []int32, word string) []int32 {
	for len(word) > 0 {
		size := 1
		if t.charIDs != nil {
			char, n := utf8.DecodeRuneInString(word)
			if id, ok := t.charIDs[char]; ok && (char != utf8.RuneError || n > 1) {
				out = append(out, id)
				word = word[n:]
				continue
			}
			size = n
		}
		for _, b := range []byte(word[:size]) {
			if id := t.byteIDs[b]; id != missing {
				out = append(out, id)
			}
		}
		word = word[size:]
	}
	return out
}

// merge applies the merge of lowest rank, leftmost first, until none applies.
// It takes O(n log n), so that a long word without spaces cannot stall a node.
func (e *encoder) merge(out []int32, t *Tokenizer, word string) []int32 {
	const gone = -1
	e.token, e.prev, e.next, e.queue = t.appendSymbols(e.token[:0], word), e.prev[:0], e.next[:0], e.queue[:0]
	n := int32(len(e.token))
	for i := range n {
		e.prev = append(e.prev, i-1)
		e.next = append(e.next, i+1)
	}
	consider := func(left, right int32) {
		if left < 0 || right >= n {
			return
		}
		if rank, ok := t.ranks[pair{e.token[left], e.token[right]}]; ok {
			e.queue.push(uint64(rank)<<32 | uint64(left))
		}
	}
	for i := range n - 1 {
		consider(i, i+1)
	}
	for len(e.queue) > 0 {
		item := e.queue.pop()
		m, left := t.merges[item>>32], int32(uint32(item))
		right := e.next[left]
		if e.token[left] != m.left || right >= n || e.token[right] != m.right {
			continue // an earlier merge took one of the two
		}
		e.token[left], e.token[right] = m.id, gone
		after := e.next[right]
		e.next[left] = after
		if after < n {
			e.prev[after] = left
		}
		consider(e.prev[left], left)
		consider(left, after)
	}
	for i := int32(0); i < n; i = e.next[i] {
		out = append(out, e.token[i])
	}
	return out
}

// rankQueue is a binary min-heap of rank<<32 | position.
type rankQueue []uint64

func (q *rankQueue) push(item uint64) {
	h := append(*q, item)
	i := len(h) - 1
	for i > 0 {
		parent := (i - 1) / 2
		if h[parent] <= item {
			break
		}
		h[i] = h[parent]
		i = parent
	}
	h[i] = item
	*q = h
}

func (q *rankQueue) pop() uint64 {
	h := *q
	top, last := h[0], h[len(h)-1]
	h = h[:len(h)-1]
	i := 0
	for {
		child := 2*i + 1
		if child >= len(h) {
			break
		}
		if child+1 < len(h) && h[child+1] < h[child] {
			child++
		}
		if last <= h[child] {
			break
		}
		h[i] = h[child]
		i = child
	}
	if len(h) > 0 {
		h[i] = last
	}
	*q = h
	return top
}
