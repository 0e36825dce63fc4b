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

// stage has the fields of every kind of stage that is understood.
type stage struct {
	Type             string            `json:"type"`
	Normalizers      []json.RawMessage `json:"normalizers"`
	PreTokenizers    []json.RawMessage `json:"pretokenizers"`
	Decoders         []json.RawMessage `json:"decoders"`
	Processors       []json.RawMessage `json:"processors"`
	AddPrefixSpace   *bool             `json:"add_prefix_space"` // the library's default is true
	UseRegex         *bool             `json:"use_regex"`        // the library's default is true
	IndividualDigits bool              `json:"individual_digits"`
	Behavior         string            `json:"behavior"`
	Invert           bool              `json:"invert"`
	Prepend          string            `json:"prepend"`
	Replacement      string            `json:"replacement"`
	PrependScheme    string            `json:"prepend_scheme"`
	Split            *bool             `json:"split"` // the library's default is true
	Pattern          struct {
		Regex  string
		String string
	} `json:"pattern"`
	Content string            `json:"content"`
	Start   int               `json:"start"`
	Stop    int               `json:"stop"`
	Single  []json.RawMessage `json:"single"`
	Tokens  map[string]struct {
		IDs []int32 `json:"ids"`
	} `json:"special_tokens"`
}

// parseSteps reads a stage as the steps that it is made of: those of a
// Sequence, in order, or itself. A missing stage has none.
func parseSteps(name string, raw json.RawMessage) ([]stage, error) {
	if len(raw) == 0 || string(raw) == "null" {
		return nil, nil
	}
	var s stage
	if err := json.Unmarshal(raw, &s); err != nil {
		return nil, fmt.Errorf("%s: %w: %w", name, err, forager.ErrCorrupt)
	}
	if s.Type != "Sequence" {
		return []stage{s}, nil
	}
	var steps []stage
	for _, list := range [][]json.RawMessage{s.Normalizers, s.PreTokenizers, s.Decoders, s.Processors} {
		for _, raw := range list {
			inner, err := parseSteps(name, raw)
			if err != nil {
				return nil, err
			}
			steps = append(steps, inner...)
		}
	}
	return steps, nil
}

// unsupported says which part of a file this package does not do.
func unsupported(format string, args ...any) error {
	return fmt.Errorf(format+" is not supported: %w", append(args, forager.ErrSchema)...)
}

// byteLevel sets up what comes before and after a model of bytes.
func (t *Tokenizer) byteLevel(s stages) error {
	normalizers, err := parseSteps("normalizer", s.Normalizer)
	if err != nil {
		return err
	}
	for _, n := range normalizers {
		if n.Type != "NFC" {
			return unsupported("normalizer %q", n.Type)
		}
		t.nfc = true
	}
	pre, err := parseSteps("pre_tokenizer", s.PreTokenizer)
	if err != nil {
		return err
	}
	if t.word, err = byteLevelWords(pre); err != nil {
		return err
	}
	decoders, err := parseSteps("decoder", s.Decoder)
	if err != nil {
		return err
	}
	if len(decoders) != 1 || decoders[0].Type != "ByteLevel" {
		return unsupported("decoder %s", s.Decoder)
	}
	return nil
}

// byteLevelWords finds the pre-tokeniser: ByteLevel with its own pattern, if
// need be after Digits, or a Split by a known pattern followed by ByteLevel.
func byteLevelWords(steps []stage) (wordRule, error) {
	var rule wordRule
	digits, end := false, false
	for _, step := range steps {
		switch {
		case step.Type == "Split" && rule == nil && !digits && !end:
			var err error
			if rule, err = step.splitRule(); err != nil {
				return nil, err
			}
		case step.Type == "Digits" && rule == nil && !end:
			if !step.IndividualDigits {
				return nil, unsupported("pre_tokenizer Digits without individual_digits")
			}
			digits = true
		case step.Type == "ByteLevel" && !end:
			end = true
			if step.AddPrefixSpace == nil || *step.AddPrefixSpace {
				return nil, unsupported("pre_tokenizer ByteLevel with add_prefix_space")
			}
			ownPattern := step.UseRegex == nil || *step.UseRegex
			switch {
			case ownPattern && rule != nil:
				return nil, unsupported("pre_tokenizer Split before a ByteLevel with its own pattern")
			case ownPattern && digits:
				rule = digitWord
			case ownPattern:
				rule = gpt2Word
			case rule == nil:
				return nil, unsupported("pre_tokenizer ByteLevel without a pattern")
			}
		default:
			return nil, unsupported("pre_tokenizer %q", step.Type)
		}
	}
	if !end {
		return nil, unsupported("a pre_tokenizer without ByteLevel")
	}
	return rule, nil
}

func (s stage) splitRule() (wordRule, error) {
	if s.Behavior != "Isolated" || s.Invert {
		return nil, unsupported("pre_tokenizer Split with behavior %q, invert %v", s.Behavior, s.Invert)
	}
	rule, ok := wordRuleFor(s.Pattern.Regex)
	if !ok {
		return nil, unsupported("pre_tokenizer Split by pattern %q", s.Pattern.Regex+s.Pattern.String)
	}
	return rule, nil
}

// openingTokens are the special tokens that the post-processor puts before a
// text.
func (s stages) openingTokens() ([]int32, error) {
	steps, err := parseSteps("post_processor", s.PostProcessor)
	if err != nil {
		return nil, err
	}
	var opening []int32
	for _, step := range steps {
		for _, raw := range step.Single {
			var piece struct {
				SpecialToken *struct {
					ID string `json:"id"`
				}
			}
			if err := json.Unmarshal(raw, &piece); err != nil {
				return nil, fmt.Errorf("post_processor: %w: %w", err, forager.ErrCorrupt)
			}
			if piece.SpecialToken == nil {
				break // the text; what follows it is not for prompts
			}
			token, ok := step.Tokens[piece.SpecialToken.ID]
			if !ok {
				return nil, corrupt("post_processor names token %q without its id", piece.SpecialToken.ID)
			}
			opening = append(opening, token.IDs...)
		}
	}
	return opening, nil
}
