// Package tracing sends the spans of a process to an OpenTelemetry collector, or
// makes none when no collector is named.
//
// The other packages know OpenTelemetry's API alone and are given a Tracer; what
// is behind it is decided here. Nothing here waits for the collector but Close,
// for a bounded time: spans that it does not take in time are dropped, counted and
// mentioned once. Nothing global is set.
//
// Only node imports it. It owns OpenTelemetry's SDK and exporter.
package tracing
