package flight

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/flight"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/forager-rl/forager"
)

// groups is a source in memory, in pieces of two.
type groups []forager.Group

func (s groups) Each(_ context.Context, from uint64, yield func([]forager.Group) error) error {
	for i := 0; i < len(s); i += 2 {
		var piece []forager.Group
		for _, g := range s[i:min(i+2, len(s))] {
			if g.Credit.Index >= from {
				piece = append(piece, g)
			}
		}
		if err := yield(piece); err != nil {
			return err
		}
	}
	return nil
}

// group makes a group of two rollouts of n tokens.
func group(key uint64, n int) forager.Group {
	g := forager.Group{Credit: forager.Credit{Run: "run", Index: key, TaskID: "task", GroupSize: 2}}
	for sample := range 2 {
		r := forager.Rollout{
			Run: "run", ID: forager.RolloutID("run", key, sample), TaskID: "task", Group: key, Sample: sample,
			Tokens: make([]int32, n), Logprobs: make([]float32, n), LossMask: make([]bool, n), Finish: forager.FinishAnswer,
			Rewards:     map[string]float64{"em": float64(sample)},
			Annotations: []forager.Annotation{},
		}
		g.Rollouts = append(g.Rollouts, r)
	}
	return g
}

// serve runs a server of sources and gives a client, both until the test ends.
func serve(t testing.TB, config Config, sources map[string]Source) (flight.Client, *prometheus.Registry) {
	t.Helper()
	registry := prometheus.NewRegistry()
	server, err := NewServer(config, sources, slog.New(slog.DiscardHandler), registry)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- server.Run(ctx, listener) }()
	client, err := flight.NewClientWithMiddleware(listener.Addr().String(), nil, nil, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := client.Close(); err != nil {
			t.Error(err)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return client, registry
}

// short bounds the calls of a test.
func short(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func byPath(name ...string) *flight.FlightDescriptor {
	return &flight.FlightDescriptor{Type: flight.DescriptorPATH, Path: name}
}

func byCommand(command string) *flight.FlightDescriptor {
	return &flight.FlightDescriptor{Type: flight.DescriptorCMD, Cmd: []byte(command)}
}

// get reads what a descriptor leads to: the index of the group of each row, and the
// number of record batches.
func get(t testing.TB, client flight.Client, d *flight.FlightDescriptor) (rows []uint64, records int) {
	t.Helper()
	ctx := short(t)
	info, err := client.GetFlightInfo(ctx, d)
	if err != nil {
		t.Fatal(err)
	}
	stream, err := client.DoGet(ctx, info.Endpoint[0].Ticket)
	if err != nil {
		t.Fatal(err)
	}
	reader, err := flight.NewRecordReader(stream)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Release()
	want, err := flight.DeserializeSchema(info.Schema, nil)
	if err != nil {
		t.Fatal(err)
	}
	if !reader.Schema().Equal(want) {
		t.Errorf("the rows have schema %v, the flight was announced with %v", reader.Schema(), want)
	}
	if name, _ := reader.Schema().Metadata().GetValue("forager.schema"); name != "rollout" {
		t.Errorf("schema %q, want rollout", name)
	}
	at := reader.Schema().FieldIndices("group")[0]
	for reader.Next() {
		records++
		rows = append(rows, reader.Record().Column(at).(*array.Uint64).Uint64Values()...)
	}
	if err := reader.Err(); err != nil {
		t.Fatal(err)
	}
	return rows, records
}

func TestReadsFlights(t *testing.T) {
	client, registry := serve(t, DefaultConfig(), map[string]Source{
		"replay": groups{group(3, 4), group(4, 4), group(7, 4)}, "archive": groups{}, "long": groups{group(1, recordTokens), group(2, 4)},
	})
	for name, c := range map[string]struct {
		descriptor *flight.FlightDescriptor
		rows       string
		records    int
	}{
		"whole":    {byPath("replay"), "[3 3 4 4 7 7]", 1},
		"part":     {byCommand(`{"flight": "replay", "from": 4}`), "[4 4 7 7]", 1},
		"none":     {byCommand(fmt.Sprintf(`{"flight": "replay", "from": %d}`, uint64(math.MaxUint64))), "[]", 0},
		"empty":    {byPath("archive"), "[]", 0},
		"long one": {byPath("long"), "[1 1 2 2]", 2},
	} {
		t.Run(name, func(t *testing.T) {
			rows, records := get(t, client, c.descriptor)
			if got := fmt.Sprint(rows); got != c.rows || records != c.records {
				t.Errorf("rows %s in %d records, want %s in %d", got, records, c.rows, c.records)
			}
		})
	}
	want := strings.NewReader(`
# HELP forager_flight_rollouts_total Rollouts sent to Arrow Flight clients, by flight.
# TYPE forager_flight_rollouts_total counter
forager_flight_rollouts_total{flight="archive"} 0
forager_flight_rollouts_total{flight="long"} 4
forager_flight_rollouts_total{flight="replay"} 10
`)
	if err := testutil.GatherAndCompare(registry, want); err != nil {
		t.Error(err)
	}
}

// BenchmarkRead reads 256 groups of two rollouts of 400 tokens over loopback.
func BenchmarkRead(b *testing.B) {
	var list groups
	for key := range uint64(256) {
		list = append(list, group(key, 400))
	}
	client, _ := serve(b, DefaultConfig(), map[string]Source{"replay": list})
	rows := 0
	for b.Loop() {
		read, _ := get(b, client, byPath("replay"))
		rows += len(read)
	}
	b.ReportMetric(float64(rows)/b.Elapsed().Seconds(), "rollouts/s")
}

func TestListsFlights(t *testing.T) {
	client, _ := serve(t, DefaultConfig(), map[string]Source{"replay": groups{}, "archive": groups{}})
	stream, err := client.ListFlights(short(t), &flight.Criteria{})
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for {
		info, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, info.FlightDescriptor.Path...)
	}
	if fmt.Sprint(names) != "[archive replay]" {
		t.Errorf("flights %v, want archive and replay", names)
	}
	got, err := client.GetSchema(short(t), byPath("replay"))
	if err != nil {
		t.Fatal(err)
	}
	if schema, err := flight.DeserializeSchema(got.Schema, nil); err != nil || !schema.HasField("tokens") {
		t.Errorf("schema %v, error %v", schema, err)
	}
}

func TestRefusesWhatItDoesNotKnow(t *testing.T) {
	client, _ := serve(t, DefaultConfig(), map[string]Source{"replay": groups{}})
	for name, c := range map[string]struct {
		descriptor *flight.FlightDescriptor
		code       codes.Code
		says       string
	}{
		"unknown flight":   {byPath("rollouts"), codes.NotFound, `no flight "rollouts", want one of replay`},
		"no path":          {byPath(), codes.InvalidArgument, "0 parts"},
		"long path":        {byPath("replay", "1"), codes.InvalidArgument, "2 parts"},
		"no JSON":          {byCommand("replay"), codes.InvalidArgument, `{"flight": "replay"`},
		"unknown field":    {byCommand(`{"flight": "replay", "form": 3}`), codes.InvalidArgument, `unknown field "form"`},
		"unknown command":  {byCommand(`{"flight": "other"}`), codes.NotFound, `"other"`},
		"negative index":   {byCommand(`{"flight": "replay", "from": -1}`), codes.InvalidArgument, "from"},
		"two commands":     {byCommand(`{"flight": "replay"} {}`), codes.InvalidArgument, "behind the JSON object"},
		"invalid UTF-8":    {byCommand("{\"flight\": \"\xff\"}"), codes.NotFound, "no flight"},
		"a huge command":   {byCommand(`{"flight": "` + strings.Repeat("a", 2*maxRequest) + `"}`), codes.ResourceExhausted, "larger than max"},
		"an empty command": {byCommand(""), codes.InvalidArgument, "EOF"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := client.GetFlightInfo(short(t), c.descriptor)
			if status.Code(err) != c.code || !strings.Contains(err.Error(), c.says) {
				t.Errorf("error %v, want %v with %q", err, c.code, c.says)
			}
		})
	}
	if _, err := received(short(t), client, "not a ticket"); status.Code(err) != codes.InvalidArgument {
		t.Errorf("ticket of something else: %v", err)
	}
}

