package bus

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/forager-rl/forager"
	"github.com/forager-rl/forager/security"
)

// TestOfficialServer runs nats-server with the configuration that is written for
// it: it lets in the same, for the same.
func TestOfficialServer(t *testing.T) {
	dir, day := t.TempDir(), 24*time.Hour
	if _, err := security.Issue(security.IssueOptions{Dir: dir, Validity: 30 * day, AuthorityValidity: 60 * day, Now: time.Now()}); err != nil {
		t.Fatal(err)
	}
	all := load(t, dir)
	text, err := ServerConfig("laos", filepath.Join(dir, "nats"), all[forager.RoleNATS].Users())
	if err != nil {
		t.Fatal(err)
	}
	text = bytes.Replace(text, []byte("0.0.0.0:4222"), []byte("127.0.0.1:-1"), 1)
	text = bytes.Replace(text, []byte(`"/data/nats"`), []byte(`"`+t.TempDir()+`"`), 1)
	path := filepath.Join(dir, "nats.conf")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	options, err := server.ProcessConfigFile(path)
	if err != nil {
		t.Fatal(err)
	}
	options.NoSigs, options.NoLog = true, true
	s, err := server.NewServer(options)
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	defer s.Shutdown()
	if !s.ReadyForConnections(10 * time.Second) {
		t.Fatal("the server is not ready")
	}
	testAccess(t, all, s.ClientURL())

	made := open(t, func(c *Config) { // provisions, with the permissions of its role
		all.as(cluster)(c)
		c.URL, c.StoreDir = s.ClientURL(), ""
	})
	publish(t, all.join(t, made, learner), Credits, "1", "credit")
	ack(t, take(t, all.join(t, made, actor), Credits, 1)...)
}
