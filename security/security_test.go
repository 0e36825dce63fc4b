package security

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/forager-rl/forager"
)

const day = 24 * time.Hour

var start = time.Date(2030, 5, 1, 12, 0, 0, 0, time.UTC)

func options(dir string) IssueOptions {
	return IssueOptions{Dir: dir, Validity: 30 * day, AuthorityValidity: 365 * day, Now: start}
}

// makeAll makes credentials in a new folder.
func makeAll(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if _, err := Issue(options(dir)); err != nil {
		t.Fatal(err)
	}
	return dir
}

func mustLoad(t *testing.T, dir string, role forager.Role) *Credentials {
	t.Helper()
	c, err := load(filepath.Join(dir, string(role)), start)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestIssueAndLoad(t *testing.T) {
	dir := makeAll(t)
	users := mustLoad(t, dir, forager.RoleNATS).Users()
	var token string
	for _, role := range Roles() {
		c := mustLoad(t, dir, role)
		if c.Role() != role || len(c.Warnings()) > 0 {
			t.Errorf("%s: role %q, warnings %q", role, c.Role(), c.Warnings())
		}
		if token == "" {
			token = c.Token()
		}
		if c.Token() != token {
			t.Errorf("%s has another token", role)
		}
		if role == forager.RoleNATS {
			if len(c.Seed()) > 0 {
				t.Error("the nats role has a seed")
			}
			continue
		}
		public, err := publicKey(c.Seed())
		if err != nil || !slices.Equal(users[role], []string{public}) {
			t.Errorf("%s: key %s, %v; the bus lets in %v", role, public, err, users[role])
		}
		for _, shown := range []string{fmt.Sprint(c), fmt.Sprintf("%+v %#v %s", c, c, c.LogValue())} {
			if strings.Contains(shown, string(c.Seed())) || strings.Contains(shown, c.Token()) {
				t.Errorf("%s tells a secret", shown)
			}
		}
	}
	for _, name := range []string{"ca/ca.key", "ca/http.token", "actor/tls.key", "actor/nats.seed", "actor/http.token"} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", name, info.Mode(), err)
		}
	}
	if c, err := Load(""); c != nil || err != nil {
		t.Errorf("no folder: %v, %v", c, err)
	}
}

func TestWithoutCredentials(t *testing.T) {
	var c *Credentials
	if c.Server() != nil || c.Client() != nil || c.Mutual(forager.RoleCluster) != nil || c.Token() != "" || c.Seed() != nil ||
		c.Users() != nil || c.Role() != "" || c.Warnings() != nil || c.String() != "no credentials" {
		t.Error("nil credentials give something")
	}
}

