package api

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
)

// TokenSource returns the token to send. It is asked at the beginning of each refresh, so that a token
// that was rotated is picked up.
type TokenSource func(context.Context) (string, error)

// StaticToken is a token that never changes.
func StaticToken(token string) TokenSource {
	return func(context.Context) (string, error) { return cleanToken(token) }
}

// FileToken reads the token from a file anew each time.
func FileToken(path string) TokenSource {
	return func(context.Context) (string, error) {
		b, err := os.ReadFile(path)
		if err != nil {
			return "", fmt.Errorf("cannot read the token file: %w", err)
		}
		token, err := cleanToken(string(b))
		if err != nil {
			return "", fmt.Errorf("token file %s: %w", path, err)
		}
		return token, nil
	}
}

// cleanToken trims the white space that editors and shells leave around a token. What remains must be fit
// for a header; the error does not repeat it, since a token nearly right is a secret too.
func cleanToken(s string) (string, error) {
	token := strings.TrimSpace(s)
	if token == "" {
		return "", errors.New("the token is empty")
	}
	for _, r := range token {
		if r <= ' ' || r > '~' {
			return "", errors.New("the token holds blanks, line breaks or other characters that no token has")
		}
	}
	return token, nil
}

// tokenExpiry is when a session token (a JWT) expires, by its own claim "exp", in seconds since 1970; 0 for
// an API key, which does not tell.
func tokenExpiry(token string) int64 {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return 0
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return 0
	}
	var claims struct {
		Expiry float64 `json:"exp"`
	}
	if json.Unmarshal(payload, &claims) != nil {
		return 0
	}
	return max(0, int64(claims.Expiry))
}
