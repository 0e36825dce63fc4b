package rewardsrv

import (
	"container/list"
	"context"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"

	"github.com/forager-rl/forager"
	"github.com/forager-rl/forager/rewardsrv/rubric"
)

// state is where a label key stands. A key that neither the ledger nor the index
// holds is unseen; every other key is in exactly one of these states.
type state int

const (
	queued    state = iota // waits for the judge; in ledger.queue
	inFlight               // taken by a worker; in no list
	elsewhere              // in flight at another server; in ledger.away
	labelled               // has a label: in the stream's hands, then in ledger.settled or the index
	failed                 // got no usable answer and stays null; kept as labelled keys are
)

// turnRef names a turn that wants a label.
type turnRef struct {
	rolloutID string
	turn      int
}

// refBytes is what a waiting turn costs beside its id: itself, the id's header,
// and the room that append leaves free.
const refBytes = 64

// outcome is what became of a key.
type outcome struct {
	failed    bool // settled without a label
	value     float64
	rationale string
}

// entry is a label key that is not settled for good.
type entry struct {
	key     string
	state   state
	grader  Grader
	source  string
	item    rubric.Item
	trace   forager.Trace
	bytes   int64     // text of the item, and the turns that wait
	wanted  time.Time // by the newest digest
	waiting []turnRef // bounded by maxWaiting
	broken  int       // calls that got no answer at all

	revision uint64    // of another server's claim
	since    time.Time // when that claim was first seen

	result  outcome  // of a labelled or failed key that the stream has not shown yet
	learned *outcome // of a key in flight: what another server published meanwhile
	place   *list.Element
}

// ledger knows the state of every label key. It bounds its own memory: it drops
// what is oldest in the queue, and of the settled keys it keeps those that were
// used last, since the index has the others. It is safe for concurrent use.
type ledger struct {
	maxQueued, maxWaiting, maxUnconfirmed int
	maxBytes                              int64
	oldestEvery                           int
	limit                                 func() int                     // of keys in flight here; called with mu held
	drop                                  func(reason string, turns int) // called with mu held
	now                                   func() time.Time

	mu          sync.Mutex
	changed     *sync.Cond // something can be taken, perhaps, or a context ended
	entries     map[string]*entry
	queue       *list.List // of *entry; front is the oldest
	away        *list.List // of *entry in flight elsewhere; front was first seen first
	settled     *simplelru.LRU[string, outcome]
	bytes       int64 // of queue and away
	inFlight    int
	unconfirmed int // labelled or failed here, not yet seen in the stream
	taken       int
}

func newLedger(c Config, limit func() int, drop func(reason string, turns int), now func() time.Time) (*ledger, error) {
	settled, err := simplelru.NewLRU[string, outcome](c.MaxLabels, nil)
	if err != nil {
		return nil, err
	}
	l := &ledger{
		maxQueued: c.MaxQueued, maxWaiting: c.MaxWaiting, maxUnconfirmed: c.MaxUnpublished,
		maxBytes: c.MaxQueuedBytes, oldestEvery: c.OldestEvery, limit: limit, drop: drop, now: now,
		entries: map[string]*entry{}, queue: list.New(), away: list.New(), settled: settled,
	}
	l.changed = sync.NewCond(&l.mu)
	return l, nil
}

// lookup says how a key was settled, if it is in memory. For a key that is
// queued or in flight it adds the turn to those that wait, and queued steps
// become the newest again, since a fresh rollout wants them. seen is false for a
// key that is not in memory.
func (l *ledger) lookup(key string, ref turnRef) (o outcome, settled, seen bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.find(key, ref)
}

func (l *ledger) find(key string, ref turnRef) (o outcome, settled, seen bool) {
	e := l.entries[key]
	if e == nil {
		o, settled = l.settled.Get(key)
		return o, settled, settled
	}
	switch e.state {
	case labelled, failed:
		return e.result, true, true
	case queued:
		l.queue.MoveToBack(e.place)
	}
	e.wanted = l.now()
	for _, w := range e.waiting {
		if w == ref { // the digest came twice
			return outcome{}, false, true
		}
	}
	if len(e.waiting) >= l.maxWaiting {
		l.drop(dropWaitingFull, 1)
		return outcome{}, false, true
	}
	ref.rolloutID = strings.Clone(ref.rolloutID)
	e.waiting = append(e.waiting, ref)
	l.grow(e, refBytes+int64(len(ref.rolloutID)))
	return outcome{}, false, true
}

// grow counts text of an entry and makes room for it.
func (l *ledger) grow(e *entry, bytes int64) {
	e.bytes += bytes
	if e.place != nil {
		l.bytes += bytes
		l.trim()
	}
}

