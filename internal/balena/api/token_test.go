// SPDX-License-Identifier: Apache-2.0

package api_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/balena-exporter/balena-exporter/internal/balena/api"
)

// token is the secret that no output may contain.
const token = "0123456789abcdefSECRETfedcba9876"

func tokenFile(t testing.TB, content string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// White space around a token is trimmed. An invalid token is refused without being shown.
func TestTokens(t *testing.T) {
	const empty, unfit = "the token is empty", "the token contains blanks, line breaks or other characters that a token cannot have"
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
			for prefix, source := range map[string]api.TokenSource{
				"":                          api.StaticToken(test.content),
				"token file " + file + ": ": api.FileToken(file),
			} {
				got, err := source(t.Context())
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

// A path that is not a token file is refused at once: the exporter neither waits for a writer nor reads without end.
func TestInvalidTokenFiles(t *testing.T) {
	dir := t.TempDir()
	pipe, sparse := filepath.Join(dir, "pipe"), filepath.Join(dir, "sparse")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(sparse, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(sparse, 3<<30); err != nil {
		t.Fatal(err)
	}
	full := tokenFile(t, strings.Repeat("t", 64<<10))
	for path, want := range map[string]string{
		pipe:        "cannot read the token file: " + pipe + " is not a regular file",
		dir:         "cannot read the token file: " + dir + " is not a regular file",
		"/dev/zero": "cannot read the token file: /dev/zero is not a regular file",
		sparse:      "the token file " + sparse + " is larger than 64 KiB: it holds more than a token",
		full:        "",
	} {
		source := api.FileToken(path)
		_, err := source(t.Context())
		if got := fmt.Sprint(err); got != want && !(want == "" && err == nil) {
			t.Errorf("%s: error %s, want %q", path, got, want)
		}
	}
}
