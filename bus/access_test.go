package bus

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/forager-rl/forager"
	"github.com/forager-rl/forager/security"
)

// installation is a set of credentials for all roles.
type installation map[forager.Role]*security.Credentials

func issue(t testing.TB) installation {
	t.Helper()
	dir, day := t.TempDir(), 24*time.Hour
	if _, err := security.Issue(security.IssueOptions{Dir: dir, Validity: 30 * day, AuthorityValidity: 60 * day, Now: time.Now()}); err != nil {
		t.Fatal(err)
	}
	return load(t, dir)
}

func load(t testing.TB, dir string) installation {
	t.Helper()
	all := installation{}
	for _, role := range security.Roles() {
		var err error
		if all[role], err = security.Load(filepath.Join(dir, string(role))); err != nil {
			t.Fatal(err)
		}
	}
	return all
}

// serve starts a server that lets in only these.
func (i installation) serve(t testing.TB, change func(*Config)) *Bus {
	t.Helper()
	return open(t, func(c *Config) {
		c.TLS, c.Users = i[forager.RoleNATS].Server(), i[forager.RoleNATS].Users()
		if change != nil {
			change(c)
		}
	})
}

// join connects to a server as a process of a role would.
func (i installation) join(t testing.TB, server *Bus, role forager.Role) *Bus {
	t.Helper()
	return join(t, server, i.as(role))
}

func (i installation) as(role forager.Role) func(*Config) {
	return func(c *Config) {
		c.TLS, c.Seed, c.Role = i[role].Client(), i[role].Seed(), role
		c.Provision = role == forager.RoleCluster
	}
}

