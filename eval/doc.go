// Package eval turns tasks and their rollouts into a report: answer metrics,
// evidence recall, searches, validity and length, overall and by hops, data
// set and question type, each with a bootstrap interval over questions. It also
// compares two reports, paired by question.
//
// It plays no episodes; whoever has rollouts may evaluate them. It imports the
// root package and package reward.
package eval
