package replay

import (
	"cmp"
	"math/rand/v2"
	"slices"

	"github.com/forager-rl/forager"
)

// Drop is a group that the table gave up; its credit returns to the learner.
type Drop struct {
	Key    uint64 `json:"key"`
	Reason string `json:"reason"`
}

// The reasons to give up a group.
const (
	DropStale    = "stale"    // all of its tokens are older than the learner allows
	DropEvicted  = "evicted"  // the table was full
	DropRepeated = "repeated" // it came again after it had left the table
	DropCorrupt  = "corrupt"  // its bytes on disk are damaged
)

// maxReports bounds the drops that wait for the learner to ask.
const maxReports = 1 << 16

// item is a group in the table.
type item struct {
	meta
	stored  *stored
	sampled int  // times committed
	lent    bool // to the learner; not offered again before Begin or Commit
	stale   bool // lent as too old, to be given up
	removed bool // left in core.order until that is swept
}

// Query says what a learner may be given.
type Query struct {
	MaxGroups    int             `json:"max_groups"`
	MaxBytes     int             `json:"max_bytes"`
	Version      forager.Version `json:"version"`       // of the learner
	MaxStaleness int             `json:"max_staleness"` // in versions; 0 means no limit
}

// core is the table without disk, lock and clock. Its methods are the rules of
// sampler, remover and rate limiter.
type core struct {
	config  Config
	random  *rand.Rand
	items   map[uint64]*item
	order   []*item // by insertion
	lent    int
	gone    keyset // keys that left the table
	reports []Drop
	limiter limiter
}

func newCore(config Config) *core {
	return &core{
		config: config,
		random: rand.New(rand.NewPCG(0x7ab1e, 1)),
		items:  make(map[uint64]*item),
		limiter: limiter{
			minSize: config.MinSize, ratio: config.SampleToInsertRatio, buffer: config.RatioErrorBuffer,
		},
	}
}

// has reports whether the group is or was in the table.
func (c *core) has(key uint64) bool { return c.items[key] != nil || c.gone.has(key) }

// offered is how many groups may be sampled.
func (c *core) offered() int { return len(c.items) - c.lent }

func (c *core) mayInsert() bool { return c.limiter.mayInsert(c.offered()) }

// insert adds a group that has was false for. The table may then be too full:
// see surplus.
func (c *core) insert(m meta, at *stored) {
	it := &item{meta: m, stored: at}
	at.segment.live++
	c.items[m.Key] = it
	c.order = append(c.order, it)
	c.limiter.inserts++
}

// surplus is the oldest groups that must be evicted. Groups that are lent out
// are safe.
func (c *core) surplus() []uint64 {
	var keys []uint64
	for _, it := range c.order {
		if len(c.items)-len(keys) <= c.config.MaxGroups {
			break
		}
		if !it.removed && !it.lent {
			keys = append(keys, it.Key)
		}
	}
	return keys
}

// report queues a drop that the learner has not asked about.
func (c *core) report(key uint64, reason string) {
	if len(c.reports) < maxReports {
		c.reports = append(c.reports, Drop{key, reason})
	}
}

// sample lends groups. Groups that are too old are lent as well, so that they
// are reported once, and come back as drops.
func (c *core) sample(q Query) (picked []*item, drops []Drop) {
	drops, c.reports = c.reports, nil
	bytes := 0
	for _, it := range c.candidates() {
		if q.MaxStaleness > 0 && it.Oldest+forager.Version(q.MaxStaleness) < q.Version {
			c.lend(it, false)
			it.stale = true
			drops = append(drops, Drop{it.Key, DropStale})
			continue
		}
		fresh := len(picked) == 0 || picked[len(picked)-1].stored != it.stored
		if fresh {
			bytes += it.stored.size()
		}
		full := len(picked) >= q.MaxGroups || len(picked) > 0 && fresh && bytes > q.MaxBytes
		if full || !c.limiter.maySample(c.offered()) {
			break
		}
		c.lend(it, true)
		picked = append(picked, it)
	}
	return picked, drops
}

// candidates is what may be sampled, in the sampler's order.
func (c *core) candidates() []*item {
	list := make([]*item, 0, c.offered())
	for _, it := range c.order {
		if !it.removed && !it.lent {
			list = append(list, it)
		}
	}
	switch c.config.Sampler {
	case SampleLIFO:
		slices.Reverse(list)
	case SampleUniform:
		c.random.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	}
	return list
}

func (c *core) lend(it *item, sampled bool) {
	it.lent = true
	c.lent++
	if sampled {
		c.limiter.samples++
	} else {
		c.limiter.inserts--
	}
}

// begin takes back everything that is lent.
func (c *core) begin() {
	c.lent, c.limiter.inserts, c.limiter.samples = 0, 0, 0
	for _, it := range c.items {
		it.lent, it.stale = false, false
		c.limiter.inserts++
		c.limiter.samples += float64(it.sampled)
	}
	c.reports = nil // Begin tells the learner what is gone
}

// settle splits the keys of a commit into groups that stay, to be sampled
// again, and groups that leave. Unknown keys are in neither.
func (c *core) settle(keys []uint64) (stay, leave []uint64) {
	for _, key := range keys {
		it := c.items[key]
		switch {
		case it == nil:
		case it.sampled+1 < c.config.MaxTimesSampled:
			stay = append(stay, key)
		default:
			leave = append(leave, key)
		}
	}
	return stay, leave
}

// commit counts one use of a group, which is then offered again.
func (c *core) commit(key uint64) {
	if it := c.items[key]; it != nil {
		it.sampled++
		if it.lent {
			it.lent, it.stale = false, false
			c.lent--
		}
	}
}

// remove makes the table forget a group, but for its key, and gives the item.
func (c *core) remove(key uint64) *item {
	it := c.items[key]
	if it == nil {
		return nil
	}
	if it.lent {
		c.lent--
	} else {
		c.limiter.inserts--
	}
	it.removed = true
	it.stored.segment.live--
	delete(c.items, key)
	c.gone.add(key)
	if len(c.order) > 2*len(c.items)+64 {
		c.order = slices.DeleteFunc(c.order, func(it *item) bool { return it.removed })
	}
	return it
}

// held is the keys in the table from key on, ascending.
func (c *core) held(from uint64) []uint64 {
	var keys []uint64
	for key := range c.items {
		if key >= from {
			keys = append(keys, key)
		}
	}
	slices.SortFunc(keys, cmp.Compare)
	return keys
}