// TestRolesDoTheirWork: each role can do all that it needs with its own
// credentials, and replies and notices arrive.
func TestRolesDoTheirWork(t *testing.T) {
	all := issue(t)
	server := all.serve(t, func(c *Config) { c.Timeout = 3 * time.Second })
	bus := map[forager.Role]*Bus{}
	for _, role := range security.Roles() {
		if role != forager.RoleNATS {
			bus[role] = all.join(t, server, role)
		}
	}
	learner, actor, rewardsrv, replay := bus[forager.RoleLearner], bus[forager.RoleActor], bus[forager.RoleRewardServer], bus[forager.RoleReplay]
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}

	// credits, rollouts, digests, annotations
	publish(t, learner, Credits, "1", "credit")
	publish(t, learner, Credits, "2", "credit")
	credits := take(t, actor, Credits, 2)
	check(credits[0].Extend())
	check(credits[1].Nak(0))
	ack(t, append(credits[:1], take(t, actor, Credits, 1)...)...)
	publish(t, actor, Rollouts, "laos/1", "group")
	ack(t, take(t, replay, Rollouts, 1)...)
	publish(t, actor, Digests, "", "digest")
	ack(t, take(t, rewardsrv, Digests, 1)...)
	publish(t, rewardsrv, Annotations, "", "label")
	for _, role := range []forager.Role{forager.RoleRewardServer, forager.RoleReplay, forager.RoleLearner, forager.RoleOperator} {
		var got []string
		check(bus[role].Replay(ctx, Annotations, 1, func(_ uint64, data []byte) error {
			got = append(got, string(data))
			return nil
		}))
		if !slices.Equal(got, []string{"label"}) {
			t.Errorf("%s reads %q", role, got)
		}
	}
	check(learner.PurgeStream(ctx, Credits, 1))

	// claims
	revision, won, err := rewardsrv.Claim(ctx, "key", 0)
	check(err)
	if !won {
		t.Error("the claim is not won")
	}
	_, again, err := rewardsrv.Claim(ctx, "key", 0)
	check(err)
	if !again {
		t.Error("the claim is not known again")
	}
	check(rewardsrv.Release(ctx, "key", revision))

	// objects, of more than one chunk
	weights := []byte(strings.Repeat("w", 300<<10))
	for range 2 {
		check(learner.PutObject(ctx, "weights-1", weights))
	}
	check(rewardsrv.PutObject(ctx, ObjectRewardModel, []byte("model")))
	check(rewardsrv.PutObject(ctx, ObjectRewardModel, []byte("newer model")))
	sum := sha256.Sum256(weights)
	for _, reader := range []*Bus{actor, learner} {
		if got, err := reader.GetObjectOf(ctx, "weights-1", int64(len(weights)), "sha256:"+hex.EncodeToString(sum[:])); err != nil || len(got) != len(weights) {
			t.Errorf("weights: %d bytes, %v", len(got), err)
		}
	}
	for _, reader := range []*Bus{rewardsrv, learner} {
		if got, err := reader.GetObject(ctx, ObjectRewardModel); err != nil || string(got) != "newer model" {
			t.Errorf("reward model: %q, %v", got, err)
		}
	}
	check(learner.PutObject(ctx, "weights-2", weights))
	check(learner.DropObjects(ctx, func(name string) bool { return name != "weights-2" && name != ObjectRewardModel }))
	if names, err := learner.ListObjects(ctx); err != nil || !slices.Equal(names, []string{"weights-2"}) {
		t.Errorf("objects are %v, %v", names, err)
	}

	// services
	serve(t, bus[forager.RoleCluster], ServiceCluster, func(_ context.Context, data []byte) ([]byte, error) { return append([]byte("cluster "), data...), nil })
	serve(t, bus[forager.RoleCluster], ServiceCluster+"-one", func(context.Context, []byte) ([]byte, error) { return []byte("one"), nil })
	serve(t, replay, ServiceReplay, func(context.Context, []byte) ([]byte, error) { return []byte("groups"), nil })
	for role, b := range bus {
		if got, err := b.Request(ctx, ServiceCluster, []byte(role)); err != nil || string(got) != "cluster "+string(role) {
			t.Errorf("%s asks the cluster: %q, %v", role, got, err)
		}
	}
	for service, roles := range map[string][]forager.Role{
		ServiceReplay:           {forager.RoleLearner, forager.RoleReplay},
		ServiceCluster + "-one": {forager.RoleCluster, forager.RoleOperator},
	} {
		for _, role := range roles {
			if _, err := bus[role].Request(ctx, service, []byte("x")); err != nil {
				t.Errorf("%s asks %s: %v", role, service, err)
			}
		}
	}

	// notices
	told := func(from *Bus, to *Bus, topic string) {
		t.Helper()
		watching, stop := context.WithCancel(ctx)
		heard, ended := make(chan struct{}, 1000), make(chan error, 1)
		go func() {
			ended <- to.Watch(watching, topic, func([]byte) { heard <- struct{}{} })
		}()
		for waiting := true; waiting; {
			check(from.Notify(ctx, topic, []byte("new")))
			select {
			case <-heard:
				waiting = false
			case <-time.After(20 * time.Millisecond):
			}
			check(ctx.Err())
		}
		stop()
		check(<-ended)
	}
	told(learner, actor, TopicWeights)
	told(rewardsrv, learner, TopicRewardModel)

	// announcements, and the state of everything
	for role, b := range bus {
		if role != forager.RoleOperator {
			check(b.Announce(ctx, "host-"+string(role), []byte("here")))
		}
		for _, s := range []Stream{Credits, Rollouts, Digests, Annotations} {
			if _, err := b.StreamInfo(ctx, s); err != nil {
				t.Errorf("%s: %v", role, err)
			}
		}
	}
	for role, b := range bus {
		list, err := b.Announcements(ctx)
		check(err)
		if len(list) != len(bus)-1 {
			t.Errorf("%s sees %d announcements, want %d", role, len(list), len(bus)-1)
		}
		for _, a := range list {
			if a.Name != "host-"+string(a.Role) {
				t.Errorf("%s announced as %s", a.Role, a.Name)
			}
		}
	}
	for role, b := range bus {
		if denied := b.denied.Load(); denied != nil {
			t.Errorf("%s: %v", role, *denied)
		}
	}
}

// access says who may publish or subscribe to a subject of the run laos.
type access struct {
	subject string
	roles   []forager.Role // that may; nobody else
}

const (
	cluster   = forager.RoleCluster
	replay    = forager.RoleReplay
	rewardsrv = forager.RoleRewardServer
	retriever = forager.RoleRetriever
	learner   = forager.RoleLearner
	actor     = forager.RoleActor
	operator  = forager.RoleOperator
)

func everybody() []forager.Role {
	return []forager.Role{cluster, replay, rewardsrv, retriever, learner, actor, operator}
}

