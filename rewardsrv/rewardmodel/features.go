package rewardmodel

import (
	"math"
	"math/bits"
)

// The features of a turn. Shares are sums of inverse document frequencies over
// the sum of all of them; "best" is the most over passages, "all" is what the
// passages have together. Most lie between 0 and 1.
const (
	featAsked           = iota // share of the question that the query has
	featKnown                  // share of the query that the question has
	featAll                    // share of the question that the passages have
	featBest                   // the same of the best passage
	featFirst                  // the same of the first passage
	featMargin                 // best less the mean of all passages
	featRank                   // 1 over the rank of the best passage
	featWeight                 // summed frequencies behind featBest, over 10
	featDense                  // the same over the logarithm of the passage's length
	featBeyondBest             // share of the question that a passage has and the query has not
	featBeyondAll              // the same of all passages
	featBeyondWeight           // summed frequencies behind featBeyondBest, over 5
	featQueryAll               // share of the query that the passages have
	featQueryBest              // the same of the best passage
	featQueryNew               // share of the query that passages have and the question has not
	featQueryMissed            // share of the query that neither has
	featTitleBest              // share of a title that the question has
	featTitleFirst             // the same of the first passage
	featTitleWhole             // 1 when the question has all of a title
	featTitleQuery             // share of a title that the query has
	featTitleQueryWhole        // 1 when the query has all of a title
	featTitleAndText           // best product of a title's share and the passage's share of the question
	featTitleBeyond            // best product of a title's share in the query and what its passage has beyond it
	featPairsBest              // share of neighbouring words of the question that stand side by side in a passage
	featPairsAll               // the same of all passages
	featNamesBest              // share of the capitalised words of the question that a passage has
	featNamesAll               // the same of all passages
	featNamesAsked             // the same of the query
	featNames                  // 1 when the question has such words
	featNumbers                // share of the numbers of the question that the passages have
	featHasNumbers             // 1 when the question has numbers
	featTopFound               // the rarest word of the question that passages have
	featTopMissed              // the rarest word of the question that they have not
	featPassages               // number of passages, over 8
	featQuestionWords          // words of the question, over 32
	featQueryWords             // words of the query, over 16
	featTextWords              // logarithm of the mean length of passages in words, over 7
	featDigits                 // share of numbers among the passages' words, times 5
	featCount
)

// features are the numbers above for one turn.
type features [featCount]float32

// compute fills x from a reading.
func (x *features) compute(r *reading, w *weights) {
	*x = features{}
	question := newShare(w, &r.question)
	query := newShare(w, &r.query)
	x[featAsked] = question.of(r.asked)
	x[featKnown] = query.of(r.known)
	x[featNamesAsked] = portion(r.question.capitals, r.asked)
	x[featNames] = indicator(r.question.capitals != 0)
	x[featHasNumbers] = indicator(r.question.numbers != 0)
	x[featQuestionWords] = float32(r.question.count) / 32
	x[featQueryWords] = float32(r.query.count) / 16
	x[featPassages] = float32(r.count) / maxPassages

	var all, allQuery, allPairs uint64
	var sum float32
	words, numbers := 0, 0
	for i := range r.passages[:r.count] {
		p := &r.passages[i]
		all |= p.question
		allQuery |= p.query
		allPairs |= p.pairs
		words += int(p.words)
		numbers += int(p.numbers)

		found := question.of(p.question)
		beyond := question.of(p.question &^ r.asked)
		sum += found
		if i == 0 {
			x[featFirst] = found
		}
		if found > x[featBest] {
			x[featBest] = found
			x[featRank] = 1 / float32(i+1)
			x[featWeight] = found * question.whole / 10
			x[featDense] = x[featWeight] / logarithm(int(p.words))
		}
		x.most(featBeyondBest, beyond)
		x.most(featBeyondWeight, beyond*question.whole/5)
		x.most(featQueryBest, query.of(p.query))
		x.most(featPairsBest, question.pairs(p.pairs))
		x.most(featNamesBest, portion(r.question.capitals, p.question))
		x.title(w, p, i, found, beyond)
	}
	x[featAll] = question.of(all)
	x[featBeyondAll] = question.of(all &^ r.asked)
	x[featQueryAll] = query.of(allQuery)
	x[featQueryNew] = query.of(allQuery &^ r.known)
	x[featQueryMissed] = query.of(query.set &^ (allQuery | r.known))
	x[featPairsAll] = question.pairs(allPairs)
	x[featNamesAll] = portion(r.question.capitals, all)
	x[featNumbers] = portion(r.question.numbers, all)
	x[featTopFound] = w.most(&r.question, all)
	x[featTopMissed] = w.most(&r.question, question.set&^all)
	if r.count > 0 {
		x[featMargin] = x[featBest] - sum/float32(r.count)
		x[featTextWords] = logarithm(words/int(r.count)) / 7
	}
	if words > 0 {
		x[featDigits] = 5 * float32(numbers) / float32(words)
	}
}

// title adds what the title of passage i has to say.
func (x *features) title(w *weights, p *passage, i int, found, beyond float32) {
	var whole, inQuestion, inQuery float32
	for j := range int(p.titleCount) {
		rarity := w[p.title[j]]
		whole += rarity
		inQuestion += rarity * float32(p.titleQuestion>>j&1)
		inQuery += rarity * float32(p.titleQuery>>j&1)
	}
	if whole <= 0 {
		return
	}
	inQuestion /= whole
	inQuery /= whole
	if i == 0 {
		x[featTitleFirst] = inQuestion
	}
	every := uint16(1<<p.titleCount - 1)
	x.most(featTitleBest, inQuestion)
	x.most(featTitleWhole, indicator(p.titleQuestion == every))
	x.most(featTitleQuery, inQuery)
	x.most(featTitleQueryWhole, indicator(p.titleQuery == every))
	x.most(featTitleAndText, inQuestion*found)
	x.most(featTitleBeyond, inQuery*beyond)
}

func (x *features) most(feature int, value float32) { x[feature] = max(x[feature], value) }

// share weighs sets of words of a phrase against all of them.
type share struct {
	weights *weights
	phrase  *phrase
	set     uint64 // all words
	whole   float32
}

func newShare(w *weights, p *phrase) share {
	s := share{weights: w, phrase: p, set: 1<<p.count - 1}
	s.whole = w.of(p, s.set)
	return s
}

func (s *share) of(set uint64) float32 {
	if s.whole <= 0 {
		return 0
	}
	return s.weights.of(s.phrase, set) / s.whole
}

// pairs is the share of pairs of neighbouring words that are in a set, each
// counting as much as its two words together.
func (s *share) pairs(set uint64) float32 {
	every := s.set >> 1
	whole := s.weights.of(s.phrase, every) + s.weights.of(s.phrase, every<<1)
	if whole <= 0 {
		return 0
	}
	return (s.weights.of(s.phrase, set) + s.weights.of(s.phrase, set<<1)) / whole
}

// portion is the part of a set that is in another, 0 for an empty set.
func portion(of, in uint64) float32 {
	if of == 0 {
		return 0
	}
	return float32(bits.OnesCount64(of&in)) / float32(bits.OnesCount64(of))
}

func indicator(is bool) float32 {
	if is {
		return 1
	}
	return 0
}

func logarithm(n int) float32 { return float32(math.Log(float64(n) + 2)) }
