package policy

// Part is a stretch of a text. The parts of a text are encoded as one: words
// and tokens may span them.
type Part struct {
	Text string
	// Plain marks text from outside, such as a question or a passage. No token
	// of the protocol or of a chat template comes out of it: it is spelled out,
	// as in Tokenizer.EncodePlain.
	Plain bool
}

// Message is one message of a chat.
type Message struct {
	Role    string // system, user or assistant
	Content []Part
}
