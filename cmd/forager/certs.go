package main

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/forager-rl/forager"
	"github.com/forager-rl/forager/bus"
	"github.com/forager-rl/forager/internal/wholefile"
	"github.com/forager-rl/forager/security"
)

// certsOptions are the flags of "forager certs".
type certsOptions struct {
	out, run, mount, namespace string
	hosts                      []string
	validity, authority        time.Duration
}

func (a *app) certs() *cobra.Command {
	cmd := &cobra.Command{
		Use: "certs", Short: "Make credentials for the processes of a cluster", Args: noArgs,
		Long: `Make an authority, and for each role a folder with certificate, key for the bus and
token: what security.dir of its processes names. What is there and valid stays, so
that the command can be run again at any time, for more hosts or when certificates
end.

The authority is for development: its key lies beside what it signs. See
docs/security.md for what each file is, and for how to replace them.`,
		Example: `  forager certs --out certs --host trainer.example --host cluster=node-1.example
  forager certs --out certs --run trial                      # with certs/nats/nats.conf for nats-server
  forager certs --out certs --kubernetes rl | kubectl apply -f -`,
	}
	var o certsOptions
	flags := cmd.Flags()
	flags.StringVar(&o.out, "out", "", "`folder` to make them in")
	flags.StringArrayVar(&o.hosts, "host", nil, "`name` or address that certificates hold as well; ROLE=NAME for one role (repeatable)")
	flags.DurationVar(&o.validity, "validity", 365*24*time.Hour, "how `long` certificates are valid")
	flags.DurationVar(&o.authority, "ca-validity", 10*365*24*time.Hour, "how `long` the authority is valid")
	flags.StringVar(&o.run, "run", "", "`name` of the run that nats.conf is for (default run.id of the settings)")
	flags.StringVar(&o.mount, "mount", "", "`folder` at which nats-server finds its credentials, for nats.conf (default OUT/nats, for Kubernetes /certs)")
	flags.StringVar(&o.namespace, "kubernetes", "", "print Secrets for this `namespace`, one for each role: what is printed is secret")
	cmd.RunE = func(*cobra.Command, []string) error {
		cfg, err := (sources{}).load()
		if err != nil {
			return err
		}
		if o.run == "" {
			o.run = cfg.Run.ID
		}
		if o.namespace == "" {
			return o.make(a.stdout)
		}
		if err := o.make(a.stderr); err != nil {
			return err
		}
		return o.secrets(a.stdout)
	}
	return cmd
}

var namespaceName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

// make makes what is missing and says so, without telling what it is.
func (o *certsOptions) make(out io.Writer) error {
	if o.out == "" {
		return usageError{errors.New("no folder given; name one with --out")}
	}
	if o.namespace != "" && !namespaceName.MatchString(o.namespace) {
		return usageError{fmt.Errorf("--kubernetes: %q is no name of a namespace", o.namespace)}
	}
	hosts, err := o.hostsByRole()
	if err != nil {
		return err
	}
	written, err := security.Issue(security.IssueOptions{
		Dir: o.out, Hosts: hosts, Validity: o.validity, AuthorityValidity: o.authority, Now: time.Now(),
	})
	if err != nil {
		return err
	}
	if o.run != "" {
		path, err := o.serverConfig()
		if err != nil {
			return err
		}
		written = append(written, path)
	}
	if len(written) == 0 {
		fmt.Fprintf(out, "everything in %s is valid: nothing to do\n", o.out)
	}
	for len(written) > 0 { // one line for each folder
		folder, names := filepath.Dir(written[0]), ""
		for len(written) > 0 && filepath.Dir(written[0]) == folder {
			names, written = names+" "+filepath.Base(written[0]), written[1:]
		}
		fmt.Fprintf(out, "%s:%s\n", folder, names)
	}
	return nil
}

// hostsByRole reads --host, and adds the names that Services of Kubernetes have.
func (o *certsOptions) hostsByRole() (map[forager.Role][]string, error) {
	hosts := map[forager.Role][]string{}
	for _, h := range o.hosts {
		role, name, of := strings.Cut(h, "=")
		if !of {
			role, name = "", h
		} else if role == "" || name == "" {
			return nil, usageError{fmt.Errorf("--host %q: write it as NAME or ROLE=NAME", h)}
		}
		hosts[forager.Role(role)] = append(hosts[forager.Role(role)], name)
	}
	if o.namespace == "" {
		return hosts, nil
	}
	for _, role := range security.Roles() {
		for _, service := range []string{string(role), "forager-" + string(role)} {
			for _, name := range []string{service, service + "." + o.namespace, service + "." + o.namespace + ".svc", service + "." + o.namespace + ".svc.cluster.local"} {
				hosts[role] = append(hosts[role], name, "*."+name) // the pods of a StatefulSet have names below it
			}
		}
	}
	return hosts, nil
}

// serverConfig writes nats.conf beside the credentials of the nats role.
func (o *certsOptions) serverConfig() (string, error) {
	folder := filepath.Join(o.out, string(forager.RoleNATS))
	nats, err := security.Load(folder)
	if err != nil {
		return "", err
	}
	mount := o.mount
	switch {
	case mount != "":
	case o.namespace != "":
		mount = "/certs"
	default:
		if mount, err = filepath.Abs(folder); err != nil {
			return "", err
		}
	}
	text, err := bus.ServerConfig(o.run, mount, nats.Users())
	if err != nil {
		return "", err
	}
	path := filepath.Join(folder, serverConfigFile)
	return path, wholefile.Write(path, func(f *os.File) error {
		_, err := f.Write(text)
		return err
	})
}

const serverConfigFile = "nats.conf"

// secrets writes the folders as Secrets.
func (o *certsOptions) secrets(out io.Writer) error {
	for _, role := range security.Roles() {
		fmt.Fprintf(out, `---
apiVersion: v1
kind: Secret
metadata:
  name: forager-%s
  namespace: %s
  labels:
    app.kubernetes.io/part-of: forager
    app.kubernetes.io/component: %s
type: Opaque
data:
`, role, o.namespace, role)
		files := security.Files(role)
		if role == forager.RoleNATS && o.run != "" {
			files = append(files, serverConfigFile)
		}
		for _, name := range files {
			data, err := os.ReadFile(filepath.Join(o.out, string(role), name))
			if err != nil {
				return err
			}
			if _, err := fmt.Fprintf(out, "  %s: %s\n", name, base64.StdEncoding.EncodeToString(data)); err != nil {
				return err
			}
		}
	}
	return nil
}
