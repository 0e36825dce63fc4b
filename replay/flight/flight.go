package flight

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"

	"github.com/apache/arrow/go/v15/arrow/flight"
	"github.com/apache/arrow/go/v15/arrow/ipc"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/forager-rl/forager"
	"github.com/forager-rl/forager/batch"
)

// Source is rollouts that can be read again and again.
type Source interface {
	// Each hands over the groups whose credit has at least the index from, in pieces of
	// the source's own size, until yield fails or none is left, and gives yield's error.
	Each(ctx context.Context, from uint64, yield func([]forager.Group) error) error
}

// Command names a part of a flight: as JSON, in a descriptor or a ticket.
type Command struct {
	// Flight is the name of the flight.
	Flight string `json:"flight"`
	// From is the lowest index of a group that is wanted; 0 wants all.
	From uint64 `json:"from,omitempty"`
}

// recordTokens is how many tokens of groups go into one record batch, as long as it
// is more than one group: about 2 MiB, below the 4 MiB that gRPC clients take unless
// told otherwise.
const recordTokens = 1 << 17

// service answers Flight's calls.
type service struct {
	flight.BaseFlightServer
	sources map[string]Source
	reads   chan struct{} // one for each DoGet that is answered
	sent    *prometheus.CounterVec
	logger  *slog.Logger
}

// parseCommand reads a command and checks its flight.
func (s *service) parseCommand(data []byte) (Command, error) {
	var c Command
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&c); err != nil {
		return c, status.Errorf(codes.InvalidArgument, `%v: want a command such as {"flight": %q, "from": 100}`, err, s.names()[0])
	}
	if _, err := decoder.Token(); err != io.EOF {
		return c, status.Error(codes.InvalidArgument, "there is something behind the JSON object of the command")
	}
	return c, s.known(c.Flight)
}

func (s *service) known(name string) error {
	if s.sources[name] == nil {
		return status.Errorf(codes.NotFound, "there is no flight %q, want one of %s", name, strings.Join(s.names(), ", "))
	}
	return nil
}

func (s *service) names() []string {
	names := make([]string, 0, len(s.sources))
	for name := range s.sources {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// command is what a descriptor asks for.
func (s *service) command(d *flight.FlightDescriptor) (Command, error) {
	switch {
	case d.GetType() == flight.DescriptorCMD:
		return s.parseCommand(d.GetCmd())
	case len(d.GetPath()) == 1:
		c := Command{Flight: d.GetPath()[0]}
		return c, s.known(c.Flight)
	}
	return Command{}, status.Errorf(codes.InvalidArgument, "the path has %d parts, want the name of a flight alone: %s", len(d.GetPath()), strings.Join(s.names(), ", "))
}

// info describes a flight. How many rows it will have is not known before it is read.
func info(d *flight.FlightDescriptor, c Command) (*flight.FlightInfo, error) {
	schema, err := schema()
	if err != nil {
		return nil, err
	}
	ticket, err := json.Marshal(c)
	if err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	return &flight.FlightInfo{
		Schema: schema, FlightDescriptor: d, TotalRecords: -1, TotalBytes: -1, Ordered: true,
		Endpoint: []*flight.FlightEndpoint{{Ticket: &flight.Ticket{Ticket: ticket}}}, // no location: this server
	}, nil
}

// schema is the form in which Flight's implementations exchange schemas: a stream
// without rows.
func schema() ([]byte, error) {
	data, err := batch.EncodeGroups(nil)
	if err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	return data, nil
}

// ListFlights names every flight; criteria are not looked at.
func (s *service) ListFlights(_ *flight.Criteria, stream flight.FlightService_ListFlightsServer) error {
	for _, name := range s.names() {
		i, err := info(&flight.FlightDescriptor{Type: flight.DescriptorPATH, Path: []string{name}}, Command{Flight: name})
		if err != nil {
			return err
		}
		if err := stream.Send(i); err != nil {
			return err
		}
	}
	return nil
}

// GetFlightInfo gives the ticket for a flight or a part of it.
func (s *service) GetFlightInfo(_ context.Context, d *flight.FlightDescriptor) (*flight.FlightInfo, error) {
	c, err := s.command(d)
	if err != nil {
		return nil, err
	}
	return info(d, c)
}

// GetSchema gives the schema, which all flights share.
func (s *service) GetSchema(_ context.Context, d *flight.FlightDescriptor) (*flight.SchemaResult, error) {
	if _, err := s.command(d); err != nil {
		return nil, err
	}
	data, err := schema()
	return &flight.SchemaResult{Schema: data}, err
}

// DoGet sends the rows of a ticket, at the pace of the client.
func (s *service) DoGet(t *flight.Ticket, stream flight.FlightService_DoGetServer) error {
	c, err := s.parseCommand(t.GetTicket())
	if err != nil {
		return err
	}
	select {
	case s.reads <- struct{}{}:
		defer func() { <-s.reads }()
	default:
		return status.Errorf(codes.ResourceExhausted, "%d flights are being read, which is replay.flight.max_reads: try again later", cap(s.reads))
	}
	out := &sender{stream: stream, sent: s.sent.WithLabelValues(c.Flight)}
	err = s.sources[c.Flight].Each(stream.Context(), c.From, out.add)
	if err == nil {
		err = out.flush() // if there was nothing, it sends the schema
	}
	if err = out.close(err); err != nil {
		return s.failed(stream.Context(), c, err)
	}
	return nil
}

// sender writes groups to a stream as record batches behind one schema.
type sender struct {
	stream  flight.FlightService_DoGetServer
	sent    prometheus.Counter // rollouts
	writer  *flight.Writer     // nil until the schema is sent
	pending []forager.Group    // of the next record batch
	tokens  int                // in pending
}

// add writes groups, but for some that wait for a record batch to be full.
func (s *sender) add(groups []forager.Group) error {
	for _, g := range groups {
		size := 0
		for i := range g.Rollouts {
			size += len(g.Rollouts[i].Tokens)
		}
		if len(s.pending) > 0 && s.tokens+size > recordTokens {
			if err := s.flush(); err != nil {
				return err
			}
		}
		s.pending, s.tokens = append(s.pending, g), s.tokens+size
	}
	return nil
}

// flush writes what is pending.
func (s *sender) flush() error {
	data, err := batch.EncodeGroups(s.pending)
	if err != nil {
		return err
	}
	reader, err := ipc.NewReader(bytes.NewReader(data))
	if err != nil {
		return fmt.Errorf("read what was encoded: %w", err)
	}
	defer reader.Release()
	if s.writer == nil {
		s.writer = flight.NewRecordWriter(s.stream, ipc.WithSchema(reader.Schema()))
	}
	for reader.Next() {
		if err := s.writer.Write(reader.Record()); err != nil {
			return err
		}
		s.sent.Add(float64(reader.Record().NumRows()))
	}
	if err := reader.Err(); err != nil {
		return err
	}
	clear(s.pending)
	s.pending, s.tokens = s.pending[:0], 0
	return nil
}

// close ends what was written, if anything was, and gives the first error.
func (s *sender) close(err error) error {
	if s.writer == nil {
		return err
	}
	if closed := s.writer.Close(); err == nil {
		return closed
	}
	return err
}

// failed says to the client why its read ended early.
func (s *service) failed(ctx context.Context, c Command, err error) error {
	if _, known := status.FromError(err); known {
		return err
	}
	if ctx.Err() != nil {
		return status.FromContextError(ctx.Err()).Err()
	}
	s.logger.Warn("flight ended early", "flight", c.Flight, "error", err)
	return status.Errorf(codes.Internal, "flight %s: %v", c.Flight, err)
}
