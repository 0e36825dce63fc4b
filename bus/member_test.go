package bus

import (
	"reflect"
	"strings"
	"testing"
)

func announced(t *testing.T, b *Bus) map[string]string {
	t.Helper()
	words, err := b.Announced(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	texts := map[string]string{}
	for name, data := range words {
		texts[name] = string(data)
	}
	return texts
}

// TestAnnounce: the last word of each name counts, until it is taken back.
func TestAnnounce(t *testing.T) {
	a := open(t, nil)
	b := join(t, a, nil)
	if got := announced(t, b); len(got) != 0 {
		t.Fatalf("nobody said anything: %v", got)
	}
	say := func(bus *Bus, name, text string) {
		t.Helper()
		if err := bus.Announce(t.Context(), name, []byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	say(a, "host.example-1", "first")
	say(b, "host-2", "there")
	say(a, "host.example-1", "second")
	if got, want := announced(t, b), map[string]string{"host.example-1": "second", "host-2": "there"}; !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if err := a.Withdraw(t.Context(), "host.example-1"); err != nil {
		t.Fatal(err)
	}
	if got, want := announced(t, a), map[string]string{"host-2": "there"}; !reflect.DeepEqual(got, want) {
		t.Errorf("after the withdrawal: %v, want %v", got, want)
	}
	for name, data := range map[string]string{"": "x", strings.Repeat("n", 129): "x", "empty": "", "large": strings.Repeat("x", MaxAnnouncement+1)} {
		if err := a.Announce(t.Context(), name, []byte(data)); err == nil {
			t.Errorf("%d bytes under a name of %d pass", len(data), len(name))
		}
	}
}

// TestManyAnnouncements: all that are kept come at once.
func TestManyAnnouncements(t *testing.T) {
	b := open(t, nil)
	for i := range maxMembers + 10 {
		if err := b.Announce(t.Context(), strings.Repeat("n", 1+i%100)+string(rune('a'+i/100)), []byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	if got := announced(t, b); len(got) != maxMembers {
		t.Errorf("%d announcements, want %d", len(got), maxMembers)
	}
}
