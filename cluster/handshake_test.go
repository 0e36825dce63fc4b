package cluster

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// testLayer is a node's end of connections, without Raft.
func testLayer(t *testing.T, who identity, log io.Writer, security ...*tls.Config) *layer {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := &layer{
		identity: who, advertised: listener.Addr().String(), listener: listener, now: time.Now,
		log: slog.New(slog.NewTextHandler(log, nil)),
	}
	for _, config := range security {
		l.security = config
	}
	l.start()
	t.Cleanup(func() { _ = l.Close() })
	return l
}

// at has a layer take an address for that of a node.
func (l *layer) at(node string) *layer {
	l.nodeAt = func(raft.ServerAddress) (string, bool) { return node, true }
	return l
}

func (l *layer) refusals() (n uint64) {
	for _, count := range l.refused {
		n += count.Load()
	}
	return n
}

// talk has one layer dial another and says a word through the connection.
func talk(t *testing.T, from, to *layer) (dialled, accepted net.Conn, err error) {
	t.Helper()
	dialled, err = from.Dial(raft.ServerAddress(to.advertised), 5*time.Second)
	if err != nil {
		return nil, nil, err
	}
	t.Cleanup(func() { _ = dialled.Close() })
	if accepted, err = to.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = accepted.Close() })
	if _, err := dialled.Write([]byte("word")); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 4)
	if _, err := io.ReadFull(accepted, got); err != nil || string(got) != "word" {
		t.Fatalf("got %q, %v", got, err)
	}
	return dialled, accepted, nil
}

func TestHandshake(t *testing.T) {
	a := identity{"run", "a", "instance-a"}
	for name, c := range map[string]struct {
		dialler identity
		target  string
		reason  reason
		want    string // in the error of the dialler; "" when it is let in
	}{
		"a peer":             {identity{"run", "b", "instance-b"}, "a", "", ""},
		"of another run":     {identity{"other", "b", "instance-b"}, "a", refusedCluster, `node "b" belongs to run "other", and "a" to run "run"`},
		"for another node":   {identity{"run", "b", "instance-b"}, "c", refusedTarget, `meant to reach "c", and this is "a"`},
		"with the same id":   {identity{"run", "a", "instance-b"}, "a", refusedInstance, `two nodes have the id "a"`},
		"a name that is bad": {identity{"run", "b\n", "instance-b"}, "a", refusedMalformed, "no such names exist"},
	} {
		t.Run(name, func(t *testing.T) {
			var log logged
			acceptor := testLayer(t, a, &log)
			dialler := testLayer(t, c.dialler, &log).at(c.target)
			for range 3 {
				_, _, err := talk(t, dialler, acceptor)
				if c.want == "" {
					if err != nil {
						t.Fatal(err)
					}
					continue
				}
				if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), dialler.nodeName(t)) {
					t.Fatalf("got %v, want %q", err, c.want)
				}
			}
			if c.want == "" {
				if n := acceptor.refusals(); n != 0 {
					t.Errorf("%d refusals", n)
				}
				return
			}
			if n := acceptor.refused[c.reason].Load(); n != 3 || acceptor.refusals() != 3 {
				t.Errorf("%d refusals for %s of %d, want 3", n, c.reason, acceptor.refusals())
			}
			for _, said := range []string{"refused a raft connection", "a raft node is not reached"} {
				if n := log.count(said); n != 1 {
					t.Errorf("%q was said %d times, want once a minute", said, n)
				}
			}
		})
	}
}

func (l *layer) nodeName(t *testing.T) string {
	t.Helper()
	name, _ := l.nodeAt("")
	return "connect to node " + name
}

// TestTwoInstances: while a node is connected, nobody else may be it, whichever
// side has dialled; once it is gone, somebody may.
func TestTwoInstances(t *testing.T) {
	a := testLayer(t, identity{"run", "a", "instance-a"}, io.Discard).at("b")
	b1 := testLayer(t, identity{"run", "b", "one"}, io.Discard).at("a")
	b2 := testLayer(t, identity{"run", "b", "two"}, io.Discard).at("a")
	for name, connect := range map[string]func() (net.Conn, net.Conn, error){
		"it dialled":  func() (net.Conn, net.Conn, error) { return talk(t, b1, a) },
		"was dialled": func() (net.Conn, net.Conn, error) { return talk(t, a, b1) },
	} {
		t.Run(name, func(t *testing.T) {
			dialled, accepted, err := connect()
			if err != nil {
				t.Fatal(err)
			}
			if _, _, err := talk(t, b2, a); err == nil || !strings.Contains(err.Error(), `two nodes have the id "b" (directories one and two)`) {
				t.Fatalf("a second node %v", err)
			}
			if _, _, err := talk(t, a, b2); err == nil || !strings.Contains(err.Error(), `two nodes have the id "b"`) {
				t.Fatalf("a second node was reached: %v", err)
			}
			for _, c := range []net.Conn{dialled, accepted} {
				if err := c.Close(); err != nil {
					t.Fatal(err)
				}
			}
			second, other, err := talk(t, b2, a)
			if err != nil {
				t.Fatalf("after the first was gone: %v", err)
			}
			_, _ = second.Close(), other.Close()
		})
	}
}

