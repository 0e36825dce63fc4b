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
		return "", fmt.Errorf("docker %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(complaint.String()))
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
		Config struct{ Labels map[string]string }
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
			})
		}
	}
	slices.SortFunc(list, func(a, b container) int {
		return strings.Compare(a.Service+a.ID, b.Service+b.ID)
	})
	return list, nil
}

// leader is the service that leads the Raft group, as another node tells it.
func (c composition) leader(ctx context.Context, voters []container) (string, error) {
	var errs []error
	for _, voter := range voters {
		text, err := docker(ctx, "exec", voter.ID, "/forager", "status", "--json")
		var status struct {
			Raft struct {
				Leader string `json:"leader"`
			} `json:"raft"`
		}
		if jsonErr := json.Unmarshal([]byte(text), &status); jsonErr == nil && status.Raft.Leader != "" {
			return status.Raft.Leader, nil
		}
		errs = append(errs, err)
	}
	return "", errors.Join(append(errs, errors.New("no voter knows a leader"))...)
}
