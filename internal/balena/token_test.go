package balena_test

import (
	"encoding/base64"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/balena-exporter/balena-exporter/internal/balena"
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

// White space around a token is trimmed. A token that can't be one is refused without being shown.
func TestTokens(t *testing.T) {
	const empty, unfit = "the token is empty", "the token holds blanks, line breaks or other characters that no token has"
	for name, test := range map[string]struct{ content, token, err string }{
		"plain":                {token, token, ""},
		"an editor's newline":  {token + "\n", token, ""},
		"a Windows newline":    {token + "\r\n", token, ""},
		"blanks around":        {" \t" + token + " \n\n", token, ""},
		"punctuation":          {"a.b-c_d~e+f/g=", "a.b-c_d~e+f/g=", ""},
		"empty":                {"", "", empty},
		"blank":                {" \n", "", empty},
		"a blank inside":       {"SECRET token", "", unfit},
		"two lines":            {"SECRET\nAuthorization: other", "", unfit},
		"a control character":  {"SECRET\x00", "", unfit},
		"a letter with accent": {"SECRÉT", "", unfit},
		"a byte order mark":    {"\uFEFFSECRET", "", unfit},
		"no text":              {"SECRET\xff\xfe", "", unfit},
	} {
		t.Run(name, func(t *testing.T) {
			file := tokenFile(t, test.content)
			for prefix, source := range map[string]balena.TokenSource{
				"":                          balena.StaticToken(test.content),
				"token file " + file + ": ": balena.FileToken(file),
			} {
				got, err := source()
				if got != test.token {
					t.Errorf("the token is %q, want %q", got, test.token)
				}
				if test.err == "" && err != nil {
					t.Errorf("error %v", err)
				}
				if test.err != "" && (err == nil || err.Error() != prefix+test.err) {
					t.Errorf("error %v, want %s", err, prefix+test.err)
				}
				if err != nil && strings.Contains(err.Error(), "SECR") {
					t.Errorf("the error %q shows the token", err)
				}
			}
		})
	}
}

// A token file that can't be read, now or later, fails the refresh and not more.
func TestTokenFileThatComesAndGoes(t *testing.T) {
	sim := newSimulator(t, small)
	file := filepath.Join(t.TempDir(), "token")
	client := newClient(t, serve(t, sim), fewer, func(c *balena.Config) { c.Token = balena.FileToken(file) })
	missing := "token: cannot read the token file: open " + file + ": no such file or directory"
	wantError(t, fetchError(t, client), balena.Unavailable, 0, missing)
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
	wantError(t, fetchError(t, client), balena.Unavailable, 0, "token: token file "+file+": the token is empty")
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	wantError(t, fetchError(t, client), balena.Unavailable, 0, missing)
}

// A token that was revoked is a 401 until the file holds another: the next refresh sends that.
func TestRotatedToken(t *testing.T) {
	sim := newSimulator(t, small)
	file := tokenFile(t, token)
	client := newClient(t, serve(t, sim), fewer, func(c *balena.Config) { c.Token = balena.FileToken(file) })
	fetchWithParts(t, client)
	sim.SetTokens("rotated")
	wantError(t, fetchError(t, client), balena.Unauthorized, 401,
		"GET /v7/application: answered 401: the token was not accepted, or the server's database is down")
	if err := os.WriteFile(file, []byte("rotated\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	fetchWithParts(t, client)
}

// When a session token expires stands in itself. An API key does not tell.
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
			client := newClient(t, serve(t, sim), fewer, func(c *balena.Config) { c.Token = balena.StaticToken(test.token) })
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
