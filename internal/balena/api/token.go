// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"time"
)

// TokenSource returns the token to send. It is called at the beginning of each refresh, so that a rotated token
// takes effect. It returns at the latest when the context is done. Only one goroutine at a time may call it.
type TokenSource func(context.Context) (string, error)

const (
	// maxTokenFile is the maximum size of a token file in bytes. A session token has about 1 kB.
	maxTokenFile = 64 << 10
	// tokenTimeout is the maximum time for reading a token file. Only a file system that hangs takes longer.
	tokenTimeout = 5 * time.Second
)

// StaticToken returns the source of a token that never changes.
func StaticToken(token string) TokenSource {
	return func(context.Context) (string, error) { return cleanToken(token) }
}

// FileToken returns a source that reads the token from a file each time.
func FileToken(path string) TokenSource {
	return boundedToken(func() (string, error) { return readTokenFile(path) })
}

// boundedToken bounds the time of read. A read from a network file system whose server is down can block forever, and no
// deadline ends it. At most one read runs at a time, however often the token is requested meanwhile.
func boundedToken(read func() (string, error)) TokenSource {
	type result struct {
		token string
		err   error
	}
	var reading chan result // the read in progress, or nil
	return func(ctx context.Context) (string, error) {
		if len(reading) > 0 {
			reading = nil // The read ended after its callers had given up. The file may have changed since.
		}
		if reading == nil {
			reading = make(chan result, 1)
			go func(done chan<- result) {
				token, err := read()
				done <- result{token, err}
			}(reading)
		}
		select {
		case r := <-reading:
			reading = nil
			return r.token, r.err
		case <-time.After(tokenTimeout):
			return "", fmt.Errorf("reading the token file takes longer than %s: check its file system", tokenTimeout)
		case <-ctx.Done():
			return "", ctx.Err()
		}
	}
}

func readTokenFile(path string) (string, error) {
	// Without O_NONBLOCK, opening a named pipe waits for a writer.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return "", fmt.Errorf("cannot read the token file: %w", err)
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return "", fmt.Errorf("cannot read the token file: %w", err)
	}
	if !info.Mode().IsRegular() {
		return "", fmt.Errorf("cannot read the token file: %s is not a regular file", path)
	}
	content, err := io.ReadAll(io.LimitReader(f, maxTokenFile+1))
	if err != nil {
		return "", fmt.Errorf("cannot read the token file: %w", err)
	}
	if len(content) > maxTokenFile {
		return "", fmt.Errorf("the token file %s is larger than %d KiB: it holds more than a token", path, maxTokenFile>>10)
	}
	token, err := cleanToken(string(content))
	if err != nil {
		return "", fmt.Errorf("token file %s: %w", path, err)
	}
	return token, nil
}

// cleanToken trims the white space that editors and shells leave around a token. The rest must be valid in a header.
// The error does not repeat it, because a token that is nearly right is a secret too.
func cleanToken(s string) (string, error) {
	token := strings.TrimSpace(s)
	if token == "" {
		return "", errors.New("the token is empty")
	}
	for _, r := range token {
		if r <= ' ' || r > '~' {
			return "", errors.New("the token contains blanks, line breaks or other characters that a token cannot have")
		}
	}
	return token, nil
}

// tokenExpiry returns when a session token (a JWT) expires: its claim "exp", in seconds since 1970. It returns 0 for
// an API key, whose expiry date is not part of the key.
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
