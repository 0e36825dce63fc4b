package forager

import "time"

// Manifest describes one published policy version. The weights lie in the
// object store under Object before the manifest is agreed on through Raft.
type Manifest struct {
	Run     string    `json:"run"`
	Version Version   `json:"version"`
	Epoch   uint64    `json:"epoch"`  // the publishing learner's fencing token
	Step    uint64    `json:"step"`   // learner step that produced it
	Object  string    `json:"object"` // name in the object store
	Digest  string    `json:"digest"` // "sha256:" and hex of the object's bytes
	Bytes   int64     `json:"bytes"`
	Shape   string    `json:"shape"` // architecture summary, such as "llama d128 l4 h4 v1024"
	Time    time.Time `json:"time"`
}
