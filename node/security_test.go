package node

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/apache/arrow/go/v15/arrow/flight"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/forager-rl/forager"
	"github.com/forager-rl/forager/search"
	"github.com/forager-rl/forager/security"
)

// allCredentials makes the folders of all roles.
func allCredentials(t *testing.T) string {
	t.Helper()
	dir, day := t.TempDir(), 24*time.Hour
	if _, err := security.Issue(security.IssueOptions{Dir: dir, Validity: 30 * day, AuthorityValidity: 60 * day, Now: time.Now()}); err != nil {
		t.Fatal(err)
	}
	return dir
}

func credentialsOf(t *testing.T, dir string, role forager.Role) *security.Credentials {
	t.Helper()
	c, err := security.Load(filepath.Join(dir, string(role)))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// ask gives the status of a GET, with a token when there is one.
func ask(t *testing.T, client *http.Client, url, token string) int {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	answer, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	if _, err := io.Copy(io.Discard, answer.Body); err != nil {
		t.Fatal(err)
	}
	if answer.StatusCode == http.StatusUnauthorized && answer.Header.Get("WWW-Authenticate") == "" {
		t.Errorf("%s: 401 without WWW-Authenticate", url)
	}
	return answer.StatusCode
}

// webClient trusts an authority and expects a role.
func webClient(c *security.Credentials, server forager.Role) *http.Client {
	config := c.Client()
	config.ServerName = string(server)
	return &http.Client{Transport: &http.Transport{TLSClientConfig: config}, Timeout: 10 * time.Second}
}

// running runs one role until the test ends and gives the URL that a notice tells.
func running(t *testing.T, run func(RoleOptions) error, mark string) string {
	t.Helper()
	urls, stop, ended := make(chan string, 10), make(chan struct{}), make(chan error, 1)
	go func() {
		ended <- run(RoleOptions{Logger: testLogger(t), Stop: stop, Observer: Observer{Notice: func(text string) {
			if _, url, ok := strings.Cut(text, mark); ok {
				url, _, _ = strings.Cut(url, " ")
				urls <- url
			}
		}}})
	}()
	select {
	case url := <-urls:
		t.Cleanup(func() {
			close(stop)
			if err := <-ended; err != nil {
				t.Error(err)
			}
		})
		return url
	case err := <-ended:
		t.Fatal("it ended:", err)
		return ""
	}
}

// TestHTTPAccess tries the HTTP servers of a process and of the retriever without
// and with credentials.
func TestHTTPAccess(t *testing.T) {
	dir, others := allCredentials(t), allCredentials(t)
	actor, foreign := credentialsOf(t, dir, forager.RoleActor), credentialsOf(t, others, forager.RoleActor)

	carrier := DefaultConfig()
	carrier.Security.Dir, carrier.Admin.Listen = filepath.Join(dir, "nats"), "0.0.0.0:0"
	admin := strings.TrimSuffix(running(t, func(o RoleOptions) error {
		o.Roles, o.Dir = []forager.Role{forager.RoleNATS}, filepath.Join(t.TempDir(), "run")
		return RunRoles(t.Context(), carrier, o)
	}, "status at "), "/metrics")

	searching := DefaultConfig()
	searching.Security.Dir, searching.Search.Server.Listen = filepath.Join(dir, "retriever"), "0.0.0.0:0"
	retriever := strings.TrimSuffix(running(t, func(o RoleOptions) error { return ServeRetriever(t.Context(), searching, o) }, "passages at "), "/retrieve")

	refused := 0
	for role, server := range map[forager.Role]struct {
		url   string
		paths []string
	}{
		forager.RoleNATS:      {admin, []string{"/metrics", "/status"}},
		forager.RoleRetriever: {retriever, []string{"/metrics", "/stats", "/retrieve"}},
	} {
		client := webClient(actor, role)
		if !strings.HasPrefix(server.url, "https://127.0.0.1:") {
			t.Errorf("%s is at %s", role, server.url)
		}
		if code := ask(t, client, server.url+"/healthz", ""); code != http.StatusOK {
			t.Errorf("%s: /healthz answers %d", role, code)
		}
		for _, path := range server.paths {
			for _, token := range []string{"", "wrong", foreign.Token()} {
				if code := ask(t, client, server.url+path, token); code != http.StatusUnauthorized {
					t.Errorf("%s%s with token %t: %d", role, path, token != "", code)
				}
				refused++
			}
			if code := ask(t, client, server.url+path, actor.Token()); code == http.StatusUnauthorized {
				t.Errorf("%s%s refuses its token", role, path)
			}
		}
		for name, stranger := range map[string]*http.Client{
			"another authority": webClient(foreign, role),
			"another role":      webClient(actor, forager.RoleLearner),
			"no authority":      {Transport: &http.Transport{TLSClientConfig: &tls.Config{ServerName: string(role)}}},
		} {
			if answer, err := stranger.Get(server.url + "/healthz"); err == nil { //nolint:noctx // it must not get that far
				answer.Body.Close()
				t.Errorf("%s: %s is trusted", role, name)
			}
			refused++
		}
		if code := ask(t, http.DefaultClient, strings.Replace(server.url, "https", "http", 1)+"/healthz", actor.Token()); code != http.StatusBadRequest {
			t.Errorf("%s answers %d without TLS", role, code)
		}
		refused++
	}
	t.Logf("%d requests refused", refused)

	// The client of the retriever: in with credentials, else told at once.
	cfg := search.DefaultClientConfig()
	cfg.URL, cfg.Retries = retriever, 100
	search1 := func(cfg search.ClientConfig) error {
		client, err := search.NewHTTPRetriever(cfg)
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		started := time.Now()
		_, err = client.Search(t.Context(), []string{"city Tirana"}, 1)
		if took := time.Since(started); took > 5*time.Second {
			t.Errorf("it took %v: %v", took, err)
		}
		return err
	}
	if err := search1(retrieverClient(cfg, actor)); err != nil {
		t.Error(err)
	}
	if err := search1(retrieverClient(cfg, foreign)); err == nil || !strings.Contains(err.Error(), "certificate and our authority do not fit") {
		t.Errorf("another authority: %v", err)
	}
	without := retrieverClient(cfg, actor)
	without.Token = "wrong-and-too-long-to-guess"
	if err := search1(without); err == nil || !strings.Contains(err.Error(), "401") || !strings.Contains(err.Error(), "check http.token") || strings.Contains(err.Error(), without.Token) {
		t.Errorf("another token: %v", err)
	}
}

// TestFlightAccess tries the Flight server of replay without and with credentials.
func TestFlightAccess(t *testing.T) {
	dir, others := allCredentials(t), allCredentials(t)
	actor, foreign := credentialsOf(t, dir, forager.RoleActor), credentialsOf(t, others, forager.RoleActor)
	role := func(role forager.Role, mark string, change func(*Config)) string {
		cfg := DefaultConfig()
		cfg.Security.Dir, cfg.Admin.Listen, cfg.Bus.Listen = filepath.Join(dir, string(role)), "", "127.0.0.1:0"
		change(&cfg)
		return running(t, func(o RoleOptions) error {
			o.Roles, o.Dir = []forager.Role{role}, filepath.Join(t.TempDir(), "run")
			return RunRoles(t.Context(), cfg, o)
		}, mark)
	}
	url := role(forager.RoleNATS, "JetStream at ", func(*Config) {})
	join := func(c *Config) { c.Bus.URL = url }
	role(forager.RoleCluster, "cluster ready ", join)
	address := role(forager.RoleReplay, "Arrow Flight at grpc+tls://", func(c *Config) {
		join(c)
		c.Replay.Flight.Listen = "0.0.0.0:0"
	})

	// list gives the names of the flights, or why there are none.
	list := func(c *tls.Config, server forager.Role, token string) (names []string, err error) {
		transport := insecure.NewCredentials()
		if c != nil {
			c.ServerName = string(server)
			transport = credentials.NewTLS(c)
		}
		client, err := flight.NewClientWithMiddleware(address, nil, nil, grpc.WithTransportCredentials(transport))
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if token != "" {
			ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token)
		}
		stream, err := client.ListFlights(ctx, &flight.Criteria{})
		for err == nil {
			var info *flight.FlightInfo
			if info, err = stream.Recv(); err == nil {
				names = append(names, info.FlightDescriptor.Path...)
			}
		}
		if errors.Is(err, io.EOF) {
			err = nil
		}
		return names, err
	}
	for name, c := range map[string]struct {
		tls    *tls.Config
		server forager.Role
		token  string
		code   codes.Code
	}{
		"right":             {actor.Client(), forager.RoleReplay, actor.Token(), codes.OK},
		"no token":          {actor.Client(), forager.RoleReplay, "", codes.Unauthenticated},
		"wrong token":       {actor.Client(), forager.RoleReplay, "wrong", codes.Unauthenticated},
		"foreign token":     {actor.Client(), forager.RoleReplay, foreign.Token(), codes.Unauthenticated},
		"another authority": {foreign.Client(), forager.RoleReplay, actor.Token(), codes.Unavailable},
		"another role":      {actor.Client(), forager.RoleLearner, actor.Token(), codes.Unavailable},
		"no TLS":            {nil, "", actor.Token(), codes.Unavailable},
	} {
		names, err := list(c.tls, c.server, c.token)
		if status.Code(err) != c.code || (err == nil) != (strings.Join(names, " ") == "archive replay") {
			t.Errorf("%s: flights %v, error %v, want %v", name, names, err, c.code)
		}
	}
}

