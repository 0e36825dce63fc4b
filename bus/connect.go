package bus

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/url"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"

	"github.com/forager-rl/forager"
)

// connect tries until the server answers or the time is over. A server that
// refuses this process is not asked again.
func (b *Bus) connect(ctx context.Context) (*nats.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, b.cfg.ConnectTimeout)
	defer cancel()
	options, err := b.options()
	if err != nil {
		return nil, err
	}
	told := false
	for pause := firstPause; ; pause = min(2*pause, lastPause) {
		conn, err := nats.Connect(b.cfg.URL, options...)
		if err == nil {
			return conn, nil
		}
		if hint := b.refusal(err); hint != "" {
			return nil, forager.WithHint(fmt.Errorf("no connection to %s: %w", redacted(b.cfg.URL), err), hint)
		}
		if !told {
			b.log.Info("bus: waiting for the server", "url", redacted(b.cfg.URL), "at_most", b.cfg.ConnectTimeout, "error", err)
			told = true
		}
		if !wait(ctx, min(pause, b.cfg.ConnectTimeout/4)) {
			return nil, forager.WithHint(
				fmt.Errorf("%s does not answer within %v: %w", redacted(b.cfg.URL), b.cfg.ConnectTimeout, err),
				"check --nats or start nats-server -js")
		}
	}
}

// refusal says what to do about an error that another try will not mend, "" for
// all others.
func (b *Bus) refusal(err error) string {
	var (
		authority x509.UnknownAuthorityError
		invalid   x509.CertificateInvalidError
		host      x509.HostnameError
	)
	switch {
	case errors.Is(err, nats.ErrAuthorization), errors.Is(err, nats.ErrAuthExpired), errors.Is(err, nats.ErrAuthRevoked):
		if len(b.cfg.Seed) == 0 && b.cfg.CredentialsFile == "" {
			return "the server asks for credentials: set security.dir"
		}
		return `the server does not know this key: give server and process the credentials of one "forager certs"`
	case errors.Is(err, nats.ErrNkeysNotSupported):
		return "the server asks for no key, so it is not the one that these credentials are for: check the URL"
	case errors.As(err, &authority):
		if b.cfg.TLS == nil {
			return "the server asks for TLS: set security.dir to credentials of its authority"
		}
		return `the server's certificate is of another authority: give server and process the credentials of one "forager certs"`
	case errors.As(err, &invalid):
		return `the server needs a new certificate: make it with "forager certs" and restart the server`
	case errors.As(err, &host):
		return `the server's certificate does not hold this name: add it with "forager certs --host"`
	case errors.Is(err, nats.ErrSecureConnWanted):
		return "the server speaks no TLS: give it credentials as well, or set no security.dir"
	case errors.Is(err, nats.ErrSecureConnRequired):
		return "the server asks for TLS: set security.dir"
	}
	return ""
}

func (b *Bus) options() ([]nats.Option, error) {
	opts := []nats.Option{
		nats.Name("forager " + strings.TrimSpace(string(b.role)+" "+b.cfg.Run)),
		nats.Timeout(min(b.cfg.ConnectTimeout, dialTimeout)),
		nats.MaxReconnects(-1),
		nats.IgnoreAuthErrorAbort(), // a server that comes back with other keys may be mended
		nats.CustomReconnectDelay(reconnectDelay),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			if err != nil {
				b.log.Warn("bus: connection lost, trying again", "error", err)
			}
		}),
		nats.ReconnectErrHandler(func(_ *nats.Conn, err error) { b.log.Warn("bus: not connected yet", "error", err) }),
		nats.ReconnectHandler(func(c *nats.Conn) {
			b.log.Info("bus: connected again", "server", c.ConnectedUrlRedacted())
			select {
			case b.returned <- struct{}{}:
			default: // told already
			}
		}),
		nats.ErrorHandler(b.heard),
	}
	if b.role != "" {
		opts = append(opts, nats.CustomInboxPrefix(inbox(b.role)))
	}
	switch {
	case b.server != nil:
		opts = append(opts, nats.InProcessServer(b.server))
	case b.cfg.TLS != nil:
		opts = append(opts, nats.Secure(b.cfg.TLS))
	}
	if b.cfg.CredentialsFile != "" {
		opts = append(opts, nats.UserCredentials(b.cfg.CredentialsFile))
	}
	if len(b.seed) == 0 {
		return opts, nil
	}
	key, err := nkeys.FromSeed(b.seed)
	if err != nil {
		return nil, errors.New("the nkey seed cannot be read") // the error of nkeys adds nothing
	}
	public, err := key.PublicKey()
	if err != nil {
		return nil, fmt.Errorf("public nkey: %w", err)
	}
	return append(opts, nats.Nkey(public, key.Sign)), nil
}

// heard notes errors that belong to no call. What the server refuses is not
// answered otherwise.
func (b *Bus) heard(_ *nats.Conn, sub *nats.Subscription, err error) {
	subject := ""
	if sub != nil {
		subject = sub.Subject
	}
	if errors.Is(err, nats.ErrPermissionViolation) {
		b.denied.Store(&err)
	}
	b.log.Warn("bus: connection error", "role", string(b.role), "subject", subject, "error", err)
}

// dialTimeout bounds one try to connect.
const dialTimeout = 5 * time.Second

// reconnectDelay is the pause before a try to come back: 0.1 s at first and 5 s at
// last, spread so that processes do not come back in step.
func reconnectDelay(attempts int) time.Duration {
	pause := min(100*time.Millisecond<<min(attempts, 10), 5*time.Second)
	return pause/2 + rand.N(pause/2+1)
}

// redacted is a URL list without passwords.
func redacted(urls string) string {
	parts := strings.Split(urls, ",")
	for i, part := range parts {
		if u, err := url.Parse(strings.TrimSpace(part)); err == nil {
			parts[i] = u.Redacted()
		}
	}
	return strings.Join(parts, ",")
}
