package rubric

import (
	"fmt"
	"math/rand/v2"
	"strings"
)

// neutralWords mean nothing for any task. Answers are made of a few of them.
func neutralWords() []string {
	return []string{
		"ACORN", "AGATE", "ALDER", "AMBER", "ASPEN", "BASALT", "BEECH", "BIRCH",
		"CEDAR", "CLOVER", "COBALT", "COPPER", "CORAL", "CRANE", "DAISY", "DELTA",
		"EMBER", "FALCON", "FENNEL", "FERN", "FLINT", "GARNET", "GINGER", "GRANITE",
		"HAZEL", "HERON", "INDIGO", "IVORY", "JASPER", "JUNIPER", "KELP", "LARCH",
		"LAUREL", "LILAC", "LINDEN", "LOTUS", "MAGNET", "MAPLE", "MARBLE", "MINT",
		"MOSS", "NECTAR", "NUTMEG", "OCHRE", "ONYX", "OPAL", "ORCHID", "OTTER",
		"PEBBLE", "PEPPER", "PLUM", "POPLAR", "QUARTZ", "RAVEN", "REED", "ROBIN",
		"SABLE", "SAFFRON", "SLATE", "SPRUCE", "THYME", "TULIP", "WALNUT", "WILLOW",
	}
}

// drawWords draws n different words that occur nowhere in text, in any case. A
// text that holds too many of the list gets made-up words instead: it can know
// the list, not the draw.
func drawWords(rng *rand.Rand, n int, text string) []string {
	text = strings.ToUpper(text)
	drawn := make([]string, 0, n)
	list := neutralWords()
	rng.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	for _, w := range list {
		if len(drawn) < n && !strings.Contains(text, w) {
			drawn = append(drawn, w)
			text += "\n" + w
		}
	}
	for tries := 0; len(drawn) < n; tries++ {
		if w := madeUpWord(rng, 3+tries/8); !strings.Contains(text, w) {
			drawn = append(drawn, w)
			text += "\n" + w
		}
	}
	return drawn
}

// madeUpWord is a word of so many syllables. A syllable has 75 forms, so that no
// text of bounded length holds all words that drawWords comes to try.
func madeUpWord(rng *rand.Rand, syllables int) string {
	const consonants, vowels = "BDFGKLMNPRSTVWZ", "AEIOU"
	var b strings.Builder
	for range syllables {
		b.WriteByte(consonants[rng.IntN(len(consonants))])
		b.WriteByte(vowels[rng.IntN(len(vowels))])
	}
	return b.String()
}

// drawFence draws a line that occurs nowhere in text.
func drawFence(rng *rand.Rand, text string) string {
	for {
		fence := fmt.Sprintf("=== %016x%016x ===", rng.Uint64(), rng.Uint64())
		if !strings.Contains(text, fence) {
			return fence
		}
	}
}
