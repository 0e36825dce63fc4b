package bus

import (
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/forager-rl/forager"
)

// Permissions are the subjects that a role's credentials may use on the bus of a
// run. What is not listed is refused.
type Permissions struct {
	Publish   []string
	Subscribe []string
	// Respond lets a process answer a request that has reached it, once, within
	// answerAge.
	Respond bool
}

// answerAge is how long a service may take to answer. No caller waits as long.
const answerAge = 5 * time.Minute

// PermissionsOf is what a role may do on the bus of a run.
func PermissionsOf(run string, role forager.Role) Permissions {
	n := names{run}
	abilities, known := n.abilities()[role]
	if !known {
		return Permissions{}
	}
	p := Permissions{Subscribe: []string{inbox(role) + ".>"}}
	for _, a := range append(abilities, n.look(), n.ask(ServiceCluster)) {
		p.Publish = append(p.Publish, a.publish...)
		p.Subscribe = append(p.Subscribe, a.subscribe...)
		p.Respond = p.Respond || a.respond
	}
	if role != forager.RoleOperator {
		p.Publish = append(p.Publish, n.member(role, "*"))
	}
	slices.Sort(p.Publish)
	slices.Sort(p.Subscribe)
	p.Publish, p.Subscribe = slices.Compact(p.Publish), slices.Compact(p.Subscribe)
	return p
}

// abilities is the table: what each role may do. Beyond it every role may look at
// the state of the streams and at announcements, ask the cluster, and say, except
// for an operator, that it is there.
func (n names) abilities() map[forager.Role][]ability {
	weights, model := n.bucket(""), n.bucket(ObjectRewardModel)
	return map[forager.Role][]ability{
		forager.RoleNATS: {n.provision(), n.restart()},
		forager.RoleCluster: {
			n.provision(), n.serve(ServiceCluster), n.serve(ServiceCluster + "-*"), n.ask(ServiceCluster + "-*"),
		},
		forager.RoleReplay: {
			n.work(Rollouts), n.read(Annotations),
			n.serve(ServiceReplay), n.ask(ServiceReplay), // asks itself whether it is up
		},
		forager.RoleRewardServer: {
			n.work(Digests), n.write(Annotations), n.read(Annotations), n.claim(),
			n.put(model, ObjectRewardModel), n.get(model), n.notify(TopicRewardModel),
		},
		forager.RoleRetriever: {},
		forager.RoleLearner: {
			n.write(Credits), n.purge(Credits), n.read(Annotations), n.ask(ServiceReplay),
			n.put(weights, "*"), n.get(weights), n.notify(TopicWeights),
			n.get(model), n.watch(TopicRewardModel),
		},
		forager.RoleActor: {
			n.work(Credits), n.write(Rollouts), n.write(Digests), n.get(weights), n.watch(TopicWeights),
		},
		forager.RoleOperator: {n.read(Annotations), n.ask(ServiceCluster + "-*")},
	}
}

// ability is a set of subjects that go together.
type ability struct {
	publish, subscribe []string
	respond            bool
}

const api = "$JS.API."

// look asks for the state of streams and consumers, and for announcements.
func (n names) look() ability {
	a := ability{publish: []string{api + "DIRECT.GET." + n.stream(members)}}
	for _, s := range allStreams() {
		a.publish = append(a.publish, api+"STREAM.INFO."+n.stream(s))
		if s.fetched() {
			a.publish = append(a.publish, api+"CONSUMER.INFO."+n.stream(s)+"."+workers)
		}
	}
	for _, b := range n.buckets() {
		a.publish = append(a.publish, api+"STREAM.INFO."+objects(b))
	}
	return a
}

// provision makes the streams, the shared consumers and the object stores.
func (n names) provision() (a ability) {
	for _, s := range allStreams() {
		a.publish = append(a.publish, api+"STREAM.CREATE."+n.stream(s), api+"STREAM.UPDATE."+n.stream(s))
		if s.fetched() {
			a.publish = append(a.publish, api+"CONSUMER.CREATE."+n.stream(s)+"."+workers)
		}
	}
	for _, b := range n.buckets() {
		a.publish = append(a.publish, api+"STREAM.CREATE."+objects(b), api+"STREAM.UPDATE."+objects(b))
	}
	return a
}

// restart lets go of what the holders of messages had before the server ended.
func (n names) restart() (a ability) {
	for _, s := range allStreams() {
		if s.fetched() {
			a.publish = append(a.publish, api+"CONSUMER.DELETE."+n.stream(s)+"."+workers)
		}
	}
	return a
}

