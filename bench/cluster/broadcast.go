package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"strconv"
	"strings"
	"time"

	"github.com/forager-rl/forager"
	"github.com/forager-rl/forager/cluster"
)

const (
	serviceCluster = "cluster"
	topicWeights   = "weights"
)

// spreading says what is measured how.
type spreading struct {
	out       string
	bytes     int
	receivers []int
	repeats   int
	profile   bool
}

// broadcast measures how weights reach many receivers.
func broadcast(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("broadcast", flag.ContinueOnError)
	s := spreading{}
	flags.StringVar(&s.out, "out", filepath.Join("runs", "broadcast"), "`folder` for the files of bus and cluster, and for profiles")
	megabytes := flags.Int("mb", 500, "`size` of the weights in MB")
	receivers := flags.String("receivers", "1,4,16", "`numbers` of receivers, each a process of its own that holds the weights")
	flags.IntVar(&s.repeats, "repeats", 3, "`times` that everything is measured; the defaults take about four minutes")
	flags.BoolVar(&s.profile, "profile", false, "keep processor profiles of the server and of one receiver")
	quick := flags.Bool("quick", false, "a run of seconds: 8 MB to one and two receivers")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *quick {
		*megabytes, *receivers, s.repeats = 8, "1,2", 1
	}
	for word := range strings.SplitSeq(*receivers, ",") {
		n, err := strconv.Atoi(word)
		if err != nil || n < 1 {
			return fmt.Errorf("%q is no number of receivers", word)
		}
		s.receivers = append(s.receivers, n)
		// Each holds the bytes and a quarter as much garbage before it is collected;
		// the rest is the sender's. More than there is brings the machine to a stop.
		need := int64(5*n+16) * int64(*megabytes) * 1_100_000 / 4
		if free := availableMemory(); free > 0 && need > free {
			return fmt.Errorf("%d receivers of %d MB need %d MB of memory, %d are free: name fewer with -receivers, or less with -mb", n, *megabytes, need/1_000_000, free/1_000_000)
		}
	}
	if *megabytes < 1 || s.repeats < 1 {
		return errors.New("want at least 1 MB and one repeat")
	}
	s.bytes = *megabytes * 1_000_000
	rounds := make([][]round, len(s.receivers))
	for repeat := range s.repeats {
		for i, n := range s.receivers {
			r, err := s.measure(ctx, n, fmt.Sprintf("%d-%d", repeat+1, n))
			if err != nil {
				return fmt.Errorf("%d receivers: %w", n, err)
			}
			rounds[i] = append(rounds[i], r)
			fmt.Fprintf(os.Stderr, "repeat %d, %d receivers: put %.2f s, to the last swap %.2f s, loopback %.2f s, memory %.2f s, idle %.2f s, processor %.2f and %.2f s, others %.2f cores\n",
				repeat+1, n, r.put, r.swap, r.loopback, r.memory, r.idle, r.work, r.copyWork, r.others)
		}
	}
	s.report(rounds)
	return nil
}

// round is one version on its way; times in seconds.
type round struct {
	put      float64 // PutObject
	swap     float64 // from the manifest to the last swap
	idle     float64 // generation that a receiver lost until its swap, mean
	loopback float64 // plain copies over TCP, to all at once
	memory   float64 // plain copies in memory, one after another
	others   float64 // cores used by the rest of the machine while the weights went out

	work     float64 // processor time of server and receivers from the manifest to the last swap
	copyWork float64 // the same of the copies over TCP
}

// measure sends weights to receivers, then the same bytes in plain copies.
func (s *spreading) measure(ctx context.Context, receivers int, name string) (r round, err error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	if err := os.MkdirAll(s.out, 0o755); err != nil {
		return r, err
	}
	folder, err := os.MkdirTemp(s.out, "plane-")
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(folder)) }()
	p, err := openPlane(ctx, folder, newLogger())
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, p.Close()) }()
	client, err := p.openCluster(ctx, filepath.Join(folder, "raft"))
	if err != nil {
		return r, err
	}
	var children []*child
	defer func() { err = errors.Join(err, stopAll(children)) }()
	for i := range receivers {
		c, err := startChild(ctx, fmt.Sprint("receiver ", i), "receiver", "-url", p.bus.URL())
		if err != nil {
			return r, err
		}
		children = append(children, c)
	}
	weights := make([]byte, s.bytes)
	rand.NewChaCha8([32]byte{1}).Read(weights) //nolint:errcheck // never fails
	if err := s.publish(ctx, p, client, children, weights, name, &r); err != nil {
		return r, err
	}
	if r.loopback, r.copyWork, err = copyOverLoopback(children, weights); err != nil {
		return r, err
	}
	begun := time.Now()
	for range receivers {
		into := make([]byte, len(weights))
		copy(into, weights)
		runtime.KeepAlive(into)
	}
	r.memory = time.Since(begun).Seconds()
	return r, nil
}

