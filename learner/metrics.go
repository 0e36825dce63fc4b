package learner

import (
	"time"

	"github.com/forager-rl/forager"
)

// StepMetrics describes one finished step. Means over rollouts cover every
// group that was sampled for the step, including those that taught nothing.
type StepMetrics struct {
	Step    uint64          `json:"step"` // from 1
	Version forager.Version `json:"version"`

	Reward          float64 `json:"reward"`           // mean of the recipe's reward
	IntrinsicReward float64 `json:"intrinsic_reward"` // the part of it that is paid for what searches brought
	EM              float64 `json:"em"`               // mean exact match
	Searches        float64 `json:"searches"`         // mean per rollout
	ValidRate       float64 `json:"valid_rate"`       // rollouts that ended with an answer
	LabelCoverage   float64 `json:"label_coverage"`   // search turns with at least one label of a judge
	ScoreCoverage   float64 `json:"score_coverage"`   // search turns that a reward model scored
	RewardModel     uint64  `json:"reward_model"`     // newest version that scored a turn; 0 when none did

	Rollouts        int    `json:"rollouts"`
	RolledOutTokens int    `json:"rolled_out_tokens"` // all tokens of the rollouts
	PolicyTokens    int    `json:"policy_tokens"`     // those that the policy sampled
	TrainedTokens   int    `json:"trained_tokens"`    // tokens that went through updates, once per epoch
	TotalTrained    uint64 `json:"total_trained_tokens"`
	TotalRolledOut  uint64 `json:"total_rolled_out_tokens"`

	LagMean float64 `json:"lag_mean"` // policy versions behind, by oldest token of a rollout
	LagMax  uint64  `json:"lag_max"`

	GroupsSampled     int `json:"groups_sampled"`
	GroupsInformative int `json:"groups_informative"`
	GroupsDropped     int `json:"groups_dropped"`    // sampled, but taught nothing
	GroupsStale       int `json:"groups_stale"`      // given up by replay, for any reason
	GroupsRepeated    int `json:"groups_repeated"`   // offered though already settled
	RolloutsUnusable  int `json:"rollouts_unusable"` // malformed, failed environment, or no reward

	Loss         float64 `json:"loss"`
	KL           float64 `json:"kl"`    // from the reference policy, mean per token
	Drift        float64 `json:"drift"` // from the sampling policy, mean per token
	Entropy      float64 `json:"entropy"`
	RatioMean    float64 `json:"ratio_mean"`
	RatioMax     float64 `json:"ratio_max"`
	ClipFraction float64 `json:"clip_fraction"`
	GradNorm     float64 `json:"grad_norm"` // before clipping, largest of the step's updates
	LearningRate float64 `json:"learning_rate"`
	NonFinite    uint64  `json:"non_finite"` // updates skipped so far

	CreditsOpen int `json:"credits_open"`

	Seconds           float64 `json:"seconds"`
	WaitSeconds       float64 `json:"wait_seconds"`
	TrainSeconds      float64 `json:"train_seconds"`
	CheckpointSeconds float64 `json:"checkpoint_seconds"`
	PublishSeconds    float64 `json:"publish_seconds"`   // with the commit to replay
	TokensPerSecond   float64 `json:"tokens_per_second"` // rolled out tokens over the whole step
	ElapsedSeconds    float64 `json:"elapsed_seconds"`   // of the run
}

// ending fills what depends on when the step ended.
func (m StepMetrics) ending(took, elapsed time.Duration) StepMetrics {
	m.Seconds, m.ElapsedSeconds = took.Seconds(), elapsed.Seconds()
	if took > 0 {
		m.TokensPerSecond = float64(m.RolledOutTokens) / took.Seconds()
	}
	return m
}

// rolloutTally adds up what StepMetrics says about rollouts.
type rolloutTally struct {
	rollouts, rewarded, scored, answered int
	reward, intrinsic, em                float64
	searches, labelled, modelled         int
	rewardModel                          uint64
	tokens, policyTokens                 int
	lag, lagMax                          uint64
	unusable                             int
}

func (t *rolloutTally) add(r *forager.Rollout, version forager.Version) {
	t.rollouts++
	t.tokens += len(r.Tokens)
	t.policyTokens += r.PolicyTokens()
	if em, ok := r.Rewards["em"]; ok {
		t.scored++
		t.em += em
	}
	if r.Finish == forager.FinishAnswer {
		t.answered++
	}
	lag := uint64(0)
	if oldest := r.OldestVersion(); oldest < version {
		lag = uint64(version - oldest)
	}
	t.lag += lag
	t.lagMax = max(t.lagMax, lag)

	t.addTurns(r)
}

// addTurns counts the searches that judges and reward models have seen.
func (t *rolloutTally) addTurns(r *forager.Rollout) {
	labelled, modelled := make(map[int]bool, len(r.Turns)), make(map[int]bool, len(r.Turns))
	for _, a := range r.Annotations {
		version, scored := a.ModelVersion()
		switch {
		case a.Value == nil:
		case scored:
			modelled[a.Turn] = true
			t.rewardModel = max(t.rewardModel, version)
		default:
			labelled[a.Turn] = true
		}
	}
	for i, turn := range r.Turns {
		if turn.Kind != forager.TurnSearch {
			continue
		}
		t.searches++
		if labelled[i] {
			t.labelled++
		}
		if modelled[i] {
			t.modelled++
		}
	}
}

func (t *rolloutTally) fill(m *StepMetrics) {
	m.Reward = ratio(t.reward, t.rewarded)
	m.IntrinsicReward = ratio(t.intrinsic, t.rewarded)
	m.EM = ratio(t.em, t.scored)
	m.Searches = ratio(float64(t.searches), t.rollouts)
	m.ValidRate = ratio(float64(t.answered), t.rollouts)
	m.LabelCoverage = ratio(float64(t.labelled), t.searches)
	m.ScoreCoverage = ratio(float64(t.modelled), t.searches)
	m.RewardModel = t.rewardModel
	m.Rollouts = t.rollouts
	m.RolledOutTokens = t.tokens
	m.PolicyTokens = t.policyTokens
	m.LagMean = ratio(float64(t.lag), t.rollouts)
	m.LagMax = t.lagMax
	m.RolloutsUnusable = t.unusable
}

func ratio(sum float64, n int) float64 {
	if n == 0 {
		return 0
	}
	return sum / float64(n)
}
