package check

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/types"
)

// Compose loads compose files as "docker compose --profile '*'" does, with
// variables given as NAME=value.
func Compose(ctx context.Context, variables []string, files ...string) (*types.Project, error) {
	options, err := cli.NewProjectOptions(files, cli.WithName("forager"), cli.WithEnv(variables), cli.WithProfiles([]string{"*"}), cli.WithResolvedPaths(true))
	if err != nil {
		return nil, err
	}
	return options.LoadProject(ctx)
}

// ours says whether a service runs Forager's image: it is told where the run is.
func ours(s types.ServiceConfig) bool { _, ok := s.Environment["FORAGER_RUN_ROOT"]; return ok }

// ComposeRoles reads the roles and the network off a compose project. Containers
// reach each other's ports without declaring them, so hosts have the ports that
// their roles listen on.
func ComposeRoles(p *types.Project) (map[string]Role, Network) {
	roles, network := map[string]Role{}, Network{}
	for name, s := range p.Services {
		if !ours(s) {
			continue
		}
		role := Role{Env: map[string]string{}}
		if len(s.Command) > 0 {
			role.Command = s.Command[0]
		}
		for key, value := range s.Environment {
			if value != nil && *value != "" {
				role.Env[key] = *value
			}
		}
		roles[name] = role
		for key, value := range role.Env {
			if strings.HasSuffix(key, "_LISTEN") {
				if _, port, err := splitPort(value); err == nil {
					network[name] = append(network[name], port)
				}
			}
		}
	}
	return roles, network
}

// ComposeHygiene reports services that are less shut in than they could be, or
// that wait for nobody's health.
func ComposeHygiene(p *types.Project) (bad []string) {
	for _, name := range slices.Sorted(maps.Keys(p.Services)) {
		s := p.Services[name]
		report := func(format string, args ...any) { bad = append(bad, name+": "+fmt.Sprintf(format, args...)) }
		if strings.HasSuffix(s.Image, ":latest") || !strings.Contains(s.Image, ":") {
			report("image %s may be another one tomorrow", s.Image)
		}
		if s.MemLimit == 0 {
			report("has no limit of memory")
		}
		if !slices.Contains(s.CapDrop, "ALL") || s.Privileged || len(s.CapAdd) > 0 {
			report("keeps capabilities")
		}
		if !slices.Contains(s.SecurityOpt, "no-new-privileges:true") {
			report("may gain privileges")
		}
		if s.ContainerName != "" {
			report("has a fixed name, so it cannot be scaled")
		}
		for _, port := range s.Ports {
			if port.HostIP != "127.0.0.1" {
				report("publishes port %s beyond this machine", port.Published)
			}
		}
		if ours(s) {
			oursHygiene(s, strings.TrimRight(name, "-0123456789"), report)
		}
	}
	return bad
}

func oursHygiene(s types.ServiceConfig, role string, report func(string, ...any)) {
	if user, _, _ := strings.Cut(s.User, ":"); user == "" || user == "0" || strings.Trim(user, "0123456789") != "" {
		report("runs as %q, want a number that is not root's", s.User)
	}
	if !s.ReadOnly {
		report("may write to its root file system")
	}
	if s.CPUS == 0 {
		report("has no limit of processors")
	}
	if s.StopGracePeriod == nil || s.StopGracePeriod.String() < "45s" {
		report("is killed before roles had admin.stop_timeout (30 s) to end")
	}
	stays := s.Restart != "no"
	if stays && (s.HealthCheck == nil || s.HealthCheck.Disable) {
		report("nobody asks for its health")
	}
	credentials := 0
	for _, v := range s.Volumes {
		if v.Target == "/certs" {
			credentials++
			if !v.ReadOnly {
				report("may change its credentials")
			}
		}
	}
	if stays && credentials != 1 {
		report("has %d folders of credentials, want its own", credentials)
	}
	if stays && !slices.ContainsFunc(s.Volumes, func(v types.ServiceVolumeConfig) bool { return v.Source == "certs-"+role }) {
		report("does not have the credentials of %s", role)
	}
}
