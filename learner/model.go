package learner

import "github.com/forager-rl/forager"

// Sequence is one rollout prepared for the update. Every slice has one entry per
// token; only the entries where Mask is true mean anything.
type Sequence struct {
	Tokens     []int32
	Mask       []bool    // true for the tokens that the policy sampled; only these are learned from
	Behavior   []float32 // log-probabilities under the policy that sampled, natural log
	Reference  []float32 // log-probabilities under the reference policy; nil when the algorithm needs none
	Advantages []float32 // filled by Algorithm.Advantages
	Group      uint64    // index of the credit
	Rollout    *forager.Rollout
}

// PolicyTokens counts the tokens that are learned from.
func (s *Sequence) PolicyTokens() int {
	n := 0
	for _, m := range s.Mask {
		if m {
			n++
		}
	}
	return n
}

// Scorer tells how probable tokens are. The frozen reference policy is one.
type Scorer interface {
	// Logprobs gives log π(token_t | tokens before t) for every position of each
	// sequence, natural log, at the temperature that was sampled with; position
	// 0 is 0. The caller keeps the result.
	Logprobs(seqs []Sequence) ([][]float32, error)
}

// Model is the policy that is trained. Calls never overlap.
type Model interface {
	Scorer
	// Accumulate runs forward and backward over one micro-batch. It calls loss
	// once for every sequence i, possibly concurrently, with its current
	// log-probabilities; loss fills grad with the derivative of the loss with
	// respect to each of them. Gradients add up until Update.
	Accumulate(seqs []Sequence, loss func(i int, logp, grad []float32)) error
	// Update applies one optimiser step and clears the gradients. A gradient that
	// is not finite changes nothing else and reports finite = false. gradNorm is
	// the global L2 norm before clipping.
	Update(learningRate float32) (gradNorm float64, finite bool)
}
