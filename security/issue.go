package security

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"time"

	"github.com/nats-io/nkeys"

	"github.com/forager-rl/forager"
	"github.com/forager-rl/forager/internal/wholefile"
)

// IssueOptions say what to make.
type IssueOptions struct {
	// Dir gets a folder ca with the authority and one for each role.
	Dir string
	// Hosts are the names and addresses, by role, that certificates hold beside the
	// role's own name, forager-<role> and loopback; those under "" are for all roles.
	Hosts map[forager.Role][]string
	// Validity is how long a certificate is valid; the authority is AuthorityValidity.
	Validity, AuthorityValidity time.Duration
	Now                         time.Time
}

// renewBefore is how long before its end a certificate is made anew.
const renewBefore = endsSoon

const (
	authorityDir    = "ca"
	authoritySecret = "ca.key" // the name of a file
)

// Issue makes an authority and the credentials of every role. What is there, valid
// for two more weeks and of the same authority stays as it is: only what is missing,
// ends soon or lacks a host is made. It gives the paths of the files that it wrote.
//
// Keys of the bus are only ever added to those that the nats role lets in. Once all
// processes have new ones, delete its nats-users.json and call Issue again.
func Issue(o IssueOptions) ([]string, error) {
	i := issuer{IssueOptions: o}
	if err := i.check(); err != nil {
		return nil, err
	}
	if err := i.issue(); err != nil {
		return i.written, fmt.Errorf("make credentials in %s: %w", o.Dir, err)
	}
	return i.written, nil
}

type issuer struct {
	IssueOptions
	authority *authority
	token     []byte
	written   []string
}

var hostName = regexp.MustCompile(`^(\*\.)?[A-Za-z0-9_:]([A-Za-z0-9_.:-]{0,251}[A-Za-z0-9_:])?$`)

func (i *issuer) check() error {
	if i.Dir == "" {
		return errors.New("credentials: no folder to make them in")
	}
	if i.Validity <= renewBefore || i.AuthorityValidity < i.Validity {
		return fmt.Errorf("credentials: certificates are valid %v and the authority %v: want more than %v, and the authority not less", i.Validity, i.AuthorityValidity, renewBefore)
	}
	for role, hosts := range i.Hosts {
		if role != "" && !slices.Contains(Roles(), role) {
			return fmt.Errorf("credentials: hosts of %q, which is no role: want one of %s", role, list(Roles()))
		}
		for _, h := range hosts {
			if !hostName.MatchString(h) {
				return fmt.Errorf("credentials: %q is neither the name of a host nor an address", h)
			}
		}
	}
	return nil
}

func (i *issuer) issue() error {
	if err := os.MkdirAll(filepath.Join(i.Dir, authorityDir), 0o700); err != nil {
		return err
	}
	if err := i.findAuthority(); err != nil {
		return err
	}
	if err := i.findToken(); err != nil {
		return err
	}
	users := map[forager.Role][]string{}
	for _, role := range Roles() {
		if err := os.MkdirAll(i.path(role), 0o755); err != nil {
			return err
		}
		if err := i.issueRole(role, users); err != nil {
			return fmt.Errorf("%s: %w", role, err)
		}
	}
	return i.updateUsers(users)
}

// path is a file in a role's folder.
func (i *issuer) path(role forager.Role, name ...string) string {
	return filepath.Join(append([]string{i.Dir, string(role)}, name...)...)
}

// findAuthority reads the authority, or makes it. One that ends soon is not
// replaced silently, since that replaces everything.
func (i *issuer) findAuthority() error {
	certificate, key := i.path(authorityDir, authorityFile), i.path(authorityDir, authoritySecret)
	data, err := os.ReadFile(certificate)
	if errors.Is(err, fs.ErrNotExist) {
		var secret []byte
		if i.authority, secret, err = newAuthority(i.Now, i.AuthorityValidity); err != nil {
			return err
		}
		// The key first: a certificate without it could not be used.
		return errors.Join(i.write(key, secret, true), i.write(certificate, i.authority.pem, false))
	}
	if err != nil {
		return err
	}
	secret, err := os.ReadFile(key)
	if err != nil {
		return err
	}
	if i.authority, err = parseAuthority(data, secret); err != nil {
		return fmt.Errorf("authority in %s: %w", i.path(authorityDir), err)
	}
	if ends := i.authority.certificate.NotAfter; ends.Before(i.Now.Add(i.Validity)) {
		return forager.WithHint(fmt.Errorf("the authority %s expires on %s, before certificates made now would", certificate, ends.UTC().Format(dateLayout)),
			"ask for a shorter --validity, or delete the folder to begin anew with new credentials everywhere")
	}
	return nil
}

