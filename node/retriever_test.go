package node

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
)

// TestServeRetriever asks a retriever that belongs to no run.
func TestServeRetriever(t *testing.T) {
	cfg := DefaultConfig()
	cfg.Search.Server.Listen = "localhost:0"
	urls := make(chan string, 1)
	stop := make(chan struct{})
	ended := make(chan error, 1)
	go func() {
		ended <- ServeRetriever(t.Context(), cfg, RoleOptions{Logger: testLogger(t), Stop: stop, Observer: Observer{Notice: func(text string) {
			_, url, _ := strings.Cut(text, " at ")
			urls <- url
		}}})
	}()
	request, err := http.NewRequestWithContext(context.Background(), http.MethodPost, <-urls, bytes.NewBufferString(`{"queries":["city Tirana"],"topk":1}`))
	if err != nil {
		t.Fatal(err)
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	var body struct {
		Result [][]struct{ ID, Contents string }
	}
	if err := json.NewDecoder(answer.Body).Decode(&body); err != nil || len(body.Result) != 1 || body.Result[0][0].ID != "city-tirana" {
		t.Errorf("answer is %+v (%v)", body, err)
	}
	close(stop)
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
