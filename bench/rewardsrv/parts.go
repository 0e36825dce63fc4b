package main

import (
	"context"
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// parts is a run whose roles are processes of their own.
type parts struct {
	runs
	id        string
	settings  []string
	latency   time.Duration // of searches
	processes map[string]*exec.Cmd
	logs      []*os.File
	proxy     *httptest.Server // of the retriever, which adds the latency
}

// begin starts all roles; the learner comes last.
func (p *parts) begin(ctx context.Context) error {
	p.processes = map[string]*exec.Cmd{}
	if err := p.start("nats", "--listen", "127.0.0.1:0"); err != nil {
		return err
	}
	address, err := p.await(ctx, "nats", "nats://")
	if err != nil {
		return err
	}
	bus := "nats://" + address
	for _, role := range []string{"cluster", "replay", "rewardsrv", "learner"} {
		if err := p.start(role, "--nats", bus); err != nil {
			return err
		}
	}
	if err := p.start("retriever", "--listen", "127.0.0.1:0"); err != nil { // of nobody's run: actors find it through the proxy
		return err
	}
	if address, err = p.await(ctx, "retriever", "http://"); err != nil {
		return err
	}
	p.proxy = delayed(address, p.latency)
	return p.start("actor", "--nats", bus, "--set", "search.client.url="+p.proxy.URL)
}

// delayed forwards searches after a while.
func delayed(address string, latency time.Duration) *httptest.Server {
	proxy := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: strings.TrimSuffix(address, "/retrieve")})
	return httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		timer := time.NewTimer(latency)
		defer timer.Stop()
		select {
		case <-timer.C:
			proxy.ServeHTTP(w, r)
		case <-r.Context().Done():
		}
	}))
}

func (p *parts) start(role string, args ...string) error {
	log, err := os.Create(p.log(role))
	if err != nil {
		return err
	}
	p.logs = append(p.logs, log)
	args = append([]string{role, "--run", p.id}, args...) // "retriever" without --nats serves anybody
	for _, s := range p.settings {
		args = append(args, "--set", s)
	}
	c := exec.Command(p.binary, args...)
	c.Stdout, c.Stderr = log, log
	if err := c.Start(); err != nil {
		return fmt.Errorf("start %s: %w", role, err)
	}
	p.processes[role] = c
	return nil
}

func (p *parts) log(role string) string { return filepath.Join(p.out, p.id+"-"+role+".log") }

// await reads an address from the log of a role: what follows the scheme.
func (p *parts) await(ctx context.Context, role, scheme string) (string, error) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	deadline := time.NewTimer(30 * time.Second)
	defer deadline.Stop()
	for {
		data, err := os.ReadFile(p.log(role))
		if err != nil {
			return "", err
		}
		if _, rest, found := strings.Cut(string(data), scheme); found {
			if line, _, whole := strings.Cut(rest, "\n"); whole {
				return strings.Fields(line)[0], nil
			}
		}
		select {
		case <-tick.C:
		case <-deadline.C:
			return "", fmt.Errorf("%s did not come up: see %s", role, p.log(role))
		case <-ctx.Done():
			return "", ctx.Err()
		}
	}
}

// end kills what was started, also what is stopped. It is safe twice.
func (p *parts) end() error {
	for role, c := range p.processes {
		if c.ProcessState == nil {
			_ = c.Process.Kill() // it may have ended
			_ = c.Wait()         // by the signal
		}
		if c.ProcessState == nil {
			return fmt.Errorf("%s was not ended", role)
		}
	}
	for _, log := range p.logs {
		_ = log.Close()
	}
	p.logs = nil
	if p.proxy != nil {
		p.proxy.CloseClientConnections()
		p.proxy.Close()
		p.proxy = nil
	}
	return nil
}

// meanOf gives the mean and its standard error.
func meanOf(values []float64) (mean, deviation float64) {
	n := float64(len(values))
	for _, v := range values {
		mean += v / n
	}
	for _, v := range values {
		deviation += (v - mean) * (v - mean) / n
	}
	return mean, math.Sqrt(deviation / max(1, n-1))
}
