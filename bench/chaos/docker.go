package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"time"
)

// composition is the containers of a compose project, by the docker command.
type composition struct{ project string }

// container is one of them.
type container struct {
	ID      string
	Service string
	PID     int // of its process on the host; 0 when it does not run
	Running bool
	Ended   bool // by itself, without an error
	Image   string
	Env     []string
}

// dockerWait bounds one docker command.
const dockerWait = time.Minute

func docker(ctx context.Context, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, dockerWait)
	defer cancel()
	cmd := exec.CommandContext(ctx, "docker", args...)
	var out, complaint bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaint
	if err := cmd.Run(); err != nil {
		return strings.TrimSpace(out.String()), fmt.Errorf("docker %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(complaint.String()))
	}
	return strings.TrimSpace(out.String()), nil
}

// containers lists the containers of the roles, stopped ones too.
func (c composition) containers(ctx context.Context, services []string) ([]container, error) {
	ids, err := docker(ctx, "ps", "-aq", "--no-trunc", "--filter", "label=com.docker.compose.project="+c.project)
	if err != nil || ids == "" {
		return nil, errors.Join(err, fmt.Errorf("project %s has no containers", c.project))
	}
	text, err := docker(ctx, append([]string{"inspect"}, strings.Fields(ids)...)...)
	if err != nil {
		return nil, err
	}
	var all []struct {
		ID    string `json:"Id"`
		State struct {
			Pid      int
			Running  bool
			Status   string
			ExitCode int
		}
		Config struct {
			Labels map[string]string
			Image  string
			Env    []string
		}
	}
	if err := json.Unmarshal([]byte(text), &all); err != nil {
		return nil, err
	}
	var list []container
	for _, one := range all {
		service := one.Config.Labels["com.docker.compose.service"]
		if slices.Contains(services, service) {
			list = append(list, container{
				ID: one.ID, Service: service, PID: one.State.Pid, Running: one.State.Running,
				Ended: one.State.Status == "exited" && one.State.ExitCode == 0,
				Image: one.Config.Image, Env: one.Config.Env,
			})
		}
	}
	slices.SortFunc(list, func(a, b container) int {
		return strings.Compare(a.Service+a.ID, b.Service+b.ID)
	})
	return list, nil
}

// leader is the service that leads the Raft group. The operator's credentials are
// in a volume of their own, so it is a container like the voters', with these, that asks.
func (c composition) leader(ctx context.Context, voter container) (string, error) {
	args := []string{"run", "--rm", "--network", c.project + "_default", "-v", c.project + "_certs-operator:/certs:ro"}
	for _, variable := range voter.Env {
		if strings.HasPrefix(variable, "FORAGER_") {
			args = append(args, "-e", variable)
		}
	}
	text, err := docker(ctx, append(args, voter.Image, "status", "--json")...)
	var status struct {
		Raft struct {
			Leader string `json:"leader"`
		} `json:"raft"`
	}
	if text == "" { // an unhealthy run is told by the exit code, and still told
		return "", err
	}
	if err := json.Unmarshal([]byte(text), &status); err != nil {
		return "", fmt.Errorf("status: %w", err)
	}
	if status.Raft.Leader == "" {
		return "", errors.New("no voter knows a leader")
	}
	return status.Raft.Leader, nil
}
