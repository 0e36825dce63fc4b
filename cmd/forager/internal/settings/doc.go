// Package settings treats a tree of Config structs as a flat list of settings
// with dotted names such as learner.lag: it lists them, sets them from loosely
// typed values, finds the nearest name to a mistyped one, and writes them as
// YAML and as documentation. What each setting means is read from the doc
// comments of the structs when the program is built, see generate.
//
// It knows no particular setting and reads no file. Only cmd/forager imports it.
package settings
