package security

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"time"

	"github.com/forager-rl/forager"
)

// authority signs the certificates of one installation. Its keys, like all others
// here, are on the curve P-256.
type authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
	pem         []byte // of the certificate
}

// clockSkew is how much earlier a certificate is valid than it was made, for
// machines whose clocks are behind.
const clockSkew = 5 * time.Minute

// newAuthority makes an authority, and the PEM form of its key.
func newAuthority(now time.Time, validity time.Duration) (*authority, []byte, error) {
	template := &x509.Certificate{
		Subject:   pkix.Name{CommonName: "forager development CA"},
		NotBefore: now.Add(-clockSkew), NotAfter: now.Add(validity),
		IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true, KeyUsage: x509.KeyUsageCertSign,
	}
	a := &authority{certificate: template}
	var err error
	if a.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		return nil, nil, err
	}
	if a.pem, err = a.sign(template, &a.key.PublicKey); err != nil {
		return nil, nil, err
	}
	if a.certificate, err = parseOne(a.pem); err != nil {
		return nil, nil, err
	}
	key, err := encodeKey(a.key)
	return a, key, err
}

// parseAuthority reads an authority that newAuthority made.
func parseAuthority(certificate, key []byte) (*authority, error) {
	a := &authority{pem: certificate}
	var err error
	if a.certificate, err = parseOne(certificate); err != nil {
		return nil, err
	}
	if a.key, err = decodeKey(key); err != nil {
		return nil, err
	}
	if !a.key.PublicKey.Equal(a.certificate.PublicKey) {
		return nil, errors.New("its key does not fit its certificate")
	}
	return a, nil
}

// issue makes a certificate for a role at some hosts, names or IP addresses, and its
// key, both in PEM form.
func (a *authority) issue(role forager.Role, hosts []string, now time.Time, validity time.Duration) (certificate, key []byte, err error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	template := &x509.Certificate{
		Subject:   pkix.Name{CommonName: string(role), Organization: []string{"forager"}},
		NotBefore: now.Add(-clockSkew), NotAfter: now.Add(validity),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	for _, h := range hosts {
		if ip := net.ParseIP(h); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, h)
		}
	}
	if certificate, err = a.sign(template, &private.PublicKey); err != nil {
		return nil, nil, fmt.Errorf("certificate of %s: %w", role, err)
	}
	key, err = encodeKey(private)
	return certificate, key, err
}

func (a *authority) sign(template *x509.Certificate, public *ecdsa.PublicKey) ([]byte, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, err
	}
	template.SerialNumber = serial
	der, err := x509.CreateCertificate(rand.Reader, template, a.certificate, public, a.key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), nil
}

func parseOne(data []byte) (*x509.Certificate, error) {
	certificates, err := parseCertificates(data)
	if err != nil {
		return nil, err
	}
	return certificates[0], nil
}

func encodeKey(key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

func decodeKey(data []byte) (*ecdsa.PrivateKey, error) {
	block, _ := pem.Decode(data)
	if block == nil {
		return nil, errors.New("it holds no key in PEM form")
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, errors.New("it holds no key in PKCS #8 form")
	}
	private, ok := key.(*ecdsa.PrivateKey)
	if !ok {
		return nil, errors.New("its key is not an ECDSA one")
	}
	return private, nil
}
