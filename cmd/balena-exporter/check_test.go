// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/balena-exporter/balena-exporter/internal/simulator"
)

// sessionToken returns a session token that expires at a time.
func sessionToken(expiry time.Time) string {
	claims := base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, `{"id":2,"exp":%d}`, expiry.Unix()))
	return "eyJhbGciOiJIUzI1NiJ9." + claims + "." + secret
}

// TestConfigCheck runs the check as a process and compares its output. In the expected lines, … matches any text.
func TestConfigCheck(t *testing.T) {
	t.Parallel()
	dir, authority := t.TempDir(), newAuthority(t)
	file := func(name, content string) string { return write(t, dir, name, content) }
	newest, oldest := time.Now().Add(24*time.Hour).Truncate(time.Second), time.Date(2026, time.November, 1, 12, 0, 0, 0, time.UTC)
	valid, expired := sessionToken(newest), sessionToken(oldest)

	sim := func(config simulator.Config) http.Handler {
		s, err := simulator.New(config)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	account := smallAccount()
	account.Tokens = []string{token, valid}
	good, _ := serveHandler(t, sim(account))
	account.Fleets = 1
	one, _ := serveHandler(t, sim(account))
	account.Fleets = 2
	account.Versions = []string{"v6"}
	v6, _ := serveHandler(t, sim(account))
	empty, _ := serveHandler(t, sim(simulator.Config{Dataset: &simulator.Dataset{}}))
	nothing, _ := serveHandler(t, http.NotFoundHandler())
	echo, _ := serveHandler(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusForbidden)
		_, _ = io.WriteString(w, r.Header.Get("Authorization"))
	}))
	private := httptest.NewUnstartedServer(sim(smallAccount()))
	private.Config.ErrorLog = log.New(io.Discard, "", 0) // failures of handshakes are expected
	private.StartTLS()
	t.Cleanup(private.Close)
	ca := file("ca.pem", encode("CERTIFICATE", private.Certificate().Raw))
	closed, closeServer := serveHandler(t, http.NotFoundHandler())
	closeServer()

	tokenFile := file("token", token)
	missing := filepath.Join(dir, "missing")
	authority.issue("127.0.0.1").write(t, dir)
	webConfig := file("web.yml", tlsConfig+alice)
	file("other.key", authority.issue("127.0.0.1").key)
	otherKey := file("other.yml", "tls_server_config: {cert_file: tls.crt, key_file: other.key}\n")

	const (
		settingsOK = "ok       settings: valid"
		webOK      = "ok       web configuration: none: plain HTTP without authentication"
		caOK       = "ok       CA certificates: those of the system"
		tokenOK    = "ok       token: read from BALENA_TOKEN"
		skipped    = "skipped  API: not requested because of the errors above"
	)
	for name, test := range map[string]struct {
		token string // in the environment
		args  []string
		want  []string
		fails bool
	}{
		"good": {token: token, args: []string{"--balena.api-url=" + good}, want: []string{
			settingsOK, webOK, caOK, tokenOK,
			"ok       API: " + good + " answers with version v7, and the token has access to 2 fleets",
		}},
		"everything in files": {args: []string{"--balena.api-url=" + one, "--balena.token-file=" + tokenFile, "--balena.ca-file=" + ca, "--web.config.file=" + webConfig}, want: []string{
			settingsOK, "ok       web configuration: " + webConfig, caOK + " and of " + ca, "ok       token: read from " + tokenFile,
			"ok       API: " + one + " answers with version v7, and the token has access to 1 fleet",
		}},
		"a private CA": {token: token, args: []string{"--balena.api-url=" + private.URL, "--balena.ca-file=" + ca}, want: []string{
			settingsOK, webOK, caOK + " and of " + ca, tokenOK,
			"ok       API: " + private.URL + " answers with version v7, …",
		}},
		"API v6": {token: token, args: []string{"--balena.api-url=" + v6}, want: []string{
			settingsOK, webOK, caOK, tokenOK,
			"ok       API: " + v6 + " answers with version v6, and the token has access to 2 fleets",
		}},
		"a session token": {token: valid, args: []string{"--balena.api-url=" + good}, want: []string{
			settingsOK, webOK, caOK,
			tokenOK + ", a session token that expires at " + newest.UTC().Format(time.RFC3339),
			"ok       API: " + good + " answers with version v7, and the token has access to 2 fleets",
		}},
		"a warning": {token: token, args: []string{"--balena.api-url=" + good, "--balena.max-staleness=1m"}, want: []string{
			settingsOK, "warning  settings: --balena.max-staleness of 1m0s is short: …", webOK, caOK, tokenOK,
			"ok       API: " + good + " answers with version v7, and the token has access to 2 fleets",
		}},
		"no fleets": {token: token, args: []string{"--balena.api-url=" + empty}, want: []string{
			settingsOK, webOK, caOK, tokenOK,
			"warning  API: " + empty + " answers with version v7, but the token has no access to any fleet: there will be no metrics of fleets and devices",
		}},
		"a wrong token": {token: secret + "-of-yesterday", fails: true, args: []string{"--balena.api-url=" + good}, want: []string{
			settingsOK, webOK, caOK, tokenOK,
			"error    API: " + good + ": GET /v7/application/$count: answered 401: the token was not accepted, …",
		}},
		"an expired session token": {token: expired, fails: true, args: []string{"--balena.api-url=" + good}, want: []string{
			settingsOK, webOK, caOK,
			"error    token: read from BALENA_TOKEN, a session token that expired at 2026-11-01T12:00:00Z; use a new one, or an API key, …",
			"error    API: " + good + ": GET /v7/application/$count: answered 401: …",
		}},
		"a server that repeats the token": {token: token, fails: true, args: []string{"--balena.api-url=" + echo}, want: []string{
			settingsOK, webOK, caOK, tokenOK,
			"error    API: " + echo + ": GET /v7/application/$count: answered 403: a text that repeats the token",
		}},
		"an API that cannot be reached": {token: token, fails: true, args: []string{"--balena.api-url=" + closed}, want: []string{
			settingsOK, webOK, caOK, tokenOK,
			"error    API: " + closed + ": GET /v7/application/$count: … connection refused",
		}},
		"a server without an API": {token: token, fails: true, args: []string{"--balena.api-url=" + nothing}, want: []string{
			settingsOK, webOK, caOK, tokenOK,
			"error    API: " + nothing + ": GET /v7/application and /v6/application: answered 404: there is no balena API at this address, check --balena.api-url",
		}},
		"another CA": {token: token, fails: true, args: []string{"--balena.api-url=" + private.URL, "--balena.ca-file=" + file("other.pem", authority.pem)}, want: []string{
			settingsOK, webOK, caOK + " and of …", tokenOK,
			"error    API: " + private.URL + ": GET /v7/application/$count: … certificate signed by unknown authority: … --balena.ca-file",
		}},
		"no CA file": {token: token, fails: true, args: []string{"--balena.api-url=" + private.URL, "--balena.ca-file=" + missing}, want: []string{
			settingsOK, webOK, "error    CA certificates: --balena.ca-file: cannot read the CA file: open " + missing + ": no such file or directory", tokenOK, skipped,
		}},
		"no token file": {fails: true, args: []string{"--balena.api-url=" + good, "--balena.token-file=" + missing}, want: []string{
			settingsOK, webOK, caOK,
			"error    token: --balena.token-file (BALENA_TOKEN_FILE): cannot read the token file: open " + missing + ": no such file or directory", skipped,
		}},
		"no token": {fails: true, args: []string{"--balena.api-url=" + good}, want: []string{
			settingsOK, webOK, caOK, "error    token: there is no token; set BALENA_TOKEN, …", skipped,
		}},
		"a web configuration with the key of another certificate": {token: token, fails: true, args: []string{"--balena.api-url=" + good, "--web.config.file=" + otherKey}, want: []string{
			settingsOK, "error    web configuration: --web.config.file: … private key does not match public key", caOK, tokenOK,
			"ok       API: " + good + " answers with version v7, and the token has access to 2 fleets",
		}},
		"all mistakes at once": {token: secret + " " + secret, fails: true, args: []string{"--balena.api-url=http://[", "--balena.page-size=0", "--balena.ca-file=" + missing, "--web.config.file=" + missing}, want: []string{
			"error    settings: --balena.api-url (BALENA_API_URL) must be a URL …",
			"error    settings: --balena.page-size must be from 1 to 10000, but is 0",
			"error    web configuration: --web.config.file: open " + missing + ": no such file or directory",
			"error    CA certificates: --balena.ca-file: cannot read the CA file: …",
			"error    token: BALENA_TOKEN: the token … blanks, …", skipped,
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			// The check must not listen: these addresses are not available.
			command := command(t, append(test.args, "--config.check", "--web.listen-address=192.0.2.1:1", "--web.health-listen-address=192.0.2.1:1")...)
			if test.token != "" {
				command.Env = append(command.Env, "BALENA_TOKEN="+test.token)
			}
			var stdout, stderr bytes.Buffer
			command.Stdout, command.Stderr = &stdout, &stderr
			err := command.Run()
			wantStderr := ""
			if test.fails {
				wantStderr = "balena-exporter: error: the configuration check found an error\n"
			}
			if exit, ok := errors.AsType[*exec.ExitError](err); ok != test.fails || ok && exit.ExitCode() != 1 || !ok && err != nil {
				t.Errorf("ended with %v", err)
			}
			if stderr.String() != wantStderr {
				t.Errorf("stderr is %q, want %q", &stderr, wantStderr)
			}
			got := strings.Split(strings.TrimSuffix(stdout.String(), "\n"), "\n")
			if !slices.EqualFunc(got, test.want, like) {
				t.Errorf("printed\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(test.want, "\n"))
			}
			if strings.Contains(stdout.String()+stderr.String(), secret) {
				t.Errorf("a secret was printed: %s", &stdout)
			}
		})
	}
}

// like reports whether a line matches an expected line, in which … matches any text.
func like(line, want string) bool {
	for i, part := range strings.Split(want, "…") {
		at := strings.Index(line, part)
		if at < 0 || i == 0 && at > 0 {
			return false
		}
		line = line[at+len(part):]
	}
	return line == "" || strings.HasSuffix(want, "…")
}

// TestConfigCheckSendsOneRequest checks the number of requests to the API.
func TestConfigCheckSendsOneRequest(t *testing.T) {
	t.Parallel()
	sim := serveAPI(t, smallAccount())
	var stdout, stderr bytes.Buffer
	args := append(defaults(t, sim.url, nil), "--config.check")
	if err := run(t.Context(), args, &stdout, &stderr); err != nil || stderr.Len() > 0 {
		t.Errorf("ended with %v and wrote %s", err, &stderr)
	}
	if n := len(sim.requests()); n != 1 {
		t.Errorf("the check sent %d requests, want 1", n)
	}
}
