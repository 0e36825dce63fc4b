package rewardmodel

import "sync"

// Example is one search turn as a reward model reads it.
type Example struct {
	Question    string
	Query       string
	Observation string // as the policy was shown it, see forager.TurnDigest
}

// Model is a snapshot of a reward model. It never changes and is safe for
// concurrent use.
type Model struct {
	kind               Kind
	threshold, epsilon float64
	version, labels    uint64
	weights            *weights
	network            network
	moments            moments
	scratch            sync.Pool // of *scorer
}

// scorer is the memory that scoring one turn takes.
type scorer struct {
	reader      reader
	reading     reading
	activations activations
}

// Kind is what the model learned from.
func (m *Model) Kind() Kind { return m.kind }

// Version grows with every snapshot that learned something: it is the number of
// gradient steps behind it.
func (m *Model) Version() uint64 { return m.version }

// Labels is the number of labels that had arrived when the snapshot was taken.
func (m *Model) Labels() uint64 { return m.labels }

// Score is how good a turn is. Of a classification model it is the probability
// that the judge calls the turn helpful, 0 to 1. Of a ranking model it has mean
// 0 and variance 1 over the turns that were labelled.
func (m *Model) Score(e Example) float64 {
	s, ok := m.scratch.Get().(*scorer)
	if !ok {
		s = &scorer{}
	}
	s.reader.read(&s.reading, e)
	raw := m.network.forward(&s.activations, &s.reading, m.weights, 0, nil)
	m.scratch.Put(s)
	return m.meaning(raw)
}

// meaning turns the network's output into a score.
func (m *Model) meaning(raw float32) float64 {
	if m.kind == Ranking {
		return m.moments.normalise(float64(raw))
	}
	return float64(sigmoid(raw))
}

// Reward is what a turn earns: of a classification model 1 when its score is
// above the threshold, else 0; of a ranking model the score when it is above
// epsilon, else 0.
func (m *Model) Reward(e Example) float64 {
	score := m.Score(e)
	switch {
	case m.kind == Ranking && score > m.epsilon:
		return score
	case m.kind == Classification && score > m.threshold:
		return 1
	}
	return 0
}