// findToken reads the token that all share, or makes it.
func (i *issuer) findToken() error {
	path := i.path(authorityDir, tokenFile)
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		i.token = []byte(rand.Text() + "\n")
		return i.write(path, i.token, true)
	}
	i.token = data
	return err
}

// issueRole makes sure of the files of a role and notes its key among the users.
func (i *issuer) issueRole(role forager.Role, users map[forager.Role][]string) error {
	if err := i.same(i.path(role, authorityFile), i.authority.pem, false); err != nil {
		return err
	}
	if err := i.same(i.path(role, tokenFile), i.token, true); err != nil {
		return err
	}
	held, usable := i.held(role)
	hosts := i.hosts(role, held)
	if !usable || len(hosts) > len(held) {
		certificate, key, err := i.authority.issue(role, hosts, i.Now, i.Validity)
		if err != nil {
			return err
		}
		if err := errors.Join(i.write(i.path(role, keyFile), key, true), i.write(i.path(role, certificateFile), certificate, false)); err != nil {
			return err
		}
	}
	if role == forager.RoleNATS {
		return nil
	}
	public, err := i.findSeed(role)
	if err != nil {
		return err
	}
	users[role] = []string{public}
	return nil
}

// hosts are the names that a role's certificate is to hold: those that it has are
// kept.
func (i *issuer) hosts(role forager.Role, held []string) []string {
	hosts := append([]string{string(role), "forager-" + string(role), "localhost", "127.0.0.1", "::1"}, held...)
	for _, h := range append(slices.Clone(i.Hosts[""]), i.Hosts[role]...) {
		if ip := net.ParseIP(h); ip != nil {
			h = ip.String() // as certificates give it back
		}
		hosts = append(hosts, h)
	}
	slices.Sort(hosts)
	return slices.Compact(hosts)
}

// held gives the names that a role's certificate holds, and whether it can stay.
func (i *issuer) held(role forager.Role) (names []string, usable bool) {
	certificate, err := os.ReadFile(i.path(role, certificateFile))
	if err != nil {
		return nil, false
	}
	c, err := parseOne(certificate)
	if err != nil || c.CheckSignatureFrom(i.authority.certificate) != nil || c.Subject.CommonName != string(role) {
		return nil, false
	}
	names = slices.Clone(c.DNSNames)
	for _, ip := range c.IPAddresses {
		names = append(names, ip.String())
	}
	data, err := os.ReadFile(i.path(role, keyFile))
	if err != nil {
		return names, false
	}
	key, err := decodeKey(data)
	return names, err == nil && key.PublicKey.Equal(c.PublicKey) && c.NotAfter.After(i.Now.Add(renewBefore))
}

// findSeed reads the nkey of a role, or makes it, and gives its public part.
func (i *issuer) findSeed(role forager.Role) (string, error) {
	path := i.path(role, seedFile)
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		key, err := nkeys.CreateUser()
		if err != nil {
			return "", err
		}
		if data, err = key.Seed(); err != nil {
			return "", err
		}
		if err := i.write(path, append(data, '\n'), true); err != nil {
			return "", err
		}
	} else if err != nil {
		return "", err
	}
	public, err := publicKey(bytes.TrimSpace(data))
	if err != nil {
		return "", fmt.Errorf("%s: %w", path, err)
	}
	return public, nil
}

// updateUsers adds the keys to those that the nats role lets in.
func (i *issuer) updateUsers(users map[forager.Role][]string) error {
	path := i.path(forager.RoleNATS, usersFile)
	data, err := os.ReadFile(path)
	if err == nil {
		known, err := parseUsers(data)
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		for role, keys := range known {
			for _, key := range keys {
				if !slices.Contains(users[role], key) {
					users[role] = append(users[role], key)
				}
			}
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, keys := range users {
		slices.Sort(keys)
	}
	text, err := json.MarshalIndent(users, "", "  ")
	if err != nil {
		return err
	}
	return i.same(path, append(text, '\n'), false)
}

// same writes a file unless it is there with that content.
func (i *issuer) same(path string, data []byte, private bool) error {
	if old, err := os.ReadFile(path); err == nil && bytes.Equal(old, data) {
		return nil
	}
	return i.write(path, data, private)
}

func (i *issuer) write(path string, data []byte, private bool) error {
	write := wholefile.Write
	if private {
		write = wholefile.WritePrivate
	}
	err := write(path, func(f *os.File) error {
		_, err := f.Write(data)
		return err
	})
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	i.written = append(i.written, path)
	return nil
}
