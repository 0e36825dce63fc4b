// Package rubric says what a judge is asked and how its answer is read.
//
// A rubric is a YAML file of one of five kinds: helpfulness, preference,
// nuggets, principles, tool_calls (docs/rubrics.md explains them to those who
// write one). [Load] reads it strictly, [Rubric.Prompt] writes one request,
// [Prompt.Parse] reads the answer to exactly that request.
//
//	r, err := rubric.Load("helpfulness")
//	p := r.Prompt(item, rubric.PromptOptions{}, rng)
//	verdict, err := p.Parse(ask(p.System, p.User))
//
// What a judge reads of searches and answers was written by strangers. It is
// cleaned to single lines without control characters and chat markers, and put
// between fences; fences and all words that an answer is made of are drawn anew
// for every request and never occur in the material, so that a text which is
// merely repeated by a judge is no verdict.
//
// The package is pure but for reading files. It imports the root package,
// package reward, the YAML library (which only this package may import), edit
// distances for its error messages, and Unicode normalisation. The reward server
// and the command import it.
package rubric
