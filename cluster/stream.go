package cluster

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
)

// The bounds of connections between nodes.
const (
	handshakeWait    = 5 * time.Second // for a whole handshake
	maxHandshakes    = 32              // at once; more are refused
	acceptPause      = 50 * time.Millisecond
	keepAliveIdle    = 5 * time.Second // a host that is gone is noticed after about 11 s
	keepAliveEvery   = 2 * time.Second
	keepAliveUnheard = 3
)

// layer implements raft.StreamLayer: connections between the nodes of one group,
// each opened by a handshake that keeps strangers, mistaken addresses and two
// nodes with one id apart.
type layer struct {
	identity

	advertised string
	listener   net.Listener
	security   *tls.Config // nil: plain connections
	log        *slog.Logger
	now        func() time.Time
	limiter    *limiter
	// nodeAt gives the node of the group that has an address.
	nodeAt func(raft.ServerAddress) (string, bool)

	presence presence
	refused  map[reason]*atomic.Uint64

	ready      chan net.Conn   // admitted, for Accept
	handshakes chan struct{}   // those under way
	ctx        context.Context //nolint:containedctx // raft.StreamLayer's calls carry none; it ends with Close
	cancel     context.CancelFunc
	running    sync.WaitGroup

	mu     sync.Mutex
	open   map[net.Conn]struct{}
	closed bool
}

// start serves the listener. Close ends it.
func (l *layer) start() {
	l.limiter = newLimiter(l.now)
	l.refused = map[reason]*atomic.Uint64{}
	for _, r := range reasons() {
		l.refused[r] = new(atomic.Uint64)
	}
	l.ready, l.handshakes = make(chan net.Conn), make(chan struct{}, maxHandshakes)
	l.open = map[net.Conn]struct{}{}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	l.running.Go(l.serve)
}

// serve takes connections until the listener is closed.
func (l *layer) serve() {
	for {
		conn, err := l.listener.Accept()
		if err != nil {
			select {
			case <-l.ctx.Done():
				return
			case <-time.After(acceptPause): // such as no free file descriptor
			}
			if l.limiter.allow("accept") {
				l.log.Warn("accept a raft connection: it is tried again", "error", err)
			}
			continue
		}
		select {
		case l.handshakes <- struct{}{}:
			l.running.Go(func() {
				l.admit(conn)
				<-l.handshakes
			})
		default:
			l.count(conn, refuse(refusedTooMany, "%d handshakes are under way", maxHandshakes))
			_ = conn.Close()
		}
	}
}

// admit does the acceptor's side of the handshake and hands the connection to
// Raft, or closes it.
func (l *layer) admit(raw net.Conn) {
	conn := l.track(raw)
	if conn == nil {
		return
	}
	var h hello
	err := conn.SetDeadline(time.Now().Add(handshakeWait))
	if err == nil {
		err = l.secure(conn)
	}
	if err == nil {
		err = readMessage(conn, &h)
	}
	if err == nil {
		err = l.enter(conn, h.From, h.Instance, l.check(h))
	}
	if err != nil {
		l.turnAway(conn, err)
		_ = conn.Close()
		return
	}
	err = writeMessage(conn, welcome{Version: handshakeVersion, Instance: l.instance})
	if err = errors.Join(err, conn.SetDeadline(time.Time{})); err != nil {
		_ = conn.Close()
		return
	}
	select {
	case l.ready <- conn:
	case <-l.ctx.Done():
		_ = conn.Close()
	case <-time.After(handshakeWait): // Raft does not accept
		_ = conn.Close()
	}
}

// secure does the acceptor's side of TLS, if there is to be any.
func (l *layer) secure(conn *connection) error {
	if l.security == nil {
		return nil
	}
	plain := conn.Conn
	secure := tls.Server(plain, l.security)
	conn.Conn = secure
	err := secure.HandshakeContext(l.ctx)
	if wrong, ok := errors.AsType[tls.RecordHeaderError](err); ok && wrong.Conn != nil {
		conn.Conn = plain // the answer must be readable to who speaks no TLS
	}
	return err
}

// enter counts a connection with an instance of a node, unless it was refused
// already or another instance is connected.
func (l *layer) enter(conn *connection, node, instance string, refused *refusal) error {
	if refused != nil {
		return refused
	}
	leave, other := l.presence.enter(node, instance)
	if leave == nil {
		return refuse(refusedInstance, "two nodes have the id %q (directories %.8s and %.8s): give each its own cluster.node_id", node, other, instance)
	}
	conn.leave = leave
	return nil
}

// turnAway counts a refused connection and tells the dialler why. Who says
// nothing at all, such as a probe of the port, is let go.
func (l *layer) turnAway(conn net.Conn, err error) {
	if l.ctx.Err() != nil || errors.Is(err, io.EOF) {
		return
	}
	r, ok := errors.AsType[*refusal](l.explain(err))
	if !ok {
		r = refuse(refusedMalformed, "handshake failed: %v", err)
	}
	l.count(conn, r)
	// Best effort: the dialler may be gone, or speak another protocol.
	_ = writeMessage(conn, welcome{Version: handshakeVersion, Instance: l.instance, Reason: r.reason, Text: r.text})
}

