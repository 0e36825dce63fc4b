package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/forager-rl/forager"
	"github.com/forager-rl/forager/security"
)

// healthWait bounds the question of a health check.
const healthWait = 5 * time.Second

// Health asks the admin server of a process whether the process is alive or, with
// ready, whether its roles can be used. The credentials are those of the process
// itself. It gives what the process says, and an error when it is not so.
func Health(ctx context.Context, cfg security.Config, address string, ready bool) (string, error) {
	credentials, err := security.Load(cfg.Dir)
	if err != nil {
		return "", err
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil || port == "0" {
		return "", forager.WithHint(fmt.Errorf("admin server at %q: no address of a process", address), "name it with --address HOST:PORT, or set admin.listen")
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1" // a process that listens everywhere listens here
	}
	path := "/healthz"
	if ready {
		path = "/readyz"
	}
	return askAdmin(ctx, credentials, webAddress(credentials, net.JoinHostPort(host, port))+path)
}

// askAdmin is the client of the admin server of a process with the same
// credentials, which is known by its role: its certificate need not hold the
// address at which it is asked.
func askAdmin(ctx context.Context, c *security.Credentials, url string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, healthWait)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	if c != nil {
		transport.TLSClientConfig = c.Client()
		transport.TLSClientConfig.ServerName = string(c.Role())
		request.Header.Set("Authorization", "Bearer "+c.Token())
	}
	response, err := (&http.Client{Transport: transport}).Do(request)
	if err != nil {
		return "", fmt.Errorf("admin server does not answer: %w", err)
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(response.Body, 4<<10))
	if err != nil {
		return "", fmt.Errorf("admin server at %s: %w", url, err)
	}
	text := strings.Join(strings.Fields(string(body)), " ")
	if response.StatusCode != http.StatusOK {
		return "", errors.New(text)
	}
	return text, nil
}
