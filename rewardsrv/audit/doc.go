// Package audit measures a judge against gold labels: it reads or makes turns
// whose right label is known, puts them to a judge, and says how well the labels
// agree.
//
// The command "forager labels audit" imports it. It imports the root package and
// package rubric. Judges and retrievers come in through small interfaces.
package audit
