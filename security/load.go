package security

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nkeys"

	"github.com/forager-rl/forager"
)

// The files of a folder.
const (
	authorityFile   = "ca.crt"
	certificateFile = "tls.crt"
	keyFile         = "tls.key"
	seedFile        = "nats.seed"
	tokenFile       = "http.token"
	usersFile       = "nats-users.json"
)

const (
	maxFile    = 1 << 20 // bytes of any of them
	minToken   = 16      // bytes of a token
	maxToken   = 512
	endsSoon   = 14 * 24 * time.Hour // before a certificate ends, to warn
	dateLayout = "2006-01-02 15:04 MST"
)

// makeThem is the hint of most errors.
const makeThem = `make them with "forager certs --out DIR" and set security.dir to DIR/<role>`

// Load reads the credentials in a folder and checks that they fit each other and are
// valid now. It gives nil for "". Its errors name the file.
func Load(dir string) (*Credentials, error) { return load(dir, time.Now()) }

func load(dir string, now time.Time) (*Credentials, error) {
	if dir == "" {
		return nil, nil
	}
	l := loader{dir: dir, now: now, credentials: &Credentials{dir: dir}}
	if err := l.load(); err != nil {
		return nil, fmt.Errorf("credentials: %w", err)
	}
	return l.credentials, nil
}

type loader struct {
	dir         string
	now         time.Time
	credentials *Credentials
}

func (l *loader) load() error {
	if err := l.certificates(); err != nil {
		return err
	}
	if err := l.token(); err != nil {
		return err
	}
	if l.credentials.role == forager.RoleNATS {
		return l.users()
	}
	return l.seed()
}

func (l *loader) path(name string) string { return filepath.Join(l.dir, name) }

// read gives a small file.
func (l *loader) read(name string) ([]byte, error) {
	f, err := os.Open(l.path(name))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, forager.WithHint(fmt.Errorf("%s is missing", l.path(name)), makeThem)
	case errors.Is(err, fs.ErrPermission):
		return nil, forager.WithHint(fmt.Errorf("%s may not be read by this user", l.path(name)), "give the folder to the user that the process runs as")
	case err != nil:
		return nil, err
	}
	defer f.Close() // only read from
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxFile {
		return nil, fmt.Errorf("%s is larger than %d bytes", l.path(name), maxFile)
	}
	return data, nil
}

// secret reads a file that nobody else should read.
func (l *loader) secret(name string) ([]byte, error) {
	data, err := l.read(name)
	if err != nil {
		return nil, err
	}
	if info, err := os.Stat(l.path(name)); err == nil && info.Mode().Perm()&0o004 != 0 {
		l.warn("%s can be read by every user of this machine: chmod 600 it", l.path(name))
	}
	return data, nil
}

func (l *loader) warn(format string, args ...any) {
	l.credentials.warnings = append(l.credentials.warnings, fmt.Sprintf(format, args...))
}

// certificates reads the authority, the certificate and its key.
func (l *loader) certificates() error {
	data, err := l.read(authorityFile)
	if err != nil {
		return err
	}
	authorities, err := parseCertificates(data)
	if err != nil {
		return fmt.Errorf("%s: %w", l.path(authorityFile), err)
	}
	pool := x509.NewCertPool()
	for _, a := range authorities {
		pool.AddCert(a)
	}
	if len(authorities) == 1 {
		if err := l.inTime(authorityFile, authorities[0]); err != nil {
			return err
		}
	}
	own, err := l.read(certificateFile)
	if err != nil {
		return err
	}
	chain, err := parseCertificates(own)
	if err != nil {
		return fmt.Errorf("%s: %w", l.path(certificateFile), err)
	}
	leaf := chain[0]
	if err := l.inTime(certificateFile, leaf); err != nil {
		return err
	}
	between := x509.NewCertPool()
	for _, c := range chain[1:] {
		between.AddCert(c)
	}
	if _, err := leaf.Verify(x509.VerifyOptions{Roots: pool, Intermediates: between, CurrentTime: l.now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}); err != nil {
		return forager.WithHint(fmt.Errorf("%s was not issued by the authority in %s: %w", l.path(certificateFile), l.path(authorityFile), err),
			`take both files from one "forager certs"`)
	}
	key, err := l.secret(keyFile)
	if err != nil {
		return err
	}
	if l.credentials.certificate, err = tls.X509KeyPair(own, key); err != nil {
		return forager.WithHint(fmt.Errorf("the key %s does not fit the certificate %s", l.path(keyFile), l.path(certificateFile)),
			"take both files from one folder")
	}
	l.credentials.authority, l.credentials.role = pool, forager.Role(leaf.Subject.CommonName)
	if !slices.Contains(Roles(), l.credentials.role) {
		return fmt.Errorf("%s is of %q, which is no role: want one of %s", l.path(certificateFile), leaf.Subject.CommonName, list(Roles()))
	}
	return nil
}

