package cluster

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"flag"
	"log/slog"
	"math/big"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/forager-rl/forager"
)

// The claims about the group, measured with their full numbers:
//
//	go test ./cluster -run Full -full -v
//
// Without -full the same tests run with small numbers, as part of every run.
var full = flag.Bool("full", false, "measure the claims about the Raft group with their full numbers")

func scale(small, whole int) int {
	if *full {
		return whole
	}
	return small
}

// authority makes certificates for tests.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test CA"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-24 * time.Hour), NotAfter: time.Now().Add(24 * time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{t, cert, key}
}

// mutual is the configuration of a node, with a certificate that ends at a time.
func (a *authority) mutual(until time.Time) *tls.Config {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "cluster"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: until,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &key.PublicKey, a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return &tls.Config{
		Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}},
		RootCAs:      pool, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert, MinVersion: tls.VersionTLS13,
	}
}

// tcpGroup is nodes on loopback, with their files.
type tcpGroup struct {
	t     *testing.T
	nodes []*tcpNode
	mu    sync.Mutex
}

type tcpNode struct {
	cfg      Config
	dir      string
	listener net.Listener // taken in advance, for the first start
	log      *slog.Logger
	cluster  *Cluster // nil while it is down
	stop     func() error
}

func newTCPGroup(t *testing.T, n int, security func(i int) *tls.Config, logs ...*slog.Logger) *tcpGroup {
	t.Helper()
	g := &tcpGroup{t: t}
	var peers []string
	for range n {
		node := g.prepare(security)
		for _, log := range logs {
			node.log = log
		}
		peers = append(peers, node.cfg.NodeID+"="+node.cfg.Listen)
	}
	for i, node := range g.nodes {
		node.cfg.Peers = peers
		g.boot(i)
	}
	t.Cleanup(func() {
		for i := range g.nodes {
			_ = g.crash(i) // what its Run ended with
		}
	})
	return g
}

// prepare takes an address for one more node.
func (g *tcpGroup) prepare(security func(i int) *tls.Config) *tcpNode {
	g.t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		g.t.Fatal(err)
	}
	i := len(g.nodes)
	node := &tcpNode{cfg: DefaultConfig(), dir: g.t.TempDir(), listener: listener, log: slog.New(slog.DiscardHandler)}
	node.cfg.NodeID, node.cfg.Listen, node.cfg.Name, node.cfg.Forward = nodeName(i), listener.Addr().String(), "run", g.forward
	if security != nil {
		node.cfg.TLS = security(i)
	}
	g.nodes = append(g.nodes, node)
	return node
}

func (g *tcpGroup) boot(i int) {
	g.t.Helper()
	n := g.nodes[i]
	listener := n.listener
	n.listener = nil
	if listener == nil {
		var err error
		if listener, err = listen(n.cfg.Listen); err != nil {
			g.t.Fatal(err)
		}
	}
	c, err := openIn(n.cfg, n.dir, listener, n.log, time.Now)
	if err != nil {
		g.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	g.mu.Lock()
	defer g.mu.Unlock()
	n.cluster, n.stop = c, func() error { cancel(); return <-done }
}

// crash ends a node without handing the lead on, and gives what Run ended with.
func (g *tcpGroup) crash(i int) error { return g.end(i, (*Cluster).crash) }

// crash is Close without good manners.
func (c *Cluster) crash() error {
	if err := c.halt(); err != nil {
		return err
	}
	return c.Close() // halts again, which does nothing, and closes the files
}

func (g *tcpGroup) end(i int, how func(*Cluster) error) error {
	g.mu.Lock()
	n := g.nodes[i]
	c := n.cluster
	n.cluster = nil
	g.mu.Unlock()
	if c == nil {
		return nil
	}
	err := n.stop()
	if end := how(c); end != nil {
		g.t.Error(end)
	}
	return err
}

func (g *tcpGroup) up(i int) *Cluster {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.nodes[i].cluster
}

func (g *tcpGroup) forward(ctx context.Context, node string, request []byte) ([]byte, error) {
	for i := range g.nodes {
		if c := g.up(i); c != nil && nodeName(i) == node {
			return c.Handle(ctx, request)
		}
	}
	return nil, errDown
}

// Call implements Caller: the first node that is up answers.
func (g *tcpGroup) Call(ctx context.Context, request []byte) ([]byte, error) {
	for i := range g.nodes {
		if c := g.up(i); c != nil {
			return c.Handle(ctx, request)
		}
	}
	return nil, unavailable("call", errDown)
}

func (g *tcpGroup) leader() int {
	g.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		for i := range g.nodes {
			if c := g.up(i); c != nil && c.leads() {
				return i
			}
		}
	}
	g.t.Fatal("no leader within 20 s")
	return -1
}

