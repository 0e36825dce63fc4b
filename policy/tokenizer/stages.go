package tokenizer

import (
	"encoding/json"
	"fmt"

	"github.com/forager-rl/forager"
)

// stages are the parts of tokenizer.json around the model. They are kept as
// they were read, so that a file survives Parse and Marshal unchanged.
type stages struct {
	Normalizer    json.RawMessage `json:"normalizer"`
	PreTokenizer  json.RawMessage `json:"pre_tokenizer"`
	PostProcessor json.RawMessage `json:"post_processor"`
	Decoder       json.RawMessage `json:"decoder"`
}

// gpt2Stages are the stages of tokenizers that are trained here.
func gpt2Stages() stages {
	byteLevel := json.RawMessage(`{"type":"ByteLevel","add_prefix_space":false,"trim_offsets":true,"use_regex":true}`)
	return stages{PreTokenizer: byteLevel, Decoder: byteLevel}
}

// stage has the fields of every kind of stage that is understood.
type stage struct {
	Type           string            `json:"type"`
	Normalizers    []json.RawMessage `json:"normalizers"`
	PreTokenizers  []json.RawMessage `json:"pretokenizers"`
	AddPrefixSpace *bool             `json:"add_prefix_space"` // the library's default is true
	UseRegex       *bool             `json:"use_regex"`        // the library's default is true
	Behavior       string            `json:"behavior"`
	Invert         bool              `json:"invert"`
	Pattern        struct {
		Regex  string
		String string
	} `json:"pattern"`
}

// parseStage reads a stage; a missing one has an empty Type.
func parseStage(name string, raw json.RawMessage) (stage, error) {
	var s stage
	if len(raw) == 0 {
		return s, nil
	}
	if err := json.Unmarshal(raw, &s); err != nil {
		return s, fmt.Errorf("%s: %w: %w", name, err, forager.ErrCorrupt)
	}
	return s, nil
}

// unsupported says which part of a file this package does not do.
func unsupported(format string, args ...any) error {
	return fmt.Errorf(format+" is not supported: %w", append(args, forager.ErrSchema)...)
}

// normalizer reports whether texts are to be composed (NFC).
func (s stages) normalizer() (nfc bool, err error) {
	n, err := parseStage("normalizer", s.Normalizer)
	if err != nil {
		return false, err
	}
	switch n.Type {
	case "":
		return false, nil
	case "NFC":
		return true, nil
	case "Sequence":
		for _, raw := range n.Normalizers {
			inner, err := stages{Normalizer: raw}.normalizer()
			if err != nil {
				return false, err
			}
			nfc = nfc || inner
		}
		return nfc, nil
	}
	return false, unsupported("normalizer %q", n.Type)
}

// wordRule finds the pre-tokeniser: ByteLevel with its own pattern, or a Split
// by a known pattern followed by ByteLevel.
func (s stages) wordRule() (wordRule, error) {
	p, err := parseStage("pre_tokenizer", s.PreTokenizer)
	if err != nil {
		return nil, err
	}
	steps := []stage{p}
	if p.Type == "Sequence" {
		steps = nil
		for _, raw := range p.PreTokenizers {
			step, err := parseStage("pre_tokenizer", raw)
			if err != nil {
				return nil, err
			}
			steps = append(steps, step)
		}
	}
	var rule wordRule
	byteLevel := false
	for _, step := range steps {
		switch {
		case step.Type == "Split" && rule == nil && !byteLevel:
			if rule, err = step.split(); err != nil {
				return nil, err
			}
		case step.Type == "ByteLevel" && !byteLevel:
			byteLevel = true
			if step.AddPrefixSpace == nil || *step.AddPrefixSpace {
				return nil, unsupported("pre_tokenizer ByteLevel with add_prefix_space")
			}
			if step.UseRegex == nil || *step.UseRegex {
				if rule != nil {
					return nil, unsupported("pre_tokenizer Split before a ByteLevel with its own pattern")
				}
				rule = gpt2Word
			}
		default:
			return nil, unsupported("pre_tokenizer %q", step.Type)
		}
	}
	if !byteLevel {
		return nil, unsupported("a pre_tokenizer without ByteLevel")
	}
	if rule == nil {
		return nil, unsupported("pre_tokenizer ByteLevel without a pattern")
	}
	return rule, nil
}

func (s stage) split() (wordRule, error) {
	if s.Behavior != "Isolated" || s.Invert {
		return nil, unsupported("pre_tokenizer Split with behavior %q, invert %v", s.Behavior, s.Invert)
	}
	rule, ok := wordRuleFor(s.Pattern.Regex)
	if !ok {
		return nil, unsupported("pre_tokenizer Split by pattern %q", s.Pattern.Regex+s.Pattern.String)
	}
	return rule, nil
}

// checkDecoder makes sure that tokens are joined byte by byte.
func (s stages) checkDecoder() error {
	d, err := parseStage("decoder", s.Decoder)
	if err != nil {
		return err
	}
	if d.Type != "ByteLevel" {
		return unsupported("decoder %q", d.Type)
	}
	return nil
}