// TestIssueAgain: what is valid stays, what is missing, ends soon or lacks a host is
// made, and keys of the bus are only ever added.
func TestIssueAgain(t *testing.T) {
	dir := makeAll(t)
	again := func(change func(*IssueOptions)) []string {
		t.Helper()
		o := options(dir)
		change(&o)
		written, err := Issue(o)
		if err != nil {
			t.Fatal(err)
		}
		for i, path := range written {
			written[i] = strings.TrimPrefix(path, dir+"/")
		}
		return written
	}
	if written := again(func(*IssueOptions) {}); len(written) > 0 {
		t.Errorf("nothing has changed, yet it wrote %v", written)
	}
	hosts := map[forager.Role][]string{"": {"trainer.example"}, forager.RoleCluster: {"10.0.0.7", "*.cluster.example"}}
	if written := again(func(o *IssueOptions) { o.Hosts = hosts }); len(written) != 2*len(Roles()) {
		t.Errorf("a host for all: %v", written)
	}
	if written := again(func(o *IssueOptions) { o.Hosts = map[forager.Role][]string{forager.RoleActor: {"node-9"}} }); !slices.Equal(written, []string{"actor/tls.key", "actor/tls.crt"}) {
		t.Errorf("a host for actors: %v", written)
	}
	data, err := os.ReadFile(filepath.Join(dir, "actor", certificateFile))
	if err != nil {
		t.Fatal(err)
	}
	if c, err := parseOne(data); err != nil || c.VerifyHostname("trainer.example") != nil || c.VerifyHostname("node-9") != nil || c.VerifyHostname("cluster") == nil {
		t.Errorf("the actor's certificate holds %v, %v", c.DNSNames, err)
	}

	before := mustLoad(t, dir, forager.RoleNATS).Users()[forager.RoleActor]
	if err := os.Remove(filepath.Join(dir, "actor", seedFile)); err != nil {
		t.Fatal(err)
	}
	if written := again(func(*IssueOptions) {}); !slices.Equal(written, []string{"actor/nats.seed", "nats/nats-users.json"}) {
		t.Errorf("a new key: %v", written)
	}
	both := mustLoad(t, dir, forager.RoleNATS).Users()[forager.RoleActor]
	if len(both) != 2 || !slices.Contains(both, before[0]) {
		t.Errorf("the bus lets in %v, before %v", both, before)
	}
	if err := os.Remove(filepath.Join(dir, "nats", usersFile)); err != nil {
		t.Fatal(err)
	}
	again(func(*IssueOptions) {})
	if only := mustLoad(t, dir, forager.RoleNATS).Users()[forager.RoleActor]; len(only) != 1 || only[0] == before[0] {
		t.Errorf("the old key is let in: %v", only)
	}

	if written := again(func(o *IssueOptions) { o.Now = start.Add(20 * day) }); len(written) != 2*len(Roles()) {
		t.Errorf("certificates that end soon: %v", written)
	}
	if _, err := Issue(IssueOptions{Dir: dir, Validity: 30 * day, AuthorityValidity: 365 * day, Now: start.Add(350 * day)}); err == nil || !strings.Contains(err.Error(), "ca.crt expires on 2031-05-01") {
		t.Errorf("an authority that ends: %v", err)
	}
	for name, change := range map[string]func(*IssueOptions){
		"is no role":      func(o *IssueOptions) { o.Hosts = map[forager.Role][]string{"king": {"x"}} },
		"neither":         func(o *IssueOptions) { o.Hosts = map[forager.Role][]string{"": {"a b"}} },
		"want more than":  func(o *IssueOptions) { o.Validity = day },
		"no folder":       func(o *IssueOptions) { o.Dir = "" },
		"authority not l": func(o *IssueOptions) { o.AuthorityValidity = 20 * day },
	} {
		o := options(dir)
		change(&o)
		if _, err := Issue(o); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestBrokenFolders: each thing that can be wrong is told in words, with the file.
func TestBrokenFolders(t *testing.T) {
	dir, other := makeAll(t), makeAll(t)
	copyFrom := func(folder, name string) func(string) error {
		return func(broken string) error {
			data, err := os.ReadFile(filepath.Join(folder, name))
			if err != nil {
				return err
			}
			return os.WriteFile(filepath.Join(broken, filepath.Base(name)), data, 0o600)
		}
	}
	write := func(name, text string) func(string) error {
		return func(broken string) error { return os.WriteFile(filepath.Join(broken, name), []byte(text), 0o600) }
	}
	remove := func(name string) func(string) error {
		return func(broken string) error { return os.Remove(filepath.Join(broken, name)) }
	}
	for name, c := range map[string]struct {
		role forager.Role
		harm func(broken string) error
		at   time.Time
		want []string
	}{
		"expired":           {"actor", nil, start.Add(31 * day), []string{"tls.crt expired on 2030-05-31 12:00 UTC", "forager certs"}},
		"authority expired": {"actor", nil, start.Add(366 * day), []string{"ca.crt expired on 2031-05-01 12:00 UTC"}},
		"not yet":           {"actor", nil, start.Add(-day), []string{"ca.crt is not valid before 2030-05-01 11:55 UTC, and it is 2030-04-30", "clock"}},
		"another authority": {"actor", copyFrom(other, "actor/ca.crt"), start, []string{"tls.crt was not issued by the authority in", "ca.crt"}},
		"another key":       {"actor", copyFrom(other, "actor/tls.key"), start, []string{"the key", "tls.key does not fit the certificate", "tls.crt"}},
		"no authority":      {"actor", remove("ca.crt"), start, []string{"ca.crt is missing", "forager certs --out"}},
		"no certificate":    {"actor", remove("tls.crt"), start, []string{"tls.crt is missing"}},
		"no key":            {"actor", remove("tls.key"), start, []string{"tls.key is missing"}},
		"no seed":           {"actor", remove("nats.seed"), start, []string{"nats.seed is missing"}},
		"no token":          {"actor", remove("http.token"), start, []string{"http.token is missing"}},
		"no users":          {"nats", remove("nats-users.json"), start, []string{"nats-users.json is missing"}},
		"no PEM":            {"actor", write("tls.crt", "hello"), start, []string{"tls.crt: it holds no certificate"}},
		"no nkey":           {"actor", write("nats.seed", "SUAhello"), start, []string{"nats.seed: it holds no nkey seed"}},
		"short token":       {"actor", write("http.token", "short\n"), start, []string{"http.token holds no token"}},
		"two tokens":        {"actor", write("http.token", "aaaaaaaaaaaaaaaaaaaa\nbbbbbbbbbbbbbbbbbbbb\n"), start, []string{"http.token holds no token"}},
		"users of no role":  {"nats", write("nats-users.json", `{"king": []}`), start, []string{`"king" is no role`}},
		"users of no key":   {"nats", write("nats-users.json", `{"actor": ["x"]}`), start, []string{`key "x" of actor is no public nkey`}},
		"no user":           {"nats", write("nats-users.json", `{}`), start, []string{"lets nobody in"}},
		"users broken":      {"nats", write("nats-users.json", `[`), start, []string{"want a JSON object"}},
		"too large":         {"actor", write("tls.crt", strings.Repeat("x", maxFile+1)), start, []string{"larger than"}},
	} {
		t.Run(name, func(t *testing.T) {
			broken := t.TempDir()
			if err := os.CopyFS(broken, os.DirFS(filepath.Join(dir, string(c.role)))); err != nil {
				t.Fatal(err)
			}
			if c.harm != nil {
				if err := c.harm(broken); err != nil {
					t.Fatal(err)
				}
			}
			got, err := load(broken, c.at)
			if err == nil {
				t.Fatalf("loaded %v", got)
			}
			for _, want := range append(c.want, broken) {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q does not say %q", err, want)
				}
			}
		})
	}
}

func TestWarnings(t *testing.T) {
	dir := makeAll(t)
	for _, name := range []string{keyFile, seedFile} {
		if err := os.Chmod(filepath.Join(dir, "actor", name), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	c, err := load(filepath.Join(dir, "actor"), start.Add(20*day))
	if err != nil {
		t.Fatal(err)
	}
	got := strings.Join(c.Warnings(), "\n")
	for _, want := range []string{"tls.crt expires on 2030-05-31", "tls.key can be read by every user", "nats.seed can be read by every user"} {
		if !strings.Contains(got, want) {
			t.Errorf("%q does not say %q", got, want)
		}
	}
}

func TestCheckListen(t *testing.T) {
	credentials := &Credentials{}
	for _, c := range []struct {
		address string
		has     *Credentials
		plain   bool
		fails   bool
	}{
		{"127.0.0.1:0", nil, false, false}, {"localhost:9464", nil, false, false}, {"[::1]:1", nil, false, false},
		{"0.0.0.0:9464", nil, false, true}, {":9464", nil, false, true}, {"[::]:1", nil, false, true}, {"10.0.0.3:1", nil, false, true}, {"host.example:1", nil, false, true},
		{"0.0.0.0:9464", credentials, false, false}, {"0.0.0.0:9464", nil, true, false},
		{"9464", credentials, true, true},
	} {
		err := CheckListen(c.address, c.has, c.plain)
		var hint *forager.HintError
		if (err != nil) != c.fails || err != nil && !errors.As(err, &hint) {
			t.Errorf("%s, credentials %v, allowed %v: %v", c.address, c.has != nil, c.plain, err)
		}
	}
}

func TestBearer(t *testing.T) {
	const token = "correct-horse-battery"
	inner := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "in") })
	for _, c := range []struct {
		path, header string
		want         int
	}{
		{"/metrics", "Bearer " + token, 200}, {"/metrics", "bearer " + token, 200},
		{"/metrics", "", 401}, {"/metrics", "Bearer ", 401}, {"/metrics", "Bearer wrong", 401}, {"/metrics", token, 401},
		{"/metrics", "Basic " + token, 401}, {"/healthz/../metrics", "", 401}, {"/healthz/", "", 401}, {"//healthz", "", 401},
		{"/healthz", "", 200}, {"/readyz", "", 200},
	} {
		r := httptest.NewRequest(http.MethodGet, "https://x/", nil)
		r.URL.Path = c.path
		if c.header != "" {
			r.Header.Set("Authorization", c.header)
		}
		w := httptest.NewRecorder()
		Bearer(token, inner).ServeHTTP(w, r)
		if w.Code != c.want || (w.Code == 401) != (w.Header().Get("WWW-Authenticate") != "") {
			t.Errorf("%s with %q: %d, %v", c.path, c.header, w.Code, w.Header())
		}
	}
	w := httptest.NewRecorder()
	Bearer("", inner).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	if w.Code != 200 {
		t.Errorf("without a token: %d", w.Code)
	}
}