// mayPublish is written by hand, from what the roles are for: not from the table in
// permissions.go.
func mayPublish() []access {
	list := []access{
		{"forager.laos.credits.1", []forager.Role{learner}},
		{"forager.laos.rollouts.laos/1", []forager.Role{actor}},
		{"forager.laos.digests.message", []forager.Role{actor}},
		{"forager.laos.annotations.message", []forager.Role{rewardsrv}},
		{"forager.laos.claims.key", []forager.Role{rewardsrv}},
		{"forager.laos.service.cluster", everybody()},
		{"forager.laos.service.cluster.one", []forager.Role{cluster, operator}},
		{"forager.laos.service.replay", []forager.Role{learner, replay}},
		{"forager.laos.service.other", nil},
		{"forager.laos.notice.weights", []forager.Role{learner}},
		{"forager.laos.notice.reward-model", []forager.Role{rewardsrv}},
		{"forager.laos.notice.other", nil},
		{"$O.forager-laos.C.chunk", []forager.Role{learner}},
		{"$O.forager-laos.M.d2VpZ2h0cw==", []forager.Role{learner}},
		{"$O.forager-laos-model.C.chunk", []forager.Role{rewardsrv}},
		{"$O.forager-laos-model.M.cmV3YXJkLW1vZGVs", []forager.Role{rewardsrv}},
		{"$O.forager-laos-model.M.b3RoZXI=", nil},
		{"$JS.ACK.forager-laos-credits.workers.1.1.1.1.0", []forager.Role{actor}},
		{"$JS.ACK.forager-laos-rollouts.workers.1.1.1.1.0", []forager.Role{replay}},
		{"$JS.ACK.forager-laos-digests.workers.1.1.1.1.0", []forager.Role{rewardsrv}},
		{"$JS.API.CONSUMER.MSG.NEXT.forager-laos-credits.workers", []forager.Role{actor}},
		{"$JS.API.CONSUMER.MSG.NEXT.forager-laos-rollouts.workers", []forager.Role{replay}},
		{"$JS.API.CONSUMER.MSG.NEXT.forager-laos-digests.workers", []forager.Role{rewardsrv}},
		{"$JS.API.CONSUMER.CREATE.forager-laos-annotations.mine", []forager.Role{rewardsrv, replay, learner, operator}},
		{"$JS.API.CONSUMER.MSG.NEXT.forager-laos-annotations.mine", []forager.Role{rewardsrv, replay, learner, operator}},
		{"$JS.API.CONSUMER.CREATE.OBJ_forager-laos.mine.$O.forager-laos.C.chunk", []forager.Role{learner, actor}},
		{"$JS.API.CONSUMER.CREATE.OBJ_forager-laos-model.mine.$O.forager-laos-model.C.chunk", []forager.Role{learner, rewardsrv}},
		{"$JS.API.DIRECT.GET.OBJ_forager-laos.$O.forager-laos.M.name", []forager.Role{learner, actor}},
		{"$JS.API.DIRECT.GET.OBJ_forager-laos-model.$O.forager-laos-model.M.name", []forager.Role{learner, rewardsrv}},
		{"$JS.API.DIRECT.GET.forager-laos-members", everybody()},
		{"$JS.API.DIRECT.GET.forager-laos-claims", nil},
		{"$JS.API.STREAM.PURGE.forager-laos-credits", []forager.Role{learner}},
		{"$JS.API.STREAM.PURGE.OBJ_forager-laos", []forager.Role{learner}},
		{"$JS.API.STREAM.PURGE.OBJ_forager-laos-model", []forager.Role{rewardsrv}},
		{"$JS.API.STREAM.MSG.DELETE.forager-laos-claims", []forager.Role{rewardsrv}},
		{"$JS.API.STREAM.LIST", nil},
		{"$JS.API.STREAM.NAMES", nil},
		{"$JS.API.INFO", nil},
		{"$JS.API.ACCOUNT.PURGE.$G", nil},
		{"$JS.API.STREAM.CREATE.other", nil},
		{"$JS.API.STREAM.CREATE.forager-chad-credits", nil},
		{"forager.chad.credits.1", nil},
		{"forager.chad.service.cluster", nil},
		{"$SYS.REQ.SERVER.PING", nil},
		{"_INBOX.x", nil},
		{"_INBOX_learner.x", nil},
		{"anything", nil},
	}
	for _, s := range []string{"credits", "rollouts", "digests", "annotations", "claims", "members"} {
		name := "forager-laos-" + s
		list = append(list,
			access{"$JS.API.STREAM.INFO." + name, everybody()},
			access{"$JS.API.STREAM.UPDATE." + name, []forager.Role{cluster}},
			access{"$JS.API.STREAM.DELETE." + name, nil},
			access{"$JS.API.STREAM.MSG.GET." + name, nil},
			access{"$JS.API.STREAM.SNAPSHOT." + name, nil},
			access{"$JS.API.STREAM.RESTORE." + name, nil},
			access{"$JS.API.CONSUMER.DELETE." + name + ".workers", map[bool][]forager.Role{true: {rewardsrv, replay, learner, operator}}[s == "annotations"]},
			access{"$JS.API.CONSUMER.DURABLE.CREATE." + name + ".mine", nil},
			access{"$JS.API.CONSUMER.LIST." + name, nil},
		)
		if s != "credits" {
			list = append(list, access{"$JS.API.STREAM.PURGE." + name, nil})
		}
		if s != "claims" {
			list = append(list, access{"$JS.API.STREAM.MSG.DELETE." + name, nil})
		}
		if s != "annotations" {
			list = append(list, access{"$JS.API.CONSUMER.CREATE." + name + ".mine", nil})
		}
	}
	for _, role := range everybody() {
		mine := []forager.Role{role}
		if role == operator {
			mine = nil
		}
		list = append(list, access{"forager.laos.members." + string(role) + ".name", mine})
	}
	for _, bucket := range []string{"forager-laos", "forager-laos-model"} {
		list = append(list,
			access{"$JS.API.STREAM.DELETE.OBJ_" + bucket, nil},
			access{"$JS.API.STREAM.MSG.DELETE.OBJ_" + bucket, nil},
			access{"$JS.API.STREAM.UPDATE.OBJ_" + bucket, []forager.Role{cluster}},
		)
	}
	return list
}

