package worldfacts

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/forager-rl/forager/search"
)

func TestCorpus(t *testing.T) {
	corpus := mustReal(t).Corpus()
	if len(corpus) < 800 || len(corpus) > 1100 {
		t.Errorf("%d passages, want 800 to 1,100", len(corpus))
	}
	ids, titles := make(map[string]bool), make(map[string]bool)
	for _, p := range corpus {
		if ids[p.ID] || titles[p.Title] || strings.Contains(p.ID, " ") {
			t.Errorf("%q %q is not unique or not an id", p.ID, p.Title)
		}
		ids[p.ID], titles[p.Title] = true, true
		if n := len(strings.Fields(p.Text)); n < 10 || n > 60 || strings.Contains(p.Text, "%") {
			t.Errorf("%s has %d words: %s", p.ID, n, p.Text)
		}
	}
}

func TestPassages(t *testing.T) {
	texts := make(map[string]string)
	for _, p := range mustReal(t).Corpus() {
		texts[p.Title] = p.Text
	}
	for title, want := range map[string]string{
		"Albania (country)":       "Albania is a country in Southern Europe. The capital of Albania is Tirana. The currency is the Albanian lek and the language is Albanian. The largest neighbour is Greece and the nearest country is Macedonia.",
		"Tirana (city)":           "Tirana is a city in Southern Europe. It serves as the capital of Albania.",
		"Albanian lek (currency)": "The Albanian lek is the currency of Albania. No other nation pays with it.",
		"Danish krone (currency)": "The Danish krone is a currency shared by 3 nations. It is used in Denmark, the Faroe Islands and Greenland.",
		"English (language)":      "English is a language of 89 nations. It is spoken in American Samoa, Anguilla, Antigua and Barbuda, Australia and others.",
		"Central Asia (region)":   "Central Asia is a region of Asia. The largest country there is Kazakhstan and the smallest is Tajikistan. Its 5 countries are Kazakhstan, Kyrgyzstan, Tajikistan, Turkmenistan and Uzbekistan.",
		".al (domain)":            "The internet domain .al is that of Albania. Web sites from Albania often end with .al.",
		"Kingston (city)":         "Kingston is the name of 2 cities. They are the capitals of Jamaica and Norfolk Island.",
		"Philippines (country)":   "The Philippines lies in South-Eastern Asia. The capital of the Philippines is Manila. People pay with the Philippine peso and speak English and Filipino. There is no neighbour by land and the nearest country is Brunei.",
		"South Africa (country)":  "South Africa is a country in Southern Africa. The capital of South Africa is Pretoria. The currency is the South African rand and the languages are Afrikaans, English, Northern Sotho, Southern Ndebele and others. The largest neighbour is Namibia and the nearest country is Lesotho.",
	} {
		if got, ok := texts[title]; got != want {
			t.Errorf("%s, found %v:\n got %s\nwant %s", title, ok, got, want)
		}
	}
}

func TestLeads(t *testing.T) {
	all := mustReal(t).Leads()
	for id, want := range map[string][]string{
		"country-albania": {"city Tirana", "country Greece", "country Macedonia", "currency Albanian lek", "language Albanian", "region Southern Europe"},
		"city-tirana":     {"country Albania", "region Southern Europe"},
		"domain-al":       {"country Albania"},
	} {
		var got []string
		for _, l := range all[id] {
			got = append(got, l.Query)
			if _, known := all[l.Passage]; !known {
				t.Errorf("%s leads to %+v", id, l)
			}
		}
		if slices.Sort(got); !slices.Equal(got, want) {
			t.Errorf("%s leads to %q, want %q", id, got, want)
		}
	}
}

// A scripted searcher that sends the queries of the decomposition finds the
// gold passages at the top.
func TestQueriesFindTheirPassages(t *testing.T) {
	tasks, corpus, err := Build()
	if err != nil {
		t.Fatal(err)
	}
	config := search.DefaultBM25Config()
	config.TitleWeight = 4
	index, err := search.NewBM25(t.Context(), corpus, config)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := index.Close(); err != nil {
			t.Error(err)
		}
	}()
	all, solved := make(map[string]float64), make(map[string]float64)
	for _, task := range tasks {
		queries := make([]string, len(task.Decomposition))
		for i, hop := range task.Decomposition {
			queries[i] = hop.Query
		}
		results, err := index.Search(t.Context(), queries, 1)
		if err != nil {
			t.Fatal(err)
		}
		found := 1.0
		for i, hop := range task.Decomposition {
			if len(results[i]) == 0 || results[i][0].ID != hop.Gold {
				found = 0
			}
		}
		key := fmt.Sprintf("%s, %d hops", task.Split, task.Hops)
		all[key]++
		solved[key] += found
	}
	for key, n := range all {
		t.Logf("%s: all gold passages come first for %.3f of %.0f questions", key, solved[key]/n, n)
		if solved[key]/n < 0.97 {
			t.Errorf("%s: %.3f of the questions can be solved, want 0.97", key, solved[key]/n)
		}
	}
}
