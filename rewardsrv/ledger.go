package rewardsrv

import (
	"container/list"
	"context"
	"strings"
	"sync"

	"github.com/forager-rl/forager"
)

// state is where a label key stands. A key that the ledger does not hold is
// unseen; every other key is in exactly one of these states.
type state int

const (
	queued   state = iota // waits for the judge; in ledger.queue
	inFlight              // taken by a worker; in no list
	labelled              // has a verdict; in ledger.settled
	failed                // was asked twice in vain and stays null; in ledger.settled
)

// turnRef names a turn that wants a label.
type turnRef struct {
	rolloutID string
	turn      int
}

// entry is one label key. Item and waiting are dropped once it is settled.
type entry struct {
	key     string
	state   state
	item    Item
	bytes   int64     // text of the item
	waiting []turnRef // bounded by maxWaiting
	tries   int       // answers that were of no use
	verdict Verdict   // of a labelled key
	place   *list.Element
}

// ledger knows the state of every label key. It bounds its own memory: it drops
// what is oldest in the queue and forgets what was unused for longest among
// the settled keys, which makes them unseen again. It is safe for concurrent use.
type ledger struct {
	maxQueued, maxWaiting, maxLabels int
	maxBytes                         int64
	oldestEvery                      int
	drop                             func(reason string, turns int) // called with mu held

	mu       sync.Mutex
	arrived  *sync.Cond // an entry was queued, or a context ended
	entries  map[string]*entry
	queue    *list.List // of *entry; front is the oldest
	settled  *list.List // of *entry; front was unused for longest
	bytes    int64      // text of the queue
	inFlight int
	failed   int
	taken    int
}

func newLedger(c Config, drop func(reason string, turns int)) *ledger {
	l := &ledger{
		maxQueued: c.MaxQueued, maxWaiting: c.MaxWaiting, maxLabels: c.MaxLabels,
		maxBytes: c.MaxQueuedBytes, oldestEvery: c.OldestEvery, drop: drop,
		entries: map[string]*entry{}, queue: list.New(), settled: list.New(),
	}
	l.arrived = sync.NewCond(&l.mu)
	return l
}

// answer is what the ledger knows about an offered key.
type answer struct {
	settled bool
	failed  bool // settled without a label
	verdict Verdict
}

// lookup answers for a settled key. For a key that is queued or in flight it
// adds the turn to those that wait, and queued steps become the newest again,
// since a fresh rollout wants them. seen is false for an unseen key.
func (l *ledger) lookup(key string, ref turnRef) (a answer, seen bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.find(key, ref)
}

func (l *ledger) find(key string, ref turnRef) (a answer, seen bool) {
	e, seen := l.entries[key]
	if !seen {
		return answer{}, false
	}
	switch e.state {
	case labelled, failed:
		l.settled.MoveToBack(e.place)
		return answer{settled: true, failed: e.state == failed, verdict: e.verdict}, true
	case queued:
		l.queue.MoveToBack(e.place)
	}
	for _, w := range e.waiting {
		if w == ref { // the digest came twice
			return answer{}, true
		}
	}
	if len(e.waiting) >= l.maxWaiting {
		l.drop(dropWaitingFull, 1)
		return answer{}, true
	}
	ref.rolloutID = strings.Clone(ref.rolloutID)
	e.waiting = append(e.waiting, ref)
	return answer{}, true
}

// add queues an unseen key. Should it have been added meanwhile, the turn joins
// those that wait.
func (l *ledger) add(item Item, bytes int64, ref turnRef) answer {
	l.mu.Lock()
	defer l.mu.Unlock()
	if a, seen := l.find(item.Key, ref); seen {
		return a
	}
	ref.rolloutID = strings.Clone(ref.rolloutID)
	e := &entry{key: item.Key, item: compact(item), bytes: bytes, waiting: []turnRef{ref}}
	l.entries[e.key] = e
	l.enqueue(e)
	return answer{}
}

