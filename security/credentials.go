package security

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"

	"github.com/forager-rl/forager"
)

// Credentials are those of one process. Nil is a process without any: all methods
// work on it and give nothing.
type Credentials struct {
	dir         string
	role        forager.Role
	authority   *x509.CertPool
	certificate tls.Certificate
	seed        []byte
	token       string
	users       map[forager.Role][]string
	warnings    []string
}

// Role is whose credentials these are.
func (c *Credentials) Role() forager.Role {
	if c == nil {
		return ""
	}
	return c.role
}

// Server is the server's side of a connection whose client proves who it is by other
// means than a certificate.
func (c *Credentials) Server() *tls.Config {
	if c == nil {
		return nil
	}
	return &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{c.certificate}}
}

// Client is the client's side of a connection. The server's certificate must be of
// our authority and hold the name of the host, or the ServerName that the caller
// sets: every certificate holds the name of its role.
func (c *Credentials) Client() *tls.Config {
	if c == nil {
		return nil
	}
	return &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: c.authority, Certificates: []tls.Certificate{c.certificate}}
}

// Mutual is either side of a connection between processes of one role: each shows a
// certificate of our authority with that role as its common name. Names of hosts
// play no part, since members come and go with their addresses.
func (c *Credentials) Mutual(role forager.Role) *tls.Config {
	if c == nil {
		return nil
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{c.certificate}, RootCAs: c.authority,
		ClientCAs: c.authority, ClientAuth: tls.RequireAndVerifyClientCert,
		InsecureSkipVerify: true, //nolint:gosec // VerifyConnection checks the chain; only the name of the host is left out
		VerifyConnection:   func(s tls.ConnectionState) error { return c.verifyPeer(s, role) },
	}
}

// verifyPeer checks the certificate of the other side, also on connections that
// are resumed.
func (c *Credentials) verifyPeer(s tls.ConnectionState, role forager.Role) error {
	if len(s.PeerCertificates) == 0 {
		return errors.New("the other side shows no certificate")
	}
	peer, between := s.PeerCertificates[0], x509.NewCertPool()
	for _, certificate := range s.PeerCertificates[1:] {
		between.AddCert(certificate)
	}
	_, err := peer.Verify(x509.VerifyOptions{Roots: c.authority, Intermediates: between, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
	if err != nil {
		return fmt.Errorf("certificate of %q: %w", peer.Subject.CommonName, err)
	}
	if peer.Subject.CommonName != string(role) {
		return fmt.Errorf("certificate is of role %q, want %q", peer.Subject.CommonName, role)
	}
	return nil
}

// Token is the bearer token of the HTTP servers, "" without credentials.
func (c *Credentials) Token() string {
	if c == nil {
		return ""
	}
	return c.token
}

// Seed is the nkey seed for the bus, nil for the nats role.
func (c *Credentials) Seed() []byte {
	if c == nil {
		return nil
	}
	return slices.Clone(c.seed)
}

// Users are the public nkeys that the bus lets in, by role: for the nats role alone.
func (c *Credentials) Users() map[forager.Role][]string {
	if c == nil {
		return nil
	}
	return maps.Clone(c.users)
}

// Warnings are what a person should know about these credentials: keys that others
// can read, certificates that end soon.
func (c *Credentials) Warnings() []string {
	if c == nil {
		return nil
	}
	return slices.Clone(c.warnings)
}

// String names the credentials and tells no secret.
func (c *Credentials) String() string {
	if c == nil {
		return "no credentials"
	}
	return fmt.Sprintf("credentials of %s in %s", c.role, c.dir)
}

// GoString is String, for %#v.
func (c *Credentials) GoString() string { return c.String() }

// LogValue is String, for slog.
func (c *Credentials) LogValue() slog.Value { return slog.StringValue(c.String()) }
