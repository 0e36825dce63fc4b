package judge

import (
	"errors"
	"net/http"
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
		return "compare model, max_tokens, temperature, structured_output and extra_body with what the endpoint offers"
	}
	return "correct base_url"
}
