package cluster

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/forager-rl/forager"
)

// presence knows which instance of each node there are connections with, in
// either direction: two instances of one node at a time are two nodes with one id.
type presence struct {
	mu   sync.Mutex
	live map[string]*instance
}

type instance struct {
	id          string
	connections int
}

// enter counts a connection with an instance of a node. While another instance
// is connected it gives that one's id instead.
func (p *presence) enter(node, id string) (leave func(), other string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.live == nil {
		p.live = map[string]*instance{}
	}
	known := p.live[node]
	switch {
	case known == nil:
		known = &instance{id: id}
		p.live[node] = known
	case known.id != id:
		return nil, known.id
	}
	known.connections++
	return sync.OnceFunc(func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if known.connections--; known.connections == 0 {
			delete(p.live, node)
		}
	}), ""
}

// instanceFile holds the random name of a Raft directory.
const instanceFile = "instance"

// openInstance reads the name of a directory, and makes one in a new directory.
func openInstance(dir string) (string, error) {
	path := filepath.Join(dir, instanceFile)
	data, err := os.ReadFile(path)
	id := strings.TrimSpace(string(data))
	switch {
	case err == nil && isName(id) && len(id) <= maxNameBytes:
		return id, nil
	case err == nil && id != "":
		return "", forager.WithHint(fmt.Errorf("name of the raft directory in %s: %w", path, forager.ErrCorrupt), "remove the file: a new name is made")
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return "", fmt.Errorf("name of the raft directory: %w", err)
	}
	id = rand.Text()
	if err := os.WriteFile(path, []byte(id+"\n"), 0o644); err != nil {
		return "", fmt.Errorf("name of the raft directory: %w", err)
	}
	return id, nil
}