// TestStrangers: whatever else speaks to the port is told so, bounded, and a mere
// probe is not worth a word.
func TestStrangers(t *testing.T) {
	frame := func(body string) string {
		return string(binary.BigEndian.AppendUint16([]byte(handshakeMagic), uint16(len(body)))) + body
	}
	for name, c := range map[string]struct {
		says   string
		reason reason
		want   string
	}{
		"a newer program": {frame(`{"version":2,"cluster":"run","from":"b","to":"a","instance":"x","mood":"new"}`), refusedProtocol, "run the same program on all nodes"},
		"a web browser":   {"GET / HTTP/1.1\r\n\r\n", refusedProtocol, "no handshake of forager"},
		"TLS":             {"\x16\x03\x01\x00\xf0\x00\x00", refusedSecurity, "one side speaks TLS"},
		"too long":        {handshakeMagic + "\xff\xff", refusedProtocol, "at most 2048"},
		"no JSON":         {frame("{"), refusedMalformed, "unknown schema"},
		"half of it":      {frame(`{"version":1}`)[:10], refusedMalformed, "EOF"},
		"a probe":         {"", "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			var log logged
			l := testLayer(t, identity{"run", "a", "x"}, &log)
			conn, err := net.Dial("tcp", l.advertised)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := conn.Write([]byte(c.says)); err != nil {
				t.Fatal(err)
			}
			if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
				t.Fatal(err)
			}
			var w welcome
			err = readMessage(conn, &w)
			if c.want == "" {
				if !errors.Is(err, io.EOF) || l.refusals() != 0 || log.count("refused") != 0 {
					t.Fatalf("answer %+v, %v; %d refusals", w, err, l.refusals())
				}
				return
			}
			if err != nil || w.Reason != c.reason || !strings.Contains(w.Text, c.want) {
				t.Errorf("got %+v, %v; want %s, %q", w, err, c.reason, c.want)
			}
			if n := l.refused[c.reason].Load(); n != 1 {
				t.Errorf("%d refusals", n)
			}
		})
	}
}

// TestOneSideSpeaksTLS: both sides are told.
func TestOneSideSpeaksTLS(t *testing.T) {
	security := newAuthority(t).mutual(time.Now().Add(time.Hour))
	for name, config := range map[string][2]*tls.Config{"the dialler": {security, nil}, "the acceptor": {nil, security}} {
		t.Run(name, func(t *testing.T) {
			dialler := testLayer(t, identity{"run", "b", "b"}, io.Discard, config[0]).at("a")
			acceptor := testLayer(t, identity{"run", "a", "a"}, io.Discard, config[1])
			if _, _, err := talk(t, dialler, acceptor); err == nil || !strings.Contains(err.Error(), "one side speaks TLS and the other does not") {
				t.Fatalf("got %v", err)
			}
			if n := acceptor.refused[refusedSecurity].Load(); n != 1 {
				t.Errorf("%d refusals for security, %d in all", n, acceptor.refusals())
			}
		})
	}
}

// A dialler without the right certificate is refused; a layer that is closed
// leaves nothing behind.
func TestWrongAuthority(t *testing.T) {
	until := time.Now().Add(time.Hour)
	ours, theirs := newAuthority(t).mutual(until), newAuthority(t).mutual(until)
	a := testLayer(t, identity{"run", "a", "a"}, io.Discard, ours)
	b := testLayer(t, identity{"run", "b", "b"}, io.Discard, theirs).at("a")
	if _, _, err := talk(t, b, a); err == nil || !strings.Contains(err.Error(), "certificate is not accepted") {
		t.Fatalf("got %v", err)
	}
	trusting := theirs.Clone()
	trusting.RootCAs = ours.RootCAs // it accepts the other one, and is refused
	b = testLayer(t, identity{"run", "b", "b"}, io.Discard, trusting).at("a")
	if _, _, err := talk(t, b, a); err == nil || !strings.Contains(err.Error(), "the other side refuses the connection") {
		t.Fatalf("got %v", err)
	}
	for range 2 {
		if err := a.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := a.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Fatalf("a closed layer accepts: %v", err)
	}
}

// FuzzHandshake reads what strangers may send, as acceptor and as dialler.
func FuzzHandshake(f *testing.F) {
	var good bytes.Buffer
	self := identity{"run", "a", "instance-a"}
	if err := writeMessage(&good, identity{"run", "b", "instance-b"}.hello("a")); err != nil {
		f.Fatal(err)
	}
	f.Add(good.Bytes())
	f.Add([]byte(handshakeMagic + "\x00\x02{}"))
	f.Add([]byte(handshakeMagic + "\xff\xff{}"))
	f.Add([]byte("\x16\x03\x01\x00\xf0\x00"))
	f.Fuzz(func(t *testing.T, data []byte) {
		rest := bytes.NewReader(data)
		var h hello
		if err := readMessage(rest, &h); err == nil {
			used := len(data) - rest.Len()
			if used > len(handshakeMagic)+2+maxHandshakeBytes {
				t.Fatalf("read %d bytes", used)
			}
			if r := self.check(h); r == nil {
				if h.Cluster != self.cluster || h.To != self.node || h.From == self.node || !isName(h.From) || !isName(h.Instance) {
					t.Fatalf("let in %+v", h)
				}
			} else if len(r.text) > maxReasonBytes || strings.ContainsAny(r.text, "\n\r\x1b") {
				t.Fatalf("reason %q is not fit for a log", r.text)
			} else if err := writeMessage(io.Discard, welcome{Reason: r.reason, Text: r.text}); err != nil {
				t.Fatal(err)
			}
		}
		var w welcome
		_ = readMessage(bytes.NewReader(data), &w) // must not panic
	})
}