// TestPlainProcessesStayOnLoopback: off loopback a server is refused before it
// listens, unless it has credentials or the network is trusted.
func TestPlainProcessesStayOnLoopback(t *testing.T) {
	run := func(change func(*Config)) error {
		cfg := DefaultConfig()
		change(&cfg)
		stop := make(chan struct{})
		return RunRoles(t.Context(), cfg, RoleOptions{
			Roles: []forager.Role{forager.RoleNATS}, Dir: filepath.Join(t.TempDir(), "run"), Logger: testLogger(t), Stop: stop,
			Observer: Observer{Notice: func(text string) {
				if strings.Contains(text, "ready") {
					close(stop)
				}
			}},
		})
	}
	for name, change := range map[string]func(*Config){
		"admin": func(c *Config) { c.Admin.Listen = "0.0.0.0:0" },
		"bus":   func(c *Config) { c.Bus.Listen = "0.0.0.0:0" },
	} {
		if err := run(change); err == nil || !strings.Contains(err.Error(), "0.0.0.0:0") || !strings.Contains(err.Error(), "forager certs") {
			t.Errorf("%s: %v", name, err)
		}
		trusting := func(c *Config) { change(c); c.Security.AllowPlain = true }
		if err := run(trusting); err != nil {
			t.Errorf("%s on a trusted network: %v", name, err)
		}
	}
	cfg := DefaultConfig()
	cfg.Search.Server.Listen = "0.0.0.0:0"
	if err := ServeRetriever(t.Context(), cfg, RoleOptions{Logger: testLogger(t)}); err == nil || !strings.Contains(err.Error(), "forager certs") {
		t.Errorf("retriever: %v", err)
	}
	if _, err := (&process{cfg: cfg}).listen("replay.flight.listen", "0.0.0.0:0"); err == nil || !strings.Contains(err.Error(), "forager certs") {
		t.Errorf("flight: %v", err)
	}
	taken, err := (&process{cfg: cfg}).listen("replay.flight.listen", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	if _, err := (&process{cfg: cfg}).listen("replay.flight.listen", taken.Addr().String()); !errors.Is(err, forager.ErrInUse) {
		t.Errorf("a port in use: %v", err)
	}
	dir := allCredentials(t)
	if err := run(func(c *Config) { c.Security.Dir = filepath.Join(dir, "actor") }); err == nil || !strings.Contains(err.Error(), "are those of actor") {
		t.Errorf("credentials of another role: %v", err)
	}
}
