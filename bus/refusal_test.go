package bus

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/forager-rl/forager"
)

// TestRefused: a process whose credentials are not right is told so at once, in
// words and with a next step, and does not try again.
func TestRefused(t *testing.T) {
	all, others := issue(t), issue(t)
	secured, plain := all.serve(t, nil), open(t, nil)
	for name, c := range map[string]struct {
		server *Bus
		change func(*Config)
		want   string
	}{
		"wrong seed":           {secured, func(c *Config) { c.Seed = others[actor].Seed() }, "does not know this key"},
		"no seed":              {secured, func(c *Config) { c.Seed, c.Role = nil, "" }, "asks for credentials: set security.dir"},
		"no TLS":               {secured, func(c *Config) { c.TLS = nil }, "asks for TLS: set security.dir"},
		"nothing at all":       {secured, func(c *Config) { c.TLS, c.Seed, c.Role = nil, nil, "" }, "asks for TLS: set security.dir"},
		"another CA":           {secured, func(c *Config) { c.TLS = others[actor].Client() }, "certificate is of another authority"},
		"another host":         {secured, func(c *Config) { c.TLS.ServerName = "elsewhere.example" }, "does not hold this name"},
		"plain server":         {plain, func(c *Config) { c.Seed, c.Role = nil, "" }, "speaks no TLS"},
		"server without users": {plain, func(*Config) {}, "asks for no key"},
		"another run":          {secured, func(c *Config) { c.Run = "chad" }, "give it and this process the same run id"},
	} {
		t.Run(name, func(t *testing.T) {
			before := connections(t, c.server)
			started := time.Now()
			err := tryJoin(t, c.server, all, func(cfg *Config) {
				cfg.ConnectTimeout = time.Minute
				c.change(cfg)
			})
			var hint *forager.HintError
			if !errors.As(err, &hint) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
			if strings.Contains(err.Error(), string(all[actor].Seed())) {
				t.Error("the error tells the seed")
			}
			if took := time.Since(started); took > 5*time.Second {
				t.Errorf("it took %v", took)
			}
			if n := connections(t, c.server) - before; n > 2 {
				t.Errorf("%d connections were made, want one", n)
			}
		})
	}
}

