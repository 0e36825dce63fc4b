package tracing

import (
	"errors"
	"fmt"
	"net/url"
	"time"
)

// Config says where spans go and how many.
type Config struct {
	// Endpoint is the URL of an OTLP/HTTP receiver, such as http://127.0.0.1:4318;
	// without a path it is /v1/traces there. Empty: nothing is traced. Headers with
	// credentials come from the variable OTEL_EXPORTER_OTLP_HEADERS.
	Endpoint string `mapstructure:"endpoint"`
	// SampleRatio is the share of credits whose life is traced, 0 to 1. It is decided
	// when a credit is issued and holds in all processes. Steps of the learner are
	// traced in any case: they are few, and the traces of credits lead to them.
	SampleRatio float64 `mapstructure:"sample_ratio"`
	// Timeout bounds one export, its repetitions included, and the last one when the
	// process ends.
	Timeout time.Duration `mapstructure:"timeout"`
	// MaxQueue is the number of finished spans that wait for the receiver, at least
	// 1; further ones are dropped and counted.
	MaxQueue int `mapstructure:"max_queue"`
	// FlushInterval is how long a finished span waits at most for others to be sent
	// with.
	FlushInterval time.Duration `mapstructure:"flush_interval"`
}

// DefaultConfig traces nothing. Once an endpoint is set all credits are traced:
// who switches traces on wants to find the credit in question, and one costs a few
// dozen spans.
func DefaultConfig() Config {
	return Config{SampleRatio: 1, Timeout: 5 * time.Second, MaxQueue: 4096, FlushInterval: 2 * time.Second}
}

// Validate reports every setting out of range.
func (c Config) Validate() error {
	var errs []error
	if c.Endpoint != "" {
		errs = append(errs, checkEndpoint(c.Endpoint))
	}
	if !(c.SampleRatio >= 0 && c.SampleRatio <= 1) { // also not a number
		errs = append(errs, fmt.Errorf("sample_ratio is %g, want 0 to 1", c.SampleRatio))
	}
	if c.Timeout <= 0 {
		errs = append(errs, fmt.Errorf("timeout is %v, want more than 0", c.Timeout))
	}
	if c.MaxQueue < 1 {
		errs = append(errs, fmt.Errorf("max_queue is %d, want at least 1", c.MaxQueue))
	}
	if c.FlushInterval <= 0 {
		errs = append(errs, fmt.Errorf("flush_interval is %v, want more than 0", c.FlushInterval))
	}
	return errors.Join(errs...)
}

// checkEndpoint reports an endpoint that cannot be asked, without what may be
// secret in it.
func checkEndpoint(endpoint string) error {
	u, err := url.Parse(endpoint)
	switch {
	case err != nil:
		return errors.New("endpoint is no URL, want one such as http://127.0.0.1:4318")
	case u.User != nil || u.RawQuery != "" || u.Fragment != "":
		return fmt.Errorf("endpoint on %s has a user or a query; credentials go into OTEL_EXPORTER_OTLP_HEADERS", u.Host)
	case u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "":
		return fmt.Errorf("endpoint is %q, want a URL such as http://127.0.0.1:4318", endpoint)
	}
	return nil
}

// receiver is the whole URL that spans are posted to.
func (c Config) receiver() string {
	u, err := url.Parse(c.Endpoint)
	if err == nil && (u.Path == "" || u.Path == "/") {
		u.Path = "/v1/traces"
		return u.String()
	}
	return c.Endpoint
}
