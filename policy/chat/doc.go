// Package chat writes prompts the way a model was trained to read them: with
// the chat template of its checkpoint, a Jinja text that comes in
// tokenizer_config.json, in chat_template.jinja or in a GGUF file.
//
// A prompt is made of texts of different origin. The template and the
// instructions are ours; a question or a passage comes from outside and must not
// be able to end its message and begin another, for example by spelling
// "<|im_end|>". So text is a list of [policy.Part], of which some are plain.
// Every character of plain text, except white space, quotes and backslashes,
// goes through the template in disguise, as a private character of Unicode that
// occurs nowhere else. Whatever the template does to it, trimming, cutting,
// joining, what comes out is known to be plain. The rendered text is then encoded as
// a whole: words and tokens span the borders between parts just as they do when
// transformers encodes a rendered chat. Only special tokens are recognised
// solely outside of plain characters. Where no plain text spells a special token the
// ids are therefore those of transformers, one by one.
//
// In return a template cannot look into plain text: it sees its length and its
// white space, but "</think>" in it is not found.
//
// Templates run in gonja with what transformers adds to Jinja: raise_exception,
// strftime_now, the generation tag, tojson for simple values. They cannot read
// files. What gonja cannot parse is an error that wraps [forager.ErrSchema],
// never another text. A template is code of the checkpoint and trusted like its
// weights; it is not stopped when it loops for long.
//
// Any package may import this one. It imports the root package, policy and
// policy/tokenizer.
package chat
