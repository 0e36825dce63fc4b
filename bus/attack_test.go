package bus

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"testing"
	"time"
)

// TestRedirectedAnswers: a server checks where a client publishes, not where it
// wants the answer, so an actor can make it publish anywhere. Nobody believes what
// comes about that way, and nothing is deleted by it.
func TestRedirectedAnswers(t *testing.T) {
	all := issue(t)
	server := all.serve(t, nil)
	learning, judging, playing := all.join(t, server, learner), all.join(t, server, rewardsrv), all.join(t, server, actor)
	replaying := all.join(t, server, replay)
	for i := range 5 {
		publish(t, learning, Credits, fmt.Sprint(i), "credit")
		publish(t, judging, Annotations, "", "label")
	}
	weights := make([]byte, 300<<10)
	if err := learning.PutObject(t.Context(), "weights", weights); err != nil {
		t.Fatal(err)
	}

	// The acks of its own rollouts, as messages, notices, announcements and requests.
	const member = "forager.laos.members.learner.bGVhcm5lcg"
	targets := []string{
		"forager.laos.annotations.message", "forager.laos.credits.9", "forager.laos.digests.message", "forager.laos.notice.reward-model", member,
		"$JS.API.STREAM.MSG.DELETE.forager-laos-annotations", "$JS.API.STREAM.MSG.DELETE.OBJ_forager-laos",
		"$JS.API.STREAM.PURGE.forager-laos-credits", "$JS.API.STREAM.PURGE.OBJ_forager-laos", "$JS.API.STREAM.DELETE.forager-laos-digests",
		"$JS.API.CONSUMER.DELETE.forager-laos-credits.workers",
	}
	for i, target := range targets {
		if err := playing.conn.PublishRequest(fmt.Sprintf("forager.laos.rollouts.%d", i), target, []byte("group")); err != nil {
			t.Fatal(err)
		}
	}
	// The weights, through a consumer that delivers where no inbox is.
	create, err := json.Marshal(map[string]any{"stream_name": "OBJ_forager-laos", "config": map[string]any{
		"name": "mine", "filter_subject": "$O.forager-laos.M.>", "deliver_subject": "forager.laos.digests.message", "ack_policy": "none", "mem_storage": true,
	}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := playing.conn.Request("$JS.API.CONSUMER.CREATE.OBJ_forager-laos.mine.$O.forager-laos.M.>", create, 5*time.Second); err != nil {
		t.Fatal(err)
	}
	// An answer of replay, as a credit.
	serve(t, replaying, ServiceReplay, func(context.Context, []byte) ([]byte, error) { return []byte("groups"), nil })
	if err := learning.conn.PublishRequest("forager.laos.service.replay", "forager.laos.credits.8", []byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := learning.Request(t.Context(), ServiceReplay, []byte("x")); err != nil { // behind it
		t.Fatal(err)
	}

	await(t, learning, Credits, 6)     // five credits, and the ack of a rollout
	await(t, learning, Annotations, 6) // five labels, and what is not believed
	if got := take(t, playing, Credits, 5); slices.ContainsFunc(got, func(m *Message) bool { return string(m.Data) != "credit" }) {
		t.Error("a forged credit came through")
	}
	for s, b := range map[Stream]*Bus{Credits: playing, Digests: judging} {
		if got, err := b.Fetch(t.Context(), s, 10, 100*time.Millisecond); err != nil || len(got) > 0 {
			t.Errorf("%d forged messages on %s, %v", len(got), s, err)
		}
	}
	labels := 0
	err = learning.Replay(t.Context(), Annotations, 1, func(_ uint64, data []byte) error {
		if string(data) != "label" {
			t.Errorf("forged label %s", data)
		}
		labels++
		return nil
	})
	if err != nil || labels != 5 {
		t.Errorf("%d labels, %v", labels, err)
	}
	if got, err := playing.GetObject(t.Context(), "weights"); err != nil || len(got) != len(weights) {
		t.Errorf("weights: %d bytes, %v", len(got), err)
	}
	if list, err := learning.Announcements(t.Context()); err != nil || len(list) != 0 {
		t.Errorf("announcements %v, %v", list, err)
	}
	for _, s := range []Stream{Credits, Annotations} {
		if i := info(t, learning, s); i.LastSequence != 6 {
			t.Errorf("%s: %+v, want 6 messages ever", s, i)
		}
	}
}
