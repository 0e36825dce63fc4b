package judge

import (
	"errors"
	"net/http"
	"strings"
)

// fault is who or what is to blame for a call's outcome.
type fault int

const (
	faultNone      fault = iota
	faultRequest         // this request: others may be answered
	faultBusy            // the endpoint has too much to do
	faultEndpoint        // the endpoint is down, slow or talks nonsense
	faultSettings        // key, model, address or account: a person must act
	faultCancelled       // the caller left, or nothing was sent
)

// outcome names a fault in metrics.
func (f fault) outcome() string {
	return [...]string{"answered", "unusable", "busy", "failed", "misconfigured", "cancelled"}[f]
}

// misconfigured is an error of the settings that is found before anything is sent.
type misconfigured struct {
	error
	advice string
}

func (m *misconfigured) Unwrap() error { return m.error }

// blame sorts the error of one exchange.
func blame(err error) fault {
	var refused *refusal
	var settings *misconfigured
	switch {
	case err == nil:
		return faultNone
	case errors.Is(err, ErrUnusable):
		return faultRequest
	case errors.Is(err, errLeft), errors.Is(err, ErrUnavailable): // the budget ended
		return faultCancelled
	case errors.As(err, &settings):
		return faultSettings
	case !errors.As(err, &refused):
		return faultEndpoint
	}
	switch refused.status {
	case http.StatusBadRequest, http.StatusRequestEntityTooLarge, http.StatusUnprocessableEntity:
		return faultRequest
	case http.StatusTooManyRequests:
		if refused.code == "insufficient_quota" { // OpenAI's word for an account without money
			return faultSettings
		}
		return faultBusy
	case http.StatusRequestTimeout, http.StatusConflict, http.StatusTooEarly:
		return faultEndpoint
	}
	if refused.status >= 500 {
		return faultEndpoint
	}
	return faultSettings // 401, 402, 403, 404 and their like, and redirects that lead nowhere
}

// advice is the next step after an error of the settings.
func (e *endpoint) advice(err error) string {
	var refused *refusal
	var settings *misconfigured
	if errors.As(err, &settings) {
		return settings.advice
	}
	if !errors.As(err, &refused) {
		return "correct base_url"
	}
	switch refused.status {
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusProxyAuthRequired:
		return e.key.advice()
	case http.StatusPaymentRequired, http.StatusTooManyRequests:
		return "see to the account of this endpoint's API key"
	case http.StatusNotFound:
		return "correct model (" + e.model + ") or base_url, which ends in /v1 for most servers"
	case http.StatusBadRequest, http.StatusUnprocessableEntity, http.StatusRequestEntityTooLarge:
		return "compare model, max_tokens, temperature and structured_output with what the endpoint offers"
	}
	return "correct base_url"
}

// dialect is the optional parameters that an endpoint turned out to refuse.
type dialect struct {
	freeText       bool // no response_format
	newTokenLimit  bool // max_completion_tokens instead of max_tokens
	ownTemperature bool // no temperature
}

// without gives the dialect without the parameter that a refusal names, and what
// it is called. ok is false when the refusal is about something else. With a
// message alone to go by, as for response_format, the status may also be 500:
// llama-cpp-python's server reports a wrong parameter so.
func (d dialect) without(err error) (next dialect, parameter string, ok bool) {
	var refused *refusal
	if !errors.As(err, &refused) {
		return d, "", false
	}
	wrong := refused.status == http.StatusBadRequest || refused.status == http.StatusUnprocessableEntity
	names := func(word string) bool {
		return strings.Contains(refused.message, word) || strings.Contains(refused.param, word)
	}
	unsupported := strings.HasPrefix(refused.code, "unsupported_") // parameter or value
	switch {
	case !d.freeText && (wrong || refused.status == http.StatusInternalServerError || refused.status == http.StatusNotImplemented) &&
		(names("response_format") || names("json_schema")):
		d.freeText = true
		return d, "response_format", true
	case !d.newTokenLimit && wrong && unsupported && refused.param == "max_tokens":
		d.newTokenLimit = true
		return d, "max_tokens", true
	case !d.ownTemperature && wrong && unsupported && refused.param == "temperature":
		d.ownTemperature = true
		return d, "temperature", true
	}
	return d, "", false
}