// compact copies the texts of an item, which may be views into a large batch
// that would otherwise be kept alive.
func compact(item Item) Item {
	item.Question = strings.Clone(item.Question)
	item.Query = strings.Clone(item.Query)
	passages := make([]forager.Passage, len(item.Passages))
	for i, p := range item.Passages {
		passages[i] = forager.Passage{ID: strings.Clone(p.ID), Title: strings.Clone(p.Title), Text: strings.Clone(p.Text), Score: p.Score}
	}
	item.Passages = passages
	return item
}

// enqueue makes e the newest of the queue and drops the oldest beyond the bounds.
func (l *ledger) enqueue(e *entry) {
	e.state = queued
	e.place = l.queue.PushBack(e)
	l.bytes += e.bytes
	for l.queue.Len() > l.maxQueued || l.bytes > l.maxBytes {
		oldest := l.dequeue(l.queue.Front())
		delete(l.entries, oldest.key)
		l.drop(dropQueueFull, len(oldest.waiting))
	}
	l.arrived.Signal()
}

func (l *ledger) dequeue(place *list.Element) *entry {
	e := l.queue.Remove(place).(*entry) //nolint:forcetypeassert // the list holds nothing else
	l.bytes -= e.bytes
	e.place = nil
	return e
}

// take waits for a queued step and marks it in flight: the newest, or the
// oldest every oldestEvery-th time. ok is false when ctx ended.
func (l *ledger) take(ctx context.Context) (item Item, ok bool) {
	stop := context.AfterFunc(ctx, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.arrived.Broadcast()
	})
	defer stop()
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.queue.Len() == 0 && ctx.Err() == nil {
		l.arrived.Wait()
	}
	if ctx.Err() != nil {
		return Item{}, false
	}
	l.taken++
	place := l.queue.Back()
	if l.oldestEvery > 0 && l.taken%l.oldestEvery == 0 {
		place = l.queue.Front()
	}
	e := l.dequeue(place)
	e.state = inFlight
	l.inFlight++
	return e.item, true
}

// label settles a key in flight and gives the turns that waited for it.
func (l *ledger) label(key string, v Verdict) []turnRef {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := l.entries[key]
	l.inFlight--
	return l.settle(e, labelled, v)
}

// giveUp puts a key in flight back into the queue, or settles it as failed when
// its second try was of no use. blame says whether the failure counts as a
// try; it does not when the judge as a whole is down.
func (l *ledger) giveUp(key string, blame bool) (waiting []turnRef, final bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := l.entries[key]
	l.inFlight--
	if blame {
		e.tries++
	}
	if e.tries >= maxTries {
		return l.settle(e, failed, Verdict{}), true
	}
	l.enqueue(e)
	return nil, false
}

// maxTries is how often a step is put to the judge before it stays unlabelled.
const maxTries = 2

// restore enters a label from history.
func (l *ledger) restore(key string, v *Verdict) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e, seen := l.entries[key]
	switch {
	case !seen:
		e = &entry{key: strings.Clone(key)}
		l.entries[e.key] = e
	case v == nil || e.state == labelled:
		return // known already; a label is never replaced by a failure
	default: // failed once, labelled later
		l.settled.Remove(e.place)
		l.failed--
	}
	if v == nil {
		l.settle(e, failed, Verdict{})
		return
	}
	l.settle(e, labelled, Verdict{Value: v.Value, Rationale: strings.Clone(v.Rationale)})
}

func (l *ledger) settle(e *entry, s state, v Verdict) (waiting []turnRef) {
	waiting = e.waiting
	e.state, e.verdict, e.item, e.waiting, e.bytes = s, v, Item{}, nil, 0
	e.place = l.settled.PushBack(e)
	if s == failed {
		l.failed++
	}
	for l.settled.Len() > l.maxLabels {
		old := l.settled.Remove(l.settled.Front()).(*entry) //nolint:forcetypeassert // the list holds nothing else
		delete(l.entries, old.key)
		if old.state == failed {
			l.failed--
		}
	}
	return waiting
}

// sizes counts the keys by state.
func (l *ledger) sizes() (queued, inFlight, labelled, failed int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.queue.Len(), l.inFlight, l.settled.Len() - l.failed, l.failed
}