// publish does what the learner's publisher does: object, manifest, notice.
func (s *spreading) publish(ctx context.Context, p *plane, client *cluster.Client, children []*child, weights []byte, name string, r *round) error {
	lease, _, err := client.AcquireLease(ctx, "bench", 10*time.Second)
	if err != nil {
		return err
	}
	sum := sha256.Sum256(weights)
	m := forager.Manifest{
		Run: runID, Version: 1, Epoch: lease.Epoch, Step: 1, Object: "weights-" + name, Digest: "sha256:" + hex.EncodeToString(sum[:]),
		Bytes: int64(len(weights)), Shape: "bytes", Time: time.Now().UTC(),
	}
	question := receiverQuestion{AwaitVersion: m.Version}
	if s.profile {
		if err := beginProfile(filepath.Join(s.out, name+"-server.pprof")); err != nil {
			return err
		}
		defer pprof.StopCPUProfile()
		question.Profile = filepath.Join(s.out, name+"-receiver.pprof")
	}
	begun := time.Now()
	if err := p.bus.PutObject(ctx, m.Object, weights); err != nil {
		return err
	}
	r.put = time.Since(begun).Seconds()
	for i, c := range children {
		if i == 1 {
			question.Profile = ""
		}
		if err := c.ask(question); err != nil {
			return err
		}
	}
	notice, err := json.Marshal(m)
	if err != nil {
		return err
	}
	// The lease may have run out during the put: nobody else wants it.
	if err := client.PublishManifest(ctx, m); err != nil {
		return err
	}
	begun = time.Now()
	busy, mine := machineBusy(), used().CPU
	if err := p.bus.Notify(ctx, topicWeights, notice); err != nil {
		return err
	}
	cpu := time.Duration(0)
	for _, c := range children {
		var a swapAnswer
		if err := c.hear(&a); err != nil {
			return err
		}
		r.idle += a.Idle.Seconds() / float64(len(children))
		cpu += a.CPU
	}
	took := time.Since(begun)
	r.swap = took.Seconds()
	cpu += used().CPU - mine
	r.work = cpu.Seconds()
	r.others = max(0, (machineBusy()-busy-cpu).Seconds()/took.Seconds())
	return nil
}

// openCluster starts a Raft group of one node and serves it on the bus.
func (p *plane) openCluster(ctx context.Context, folder string) (*cluster.Client, error) {
	c, err := cluster.Open(cluster.DefaultConfig(), folder, newLogger(), time.Now)
	if err != nil {
		return nil, err
	}
	p.closers = append(p.closers, c.Close)
	p.start("cluster", c.Run)
	if err := c.WaitLeader(ctx); err != nil {
		return nil, err
	}
	p.start("cluster service", func(ctx context.Context) error { return p.bus.Serve(ctx, serviceCluster, c.Handle) })
	client := cluster.NewClient(caller{p.bus, serviceCluster})
	return client, retry(ctx, func() error { return client.SetRun(ctx, cluster.Run{ID: runID, ConfigDigest: "bench"}) })
}

// copyOverLoopback sends the same bytes to all receivers at once, each over a
// connection of its own, and gives the seconds until the last has them, and those
// of the processor.
func copyOverLoopback(children []*child, weights []byte) (took, work float64, err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, 0, err
	}
	defer l.Close()
	for _, c := range children {
		if err := c.ask(receiverQuestion{CopyFrom: l.Addr().String(), Bytes: len(weights)}); err != nil {
			return 0, 0, err
		}
	}
	connections := make([]net.Conn, len(children))
	for i := range connections {
		if connections[i], err = l.Accept(); err != nil {
			return 0, 0, err
		}
		defer connections[i].Close() // sent from here alone
	}
	begun, mine := time.Now(), used().CPU
	sent := make(chan error, len(connections))
	for _, c := range connections {
		go func() {
			_, err := c.Write(weights)
			sent <- err
		}()
	}
	for range connections {
		err = errors.Join(err, <-sent)
	}
	for _, c := range children {
		var a swapAnswer
		err = errors.Join(err, c.hear(&a))
		work += a.CPU.Seconds()
	}
	return time.Since(begun).Seconds(), work + (used().CPU - mine).Seconds(), err
}

// report prints the table.
func (s *spreading) report(rounds [][]round) {
	fmt.Fprintf(os.Stdout, "%d cores; weights of %d MB; %d repeats: median (least–most), seconds.\n\n", runtime.NumCPU(), s.bytes/1_000_000, s.repeats)
	fmt.Fprintln(os.Stdout, "| receivers | put | manifest to last swap | loopback copies | swap over loopback | memory copies | lost generation per swap | processor time | of the loopback copies | cores: others |")
	fmt.Fprintln(os.Stdout, "|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|")
	for i, n := range s.receivers {
		over := func(value func(r round) float64) string {
			var values []float64
			for _, r := range rounds[i] {
				values = append(values, value(r))
			}
			return spreadOf(values).show(2)
		}
		fmt.Fprintf(os.Stdout, "| %d | %s | %s | %s | %s | %s | %s | %s | %s | %s |\n", n,
			over(func(r round) float64 { return r.put }), over(func(r round) float64 { return r.swap }),
			over(func(r round) float64 { return r.loopback }), over(func(r round) float64 { return r.swap / r.loopback }),
			over(func(r round) float64 { return r.memory }), over(func(r round) float64 { return r.idle }),
			over(func(r round) float64 { return r.work }), over(func(r round) float64 { return r.copyWork }),
			over(func(r round) float64 { return r.others }))
	}
}
