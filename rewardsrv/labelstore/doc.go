// Package labelstore is the reward server's index of labels by key, in one file
// on the local disk.
//
// It is a cache of the annotations stream and never the only place of a label:
// what it holds up to a sequence number of that stream, it can be rebuilt from.
// A file that is damaged, or not one of ours, is set aside and the index starts
// empty.
//
// Package rewardsrv and the commands that list labels may import it. It imports
// the root package and bbolt.
package labelstore
