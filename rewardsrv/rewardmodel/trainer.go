package rewardmodel

import (
	"math"
	"math/rand/v2"
	"slices"
)

// Trainer learns a reward model from labels as they arrive. It has one owner:
// none of its methods may run at the same time as another.
type Trainer struct {
	config Config
	source *rand.PCG
	rng    *rand.Rand

	labels      uint64 // that ever arrived
	frequencies *frequencies
	examples    reservoir
	weights     *weights // as of the latest training; replaced, never changed
	network     network
	adam        *adam
	moments     moments
	stats       Stats
	foretold    uint64 // labels behind stats.Accuracy

	// Scratch of the methods.
	reader   reader
	gradient network
	first    activations
	second   activations
}

// Stats describes a trainer. Values that nothing is known about yet are 0.
type Stats struct {
	Labels   uint64  // that ever arrived
	Stored   int     // that are kept to train on
	Steps    uint64  // gradient steps
	Loss     float64 // cross-entropy of the latest step, in nats
	Accuracy float64 // running share of new labels that were foretold right before they were learned from; ties are left out
}

// accuracyRate is the weight of the newest label in Stats.Accuracy.
const accuracyRate = 0.005

// NewTrainer makes a trainer that has learned nothing. Equal seeds and labels
// give equal models.
func NewTrainer(config Config, seed uint64) (*Trainer, error) {
	if err := config.Validate(); err != nil {
		return nil, err
	}
	t := newTrainer(config, rand.NewPCG(seed, 0x6d6f64656c)) // any stream will do
	t.network = newNetwork(t.rng)
	return t, nil
}

func newTrainer(config Config, source *rand.PCG) *Trainer {
	return &Trainer{
		config: config, source: source, rng: rand.New(source),
		frequencies: &frequencies{}, weights: &weights{}, adam: newAdam(), gradient: make(network, parameters), network: make(network, parameters),
		examples: reservoir{limit: config.MaxExamples, width: config.width()},
	}
}

// width is the number of turns that one label is about.
func (c Config) width() int {
	if c.Kind == Ranking {
		return 2
	}
	return 1
}

// Add takes the label of one turn, 0 to 1, for a classification model. Labels
// that are not finite are ignored, others are moved into that range. A ranking
// model learns nothing from it.
func (t *Trainer) Add(e Example, label float64) {
	if t.config.Kind != Classification || math.IsNaN(label) {
		return
	}
	t.frequencies.example(e)
	var r reading
	t.reader.read(&r, e)
	t.take(label, r)
}

// AddPair takes a preference between two turns of one question for a ranking
// model: 1 when a is better, 0 when b is, 0.5 when neither. Preferences that are
// not finite are ignored, others are moved into that range. A classification
// model learns nothing from it.
func (t *Trainer) AddPair(a, b Example, preference float64) {
	if t.config.Kind != Ranking || math.IsNaN(preference) {
		return
	}
	t.frequencies.example(a)
	t.frequencies.example(b)
	var first, second reading
	t.reader.read(&first, a)
	t.reader.read(&second, b)
	t.take(preference, first, second)
}

func (t *Trainer) take(label float64, readings ...reading) {
	label = min(max(label, 0), 1)
	t.labels++
	t.foretell(label, readings)
	t.examples.add(t.rng, float32(label), readings)
}

// foretell compares a new label with what the model would have said, an estimate
// of its accuracy on labels that it has not seen (Dawid 1984, "prequential").
func (t *Trainer) foretell(label float64, readings []reading) {
	if t.adam.step == 0 || label == 0.5 {
		return
	}
	score := t.network.forward(&t.first, &readings[0], t.weights, 0, nil)
	if t.config.Kind == Ranking {
		score -= t.network.forward(&t.first, &readings[1], t.weights, 0, nil)
	}
	t.foretold++
	rate := max(accuracyRate, 1/float64(t.foretold))
	t.stats.Accuracy += rate * (float64(indicator(score > 0 == (label > 0.5))) - t.stats.Accuracy)
}

// Train learns from the labels that were added since the last call, arrived of
// them, by ONI's schedule, and gives the number of gradient steps made: none
// when nothing arrived.
func (t *Trainer) Train(arrived int) (steps int) {
	if arrived <= 0 || len(t.examples.labels) == 0 {
		return 0
	}
	steps = t.config.Steps
	if t.labels >= uint64(t.config.ManyLabels) {
		steps = 1
	}
	t.weights = t.frequencies.weights()
	for range steps {
		t.step()
	}
	t.measure()
	return steps
}

// step makes one gradient step on a batch drawn with replacement.
func (t *Trainer) step() {
	size := min(t.config.BatchSize, len(t.examples.labels))
	dropout := float32(t.config.Dropout)
	clear(t.gradient)
	sum := 0.0
	for range size {
		readings, label := t.examples.draw(t.rng)
		logit := t.network.forward(&t.first, &readings[0], t.weights, dropout, t.rng)
		if t.config.Kind == Ranking {
			logit -= t.network.forward(&t.second, &readings[1], t.weights, dropout, t.rng)
		}
		loss, slope := logistic(logit, label)
		sum += float64(loss)
		t.network.backward(t.gradient, &t.first, slope)
		if t.config.Kind == Ranking {
			t.network.backward(t.gradient, &t.second, -slope)
		}
	}
	t.adam.update(t.network, t.gradient, size, t.config.LearningRate, t.config.GradientClip)
	t.stats.Loss = sum / float64(size)
}

// measure brings the moments of a ranking model's scores up to date.
func (t *Trainer) measure() {
	if t.config.Kind != Ranking {
		return
	}
	scores := make([]float32, 0, 2*t.config.BatchSize)
	for range min(t.config.BatchSize, len(t.examples.labels)) {
		readings, _ := t.examples.draw(t.rng)
		for i := range readings {
			scores = append(scores, t.network.forward(&t.first, &readings[i], t.weights, 0, nil))
		}
	}
	t.moments.add(scores)
}

// Ready says whether enough labels have arrived for a model worth publishing,
// and some of them were learned from.
func (t *Trainer) Ready() bool {
	return t.labels >= uint64(t.config.MinLabels) && t.adam.step > 0
}

// Stats describes the trainer as it is now.
func (t *Trainer) Stats() Stats {
	s := t.stats
	s.Labels, s.Stored, s.Steps = t.labels, len(t.examples.labels), t.adam.step
	return s
}

// Snapshot is the model as it is now.
func (t *Trainer) Snapshot() *Model {
	return &Model{
		kind: t.config.Kind, threshold: t.config.Threshold, epsilon: t.config.Epsilon,
		version: t.adam.step, labels: t.labels,
		weights: t.weights, network: slices.Clone(t.network), moments: t.moments,
	}
}
