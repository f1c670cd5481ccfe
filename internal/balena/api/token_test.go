package api_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/balena-exporter/balena-exporter/internal/balena/api"
)

// token is what nothing may ever show.
const token = "0123456789abcdefSECRETfedcba9876"

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