// await waits, bounded, until a condition holds.
func await(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if holds() {
			return
		}
	}
	t.Fatalf("%s: not within 20 s", what)
}

// TestFullFailover: three nodes over TCP and mutual TLS. The leader dies without
// a word; the time until the next command is acknowledged is what a learner
// waits.
func TestFullFailover(t *testing.T) {
	a := newAuthority(t)
	g := newTCPGroup(t, 3, func(int) *tls.Config { return a.mutual(time.Now().Add(time.Hour)) })
	client := NewClient(g)
	if err := client.SetRun(t.Context(), Run{ID: "r"}); err != nil {
		t.Fatal(err)
	}
	lease, _, err := client.AcquireLease(t.Context(), "a", time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	var took []time.Duration
	for v := range forager.Version(scale(2, 20)) {
		if err := client.PublishManifest(t.Context(), manifest(2*v, lease.Epoch, "x")); err != nil {
			t.Fatal(err)
		}
		leader := g.leader()
		begin := time.Now()
		if err := g.crash(leader); err != nil {
			t.Fatal(err)
		}
		if err := client.PublishManifest(t.Context(), manifest(2*v+1, lease.Epoch, "x")); err != nil {
			t.Fatal(err)
		}
		took = append(took, time.Since(begin))
		g.boot(leader)
		newest := g.up(g.leader()).Status().Applied
		await(t, "the node that was away catches up", func() bool { return g.up(leader).Status().Applied >= newest })
	}
	slices.Sort(took)
	median := took[len(took)/2]
	t.Logf("fail-over of the leader, %d trials: %v min, %v median, %v max", len(took), took[0].Round(time.Millisecond), median.Round(time.Millisecond), took[len(took)-1].Round(time.Millisecond))
	if *full && median > 2*time.Second { // a busy machine is no reason to fail every run
		t.Errorf("median fail-over %v, want under 2 s", median)
	}
}

// TestFullHandOver: a leader that is told to stop leaves no gap worth speaking of.
func TestFullHandOver(t *testing.T) {
	g := newTCPGroup(t, 3, nil)
	client := NewClient(g)
	if err := client.SetRun(t.Context(), Run{ID: "r"}); err != nil {
		t.Fatal(err)
	}
	leader := g.leader()
	if err := g.end(leader, (*Cluster).Close); err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	if err := client.SetRun(t.Context(), Run{ID: "r"}); err != nil {
		t.Fatal(err)
	}
	gap := time.Since(begin)
	t.Logf("%v without a leader", gap.Round(time.Millisecond))
	if *full && gap > remoteElection {
		t.Error("longer than it takes until an election starts")
	}
	if err := client.Transfer(t.Context(), nodeName((leader+1)%3)); err != nil {
		t.Fatal(err)
	}
	await(t, "the lead moves", func() bool { return g.up((leader + 1) % 3).leads() })
}

// TestJoin: a fourth node asks to be let in, follows, gets a vote and the lead;
// a founder is removed.
func TestJoin(t *testing.T) {
	g := newTCPGroup(t, 3, nil)
	client, ctx := NewClient(g), t.Context()
	if err := client.AddVoter(ctx, "node-3"); !errors.Is(err, forager.ErrNotFound) || !strings.Contains(err.Error(), "try again") {
		t.Fatalf("a node that is not in the group got a vote: %v", err)
	}
	if err := client.Transfer(ctx, "node-9"); !errors.Is(err, forager.ErrNotFound) || !strings.Contains(err.Error(), "voters list") {
		t.Fatalf("a node that is not in the group got the lead: %v", err)
	}
	n := g.prepare(nil)
	n.cfg.Join = true
	g.boot(3)
	if err := client.AddNonvoter(ctx, n.cfg.NodeID, n.cfg.Listen); err != nil {
		t.Fatal(err)
	}
	await(t, "the new node knows the leader", func() bool { return g.up(3).Status().Leader != "" })
	if s := g.up(3).Status(); s.Voter {
		t.Fatalf("a node that joined has a vote: %+v", s)
	}
	if err := client.Transfer(ctx, "node-3"); err == nil {
		t.Fatal("a node without a vote got the lead")
	}
	if err := client.AddVoter(ctx, "node-3"); err != nil {
		t.Fatal(err)
	}
	await(t, "the new node has a vote", func() bool { return g.up(3).Status().Voter })
	if err := client.Transfer(ctx, "node-3"); err != nil {
		t.Fatal(err)
	}
	await(t, "the new node leads", func() bool { return g.up(3).leads() })
	if err := client.RemoveVoter(ctx, "node-3"); err != nil { // which leads
		t.Fatal(err)
	}
	await(t, "the removed node notices", func() bool {
		err := g.up(3).checkMember()
		return g.up(3).raft.State().String() == "Shutdown" || err == nil && !g.up(3).Status().Voter
	})
	servers, err := client.Servers(ctx)
	if err != nil || len(servers) != 3 {
		t.Fatalf("got %v, %v", servers, err)
	}
	// Two of three are left after this, and one of them is down: no majority.
	if err := g.crash((g.leader() + 1) % 3); err != nil {
		t.Fatal(err)
	}
	if err := client.RemoveVoter(ctx, nodeName((g.leader()+2)%3)); err == nil || !strings.Contains(err.Error(), "no majority") {
		t.Fatalf("removing a voter that is needed gave %v", err)
	}
}

// logged is a log that tests look into.
type logged struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logged) count(text string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.text.String(), text)
}

