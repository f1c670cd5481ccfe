// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// If the file system hangs, reading a token fails after tokenTimeout, and so do further reads until the file system
// answers. Only one read is in progress, however often the token is requested.
func TestATokenThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var reads atomic.Int32
		answer := make(chan string)
		source := boundedToken(func() (string, error) {
			reads.Add(1)
			return <-answer, nil
		})
		const want = "reading the token file takes longer than 5s: check its file system"
		for range 3 {
			began := time.Now()
			_, err := source(t.Context())
			if err == nil || err.Error() != want || time.Since(began) != tokenTimeout {
				t.Errorf("after %s: error %v, want after %s: %s", time.Since(began), err, tokenTimeout, want)
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		if _, err := source(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("canceled: error %v", err)
		}
		if n := reads.Load(); n != 1 {
			t.Errorf("%d reads at once, want 1", n)
		}

		// The first read ends when no caller waits for it. Its token may be outdated.
		answer <- "old"
		synctest.Wait()
		go func() { answer <- "new" }()
		if token, err := source(t.Context()); token != "new" || err != nil {
			t.Errorf("got the token %q, error %v, want the one that is in the file now", token, err)
		}
		// A read that ends while a caller waits is used.
		go func() { answer <- "newer" }()
		if token, err := source(t.Context()); token != "newer" || err != nil {
			t.Errorf("got the token %q, error %v, want another read", token, err)
		}
	})
}