func maySubscribe() []access {
	list := []access{
		{">", nil},
		{"forager.>", nil},
		{"forager.laos.credits.*", nil},
		{"forager.laos.rollouts.*", nil},
		{"forager.laos.digests.*", nil},
		{"forager.laos.annotations.*", nil},
		{"forager.laos.service.*", nil},
		{"forager.laos.service.cluster", nil}, // in no queue group: would hear all requests
		{"forager.laos.service.replay", nil},
		{"forager.laos.service.cluster servers", []forager.Role{cluster}},
		{"forager.laos.service.cluster.one servers", []forager.Role{cluster}},
		{"forager.laos.service.replay servers", []forager.Role{replay}},
		{"forager.laos.notice.weights", []forager.Role{actor}},
		{"forager.laos.notice.reward-model", []forager.Role{learner}},
		{"$JS.API.>", nil},
		{"$JS.ACK.>", nil},
		{"$O.forager-laos.C.*", nil},
		{"$SYS.>", nil},
		{"_INBOX.>", nil},
	}
	for _, role := range everybody() {
		list = append(list, access{"_INBOX_" + string(role) + ".>", []forager.Role{role}})
	}
	return list
}

// TestAccess tries every role's credentials against every class of subject: what a
// role should not reach is refused, what it needs is not.
func TestAccess(t *testing.T) {
	all := issue(t)
	server := all.serve(t, nil)
	testAccess(t, all, server.URL())
}

func testAccess(t *testing.T, all installation, url string) {
	refused, allowed := 0, 0
	for _, role := range everybody() {
		client := &Bus{cfg: Config{URL: url, TLS: all[role].Client(), Seed: all[role].Seed()}, role: role, seed: all[role].Seed(), log: slog.New(slog.DiscardHandler)}
		options, err := client.options()
		if err != nil {
			t.Fatal(err)
		}
		conn, err := nats.Connect(url, append(options, nats.Timeout(5*time.Second))...)
		if err != nil {
			t.Fatal(err)
		}
		try := func(kind, subject string, may []forager.Role, do func() error) {
			t.Helper()
			if err := do(); err != nil {
				t.Fatal(err)
			}
			if err := conn.FlushTimeout(5 * time.Second); err != nil { // a refusal comes before the answer to this
				t.Fatal(err)
			}
			last := conn.LastError()
			denied := last != nil && strings.Contains(last.Error(), kind) && strings.Contains(last.Error(), fmt.Sprintf("%q", strings.Fields(subject)[0]))
			if denied == slices.Contains(may, role) {
				t.Errorf("%s, %s %q: refused %v (%v)", role, kind, subject, denied, last)
			}
			if denied {
				refused++
			} else {
				allowed++
			}
		}
		for _, a := range mayPublish() {
			try("Publish", a.subject, a.roles, func() error { return conn.Publish(a.subject, nil) })
		}
		for _, a := range maySubscribe() {
			try("Subscription", a.subject, a.roles, func() error {
				subject, queue, _ := strings.Cut(a.subject, " ")
				sub, err := conn.QueueSubscribeSync(subject, queue)
				if queue == "" {
					sub, err = conn.SubscribeSync(subject)
				}
				if err == nil {
					t.Cleanup(func() { _ = sub.Unsubscribe() })
				}
				return err
			})
		}
		conn.Close()
	}
	t.Logf("%d attempts refused, %d allowed, of %d roles", refused, allowed, len(everybody()))
	if refused < 400 {
		t.Errorf("only %d attempts were refused", refused)
	}
}