// work takes messages off a stream.
func (n names) work(s Stream) ability {
	return ability{publish: []string{
		api + "CONSUMER.MSG.NEXT." + n.stream(s) + "." + workers, "$JS.ACK." + n.stream(s) + "." + workers + ".>",
	}}
}

// write publishes to a stream.
func (n names) write(s Stream) ability { return ability{publish: []string{n.subject(s, "*")}} }

// read replays and follows a stream, through consumers of the reader's own.
func (n names) read(s Stream) ability {
	return ability{publish: []string{
		api + "CONSUMER.CREATE." + n.stream(s) + ".*", api + "CONSUMER.DELETE." + n.stream(s) + ".*",
		api + "CONSUMER.MSG.NEXT." + n.stream(s) + ".*",
	}}
}

// purge empties a stream.
func (n names) purge(s Stream) ability {
	return ability{publish: []string{api + "STREAM.PURGE." + n.stream(s)}}
}

// claim takes and releases keys.
func (n names) claim() ability {
	return ability{publish: []string{
		n.subject(claims, "*"), api + "DIRECT.GET." + n.stream(claims) + "." + n.subject(claims, "*"),
		api + "STREAM.MSG.DELETE." + n.stream(claims),
	}}
}

// objects is the stream of an object store, by the client's convention.
func objects(bucket string) string { return "OBJ_" + bucket }

// get reads and lists objects.
func (n names) get(bucket string) ability {
	parts, meta := chunks(bucket, "*"), "$O."+bucket+".M.>"
	return ability{publish: []string{
		api + "DIRECT.GET." + objects(bucket) + "." + meta,
		api + "CONSUMER.CREATE." + objects(bucket) + ".*." + parts, api + "CONSUMER.CREATE." + objects(bucket) + ".*." + meta,
		api + "CONSUMER.DELETE." + objects(bucket) + ".*", "$JS.FC." + objects(bucket) + ".>",
	}}
}

// put stores and deletes the object of a name, "*" for any.
func (n names) put(bucket, name string) ability {
	meta := "$O." + bucket + ".M.*"
	if name != "*" {
		meta = description(bucket, name)
	}
	return ability{publish: []string{
		chunks(bucket, "*"), meta, api + "STREAM.PURGE." + objects(bucket),
	}}
}

// serve answers for a service, and only in its queue group.
func (n names) serve(service string) ability {
	return ability{subscribe: []string{n.service(service) + " " + servers}, respond: true}
}

// ask sends requests to a service.
func (n names) ask(service string) ability { return ability{publish: []string{n.service(service)}} }

// notify tells those who watch a topic.
func (n names) notify(topic string) ability { return ability{publish: []string{n.notice(topic)}} }

// watch hears what is told on a topic.
func (n names) watch(topic string) ability { return ability{subscribe: []string{n.notice(topic)}} }

// mayPublish reports whether a subject is among those that may be published to.
func (p Permissions) mayPublish(subject string) bool {
	return slices.ContainsFunc(p.Publish, func(pattern string) bool { return matches(pattern, subject) })
}

// matches reports whether a pattern with the wildcards of NATS covers a subject.
func matches(pattern, subject string) bool {
	want, have := strings.Split(pattern, "."), strings.Split(subject, ".")
	for i, token := range want {
		switch {
		case token == ">":
			return len(have) > i
		case i >= len(have) || token != "*" && token != have[i]:
			return false
		}
	}
	return len(want) == len(have)
}

// nkeyUsers are the users of a server, with what each may do.
func nkeyUsers(run string, users map[forager.Role][]string) []*server.NkeyUser {
	var list []*server.NkeyUser
	for role, keys := range users {
		p := PermissionsOf(run, role)
		for _, key := range keys {
			user := &server.NkeyUser{Nkey: key, Permissions: &server.Permissions{
				Publish: &server.SubjectPermission{Allow: p.Publish}, Subscribe: &server.SubjectPermission{Allow: p.Subscribe},
			}}
			if len(p.Publish) == 0 { // of an unknown role; an empty list would allow everything
				user.Permissions.Publish.Deny, user.Permissions.Subscribe.Deny = []string{">"}, []string{">"}
			}
			if p.Respond {
				user.Permissions.Response = &server.ResponsePermission{MaxMsgs: 1, Expires: answerAge}
			}
			list = append(list, user)
		}
	}
	return list
}
