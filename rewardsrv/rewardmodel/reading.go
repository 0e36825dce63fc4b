package rewardmodel

import "math"

// Bounds of a reading. What exceeds them is not read; a usual turn stays below.
const (
	maxQuestion    = 64   // words of a question or a query
	maxPassages    = 8    // passages of an observation
	maxTitleWords  = 16   // words of a title
	maxObservation = 8192 // bytes of an observation
)

// reading is what is kept of an Example: how its parts match, as bit sets over
// the words of question and query, and the words themselves as bucket numbers.
// It has no pointers and a fixed size, so that thousands are cheap to keep.
// Nothing in it depends on what else was seen: how rare words are is looked up
// when features are computed.
type reading struct {
	question, query phrase
	asked           uint64 // words of the question that the query has too
	known           uint64 // words of the query that the question has too
	passages        [maxPassages]passage
	count           uint8 // of passages
}

// phrase is the distinct words of a question or a query, in order.
type phrase struct {
	buckets  [maxQuestion]uint16
	count    uint8
	capitals uint64 // words that begin with a capital, but for the first
	numbers  uint64
}

// passage is one passage of the observation.
type passage struct {
	question, query uint64 // words of question and query that its title or text has
	pairs           uint64 // bit i: words i and i+1 of the question stand side by side in it
	title           [maxTitleWords]uint16
	titleCount      uint8
	titleQuestion   uint16 // words of the title that the question has
	titleQuery      uint16 // words of the title that the query has
	words           uint16
	numbers         uint16
}

// lookup finds words of the question and of the query by hash: a hash table with
// linear probing that is at most half full.
type lookup struct {
	hash  [4 * maxQuestion]uint32
	place [4 * maxQuestion][2]int8 // index in question and query, plus one; 0 is none
}

func (l *lookup) slot(hash uint32) int {
	i := int(hash % uint32(len(l.hash)))
	for l.place[i] != [2]int8{} && l.hash[i] != hash {
		i = (i + 1) % len(l.hash)
	}
	return i
}

// find gives the index of a word in question and query, -1 where it does not occur.
func (l *lookup) find(hash uint32) (question, query int) {
	p := l.place[l.slot(hash)]
	return int(p[0]) - 1, int(p[1]) - 1
}

// reader reads examples; it keeps what it needs for that from one to the next.
type reader struct {
	lookup lookup
	hashes [2][maxQuestion]uint32 // of the words of question and query
}

// read fills r.
func (d *reader) read(r *reading, e Example) {
	*r = reading{}
	d.lookup = lookup{}
	d.phrase(&r.question, e.Question, 0)
	d.phrase(&r.query, e.Query, 1)
	for i := range int(r.query.count) {
		if q, _ := d.lookup.find(d.hashes[1][i]); q >= 0 {
			r.asked |= 1 << q
			r.known |= 1 << i
		}
	}
	eachPassage(cut(e.Observation, maxObservation), func(title, text string) {
		if r.count < maxPassages {
			d.passage(&r.passages[r.count], title, text)
			r.count++
		}
	})
}

// phrase reads the question (part 0) or the query (part 1).
func (d *reader) phrase(p *phrase, text string, part int) {
	text = cut(text, maxObservation)
	for first := true; p.count < maxQuestion; first = false {
		w, rest, ok := nextWord(text)
		if !ok {
			return
		}
		text = rest
		i := d.lookup.slot(w.hash)
		if d.lookup.place[i][part] != 0 {
			continue
		}
		d.lookup.hash[i] = w.hash
		d.lookup.place[i][part] = int8(p.count) + 1
		d.hashes[part][p.count] = w.hash
		p.buckets[p.count] = bucket(w.hash)
		if w.capital && !first {
			p.capitals |= 1 << p.count
		}
		if w.number {
			p.numbers |= 1 << p.count
		}
		p.count++
	}
}

func (d *reader) passage(p *passage, title, text string) {
	before := maxQuestion // index of the word before in the question
	for {
		w, rest, ok := nextWord(title)
		if !ok || p.titleCount == maxTitleWords {
			break
		}
		title = rest
		question, query := d.word(p, w, &before)
		p.title[p.titleCount] = bucket(w.hash)
		if question >= 0 {
			p.titleQuestion |= 1 << p.titleCount
		}
		if query >= 0 {
			p.titleQuery |= 1 << p.titleCount
		}
		p.titleCount++
	}
	before = maxQuestion
	for {
		w, rest, ok := nextWord(text)
		if !ok {
			return
		}
		text = rest
		d.word(p, w, &before)
	}
}

// word notes a word of a passage.
func (d *reader) word(p *passage, w word, before *int) (question, query int) {
	question, query = d.lookup.find(w.hash)
	if question >= 0 {
		p.question |= 1 << question
		if question == *before+1 {
			p.pairs |= 1 << *before
		}
		*before = question
	} else {
		*before = maxQuestion
	}
	if query >= 0 {
		p.query |= 1 << query
	}
	if p.words < math.MaxUint16 {
		p.words++
	}
	if w.number && p.numbers < math.MaxUint16 {
		p.numbers++
	}
	return question, query
}

// cut shortens a text to at most n bytes. Half a character at the end is no letter.
func cut(text string, n int) string { return text[:min(len(text), n)] }