// want is a key that is to be judged.
type want struct {
	source string
	grader Grader
	item   rubric.Item
	bytes  int64         // text of the item, and of the trace
	trace  forager.Trace // of the group that wanted it first
}

// add queues an unseen key. Should it have been added meanwhile, the turn joins
// those that wait.
func (l *ledger) add(w want, ref turnRef) (o outcome, settled bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if o, settled, seen := l.find(w.item.Key, ref); seen {
		return o, settled
	}
	ref.rolloutID = strings.Clone(ref.rolloutID)
	e := &entry{
		key: w.item.Key, grader: w.grader, source: w.source, item: compact(w.item), trace: w.trace, wanted: l.now(),
		waiting: []turnRef{ref}, bytes: w.bytes + refBytes + int64(len(ref.rolloutID)),
	}
	l.entries[e.key] = e
	l.enqueue(e)
	return outcome{}, false
}

// compact copies the texts of an item, which may be views into a large batch
// that would otherwise be kept alive.
func compact(item rubric.Item) rubric.Item {
	item.Question, item.Answer = strings.Clone(item.Question), strings.Clone(item.Answer)
	item.Step = compactStep(item.Step)
	if item.Other != nil {
		other := compactStep(*item.Other)
		item.Other = &other
	}
	return item
}

func compactStep(s rubric.Step) rubric.Step {
	passages := make([]forager.Passage, len(s.Passages))
	for i, p := range s.Passages {
		passages[i] = forager.Passage{ID: strings.Clone(p.ID), Title: strings.Clone(p.Title), Text: strings.Clone(p.Text), Score: p.Score}
	}
	earlier := make([]string, len(s.Earlier))
	for i, q := range s.Earlier {
		earlier[i] = strings.Clone(q)
	}
	return rubric.Step{Query: strings.Clone(s.Query), Passages: passages, Observation: strings.Clone(s.Observation), Earlier: earlier}
}

// enqueue makes e the newest of the queue.
func (l *ledger) enqueue(e *entry) {
	e.state = queued
	e.place = l.queue.PushBack(e)
	l.bytes += e.bytes
	l.trim()
	l.changed.Signal()
}

// trim drops what is oldest beyond the bounds.
func (l *ledger) trim() {
	for n := l.queue.Len() + l.away.Len(); n > 1 && (n > l.maxQueued || l.bytes > l.maxBytes); n-- {
		oldest := l.queue.Front()
		if oldest == nil {
			oldest = l.away.Front()
		}
		e := l.remove(oldest)
		delete(l.entries, e.key)
		l.drop(dropQueueFull, len(e.waiting))
	}
}

// remove takes an entry out of the list that it is in.
func (l *ledger) remove(place *list.Element) *entry {
	e := place.Value.(*entry) //nolint:forcetypeassert // the lists hold nothing else
	if e.state == queued {
		l.queue.Remove(place)
	} else {
		l.away.Remove(place)
	}
	l.bytes -= e.bytes
	e.place = nil
	return e
}

// work is a key that a worker has taken.
type work struct {
	want
	revision uint64        // of a claim to take over; 0: nobody is known to hold the key
	age      time.Duration // since the newest digest that wants it
}

// take waits for a queued step and marks it in flight: the newest, or the
// oldest every oldestEvery-th time. It gives none while there are as many in
// flight as the judge takes, or too many labels that are not durable yet. ok is
// false when ctx ended.
func (l *ledger) take(ctx context.Context) (w work, ok bool) {
	stop := context.AfterFunc(ctx, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.changed.Broadcast()
	})
	defer stop()
	l.mu.Lock()
	defer l.mu.Unlock()
	for ctx.Err() == nil && (l.queue.Len() == 0 || l.inFlight >= l.limit() || l.unconfirmed >= l.maxUnconfirmed) {
		l.changed.Wait()
	}
	if ctx.Err() != nil {
		return work{}, false
	}
	l.taken++
	place := l.queue.Back()
	if l.oldestEvery > 0 && l.taken%l.oldestEvery == 0 {
		place = l.queue.Front()
	}
	e := l.remove(place)
	e.state = inFlight
	l.inFlight++
	if l.queue.Len() > 0 {
		l.changed.Signal() // there may be room for one more
	}
	return work{want{e.source, e.grader, e.item, e.bytes, e.trace}, e.revision, l.now().Sub(e.wanted)}, true
}

// land ends the flight of a key.
func (l *ledger) land(key string) *entry {
	l.inFlight--
	l.changed.Signal()
	return l.entries[key]
}

