package rewardmodel

import "strings"

// eachPassage finds the passages in an observation, in their order, whichever of
// the layouts of package search/protocol it has:
//
//	Doc 1(Title: "t") text        search-r1
//	Doc 1 (Title: "t")\ntext      verl
//	Doc 1: "t"\ntext              skyrl
//	t: text                       plain, one passage a line
//
// Any other text is read as plain: each line a passage, the title being what
// stands before its first colon, if that is near.
func eachPassage(observation string, visit func(title, text string)) {
	rest := strings.TrimSpace(observation)
	rest = strings.TrimPrefix(rest, "<information>")
	rest = strings.TrimSuffix(rest, "</information>")
	if at := nextHeader(rest); at >= 0 {
		for rest = rest[at:]; rest != ""; {
			title, body := splitHeader(rest)
			end := len(body)
			if next := nextHeader(body); next >= 0 {
				end = next
			}
			visit(title, body[:end])
			rest = body[end:]
		}
		return
	}
	for line := range strings.SplitSeq(rest, "\n") {
		if strings.TrimSpace(line) == "" {
			continue
		}
		title, text, found := strings.Cut(line, ": ")
		if !found || len(title) > maxTitleBytes {
			title, text = "", line
		}
		visit(title, text)
	}
}

const maxTitleBytes = 120

// nextHeader is where the first line begins that starts with "Doc" and a number, or -1.
func nextHeader(text string) int {
	for at := 0; ; {
		if line := text[at:]; len(line) > 4 && line[:4] == "Doc " && line[4] >= '0' && line[4] <= '9' {
			return at
		}
		next := strings.IndexByte(text[at:], '\n')
		if next < 0 {
			return -1
		}
		at += next + 1
	}
}

// splitHeader separates the title from what follows the header at the start of a text.
func splitHeader(text string) (title, body string) {
	line, below, _ := strings.Cut(text, "\n")
	if _, after, ok := strings.Cut(line, `(Title: "`); ok {
		if title, same, ok := strings.Cut(after, `")`); ok {
			return title, text[len(line)-len(same):]
		}
		return after, below
	}
	_, after, _ := strings.Cut(line, ":")
	return strings.Trim(after, ` "`), below
}
