// Package search is the environment of a search agent: tasks and corpora read
// from files, retrievers over them, the HTTP retriever server and its client.
//
// Everything that answers queries is a Retriever: BM25 over an index in this
// process, HTTPRetriever over one in another, Cached around either. Package
// search/protocol holds the tag protocol of an episode.
//
// Actors, evaluation, node and the command may import it. It imports the root
// package and is the only owner of bleve.
package search
