// Package grpo is Group Relative Policy Optimization, from "DeepSeekMath:
// Pushing the Limits of Mathematical Reasoning in Open Language Models" (Shao et
// al., 2024, arXiv 2402.03300), section 4.1 and appendix A.1.6. It imports
// learner and learner/rlmath; only node imports it.
//
// For G outputs o_i of one question with rewards r_i:
//
//	Â_i,t = (r_i − mean(r)) / std(r)                                          §4.1.2
//	ρ_i,t = π_θ(o_i,t | ·) / π_old(o_i,t | ·)
//	J     = mean { min[ρ Â, clip(ρ, 1−ε, 1+ε) Â] − β D_KL[π_θ ‖ π_ref] }      eq. 3
//	D_KL  = π_ref/π_θ − log(π_ref/π_θ) − 1                                    eq. 4
//	∂J/∂log π_θ = Â + β (π_ref/π_θ − 1)       at π_θ = π_old                  A.1.6
//
// The loss is −J. What differs from the paper, and why:
//
//  1. The mean runs over all policy tokens of the optimiser step, not first
//     within each output: the paper's 1/|o_i| gives tokens of long wrong answers
//     a small gradient and so favours them.
//  2. The clip range may be asymmetric (Clip-Higher of DAPO, arXiv 2503.14476).
//  3. std is the population standard deviation plus 1e-6, and dividing by it can
//     be switched off (Dr. GRPO, arXiv 2503.20783).
//  4. π_old is the policy that sampled each token. Actors run ahead of the
//     learner, so it may be some versions older than the start of the step.
//  5. Observation tokens are not the policy's and take no part.
//  6. Groups whose rewards are all equal have Â = 0. By default they are
//     reported as uninformative, so that the step is filled up with others.
//  7. log ρ and log(π_ref/π_θ) are clamped to ±20, with derivative 0 outside.
package grpo
