package check

import (
	"fmt"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"
)

// Role is what a container of the image is told: its command and variables.
type Role struct {
	Command string
	Env     map[string]string
	Ports   []int // that it declares; nil when the format has none
}

// Network says which ports can be reached under a host name.
type Network map[string][]int

// Wiring reports roles whose listeners, declared ports and addresses of others do
// not agree, or whose variables are no settings.
func Wiring(roles map[string]Role, network Network, settings map[string]bool) (bad []string) {
	for _, name := range sorted(roles) {
		role := roles[name]
		report := func(format string, args ...any) { bad = append(bad, name+": "+fmt.Sprintf(format, args...)) }
		for _, unknown := range Unknown(settings, sorted(role.Env)) {
			report("variable %s is no setting", unknown)
		}
		for _, variable := range []string{"FORAGER_ADMIN_LISTEN", "FORAGER_BUS_LISTEN", "FORAGER_CLUSTER_LISTEN", "FORAGER_SEARCH_SERVER_LISTEN", "FORAGER_REPLAY_FLIGHT_LISTEN"} {
			address, given := role.Env[variable]
			if !given {
				continue
			}
			host, port, err := splitPort(address)
			switch {
			case err != nil:
				report("%s: %v", variable, err)
			case host != "0.0.0.0":
				report("%s is %s, which others do not reach", variable, address)
			case role.Ports != nil && !slices.Contains(role.Ports, port):
				report("%s is %s, and the container declares no such port", variable, address)
			}
		}
		for _, variable := range []string{"FORAGER_BUS_URL", "FORAGER_SEARCH_CLIENT_URL"} {
			if address := role.Env[variable]; address != "" {
				if err := network.reach(address); err != nil {
					report("%s: %v", variable, err)
				}
			}
		}
		if role.Command == "cluster" {
			for _, problem := range voter(role, network) {
				report("%s", problem)
			}
		}
		if role.Command == "nats" && role.Env["FORAGER_BUS_URL"] != "" {
			report("carries the bus and is told to join one")
		}
	}
	return bad
}

// voter reports what is wrong with the list of voters and this one's place in it.
func voter(role Role, network Network) (bad []string) {
	var peers []string
	if err := yaml.Unmarshal([]byte(role.Env["FORAGER_CLUSTER_PEERS"]), &peers); err != nil {
		return []string{"FORAGER_CLUSTER_PEERS is no list: " + err.Error()}
	}
	if role.Env["FORAGER_CLUSTER_JOIN"] == "true" { // it asks the group where the others are
		return nil
	}
	if len(peers)%2 == 0 {
		bad = append(bad, fmt.Sprintf("%d voters: an odd number is wanted", len(peers)))
	}
	id := role.Env["FORAGER_CLUSTER_NODE_ID"]
	found := false
	for _, peer := range peers {
		name, address, _ := strings.Cut(peer, "=")
		if err := network.reach("raft://" + address); err != nil {
			bad = append(bad, fmt.Sprintf("voter %s: %v", name, err))
		}
		if name == id {
			found = true
			if own := role.Env["FORAGER_CLUSTER_ADVERTISE"]; own != address {
				bad = append(bad, fmt.Sprintf("advertises %s, and is a voter at %s", own, address))
			}
		}
	}
	if !found {
		bad = append(bad, fmt.Sprintf("%s is not among the voters %v", id, peers))
	}
	return bad
}

func (n Network) reach(address string) error {
	u, err := url.Parse(address)
	if err != nil {
		return err
	}
	port, err := strconv.Atoi(u.Port())
	if err != nil {
		return fmt.Errorf("%s has no port", address)
	}
	ports, known := n[u.Hostname()]
	switch {
	case !known:
		return fmt.Errorf("there is no host %s", u.Hostname())
	case !slices.Contains(ports, port):
		return fmt.Errorf("host %s has no port %d", u.Hostname(), port)
	}
	return nil
}

func splitPort(address string) (host string, port int, err error) {
	host, text, err := net.SplitHostPort(address)
	if err != nil {
		return "", 0, err
	}
	port, err = strconv.Atoi(text)
	return host, port, err
}

// KubernetesRoles reads the roles and the network off rendered objects. The pods
// of a StatefulSet are roles and hosts of their own.
func KubernetesRoles(objects []Object) (map[string]Role, Network) {
	roles, network := map[string]Role{}, Network{}
	configs := map[string]map[string]string{}
	for _, o := range objects {
		switch t := o.Object.(type) {
		case *corev1.ConfigMap:
			configs[t.Name] = t.Data
		case *corev1.Service:
			for _, p := range t.Spec.Ports {
				network[t.Name] = append(network[t.Name], int(p.Port))
			}
		}
	}
	for _, o := range objects {
		template, _, ok := o.Pods()
		if !ok {
			continue
		}
		for _, c := range template.Spec.Containers {
			for _, pod := range podNames(o) {
				role := Role{Env: map[string]string{}, Ports: []int{}}
				if len(c.Args) > 0 {
					role.Command = c.Args[0]
				}
				for _, from := range c.EnvFrom {
					if from.ConfigMapRef != nil {
						for name, value := range configs[from.ConfigMapRef.Name] {
							role.Env[name] = value
						}
					}
				}
				expanded := []string{}
				for _, e := range c.Env {
					value := e.Value
					if e.ValueFrom != nil && e.ValueFrom.FieldRef != nil && e.ValueFrom.FieldRef.FieldPath == "metadata.name" {
						value = pod.name
					}
					value = strings.NewReplacer(expanded...).Replace(value)
					role.Env[e.Name] = value
					expanded = append(expanded, "$("+e.Name+")", value)
				}
				for _, p := range c.Ports {
					role.Ports = append(role.Ports, int(p.ContainerPort))
				}
				roles[o.String()+" "+pod.name] = role
				if pod.host != "" {
					network[pod.host] = role.Ports
				}
			}
		}
	}
	return roles, network
}

// podName is a pod by its own name and, in a StatefulSet, its host name.
type podName struct{ name, host string }

func podNames(o Object) (names []podName) {
	set, ok := o.Object.(*appsv1.StatefulSet)
	if !ok {
		return []podName{{name: o.GetName() + "-pod"}}
	}
	for i := range *set.Spec.Replicas {
		name := fmt.Sprintf("%s-%d", set.Name, i)
		names = append(names, podName{name: name, host: name + "." + set.Spec.ServiceName})
	}
	return names
}

func sorted[V any](m map[string]V) []string {
	var keys []string
	for key := range m {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}
