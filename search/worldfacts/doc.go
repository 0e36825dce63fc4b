// Package worldfacts is the built-in search task: short passages about
// countries, their capitals, currencies, languages, regions and internet
// domains, and questions of one to three hops whose answers are unique.
//
// A World holds the entities and their relations. Real reads the world from the
// data compiled into github.com/pariz/gountries; Invent makes one of the same
// shape with fresh names, so that demonstrations show how to search and never
// what to remember. Corpus and Questions work on both. Build gives the real
// task with its geographic split.
//
// The facts are those of gountries v0.1.6 with the corrections listed in
// real.go. "Nearest" compares the distances between the centres of countries,
// "largest" their areas. Everything is deterministic.
//
// The package imports the root package and is the only one that imports
// gountries. Commands and the search environment may import it.
package worldfacts