// label settles a key in flight and gives the turns that waited for it. It stays
// in memory until the stream shows its label.
func (l *ledger) label(key string, o outcome) []turnRef {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := l.land(key)
	waiting := e.waiting
	if e.learned != nil {
		l.settle(e, *e.learned)
		return waiting
	}
	e.state = labelled
	if o.failed {
		e.state = failed
	}
	e.result, e.item, e.trace, e.waiting, e.grader, e.bytes = o, rubric.Item{}, forager.Trace{}, nil, nil, 0
	l.unconfirmed++
	return waiting
}

// settle moves an entry that is in no list to the settled keys.
func (l *ledger) settle(e *entry, o outcome) {
	delete(l.entries, e.key)
	l.settled.Add(e.key, o)
}

// known gives what another server published about a key in flight, and settles
// it. ok is false when there is nothing.
func (l *ledger) known(key string) (o outcome, waiting []turnRef, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := l.entries[key]
	if e.learned == nil {
		return outcome{}, nil, false
	}
	l.land(key)
	l.settle(e, *e.learned)
	return *e.learned, e.waiting, true
}

// found settles a key in flight with what the index has about it.
func (l *ledger) found(key string, o outcome) (waiting []turnRef) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := l.land(key)
	l.settle(e, o)
	return e.waiting
}

// lost says that a key in flight is held by another server with this revision of
// its claim; 0 when it was, but no longer is. What was learned meanwhile is in the
// index, where the next worker that takes the key finds it.
func (l *ledger) lost(key string, revision uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := l.land(key)
	e.revision = revision
	if revision == 0 || e.learned != nil {
		l.enqueue(e)
		return
	}
	e.state, e.since = elsewhere, l.now()
	e.place = l.away.PushBack(e)
	l.bytes += e.bytes
	l.trim()
}

// putBack puts a key in flight into the queue again. broken says that the judge
// gave no answer to it although it can be asked; after maxBroken of those the
// key is dropped: it is unseen again, and a later digest may bring it back.
func (l *ledger) putBack(key string, broken bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := l.land(key)
	e.revision = 0
	if broken {
		e.broken++
	}
	if e.broken >= maxBroken {
		delete(l.entries, key)
		l.drop(dropJudgeError, len(e.waiting))
		return
	}
	l.enqueue(e)
}

// maxBroken is how many calls without an answer a step may cost.
const maxBroken = 3

// learn enters what the stream says about a key. It gives the turns that waited
// here for another server's label, and their source and grader.
func (l *ledger) learn(key string, o outcome) (waiting []turnRef, source string, grader Grader) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := l.entries[key]
	if e == nil {
		if old, ok := l.settled.Peek(key); ok && old.failed && !o.failed { // failed once, labelled later
			l.settled.Add(key, o)
		}
		return nil, "", nil
	}
	switch e.state {
	case labelled, failed:
		l.settle(e, e.result)
		if l.unconfirmed--; l.unconfirmed == l.maxUnconfirmed-1 {
			l.changed.Broadcast()
		}
		return nil, "", nil
	case inFlight:
		if e.learned == nil {
			e.learned = &o
		}
		return nil, "", nil
	default:
		l.remove(e.place)
		l.settle(e, o)
		return e.waiting, e.source, e.grader
	}
}

// remember keeps a settled key from the index in memory.
func (l *ledger) remember(key string, o outcome) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.entries[key] == nil {
		l.settled.Add(strings.Clone(key), o)
	}
}

// expire queues the keys whose holder elsewhere has shown nothing for a lease,
// and counts them. Their claims are taken over when they are taken.
func (l *ledger) expire(lease time.Duration) (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	for front := l.away.Front(); front != nil; front = l.away.Front() {
		if now.Sub(front.Value.(*entry).since) < lease { //nolint:forcetypeassert // the list holds nothing else
			break
		}
		l.enqueue(l.remove(front))
		n++
	}
	return n
}

// sizes is how many keys are in which state, in memory.
type sizes struct {
	queued, inFlight, elsewhere, unconfirmed int
	bytes                                    int64
	oldest                                   time.Duration // of the queue, since it was last wanted
}

func (l *ledger) sizes() sizes {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := sizes{queued: l.queue.Len(), inFlight: l.inFlight, elsewhere: l.away.Len(), unconfirmed: l.unconfirmed, bytes: l.bytes}
	if front := l.queue.Front(); front != nil {
		s.oldest = l.now().Sub(front.Value.(*entry).wanted) //nolint:forcetypeassert // the list holds nothing else
	}
	return s
}
