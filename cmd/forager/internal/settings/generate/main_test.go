package main

import (
	"os"
	"strings"
	"testing"
)

func TestCommentsAreUpToDate(t *testing.T) {
	want, err := generated("../../../../..")
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile("../comments.txt")
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want {
		t.Error("comments.txt is out of date: run go generate ./cmd/forager")
	}
	for line := range strings.Lines(want) {
		if place, comment, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "\t"); comment == "" {
			t.Errorf("%s has no comment", place)
		}
	}
}
