// Package judge asks language models behind OpenAI-compatible endpoints (vLLM,
// SGLang, llama.cpp, Ollama, hosted ones) and looks after those endpoints. It
// knows nothing of rubrics or labels: a prompt goes in, text comes out.
//
// A Pool holds the endpoints. Ask takes one place at the endpoint with the most
// room, and goes to another when that one fails. For each endpoint the pool keeps
//
//   - a limit of calls in flight that follows what the endpoint bears, by
//     additive increase and multiplicative decrease (limit.go);
//   - a circuit breaker, for an endpoint that is down (sony/gobreaker);
//   - a pause, for one that says 429 or Retry-After;
//   - a reason why it is set aside, for one that refuses the key, the model or
//     the address: this is said once, since only a person can mend it;
//   - its dialect: which optional parameters it turned out to refuse.
//
// Budgets of requests and tokens per hour hold for the pool as a whole.
//
// Errors are of three sorts: ErrUnusable blames the request, ErrUnavailable says
// when to come back, and every other error is an endpoint that failed as often
// as retries allow. What an endpoint sends is bounded while it is read, API keys
// are in no error or log line, and addresses are shown without user and query.
//
// It imports the root package, the OpenAI client, gobreaker and the Prometheus
// client. Package rewardsrv and the command import it; judgetest is an endpoint
// for tests.
package judge
