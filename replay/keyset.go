package replay

import "slices"

// keyset is a set of group keys as ascending, disjoint, non-adjacent ranges.
// Keys come nearly in order, so that the groups of a long run are a few ranges.
type keyset []keyrange

// keyrange is the half-open range [From, To).
type keyrange struct {
	From uint64 `json:"from"`
	To   uint64 `json:"to"`
}

// find gives the first range that ends at key or later.
func (s keyset) find(key uint64) int {
	at, _ := slices.BinarySearchFunc(s, key, func(r keyrange, key uint64) int {
		if r.To < key {
			return -1
		}
		return 1
	})
	return at
}

func (s keyset) has(key uint64) bool {
	for i := s.find(key); i < len(s) && s[i].From <= key; i++ {
		if key < s[i].To {
			return true
		}
	}
	return false
}

func (s *keyset) add(key uint64) {
	if s.has(key) {
		return
	}
	r := *s
	at := r.find(key) // r[at].To >= key: it may end exactly at key
	grows := at < len(r) && r[at].To == key
	next := at
	if grows {
		next++
	}
	meets := next < len(r) && r[next].From == key+1
	switch {
	case grows && meets:
		r[at].To = r[next].To
		r = slices.Delete(r, next, next+1)
	case grows:
		r[at].To = key + 1
	case meets:
		r[next].From = key
	default:
		r = slices.Insert(r, at, keyrange{key, key + 1})
	}
	*s = r
}

// from gives the part of the set at key and above.
func (s keyset) from(key uint64) keyset {
	var part keyset
	for _, r := range s {
		if r.To > key {
			part = append(part, keyrange{max(r.From, key), r.To})
		}
	}
	return part
}

// keys lists the set.
func (s keyset) keys() []uint64 {
	var keys []uint64
	for _, r := range s {
		for k := r.From; k < r.To; k++ {
			keys = append(keys, k)
		}
	}
	return keys
}