// count counts a refused connection, and logs each reason once a minute.
func (l *layer) count(conn net.Conn, r *refusal) {
	l.refused[r.reason].Add(1)
	if l.limiter.allow("refused " + r.text) {
		l.log.Warn("refused a raft connection", "from", conn.RemoteAddr().String(), "reason", r.reason, "error", r.text)
	}
}

// Dial implements raft.StreamLayer.
func (l *layer) Dial(address raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	node, ok := l.nodeAt(address)
	if !ok {
		return nil, fmt.Errorf("dial %s: no node of the group has this address", address)
	}
	ctx, cancel := context.WithTimeout(l.ctx, timeout)
	defer cancel()
	conn, err := l.dial(ctx, node, string(address))
	if err != nil {
		err = fmt.Errorf("connect to node %s at %s: %w", node, address, err)
		if r, ok := errors.AsType[*refusal](err); ok && l.limiter.allow("dial "+node+r.text) {
			l.log.Warn("a raft node is not reached", "node", node, "address", string(address), "reason", r.reason, "error", r.text)
		}
		return nil, err
	}
	return conn, nil
}

// dial does the dialler's side of the handshake.
func (l *layer) dial(ctx context.Context, node, address string) (net.Conn, error) {
	dialer := net.Dialer{KeepAliveConfig: keepAlive()}
	raw, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	conn := l.track(raw)
	if conn == nil {
		return nil, net.ErrClosed
	}
	if err := l.introduce(ctx, conn, node, address); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return conn, nil
}

// introduce says hello and takes in the answer.
func (l *layer) introduce(ctx context.Context, conn *connection, node, address string) error {
	deadline, _ := ctx.Deadline()
	if err := conn.SetDeadline(deadline); err != nil {
		return err
	}
	if l.security != nil {
		config := l.security.Clone()
		if config.ServerName == "" {
			config.ServerName, _, _ = net.SplitHostPort(address)
		}
		secure := tls.Client(conn.Conn, config)
		if err := secure.HandshakeContext(ctx); err != nil {
			return l.explain(err)
		}
		conn.Conn = secure
	}
	if err := writeMessage(conn, l.hello(node)); err != nil {
		return l.explain(err)
	}
	var w welcome
	if err := readMessage(conn, &w); err != nil {
		return l.explain(err)
	}
	switch {
	case w.Text != "":
		return refuse(w.Reason, "it refuses this node: %s", w.Text)
	case w.Version != handshakeVersion:
		return refuse(refusedProtocol, "it speaks version %d of the handshake, this node %d: run the same program on all nodes", w.Version, handshakeVersion)
	case !isName(w.Instance) || len(w.Instance) > maxNameBytes:
		return refuse(refusedMalformed, "it answered as instance %.128q: no such names exist", w.Instance)
	}
	if err := l.enter(conn, node, w.Instance, nil); err != nil {
		return err
	}
	return conn.SetDeadline(time.Time{})
}

// Accept implements net.Listener: it gives connections after their handshake.
func (l *layer) Accept() (net.Conn, error) {
	select {
	case conn := <-l.ready:
		return conn, nil
	case <-l.ctx.Done():
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener. It closes all connections as well, in both
// directions, and waits for the handshakes under way.
func (l *layer) Close() error {
	l.mu.Lock()
	first := !l.closed
	l.closed = true
	open := l.open
	l.open = nil
	l.mu.Unlock()
	if !first {
		return nil
	}
	l.cancel()
	err := l.listener.Close()
	for conn := range open {
		_ = conn.Close()
	}
	l.running.Wait()
	return err
}

// Addr implements net.Listener: the address that the others dial, by name.
func (l *layer) Addr() net.Addr { return advertisedAddr(l.advertised) }

type advertisedAddr string

func (advertisedAddr) Network() string  { return "tcp" }
func (a advertisedAddr) String() string { return string(a) }

// connection is one that the layer closes at its end. The embedded one changes
// to its secured form during the handshake.
type connection struct {
	net.Conn

	leave  func() // of presence, once the node is known
	forget func()
}

// track takes a connection into the layer, or closes it when the layer is closed.
func (l *layer) track(raw net.Conn) *connection {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		_ = raw.Close()
		return nil
	}
	l.open[raw] = struct{}{}
	return &connection{Conn: raw, forget: func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.open, raw)
	}}
}

// Read reads; the end of this side looks like the end of the other one.
func (c *connection) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if errors.Is(err, net.ErrClosed) {
		err = io.EOF
	}
	return n, err
}

// Close closes the connection; a second time does nothing more.
func (c *connection) Close() error {
	err := c.Conn.Close()
	c.forget()
	if c.leave != nil {
		c.leave()
	}
	return err
}

func keepAlive() net.KeepAliveConfig {
	return net.KeepAliveConfig{Enable: true, Idle: keepAliveIdle, Interval: keepAliveEvery, Count: keepAliveUnheard}
}
