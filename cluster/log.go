package cluster

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
)

// sayEvery is how often the same thing is said in the log.
const sayEvery = time.Minute

// maxSaid bounds what is remembered; then everything may be said anew.
const maxSaid = 256

// limiter lets the same thing be said once a minute.
type limiter struct {
	now  func() time.Time
	mu   sync.Mutex
	said map[string]time.Time
}

func newLimiter(now func() time.Time) *limiter { return &limiter{now: now} }

func (l *limiter) allow(what string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	if last, ok := l.said[what]; ok && now.Sub(last) < sayEvery {
		return false
	}
	if l.said == nil || len(l.said) >= maxSaid {
		l.said = map[string]time.Time{}
	}
	l.said[what] = now
	return true
}

// raftLogger carries what the Raft library logs into slog. An election at each
// start is normal, so the library's warnings become debug lines and only its
// errors become warnings, each once a minute: a peer that is away fails many
// times a second.
func raftLogger(log *slog.Logger, now func() time.Time) hclog.Logger {
	l := hclog.NewInterceptLogger(&hclog.LoggerOptions{Name: "raft", Level: hclog.Off, Output: io.Discard})
	l.RegisterSink(slogSink{log, newLimiter(now)})
	return l
}

type slogSink struct {
	log     *slog.Logger
	limiter *limiter
}

// Accept receives one log line as alternating keys and values.
func (s slogSink) Accept(_ string, level hclog.Level, msg string, args ...any) {
	to := slog.LevelDebug
	if level >= hclog.Error && s.limiter.allow(msg+subject(args)) {
		to = slog.LevelWarn
	}
	s.log.Log(context.Background(), to, "raft: "+msg, args...) //nolint:sloglint // an adapter: the message is Raft's
}

// subject is the node that a line is about, "" for none.
func subject(args []any) string {
	for i := 0; i+1 < len(args); i += 2 {
		switch args[i] {
		case "peer", "target":
			return fmt.Sprint(" ", args[i+1])
		}
	}
	return ""
}
