package cluster

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"strings"
	"time"

	"github.com/forager-rl/forager"
)

// dateForm is how dates of certificates are told.
const dateForm = "2 January 2006 15:04 UTC"

const certificateHint = "make new ones with: forager certs"

// explain puts what is wrong with a certificate into words. Other errors stay.
func (l *layer) explain(err error) error {
	if err == nil {
		return nil
	}
	if invalid, ok := errors.AsType[x509.CertificateInvalidError](err); ok && invalid.Reason == x509.Expired {
		return refuse(refusedSecurity, "the other side's %s; %s", validity(invalid.Cert, l.now()), certificateHint)
	}
	// What the other side says arrives as an alert, of a type that package tls
	// keeps to itself.
	remote, ok := errors.AsType[*net.OpError](err)
	switch {
	case ok && remote.Op == "remote error" && strings.Contains(remote.Error(), "expired certificate"):
		return refuse(refusedSecurity, "the other side refuses this node's %s; %s", validity(ownCertificate(l.security), l.now()), certificateHint)
	case ok && remote.Op == "remote error":
		return refuse(refusedSecurity, "the other side refuses the connection: %v", remote.Err)
	}
	var wrong tls.RecordHeaderError
	var verify *tls.CertificateVerificationError
	switch {
	case errors.As(err, &wrong):
		return refuse(refusedSecurity, "one side speaks TLS and the other does not: set security.dir on all nodes, or on none")
	case errors.As(err, &verify):
		return refuse(refusedSecurity, "the other side's certificate is not accepted: %v", verify.Err)
	case strings.HasPrefix(err.Error(), "tls: "): // such as no certificate at all
		return refuse(refusedSecurity, "%v", err)
	}
	return err
}

// validity says of a certificate whether its time is over, or not yet come.
func validity(c *x509.Certificate, now time.Time) string {
	switch {
	case c == nil:
		return "certificate, which has expired"
	case now.Before(c.NotBefore):
		return "certificate (" + c.Subject.CommonName + "), which is valid only from " + c.NotBefore.UTC().Format(dateForm) + ": compare the clocks"
	}
	return "certificate (" + c.Subject.CommonName + "), which expired on " + c.NotAfter.UTC().Format(dateForm)
}

// ownCertificate is the certificate that a configuration shows, nil when it is
// not known in advance.
func ownCertificate(config *tls.Config) *x509.Certificate {
	if config == nil || len(config.Certificates) == 0 || len(config.Certificates[0].Certificate) == 0 {
		return nil
	}
	if leaf := config.Certificates[0].Leaf; leaf != nil {
		return leaf
	}
	leaf, err := x509.ParseCertificate(config.Certificates[0].Certificate[0])
	if err != nil {
		return nil // the handshake will say so
	}
	return leaf
}

// checkCertificate refuses to start with a certificate that nobody would accept.
func checkCertificate(config *tls.Config, now time.Time) error {
	c := ownCertificate(config)
	if c == nil || !now.Before(c.NotBefore) && !now.After(c.NotAfter) {
		return nil
	}
	return forager.WithHint(errors.New("raft: this node's "+validity(c, now)), certificateHint)
}
