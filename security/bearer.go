package security

import (
	"crypto/sha256"
	"crypto/subtle"
	"net/http"
	"strings"
)

// Authorizer tells whether an Authorization header carries the token (RFC 6750). With
// an empty token every header will do.
func Authorizer(token string) func(header string) bool {
	if token == "" {
		return func(string) bool { return true }
	}
	want := sha256.Sum256([]byte(token))
	return func(header string) bool {
		scheme, given, _ := strings.Cut(header, " ")
		// Digests, so that not even the length shows in the time that it takes.
		have := sha256.Sum256([]byte(strings.TrimSpace(given)))
		return strings.EqualFold(scheme, "Bearer") && subtle.ConstantTimeCompare(want[:], have[:]) == 1
	}
}

// Bearer lets through requests that carry the token, and those for /healthz and
// /readyz, which tell nothing and are asked by schedulers. All others are answered
// 401. An empty token lets everything through.
func Bearer(token string, next http.Handler) http.Handler {
	authorized := Authorizer(token)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		open := r.URL.Path == "/healthz" || r.URL.Path == "/readyz"
		if !open && !authorized(r.Header.Get("Authorization")) {
			w.Header().Set("WWW-Authenticate", `Bearer realm="forager"`)
			http.Error(w, "the request carries no valid token", http.StatusUnauthorized)
			return
		}
		next.ServeHTTP(w, r)
	})
}
