package learner

import (
	"fmt"
	"slices"
)

// Budget is the account of credits, part of the checkpoint. Every credit ever
// issued is learned from, returned (its group was dropped, failed or taught
// nothing) or open:
//
//	Issued = Learned + Returned + len(Open)
//
// The learner keeps at most Window credits open. A step learns from at most B
// groups, so Learned ≤ version·B, and with the window (1+η)·B
//
//	Issued ≤ (version + 1 + η)·B + Returned
//
// which is the staleness contract. Because the window counts what is open, a
// resumed run issues neither a burst nor too little, and a returned credit is
// replaced at once, so the learner cannot starve.
type Budget struct {
	Issued   uint64   `json:"issued"` // also the index of the next credit
	Learned  uint64   `json:"learned"`
	Returned uint64   `json:"returned"`
	Open     []uint64 `json:"open"` // ascending
}

// Window is how many credits may be open with B groups per step, lag η and that
// many steps still to do. It shrinks at the end: nothing is rolled out in vain.
func Window(groupsPerStep, lag int, remainingSteps uint64) int {
	return groupsPerStep * int(min(uint64(1+lag), remainingSteps))
}

// Due is how many credits may be issued now.
func (b *Budget) Due(window int) int { return max(0, window-len(b.Open)) }

// Issue opens the next credit and gives its index.
func (b *Budget) Issue() uint64 {
	index := b.Issued
	b.Issued++
	b.Open = append(b.Open, index) // indexes only grow, so Open stays sorted
	return index
}

// IsOpen reports whether the credit was issued and not yet settled.
func (b *Budget) IsOpen(index uint64) bool {
	_, found := slices.BinarySearch(b.Open, index)
	return found
}

// Learn settles a credit whose group was learned from. It reports false, and
// changes nothing, when the credit is not open.
func (b *Budget) Learn(index uint64) bool { return b.settle(index, &b.Learned) }

// Return settles a credit whose group was not learned from. It reports false,
// and changes nothing, when the credit is not open.
func (b *Budget) Return(index uint64) bool { return b.settle(index, &b.Returned) }

func (b *Budget) settle(index uint64, count *uint64) bool {
	at, found := slices.BinarySearch(b.Open, index)
	if found {
		b.Open = slices.Delete(b.Open, at, at+1)
		*count++
	}
	return found
}

// Oldest is the lowest index that is not settled; all below are.
func (b *Budget) Oldest() uint64 {
	if len(b.Open) == 0 {
		return b.Issued
	}
	return b.Open[0]
}

// Validate reports an account that does not add up, which only a damaged
// checkpoint can hold.
func (b *Budget) Validate() error {
	if b.Issued != b.Learned+b.Returned+uint64(len(b.Open)) {
		return fmt.Errorf("credits do not add up: %d issued, %d learned, %d returned, %d open", b.Issued, b.Learned, b.Returned, len(b.Open))
	}
	for i, index := range b.Open {
		if index >= b.Issued || i > 0 && index <= b.Open[i-1] {
			return fmt.Errorf("open credit %d is out of order or was never issued", index)
		}
	}
	return nil
}

func (b *Budget) clone() Budget {
	c := *b
	c.Open = slices.Clone(b.Open)
	return c
}
