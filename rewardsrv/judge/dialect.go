package judge

import (
	"encoding/json"
	"errors"
	"net/http"
	"strings"
)

// dialect is how an endpoint turned out to want its optional parameters.
type dialect struct {
	format         format
	newTokenLimit  bool // max_completion_tokens instead of max_tokens
	ownTemperature bool // no temperature
}

// format is how an endpoint is told the schema of its answer.
type format int

const (
	formatSchema format = iota // response_format json_schema, as OpenAI has it
	formatObject               // json_object with the schema beside it, as llama-cpp-python has it
	formatFree                 // not at all
)

// without gives the dialect without the parameter that a refusal names, and what
// that is called. ok is false when the refusal is about something else. The
// status may be 500 too, which llama-cpp-python's server gives for a parameter
// that it does not know.
func (d dialect) without(err error) (next dialect, parameter string, ok bool) {
	var refused *refusal
	if !errors.As(err, &refused) {
		return d, "", false
	}
	wrong := refused.status == http.StatusBadRequest || refused.status == http.StatusUnprocessableEntity
	broken := refused.status == http.StatusInternalServerError || refused.status == http.StatusNotImplemented
	names := func(word string) bool {
		return strings.Contains(refused.message, word) || strings.Contains(refused.param, word)
	}
	unsupported := strings.HasPrefix(refused.code, "unsupported_") // parameter or value
	switch {
	case d.format < formatFree && (wrong || broken) && (names("response_format") || names("json_schema")):
		d.format++
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

// follows tells whether an answer has what a schema requires at its top, which is
// how an endpoint that ignores the schema of a json_object is found out.
func follows(schema json.RawMessage, answer string) bool {
	var wanted struct {
		Required []string `json:"required"`
	}
	var given map[string]json.RawMessage
	if json.Unmarshal(schema, &wanted) != nil || json.Unmarshal([]byte(answer), &given) != nil {
		return false
	}
	for _, name := range wanted.Required {
		if given[name] == nil {
			return false
		}
	}
	return true
}