func (l *logged) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

// TestExpiredCertificate: a node whose certificate runs out is refused, and both
// sides say when it did.
func TestExpiredCertificate(t *testing.T) {
	a := newAuthority(t)
	over := time.Now().Add(-time.Hour)
	var ours logged
	g := newTCPGroup(t, 2, func(int) *tls.Config { return a.mutual(time.Now().Add(time.Hour)) }, ours.logger())
	g.leader()

	n := g.prepare(nil)
	n.cfg.Join = true
	n.cfg.TLS = a.mutual(over)
	_, err := openIn(n.cfg, n.dir, n.listener, n.log, time.Now)
	if date := over.UTC().Format(dateForm); err == nil || !strings.Contains(err.Error(), "expired on "+date) || !strings.Contains(err.Error(), "forager certs") {
		t.Fatalf("got %v, want the date %s", err, date)
	}

	// One that ran out while the node was up: its clock does not know.
	_ = n.listener.Close()
	if n.listener, err = listen(n.cfg.Listen); err != nil {
		t.Fatal(err)
	}
	leader := g.leader()
	c, err := openIn(n.cfg, n.dir, n.listener, n.log, func() time.Time { return time.Now().Add(-90 * time.Minute) })
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	c.layer.nodeAt = g.up(leader).nodeAt
	if err := NewClient(g).AddNonvoter(t.Context(), n.cfg.NodeID, n.cfg.Listen); err != nil {
		t.Fatal(err)
	}
	want := "expired on " + over.UTC().Format(dateForm)
	await(t, "the leader says why it does not reach the node", func() bool { return ours.count(want) > 0 })
	if _, err := c.layer.Dial(raft.ServerAddress(g.nodes[leader].cfg.Listen), time.Second); err == nil || !strings.Contains(err.Error(), "refuses this node's certificate") {
		t.Errorf("the node was told: %v", err)
	}
	// The leader counts a moment after its alert has reached the node.
	await(t, "the refusal is counted", func() bool { return g.up(leader).Status().Refused[string(refusedSecurity)] > 0 })
	if n := ours.count("a raft node is not reached"); n != 1 {
		t.Errorf("said %d times by the leader alone, want once a minute", n)
	}
}
