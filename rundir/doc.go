// Package rundir is what a run leaves on disk, the folder runs/<id>/:
//
//	config.yaml                     the settings as resolved
//	metrics.jsonl                   one JSON object a line, keyed by step
//	events.out.tfevents.*           the same for TensorBoard
//	checkpoints/step-00000012-e3/   one complete checkpoint each, by step and learner's epoch
//	checkpoints/latest              the name of the newest complete one
//	rollouts/                       Arrow IPC files, written by replay
//	report.md, curve.svg            the report
//	<role>.lock                     lock of each role
//
// Files that readers may meet half-written are made under a temporary name,
// synced and renamed. A killed process leaves complete files, temporary ones
// that the next start removes, and at most one torn last line, which the next
// start drops.
//
// It imports the root package. Package node and the commands import it.
package rundir
