package node

import (
	"context"
	"encoding/json"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/forager-rl/forager"
	"github.com/forager-rl/forager/bus"
	"github.com/forager-rl/forager/cluster"
	"github.com/forager-rl/forager/rundir"
	"github.com/forager-rl/forager/security"
)

// freeAddress is a loopback address that nobody listens on.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// rolesUp runs roles until the returned function is called.
func rolesUp(t *testing.T, cfg Config, dir string, roles ...forager.Role) (stop func()) {
	t.Helper()
	ready, stopped, ended := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	go func() {
		ended <- RunRoles(t.Context(), cfg, RoleOptions{Roles: roles, Dir: dir, Logger: testLogger(t), Stop: stopped,
			Observer: Observer{Notice: func(text string) {
				if strings.Contains(text, " ready (run ") {
					close(ready)
				}
			}}})
	}()
	select {
	case <-ready:
	case err := <-ended:
		t.Fatalf("%v ended: %v", roles, err)
	case <-time.After(time.Minute):
		t.Fatalf("%v are not ready", roles)
	}
	return func() {
		close(stopped)
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}

func rulesOf(s *Status) []string {
	var list []string
	for _, f := range s.Findings {
		list = append(list, f.Rule)
	}
	return list
}

// TestStatus looks at a run that has no learner yet, by command and by HTTP, and
// once more when it is gone.
func TestStatus(t *testing.T) {
	cfg := quick(t)
	cfg.Judge.Judge = "none"
	cfg.Admin.Listen = freeAddress(t)
	dir := filepath.Join(cfg.Run.Root, cfg.Run.ID)
	stop := rolesUp(t, cfg, dir, forager.RoleNATS, forager.RoleCluster, forager.RoleReplay)
	want := []string{"no-learner", "no-actor"}
	s, err := ReadStatus(t.Context(), cfg, testLogger(t))
	for range 50 { // the table is in the heartbeat after the start
		if err == nil && s.Replay != nil && len(s.Raft.Voters) == 1 {
			break
		}
		time.Sleep(100 * time.Millisecond)
		s, err = ReadStatus(t.Context(), cfg, testLogger(t))
	}
	if err != nil || s.Healthy || !slices.Equal(rulesOf(&s), want) || len(s.Errors) > 0 {
		t.Fatalf("findings %+v, errors %v, %v", s.Findings, s.Errors, err)
	}
	if len(s.Members) != 1 || len(s.Streams) != 5 || s.Streams[0].Name != "credits" || s.Streams[0].MaxMessages != cfg.Bus.MaxCredits ||
		s.Raft.Leader != "node-1" || !s.Raft.Voters[0].Answers || s.Replay == nil || s.Replay.Capacity != cfg.Replay.MaxGroups {
		t.Errorf("status %+v", s)
	}

	address := "http://" + cfg.Admin.Listen
	var same Status
	if err := json.Unmarshal(get(t, address+"/status", http.StatusOK), &same); err != nil || !slices.Equal(rulesOf(&same), want) || same.Raft.Leader != "node-1" {
		t.Errorf("/status tells %+v, %v", same, err)
	}
	if text := string(get(t, address+"/metrics", http.StatusOK)); !strings.Contains(text, `forager_build_info{role="replay",version="`+programVersion()+`"} 1`) {
		t.Error("no build information in /metrics")
	}
	for _, ready := range []bool{false, true} {
		if text, err := Health(t.Context(), security.Config{}, cfg.Admin.Listen, ready); err != nil || (text != "ok" && text != "ready") {
			t.Errorf("health %q, %v", text, err)
		}
	}
	other := cfg
	other.Run.ID, other.Bus.URL = "other", s.Bus
	if s, err := ReadStatus(t.Context(), other, testLogger(t)); err != nil || !slices.Equal(rulesOf(&s), []string{"unknown-run"}) {
		t.Errorf("another run: %v, %v", s.Findings, err)
	}

	cfg.Bus.URL = s.Bus
	stop()
	begun := time.Now()
	s, err = ReadStatus(t.Context(), cfg, testLogger(t))
	if err != nil || s.Healthy || !slices.Equal(rulesOf(&s), []string{"bus-away"}) || time.Since(begun) > 2*statusWait {
		t.Errorf("without a bus, after %v: %v, %v", time.Since(begun), s.Findings, err)
	}
	cfg.Bus.URL = ""
	if _, err := ReadStatus(t.Context(), cfg, testLogger(t)); err == nil || !strings.Contains(err.Error(), "is not running") {
		t.Errorf("an ended run: %v", err)
	}
	if _, err := Health(t.Context(), security.Config{}, cfg.Admin.Listen, false); err == nil {
		t.Error("a process that has ended is healthy")
	}
}

func get(t *testing.T, url string, want int) []byte {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != want {
		t.Fatalf("%s: %s %s (%v)", url, response.Status, body, err)
	}
	return body
}

// onBus is a process with a bus of its own, in which no role runs.
func onBus(t *testing.T) *process {
	t.Helper()
	cfg := quick(t)
	dir, err := rundir.Create(cfg.Run.Root, cfg.Run.ID)
	if err != nil {
		t.Fatal(err)
	}
	p, err := newProcess(cfg, dir, testLogger(t), Observer{})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.openBus(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

// TestReadyz: what a process waits for is the answer until its roles are up, and
// again when the bus is gone.
func TestReadyz(t *testing.T) {
	p := onBus(t)
	p.condition.expect(forager.RoleActor)
	ask := func() (int, string) {
		w := httptest.NewRecorder()
		p.readyz(w, httptest.NewRequest(http.MethodGet, "/readyz", nil))
		return w.Code, w.Body.String()
	}
	over := p.condition.wait(forager.RoleActor, waitWeights)
	if code, text := ask(); code != http.StatusServiceUnavailable || text != "actor waits for the first weights\n" {
		t.Errorf("%d %s", code, text)
	}
	over()
	p.condition.rise(forager.RoleActor)
	if code, text := ask(); code != http.StatusOK {
		t.Errorf("%d %s", code, text)
	}
	if err := p.bus.Close(); err != nil {
		t.Fatal(err)
	}
	if code, text := ask(); code != http.StatusServiceUnavailable || !strings.Contains(text, "bus") {
		t.Errorf("%d %s", code, text)
	}
}

// TestRetrieversAreFound: an actor asks a retriever that the roster lists, and
// another one when that has died.
func TestRetrieversAreFound(t *testing.T) {
	p := onBus(t)
	servers := map[string]*httptest.Server{}
	for _, name := range []string{"a", "b"} {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write([]byte(`{"result": [[{"id": "` + name + `", "contents": "x"}]]}`))
		}))
		t.Cleanup(s.Close)
		servers[name] = s
		data, err := json.Marshal(cluster.Member{Name: name, Addresses: map[string]string{serviceRetriever: s.URL}})
		if err != nil {
			t.Fatal(err)
		}
		if err := p.bus.Announce(t.Context(), name, data); err != nil {
			t.Fatal(err)
		}
	}
	r, err := p.retriever(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	answer := func(query string) string {
		t.Helper()
		found, err := r.Search(t.Context(), []string{query}, 1)
		if err != nil || len(found) != 1 || len(found[0]) != 1 {
			t.Fatalf("found %v, %v", found, err)
		}
		return found[0][0].ID
	}
	first := answer("one")
	servers[first].Close()
	if second := answer("two"); second == first {
		t.Errorf("%s answered after its end", first)
	}
}

// TestCreditSignal: the credits that wait are exported while the learner has the
// lease, and not afterwards.
func TestCreditSignal(t *testing.T) {
	p := onBus(t)
	for _, id := range []string{"1", "2", "3"} {
		if err := p.bus.Publish(t.Context(), bus.Credits, id, []byte("{}")); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"a", "b"} {
		data, err := json.Marshal(cluster.Member{Name: name, Roles: []forager.Role{forager.RoleActor}})
		if err != nil {
			t.Fatal(err)
		}
		if err := p.bus.Announce(t.Context(), name, data); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		p.signals.run(ctx)
	}()
	read := func() map[string]float64 {
		families, err := p.registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		values := map[string]float64{}
		for _, f := range families {
			if name, ours := strings.CutPrefix(f.GetName(), "forager_credits_"); ours {
				values[name] = f.GetMetric()[0].GetGauge().GetValue()
			}
		}
		return values
	}
	want := map[string]float64{"waiting": 3, "waiting_per_actor": 1.5}
	for range 100 {
		if maps.Equal(read(), want) {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	if got := read(); !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	cancel()
	<-done
	if got := read(); len(got) > 0 {
		t.Errorf("without the lease: %v", got)
	}
}