// shake makes a TLS connection between two sides and gives the error of each.
func shake(t *testing.T, server, client *tls.Config) (serving, asking error) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	deadline := time.Now().Add(5 * time.Second)
	served := make(chan error, 1)
	go func() {
		conn, err := listener.Accept()
		if err == nil {
			err = conn.SetDeadline(deadline)
			defer conn.Close()
		}
		if err == nil { // TLS 1.3: the client may learn of a refusal only after the handshake
			_, err = tls.Server(conn, server).Write([]byte("x"))
		}
		served <- err
	}()
	conn, err := (&tls.Dialer{NetDialer: &net.Dialer{Deadline: deadline}, Config: client}).DialContext(t.Context(), "tcp", listener.Addr().String())
	if err == nil {
		_, err = io.ReadFull(conn, make([]byte, 1))
		_ = conn.Close()
	}
	return <-served, err
}

// TestWhoMayTalkToWhom tries certificates of roles and of another authority against
// each other.
func TestWhoMayTalkToWhom(t *testing.T) {
	at := func(c *tls.Config, when time.Time) *tls.Config {
		c.Time = func() time.Time { return when }
		return c
	}
	now := time.Now() // verifyPeer asks the clock of the machine
	issued := func() map[forager.Role]*Credentials {
		o := options(t.TempDir())
		o.Now = now
		if _, err := Issue(o); err != nil {
			t.Fatal(err)
		}
		all := map[forager.Role]*Credentials{}
		for _, role := range Roles() {
			var err error
			if all[role], err = Load(filepath.Join(o.Dir, string(role))); err != nil {
				t.Fatal(err)
			}
		}
		return all
	}
	ours, others := issued(), issued()
	named := func(c *tls.Config, name string) *tls.Config {
		c.ServerName = name
		return c
	}
	mutual := func(c *Credentials) *tls.Config { return c.Mutual(forager.RoleCluster) }
	refused := 0
	for name, c := range map[string]struct {
		server, client *tls.Config
		fails          bool
	}{
		"client and server":        {ours["nats"].Server(), named(ours["actor"].Client(), "nats"), false},
		"by role":                  {ours["retriever"].Server(), named(ours["actor"].Client(), "retriever"), false},
		"another role's name":      {ours["actor"].Server(), named(ours["actor"].Client(), "retriever"), true},
		"another host":             {ours["nats"].Server(), named(ours["actor"].Client(), "elsewhere.example"), true},
		"server of others":         {others["nats"].Server(), named(ours["actor"].Client(), "nats"), true},
		"expired server":           {ours["nats"].Server(), named(at(ours["actor"].Client(), now.Add(31*day)), "nats"), true},
		"no authority":             {ours["nats"].Server(), &tls.Config{ServerName: "nats"}, true},
		"TLS 1.2":                  {ours["nats"].Server(), &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12}, true},
		"cluster nodes":            {mutual(ours["cluster"]), mutual(ours["cluster"]), false},
		"actor joins the cluster":  {mutual(ours["cluster"]), mutual(ours["actor"]), true},
		"operator likewise":        {mutual(ours["cluster"]), mutual(ours["operator"]), true},
		"actor poses as a node":    {mutual(ours["actor"]), mutual(ours["cluster"]), true},
		"no certificate":           {mutual(ours["cluster"]), &tls.Config{InsecureSkipVerify: true}, true},
		"cluster node of others":   {mutual(ours["cluster"]), mutual(others["cluster"]), true},
		"joins a cluster of other": {mutual(others["cluster"]), mutual(ours["cluster"]), true},
	} {
		serving, asking := shake(t, c.server, c.client)
		if failed := serving != nil || asking != nil; failed != c.fails {
			t.Errorf("%s: server %v, client %v", name, serving, asking)
		}
		if c.fails {
			refused++
		}
	}
	t.Logf("%d connections refused", refused)
}