// received reads a ticket to its end and gives the number of messages.
func received(ctx context.Context, client flight.Client, ticket string) (n int, err error) {
	stream, err := client.DoGet(ctx, &flight.Ticket{Ticket: []byte(ticket)})
	for ; err == nil; n++ {
		_, err = stream.Recv()
	}
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return n - 1, err
}

// Every call wants the token, those that stream too.
func TestToken(t *testing.T) {
	config := DefaultConfig()
	config.Authorize = func(header string) bool { return header == "Bearer right" }
	client, _ := serve(t, config, map[string]Source{"replay": groups{group(1, 4)}})
	for header, code := range map[string]codes.Code{"": codes.Unauthenticated, "Bearer wrong": codes.Unauthenticated, "Bearer right": codes.OK} {
		ctx := short(t)
		if header != "" {
			ctx = metadata.AppendToOutgoingContext(ctx, "authorization", header)
		}
		_, unary := client.GetFlightInfo(ctx, byPath("replay"))
		_, schema := client.GetSchema(ctx, byPath("replay"))
		_, streamed := received(ctx, client, `{"flight": "replay"}`)
		list, err := client.ListFlights(ctx, &flight.Criteria{})
		if err == nil {
			_, err = list.Recv()
		}
		for call, err := range map[string]error{"GetFlightInfo": unary, "GetSchema": schema, "DoGet": streamed, "ListFlights": err} {
			if status.Code(err) != code {
				t.Errorf("%s with %q: %v, want %v", call, header, err, code)
			}
		}
	}
}

