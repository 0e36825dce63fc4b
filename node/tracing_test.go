package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/forager-rl/forager"
	"github.com/forager-rl/forager/learner"
	"github.com/forager-rl/forager/rewardsrv"
	"github.com/forager-rl/forager/tracing/tracetest"
)

// life is the spans of one credit, from the moment it is issued.
type life struct{ issue, group, publish, insert, label, sample, step, update, weights tracetest.Span }

// lifeOf finds what became of an issued credit. The error names what is missing
// or in the wrong place.
func lifeOf(spans []tracetest.Span, issue tracetest.Span) (life, error) {
	l := life{issue: issue}
	child := func(name string, of tracetest.Span, into *tracetest.Span) error {
		at := slices.IndexFunc(spans, func(s tracetest.Span) bool { return s.Name == name && s.Trace == of.Trace && s.Parent == of.Span })
		if at < 0 {
			return fmt.Errorf("%s has no child %s", of.Name, name)
		}
		*into = spans[at]
		return nil
	}
	if err := errors.Join(
		child("rollout.group", l.issue, &l.group),
		child("batch.publish", l.group, &l.publish), child("annotation.label", l.group, &l.label),
		child("replay.insert", l.publish, &l.insert), child("replay.sample", l.insert, &l.sample),
	); err != nil {
		return l, err
	}
	at := slices.IndexFunc(spans, func(s tracetest.Span) bool {
		return s.Name == "learner.update" && slices.Contains(s.Links, l.sample.Place)
	})
	if at < 0 {
		return l, errors.New("no update links to the sampled group")
	}
	l.update = spans[at]
	at = slices.IndexFunc(spans, func(s tracetest.Span) bool {
		return s.Name == learner.SpanStep && s.Trace == l.update.Trace && s.Span == l.update.Parent
	})
	if at < 0 {
		return l, errors.New("the update is part of no step")
	}
	l.step = spans[at]
	if !slices.Contains(l.sample.Links, l.step.Place) {
		return l, errors.New("the sampled group does not link to the step that asked for it")
	}
	return l, child("weights.publish", l.step, &l.weights)
}

// whole finds a credit whose whole life has been told.
func whole(spans []tracetest.Span) (life, error) {
	err := errors.New("no credit was issued")
	for _, s := range spans {
		if s.Name != "credit.issue" {
			continue
		}
		var l life
		if l, err = lifeOf(spans, s); err == nil {
			return l, nil
		}
	}
	return life{}, err
}

// TestTraceOfACredit trains over a real bus until the receiver of traces has the
// whole life of one credit.
func TestTraceOfACredit(t *testing.T) {
	receiver := tracetest.Start(t)
	cfg := quick(t)
	cfg.Learner.Steps = 1000 // until it is stopped
	cfg.Judge.Judge = rewardsrv.JudgeRule
	cfg.Tracing.Endpoint, cfg.Tracing.FlushInterval = receiver.URL(), 10*time.Millisecond
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	stop, done := make(chan struct{}), make(chan error, 1)
	go func() {
		_, err := Train(ctx, cfg, TrainOptions{Logger: slog.New(slog.DiscardHandler), Stop: stop})
		done <- err
	}()
	told := receiver.Await(ctx, func(spans []tracetest.Span) bool { _, err := whole(spans); return err == nil })
	close(stop)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	spans := receiver.Spans()
	l, err := whole(spans)
	if err != nil {
		t.Fatalf("told in time: %v; after the end: %v", told, err)
	}

	if l.issue.Parent != "" || l.step.Parent != "" || l.issue.Trace == l.step.Trace {
		t.Errorf("issue %+v and step %+v do not begin traces of their own", l.issue, l.step)
	}
	for _, s := range []tracetest.Span{l.issue, l.group, l.sample} {
		if s.Attributes[forager.AttributeRun] != cfg.Run.ID || s.Attributes[forager.AttributeGroup] != l.issue.Attributes[forager.AttributeGroup] {
			t.Errorf("%s is of run %q and group %q", s.Name, s.Attributes[forager.AttributeRun], s.Attributes[forager.AttributeGroup])
		}
	}
	if l.group.Attributes[forager.AttributeTask] != l.issue.Attributes[forager.AttributeTask] || l.group.Attributes[forager.AttributeActor] == "" {
		t.Errorf("attributes of the group: %v", l.group.Attributes)
	}
	if l.update.Attributes[forager.AttributeStep] != l.step.Attributes[forager.AttributeStep] || l.update.Attributes[forager.AttributeGroups] != fmt.Sprint(len(l.update.Links)) {
		t.Errorf("attributes of the update: %v, %d links", l.update.Attributes, len(l.update.Links))
	}
	order := []tracetest.Span{l.issue, l.group, l.publish, l.insert, l.sample, l.update, l.weights}
	if !slices.IsSortedFunc(order, func(a, b tracetest.Span) int { return a.Start.Compare(b.Start) }) {
		t.Errorf("out of order: %+v", order)
	}
	episodes := 0
	for _, s := range spans {
		if s.Name == "rollout.episode" && s.Parent == l.group.Span {
			episodes++
		}
		if s.Service != "forager" {
			t.Errorf("%s is of service %s", s.Name, s.Service)
		}
	}
	if episodes != cfg.Learner.GroupSize {
		t.Errorf("%d episodes in the group, want %d", episodes, cfg.Learner.GroupSize)
	}
	checkSecrecy(t, &cfg, spans)
}

// checkSecrecy fails when an attribute tells a question or an answer.
func checkSecrecy(t *testing.T, cfg *Config, spans []tracetest.Span) {
	t.Helper()
	tasks, err := loadTasks(cfg)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range spans {
		for name, value := range s.Attributes {
			if !strings.HasPrefix(name, "forager.") {
				t.Errorf("%s has an attribute %s", s.Name, name)
			}
			if _, err := strconv.Atoi(value); err == nil {
				continue // a step may have the number that is an answer
			}
			for _, task := range tasks.split(forager.Train) {
				if strings.Contains(value, task.Question) || slices.Contains(task.Answers, value) {
					t.Fatalf("attribute %s of %s is %q", name, s.Name, value)
				}
			}
		}
	}
}

// TestTrainWithDeadCollector: whoever should take the spans takes the connection
// and says nothing.
func TestTrainWithDeadCollector(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	cfg := quick(t)
	cfg.Eval.Skip = true
	cfg.Tracing.Endpoint, cfg.Tracing.MaxQueue = "http://"+listener.Addr().String(), 16
	cfg.Tracing.Timeout, cfg.Tracing.FlushInterval = 200*time.Millisecond, 10*time.Millisecond
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	result, err := Train(ctx, cfg, TrainOptions{Logger: slog.New(slog.DiscardHandler)})
	if err != nil || !result.Finished {
		t.Fatalf("finished %v, %v", result.Finished, err)
	}
}
