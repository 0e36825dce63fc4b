package replay

// limiter says when inserting and sampling may go on. With a ratio it keeps
//
//	ratio·MinSize − buffer ≤ inserts·ratio − samples ≤ ratio·MinSize + buffer
//
// as Reverb's SampleToInsertRatio does. One thing differs: a group that leaves
// without being sampled (stale, evicted) counts as never inserted, for otherwise
// losses would add up until nothing may be inserted any more.
type limiter struct {
	minSize          int
	ratio, buffer    float64
	inserts, samples float64
}

// mayInsert is asked before one insert; offered is the number of groups that
// wait to be sampled.
func (l *limiter) mayInsert(offered int) bool {
	if l.ratio == 0 || offered < l.minSize {
		return true
	}
	return (l.inserts+1)*l.ratio-l.samples <= l.ratio*float64(l.minSize)+l.buffer
}

// maySample is asked before one sample.
func (l *limiter) maySample(offered int) bool {
	if offered < l.minSize {
		return false
	}
	return l.ratio == 0 || l.inserts*l.ratio-l.samples-1 >= l.ratio*float64(l.minSize)-l.buffer
}
