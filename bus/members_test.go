package bus

import (
	"testing"
)

func TestAnnouncements(t *testing.T) {
	b := open(t, nil)
	ctx := t.Context()
	for _, word := range []string{"one", "two"} {
		if err := b.Announce(ctx, "host-1", []byte(word)); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Announce(ctx, "host-2", []byte("x")); err != nil {
		t.Fatal(err)
	}
	words, err := b.Announced(ctx)
	if err != nil || len(words) != 2 || string(words["host-1"]) != "two" {
		t.Fatalf("announced %q, %v", words, err)
	}
	for range 2 {
		if err := b.Withdraw(ctx, "host-1"); err != nil {
			t.Fatal(err)
		}
	}
	if words, err = b.Announced(ctx); err != nil || len(words) != 1 {
		t.Fatalf("after a good-bye: %q, %v", words, err)
	}
	if err := b.Announce(ctx, "a.b", nil); err == nil {
		t.Error("a name of several parts was taken")
	}
}
