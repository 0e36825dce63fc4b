package rundir

// The words of run ids: 64 × 64 pairs, so that two runs started in the same
// second rarely meet (and Create refuses when they do).
var (
	adjectives = [64]string{
		"agile", "amber", "bold", "brave", "bright", "brisk", "calm", "clear",
		"clever", "cosy", "crisp", "curious", "deft", "eager", "early", "fair",
		"fleet", "fond", "fresh", "gentle", "glad", "golden", "grand", "happy",
		"hardy", "honest", "humble", "jolly", "keen", "kind", "light", "lively",
		"loyal", "lucky", "mellow", "merry", "mild", "modest", "neat", "nimble",
		"noble", "patient", "plucky", "polite", "proud", "quick", "quiet", "rapid",
		"ready", "robust", "sharp", "silent", "silver", "smart", "snug", "steady",
		"sunny", "swift", "tidy", "vivid", "warm", "wild", "wise", "witty",
	}
	animals = [64]string{
		"ant", "badger", "bat", "bear", "beaver", "bee", "bison", "boar",
		"bunting", "camel", "cat", "crane", "crow", "deer", "dingo", "dolphin",
		"dove", "duck", "eagle", "eel", "egret", "elk", "falcon", "ferret",
		"finch", "fox", "frog", "gecko", "goat", "goose", "hare", "hawk",
		"heron", "horse", "ibex", "jackal", "jay", "kite", "koala", "lark",
		"lemur", "lion", "lynx", "marten", "mole", "moose", "mouse", "newt",
		"otter", "owl", "panda", "pigeon", "puffin", "quail", "rabbit", "raven",
		"robin", "seal", "shrew", "stoat", "swan", "tern", "toad", "wren",
	}
)
