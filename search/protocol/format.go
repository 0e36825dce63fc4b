package protocol

import (
	"regexp"
	"strings"
)

var tag = regexp.MustCompile(`</?(?:think|search|information|answer)>`)

// ValidFormat tells whether a response (actions and observations, without the
// prompt) is well formed in the sense of Search-R1's format reward v0.3: a
// sequence of
//
//	think? search information   any number of times, then   think? answer
//
// in which every tag is closed before the next opens, only white space lies
// between blocks, and nothing but white space follows the answer. Thinking
// may also stand alone, so two blocks of it may follow one another.
func ValidFormat(response string) bool {
	open := "" // the block that we are in
	last := "" // the block that was closed last
	from := 0
	for _, at := range tag.FindAllStringIndex(response, -1) {
		name := strings.Trim(response[at[0]:at[1]], "</>")
		closing := response[at[0]+1] == '/'
		between := response[from:at[0]]
		from = at[1]
		if closing {
			if name != open {
				return false
			}
			open, last = "", name
			continue
		}
		if open != "" || strings.TrimSpace(between) != "" || !mayFollow(last, name) {
			return false
		}
		open = name
	}
	return open == "" && last == "answer" && strings.TrimSpace(response[from:]) == ""
}

// mayFollow is the order of blocks. The empty name is the start.
func mayFollow(last, next string) bool {
	switch last {
	case "search":
		return next == "information"
	case "answer":
		return false
	}
	return next != "information"
}