// inTime reports a certificate that is not valid now.
func (l *loader) inTime(name string, c *x509.Certificate) error {
	switch {
	case l.now.After(c.NotAfter):
		return forager.WithHint(fmt.Errorf("the certificate %s expired on %s", l.path(name), c.NotAfter.UTC().Format(dateLayout)),
			`run "forager certs" again on its folder: it makes new ones in place of what has expired`)
	case l.now.Before(c.NotBefore):
		return forager.WithHint(fmt.Errorf("the certificate %s is not valid before %s, and it is %s", l.path(name),
			c.NotBefore.UTC().Format(dateLayout), l.now.UTC().Format(dateLayout)), "look at the clock of this machine")
	case l.now.Add(endsSoon).After(c.NotAfter):
		l.warn("the certificate %s expires on %s", l.path(name), c.NotAfter.UTC().Format(dateLayout))
	}
	return nil
}

func (l *loader) token() error {
	data, err := l.secret(tokenFile)
	if err != nil {
		return err
	}
	token := strings.TrimSpace(string(data))
	odd := strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' })
	if len(token) < minToken || len(token) > maxToken || odd {
		return fmt.Errorf("%s holds no token: want one line of %d to %d letters and digits", l.path(tokenFile), minToken, maxToken)
	}
	l.credentials.token = token
	return nil
}

func (l *loader) seed() error {
	data, err := l.secret(seedFile)
	if err != nil {
		return err
	}
	seed := bytes.TrimSpace(data)
	if _, err := publicKey(seed); err != nil {
		return fmt.Errorf("%s: %w", l.path(seedFile), err)
	}
	l.credentials.seed = seed
	return nil
}

// publicKey is the public part of a user's nkey.
func publicKey(seed []byte) (string, error) {
	key, err := nkeys.FromSeed(seed)
	if err != nil {
		return "", errors.New("it holds no nkey seed")
	}
	public, err := key.PublicKey()
	if err != nil || !nkeys.IsValidPublicUserKey(public) {
		return "", errors.New("it holds the seed of an nkey that is not a user's")
	}
	return public, nil
}

func (l *loader) users() error {
	data, err := l.read(usersFile)
	if err != nil {
		return err
	}
	users, err := parseUsers(data)
	if err != nil {
		return fmt.Errorf("%s: %w", l.path(usersFile), err)
	}
	l.credentials.users = users
	return nil
}

// parseUsers reads public nkeys by role.
func parseUsers(data []byte) (map[forager.Role][]string, error) {
	var users map[forager.Role][]string
	if err := json.Unmarshal(data, &users); err != nil {
		return nil, fmt.Errorf("want a JSON object of roles with lists of public nkeys: %w", err)
	}
	seen := map[string]forager.Role{}
	for role, keys := range users {
		if !slices.Contains(Roles(), role) {
			return nil, fmt.Errorf("%q is no role: want one of %s", role, list(Roles()))
		}
		for _, key := range keys {
			if !nkeys.IsValidPublicUserKey(key) {
				return nil, fmt.Errorf("key %q of %s is no public nkey of a user", key, role)
			}
			if other, twice := seen[key]; twice {
				return nil, fmt.Errorf("key %s is that of %s and of %s", key, other, role)
			}
			seen[key] = role
		}
	}
	if len(seen) == 0 {
		return nil, errors.New("it lets nobody in")
	}
	return users, nil
}

// parseCertificates reads PEM.
func parseCertificates(data []byte) ([]*x509.Certificate, error) {
	var certificates []*x509.Certificate
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		certificates = append(certificates, c)
	}
	if len(certificates) == 0 {
		return nil, errors.New("it holds no certificate in PEM form")
	}
	return certificates, nil
}

// Roles are those that can have credentials.
func Roles() []forager.Role { return append(forager.Roles(), forager.RoleOperator) }

func list(roles []forager.Role) string {
	names := make([]string, len(roles))
	for i, r := range roles {
		names[i] = string(r)
	}
	return strings.Join(names, ", ")
}

// Files names the files of a role's folder.
func Files(role forager.Role) []string {
	if role == forager.RoleNATS {
		return []string{authorityFile, certificateFile, keyFile, tokenFile, usersFile}
	}
	return []string{authorityFile, certificateFile, keyFile, tokenFile, seedFile}
}