// Without credentials nobody needs a header.
func TestNoToken(t *testing.T) {
	config := DefaultConfig()
	config.Authorize = func(string) bool { return true }
	client, _ := serve(t, config, map[string]Source{"replay": groups{group(1, 4)}})
	if rows, _ := get(t, client, byPath("replay")); len(rows) != 2 {
		t.Errorf("rows %v, want two", rows)
	}
}

// A server with TLS does not talk to clients without.
func TestTLS(t *testing.T) {
	config := DefaultConfig()
	config.TLS = &tls.Config{MinVersion: tls.VersionTLS13}
	client, _ := serve(t, config, map[string]Source{"replay": groups{}})
	if _, err := client.GetFlightInfo(short(t), byPath("replay")); status.Code(err) != codes.Unavailable {
		t.Errorf("plain text gets %v, want a refused connection", err)
	}
}

// stuck is a source that waits in the middle until it is told to go on.
type stuck struct {
	reached, goOn chan struct{}
	err           error
}

func (s stuck) Each(ctx context.Context, _ uint64, yield func([]forager.Group) error) error {
	if err := yield([]forager.Group{group(1, recordTokens), group(2, 4)}); err != nil { // one record batch, and a bit
		return err
	}
	s.reached <- struct{}{}
	select {
	case <-s.goOn:
		return s.err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func TestBoundsReads(t *testing.T) {
	source := stuck{make(chan struct{}), make(chan struct{}), nil}
	config := DefaultConfig()
	config.MaxReads = 1
	client, _ := serve(t, config, map[string]Source{"replay": source})
	first := make(chan error, 1)
	ctx := short(t)
	go func() {
		_, err := received(ctx, client, `{"flight": "replay"}`)
		first <- err
	}()
	<-source.reached
	if _, err := received(ctx, client, `{"flight": "replay"}`); status.Code(err) != codes.ResourceExhausted || !strings.Contains(err.Error(), "max_reads") {
		t.Errorf("a second read gets %v", err)
	}
	close(source.goOn)
	if err := <-first; err != nil {
		t.Error(err)
	}
	go func() { <-source.reached }()
	if _, err := received(ctx, client, `{"flight": "replay"}`); err != nil {
		t.Errorf("after the first has ended: %v", err)
	}
}

// A client that goes away ends its read, and so does a failing source, with a reason.
func TestReadsEnd(t *testing.T) {
	source := stuck{make(chan struct{}), make(chan struct{}), errors.New("disk is gone")}
	client, _ := serve(t, DefaultConfig(), map[string]Source{"replay": source})
	ctx, leave := context.WithCancel(short(t))
	ended := make(chan error, 1)
	go func() {
		_, err := received(ctx, client, `{"flight": "replay"}`)
		ended <- err
	}()
	<-source.reached
	leave()
	if err := <-ended; status.Code(err) != codes.Canceled {
		t.Errorf("a client that left got %v", err)
	}
	go func() {
		<-source.reached
		close(source.goOn)
	}()
	if n, err := received(short(t), client, `{"flight": "replay"}`); n != 2 || status.Code(err) != codes.Internal || !strings.Contains(err.Error(), "disk is gone") {
		t.Errorf("%d messages, error %v; want schema and one record batch, and the reason", n, err)
	}
}

// A read that does not end is cut off when the server stops.
func TestStops(t *testing.T) {
	source := stuck{make(chan struct{}), make(chan struct{}), nil}
	config := DefaultConfig()
	config.ShutdownTimeout = 50 * time.Millisecond
	server, err := NewServer(config, map[string]Source{"replay": source}, slog.New(slog.DiscardHandler), nil)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(short(t))
	done := make(chan error, 1)
	go func() { done <- server.Run(ctx, listener) }()
	client, err := flight.NewClientWithMiddleware(listener.Addr().String(), nil, nil, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	ended := make(chan error, 1)
	go func() {
		_, err := received(short(t), client, `{"flight": "replay"}`)
		ended <- err
	}()
	<-source.reached
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if err := <-ended; err == nil {
		t.Error("the read that was cut off ended as if it were whole")
	}
	if _, err := NewServer(Config{}, map[string]Source{"replay": source}, slog.New(slog.DiscardHandler), nil); err == nil {
		t.Error("a server without limits")
	}
}

func TestConfig(t *testing.T) {
	if err := DefaultConfig().Validate(); err != nil {
		t.Error(err)
	}
	err := Config{Listen: "8815"}.Validate()
	for _, says := range []string{`listen address "8815"`, "max_reads is 0", "shutdown_timeout is 0s"} {
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("error %v does not say %q", err, says)
		}
	}
}
