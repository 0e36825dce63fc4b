// Package rewardmodel distils a judge's labels into a small text model that
// scores every search turn, also those that no judge has seen.
//
// It follows ONI (Zheng et al. 2025, "Online Intrinsic Rewards for Decision
// Making Agents from Large Language Model Feedback"): a Trainer takes labels as
// they arrive and makes a few gradient steps each time; its Snapshots are Models,
// which are published, scored where replay is sampled, and replaced by the next.
// The classification model learns whether a turn is helpful, the ranking model
// which of two turns is the better one.
//
// A turn is read once (reading.go), turned into features of how question, query
// and passages match (features.go), and these are scored by a small network
// (network.go). There is no pretrained part: everything comes from labels, and
// how common words are from the texts that were labelled. The words themselves
// are no features. An embedding bag of them was tried: it learns the questions
// by heart and ranks turns of unseen ones worse (docs/results/distillation.md).
//
// Everything here is pure: no files, no clock, no network, no goroutines; equal
// seeds and equal labels give equal models on one processor architecture. A
// Model is safe for concurrent use, a Trainer has one owner.
//
// It imports the root package and the standard library. The reward server trains
// models; node publishes them and scores with them.
package rewardmodel
