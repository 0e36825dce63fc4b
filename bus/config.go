package bus

import (
	"crypto/tls"
	"fmt"
	"net"
	"time"

	"github.com/forager-rl/forager"
)

// Config says where the bus is and what it may hold.
type Config struct {
	// URL is the NATS server to join, such as "nats://host:4222", or several
	// separated by commas. Empty: run one inside this process.
	URL string `mapstructure:"url"`
	// CredentialsFile is a NATS .creds file for the server at URL. Empty: none.
	CredentialsFile string `mapstructure:"credentials_file"`
	// Listen is the address of the embedded server, "host:port". Port 0 takes a free
	// one. Other processes may join there. Off loopback it needs credentials.
	Listen string `mapstructure:"listen"`
	// StoreDir is the folder of the embedded server's files. It belongs to one
	// process at a time; the caller sees to that.
	StoreDir string `mapstructure:"-"`
	// Run is the run id, part of every name on the server: 1 to 64 letters,
	// digits, "-" and "_".
	Run string `mapstructure:"-"`

	// TLS secures the connection: the embedded server's side of it, or the client's
	// when there is a URL. Nil: no TLS.
	TLS *tls.Config `mapstructure:"-"`
	// Seed is the nkey seed that this process proves who it is with. Empty: nothing
	// to prove.
	Seed []byte `mapstructure:"-"`
	// Role is whose credentials Seed is: it names the inbox and the announcements of
	// this process. Empty without Seed.
	Role forager.Role `mapstructure:"-"`
	// Users are the public nkeys that the embedded server lets in, by role; see
	// Permissions. Empty: it lets in everybody who reaches it.
	Users map[forager.Role][]string `mapstructure:"-"`
	// Provision makes the streams, consumers and object stores of the run and keeps
	// them there. Other processes wait until they are.
	Provision bool `mapstructure:"-"`
	// AllowPlain lets the embedded server listen off loopback without TLS and Users.
	AllowPlain bool `mapstructure:"-"`

	// ConnectTimeout bounds how long Open waits for a server, and then for what
	// another process makes there; at least 1 ms.
	ConnectTimeout time.Duration `mapstructure:"connect_timeout"`
	// Timeout bounds every single exchange with the server (publish, ack,
	// request) whose context allows more, at least 1 ms.
	Timeout time.Duration `mapstructure:"timeout"`
	// AckWait is how long a fetched message may stay without Ack or Extend
	// before somebody else gets it, at least 1 ms.
	AckWait time.Duration `mapstructure:"ack_wait"`
	// SyncInterval is how often the embedded server calls fsync. A killed process
	// loses nothing; a power cut loses at most this much. At least 1 ms.
	SyncInterval time.Duration `mapstructure:"sync_interval"`
	// MaxPayload is the largest message in bytes, 64 KiB to 64 MiB. It sets the
	// limit of the embedded server; an external one has its own max_payload.
	MaxPayload int `mapstructure:"max_payload"`
	// Requests is how many requests of one service a process works on at once,
	// at least 1; more wait.
	Requests int `mapstructure:"requests"`

	// MaxCredits bounds the credits that wait, in messages. A full queue refuses
	// new ones.
	MaxCredits int64 `mapstructure:"max_credits"`
	// MaxRollouts bounds the rollouts that replay has not taken yet, in bytes. A
	// full queue refuses new ones: that is the back-pressure on actors.
	MaxRollouts int64 `mapstructure:"max_rollouts"`
	// MaxDigests bounds the turn digests that wait for labels, in bytes. A full
	// queue drops its oldest.
	MaxDigests int64 `mapstructure:"max_digests"`
	// MaxAnnotations bounds the labels of a run, in bytes. They are kept for as
	// long as the run; a full stream refuses new ones.
	MaxAnnotations int64 `mapstructure:"max_annotations"`
	// MaxObjects bounds the weights and checkpoints that are kept, in bytes.
	MaxObjects int64 `mapstructure:"max_objects"`
}

// DefaultConfig is an embedded server on a free loopback port. StoreDir and Run
// are the caller's to set.
func DefaultConfig() Config {
	return Config{
		Listen:         "127.0.0.1:0",
		ConnectTimeout: 5 * time.Second,
		Timeout:        10 * time.Second,
		AckWait:        time.Minute,
		SyncInterval:   10 * time.Second,
		MaxPayload:     8 << 20,
		Requests:       16,
		MaxCredits:     1 << 20,
		MaxRollouts:    512 << 20,
		MaxDigests:     64 << 20,
		MaxAnnotations: 512 << 20,
		MaxObjects:     4 << 30,
	}
}

// guarded says that the embedded server knows whom to let in, and keeps what they
// say from others.
func (c *Config) guarded() bool { return c.TLS != nil && len(c.Users) > 0 }

// Validate reports the first setting that cannot work, or nil.
func (c *Config) Validate() error {
	if !isToken(c.Run) || len(c.Run) > 64 {
		return fmt.Errorf("bus: run id %q: want 1 to 64 letters, digits, - and _", c.Run)
	}
	if c.URL == "" {
		host, _, err := net.SplitHostPort(c.Listen)
		if err != nil {
			return fmt.Errorf("bus: listen address %q: %w", c.Listen, err)
		}
		if ip := net.ParseIP(host); (ip == nil || !ip.IsLoopback()) && !c.guarded() && !c.AllowPlain {
			return forager.WithHint(fmt.Errorf("bus: listen address %q is not a loopback address, and the server would let in everybody", c.Listen),
				`give it credentials: make them with "forager certs" and set security.dir`)
		}
		if c.StoreDir == "" {
			return fmt.Errorf("bus: no store folder for the embedded server")
		}
	}
	if (len(c.Seed) > 0) != (c.Role != "") {
		return fmt.Errorf("bus: seed and role go together: role is %q", c.Role)
	}
	for name, d := range map[string]time.Duration{
		"connect_timeout": c.ConnectTimeout, "timeout": c.Timeout, "ack_wait": c.AckWait, "sync_interval": c.SyncInterval,
	} {
		if d < time.Millisecond {
			return fmt.Errorf("bus: %s is %v, want at least 1ms", name, d)
		}
	}
	if c.MaxPayload < 64<<10 || c.MaxPayload > 64<<20 {
		return fmt.Errorf("bus: max_payload is %d, want %d to %d", c.MaxPayload, 64<<10, 64<<20)
	}
	for name, n := range map[string]int64{
		"requests": int64(c.Requests), "max_credits": c.MaxCredits, "max_rollouts": c.MaxRollouts, "max_digests": c.MaxDigests,
		"max_annotations": c.MaxAnnotations, "max_objects": c.MaxObjects,
	} {
		if n < 1 {
			return fmt.Errorf("bus: %s is %d, want at least 1", name, n)
		}
	}
	return nil
}
