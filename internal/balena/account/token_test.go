// SPDX-License-Identifier: Apache-2.0

package account_test

import (
	"encoding/base64"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/balena-exporter/balena-exporter/internal/balena/account"
	"github.com/balena-exporter/balena-exporter/internal/balena/api"
	"github.com/balena-exporter/balena-exporter/internal/simulator"
)

func mustParse(t testing.TB, address string) *url.URL {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func tokenFile(t testing.TB, content string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// If a token file cannot be read, at the start or later, only the refresh fails.
func TestTokenFileThatComesAndGoes(t *testing.T) {
	sim := newSimulator(t, small)
	file := filepath.Join(t.TempDir(), "token")
	client := newClient(t, serve(t, sim), fewer, func(c *account.Config) { c.Token = api.FileToken(file) })
	missing := "token: cannot read the token file: open " + file + ": no such file or directory"
	wantError(t, fetchError(t, client), api.Unavailable, 0, missing)
	if n := sim.Requests(); len(n) > 0 {
		t.Errorf("sent requests without a token: %v", n)
	}
	if err := os.WriteFile(file, []byte(token+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	fetchWithParts(t, client)
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	wantError(t, fetchError(t, client), api.Unavailable, 0, "token: token file "+file+": the token is empty")
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	wantError(t, fetchError(t, client), api.Unavailable, 0, missing)
}

// A revoked token causes a 401 until the file has another token, which the next refresh sends.
func TestRotatedToken(t *testing.T) {
	sim := newSimulator(t, small)
	file := tokenFile(t, token)
	client := newClient(t, serve(t, sim), fewer, func(c *account.Config) { c.Token = api.FileToken(file) })
	fetchWithParts(t, client)
	sim.SetTokens("rotated")
	wantError(t, fetchError(t, client), api.Unauthorized, 401,
		"GET /v7/application page 1: answered 401: the token was not accepted, or the server's database is down")
	if err := os.WriteFile(file, []byte("rotated\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	fetchWithParts(t, client)
}

// The expiry date of a session token is part of the token. An API key has none.
func TestTokenExpiry(t *testing.T) {
	jwt := func(payload string) string {
		return "eyJhbGciOiJIUzI1NiJ9." + base64.RawURLEncoding.EncodeToString([]byte(payload)) + ".signature"
	}
	for name, test := range map[string]struct {
		token string
		want  time.Time
	}{
		"a session token":      {jwt(`{"id":2,"exp":1795355694}`), time.Unix(1795355694, 0)},
		"with a fraction":      {jwt(`{"exp":1795355694.9}`), time.Unix(1795355694, 0)},
		"an API key":           {token, time.Time{}},
		"a key with dots":      {"a.b.c", time.Time{}},
		"no base64":            {"a.%.c", time.Time{}},
		"no expiry":            {jwt(`{"id":2}`), time.Time{}},
		"no JSON":              {jwt(`exp`), time.Time{}},
		"an expiry of no type": {jwt(`{"exp":"soon"}`), time.Time{}},
		"before all time":      {jwt(`{"exp":-5}`), time.Time{}},
		"after all time":       {jwt(`{"exp":1e300}`), time.Time{}},
		"four pieces":          {jwt(`{"exp":1795355694}`) + ".more", time.Time{}},
	} {
		t.Run(name, func(t *testing.T) {
			sim := newSimulator(t, simulator.Config{Devices: 1, Fleets: 1, Tokens: []string{test.token}})
			client := newClient(t, serve(t, sim), fewer, func(c *account.Config) { c.Token = api.StaticToken(test.token) })
			if got := client.TokenExpiry(); !got.IsZero() {
				t.Errorf("before the first refresh: %s, want none", got)
			}
			fetchWithParts(t, client)
			if got := client.TokenExpiry(); !got.Equal(test.want) {
				t.Errorf("the token expires at %s, want %s", got, test.want)
			}
		})
	}
}
