package labelstore

import (
	"encoding/json"
	"fmt"
	"time"
)

// Record is what is known about one label key.
type Record struct {
	Key       string    `json:"-"`
	Value     *float64  `json:"v,omitempty"` // finite; nil: the key failed and stays without a label
	Rationale string    `json:"r,omitempty"`
	Judge     string    `json:"j,omitempty"`
	Rubric    string    `json:"u,omitempty"` // version
	Time      time.Time `json:"t"`
}

func encode(r Record) ([]byte, error) {
	data, err := json.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("label %s: %w", r.Key, err)
	}
	return data, nil
}

func decode(key, data []byte) (Record, error) {
	r := Record{Key: string(key)}
	if err := json.Unmarshal(data, &r); err != nil {
		return Record{}, fmt.Errorf("label %s: %w", key, err)
	}
	return r, nil
}