// connections is how many there ever were.
func connections(t *testing.T, b *Bus) uint64 {
	t.Helper()
	v, err := b.server.Varz(&server.VarzOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return v.TotalConnections
}

func tryJoin(t *testing.T, b *Bus, all installation, change func(*Config)) error {
	t.Helper()
	cfg := DefaultConfig()
	cfg.Run, cfg.URL = "laos", b.URL()
	all.as(actor)(&cfg)
	change(&cfg)
	joined, err := Open(t.Context(), cfg, slog.New(slog.DiscardHandler))
	if err == nil {
		return errors.Join(joined.Close(), errors.New("it was let in"))
	}
	return err
}

// TestExpiredServer: the server's certificate has run out while it was running.
func TestExpiredServer(t *testing.T) {
	all := issue(t)
	secured := all.serve(t, func(c *Config) { c.TLS = all[forager.RoleNATS].Server() })
	started := time.Now()
	err := tryJoin(t, secured, all, func(c *Config) {
		c.ConnectTimeout = time.Minute
		c.TLS.Time = func() time.Time { return time.Now().Add(40 * 24 * time.Hour) }
	})
	if err == nil || !strings.Contains(err.Error(), "the server needs a new certificate") || !strings.Contains(err.Error(), "expired") {
		t.Errorf("got %v", err)
	}
	if took := time.Since(started); took > 5*time.Second {
		t.Errorf("it took %v", took)
	}
}

// TestListensOffLoopback: only with credentials, or when it is said that the network
// is to be trusted.
func TestListensOffLoopback(t *testing.T) {
	all := issue(t)
	for name, c := range map[string]struct {
		change func(*Config)
		fails  bool
	}{
		"nothing":       {func(*Config) {}, true},
		"TLS alone":     {func(c *Config) { c.TLS = all[forager.RoleNATS].Server() }, true},
		"users alone":   {func(c *Config) { c.Users = all[forager.RoleNATS].Users() }, true},
		"both":          {func(c *Config) { c.TLS, c.Users = all[forager.RoleNATS].Server(), all[forager.RoleNATS].Users() }, false},
		"trusted plain": {func(c *Config) { c.AllowPlain = true }, false},
	} {
		cfg := DefaultConfig()
		cfg.Run, cfg.StoreDir, cfg.Listen = "laos", "x", "0.0.0.0:0"
		c.change(&cfg)
		if err := cfg.Validate(); (err != nil) != c.fails {
			t.Errorf("%s: %v", name, err)
		}
	}
	server := all.serve(t, func(c *Config) { c.Listen = "0.0.0.0:0" })
	if !strings.HasPrefix(server.URL(), "tls://127.0.0.1:") {
		t.Errorf("others are told to join at %s", server.URL())
	}
	all.join(t, server, actor)
}

// TestProcessesStartInAnyOrder: those that make nothing wait for what they need, and
// say for what when it does not come.
func TestProcessesStartInAnyOrder(t *testing.T) {
	all := issue(t)
	server := all.serve(t, func(c *Config) { c.Run = "chad" }) // and never what laos needs
	err := tryJoin(t, server, all, func(c *Config) { c.Run, c.ConnectTimeout = "laos", 300*time.Millisecond })
	if err == nil || !strings.Contains(err.Error(), "wait for stream credits of run laos") {
		t.Errorf("got %v", err)
	}

	empty := open(t, func(c *Config) { c.Run = "chad" })
	opened := make(chan error, 1)
	go func() {
		cfg := DefaultConfig()
		cfg.Run, cfg.URL, cfg.ConnectTimeout = "laos", empty.URL(), 30*time.Second
		b, err := Open(t.Context(), cfg, slog.New(slog.DiscardHandler))
		if err == nil {
			err = b.Publish(t.Context(), Credits, "1", []byte("x"))
			err = errors.Join(err, b.Close())
		}
		opened <- err
	}()
	join(t, empty, func(c *Config) { c.Provision = true })
	if err := <-opened; err != nil {
		t.Error(err)
	}
	cfg := DefaultConfig()
	cfg.Run, cfg.URL, cfg.ConnectTimeout = "peru", empty.URL(), 300*time.Millisecond
	_, err = Open(t.Context(), cfg, slog.New(slog.DiscardHandler))
	if err == nil || !strings.Contains(err.Error(), "wait for stream credits of run peru: not there within 300ms") || !strings.Contains(err.Error(), "forager nats") {
		t.Errorf("got %v", err)
	}
}

// TestServerComesBackEmpty: the server is replaced by one that has nothing; who
// provisions makes everything again, and who waits for messages gets them.
func TestServerComesBackEmpty(t *testing.T) {
	all := issue(t)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := listener.Addr().String()
	listener.Close()
	users := nkeyUsers("laos", all[forager.RoleNATS].Users())
	start := func(store string) *server.Server {
		cfg := DefaultConfig()
		cfg.Run, cfg.StoreDir, cfg.Listen, cfg.TLS = "laos", store, address, all[forager.RoleNATS].Server()
		s, err := runServer(&cfg, users, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(s.Shutdown)
		return s
	}
	first := start(t.TempDir())
	client := func(role forager.Role) *Bus {
		return open(t, func(c *Config) {
			all.as(role)(c)
			c.URL, c.StoreDir = "tls://"+address, ""
		})
	}
	client(cluster) // makes the streams
	learning, playing := client(learner), client(actor)
	publish(t, learning, Credits, "1", "first")
	ack(t, take(t, playing, Credits, 1)...)

	first.Shutdown()
	first.WaitForShutdown()
	start(t.TempDir())
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for err := errors.New("not tried"); err != nil; {
		err = learning.Publish(ctx, Credits, "2", []byte("second"))
		if ctx.Err() != nil {
			t.Fatal(err)
		}
	}
	for {
		got, err := playing.Fetch(ctx, Credits, 1, time.Second)
		if len(got) == 1 && string(got[0].Data) == "second" {
			ack(t, got...)
			break
		}
		if ctx.Err() != nil {
			t.Fatal(err)
		}
	}
	for err := errors.New("not tried"); err != nil; { // the object stores come last
		err = learning.PutObject(ctx, "weights", []byte("w"))
		if ctx.Err() != nil {
			t.Fatal(err)
		}
	}
	if got, err := playing.GetObject(ctx, "weights"); err != nil || string(got) != "w" {
		t.Errorf("weights: %q, %v", got, err)
	}
	if err := playing.Announce(ctx, "host", []byte("here")); err != nil {
		t.Error(err)
	}
}
