package protocol

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/forager-rl/forager"
)

// Style names the way in which passages are laid out in an observation.
// Policies trained elsewhere expect the layout that they were trained on.
type Style string

// The styles in use.
const (
	SearchR1 Style = "search-r1" // Doc 1(Title: "t") text, one passage a line
	Verl     Style = "verl"      // Doc 1 (Title: "t"), the text below, a blank line between
	SkyRL    Style = "skyrl"     // Doc 1: "t", the text below, single newlines around the block
	Plain    Style = "plain"     // t: text, short, for small models
)

// ParseStyle finds a style by name.
func ParseStyle(name string) (Style, error) {
	switch style := Style(name); style {
	case SearchR1, Verl, SkyRL, Plain:
		return style, nil
	}
	return "", fmt.Errorf("unknown observation style %q: expected %s, %s, %s or %s", name, SearchR1, Verl, SkyRL, Plain)
}

// Observation lays out retrieved passages in exactly one information block.
// Passages are untrusted: protocol tags and chat-template markers inside them
// are defused, so that no passage can close the block or forge an action. No
// passages give an empty block.
func Observation(passages []forager.Passage, style Style) string {
	var body strings.Builder
	around := "\n\n"
	// Titles stand between quotes as in Search-R1's corpora: nothing is escaped.
	for i, passage := range passages {
		switch style {
		case Verl:
			fmt.Fprintf(&body, "Doc %d (Title: \"%s\")\n%s\n\n", i+1, passage.Title, passage.Text)
		case SkyRL:
			fmt.Fprintf(&body, "Doc %d: \"%s\"\n%s\n", i+1, passage.Title, passage.Text)
		case Plain:
			if passage.Title != "" {
				body.WriteString(passage.Title + ": ")
			}
			body.WriteString(passage.Text + "\n")
		default:
			fmt.Fprintf(&body, "Doc %d(Title: \"%s\") %s\n", i+1, passage.Title, passage.Text)
		}
	}
	if style == SkyRL || style == Plain {
		around = "\n"
	}
	return around + OpenInformation + strings.TrimSpace(defuse(body.String())) + CloseInformation + around
}

// The tags around an observation's passages.
const (
	OpenInformation  = "<information>"
	CloseInformation = "</information>"
)

// marker matches what only the environment may write: protocol and tool tags,
// and control tokens of chat templates such as <|im_end|>.
var marker = regexp.MustCompile(`(?i)<(\s*/?\s*(?:think|search|information|answer|tool_call|tool_response)\s*)>|<(\|[^<>|\s]{1,64}\|)>`)

// defuse turns the angle brackets of markers into round ones: the text stays
// readable and nothing new can form, since nothing is removed.
func defuse(text string) string {
	if !strings.Contains(text, "<") {
		return text
	}
	return marker.ReplaceAllString(text, "($1$2)")
}
