// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"time"
)

const (
	// throttleBurst lines of a kind are logged at once, and then one per throttleEvery.
	throttleBurst = 10
	throttleEvery = time.Minute
	// maxThrottled is the number of kinds of lines that are distinguished.
	maxThrottled = 16
)

// A throttle is a slog.Handler that limits the number of lines of each kind. It is for lines that any client can cause:
// net/http logs a line for each connection that is not TLS.
type throttle struct {
	slog.Handler

	mutex sync.Mutex
	kinds map[string]*allowance
}

// An allowance is the number of lines of a kind that may be logged.
type allowance struct {
	left       float64 // number of lines, at the time last
	last       time.Time
	suppressed int // lines since the last one that was logged
}

func newThrottle(h slog.Handler) *throttle {
	return &throttle{Handler: h, kinds: map[string]*allowance{}}
}

// Handle implements slog.Handler.
func (t *throttle) Handle(ctx context.Context, r slog.Record) error {
	suppressed, ok := t.admit(r.Message, time.Now())
	if !ok {
		return nil
	}
	if suppressed > 0 {
		r = r.Clone()
		r.AddAttrs(slog.Int("suppressed", suppressed))
	}
	return t.Handler.Handle(ctx, r)
}

// admit reports whether a line may be logged, and how many lines of its kind were suppressed before it.
func (t *throttle) admit(message string, now time.Time) (suppressed int, ok bool) {
	t.mutex.Lock()
	defer t.mutex.Unlock()
	// The first words are constant texts of net/http: "http: TLS handshake error from …".
	words := strings.Fields(message)
	kind := strings.Join(words[:min(len(words), 3)], " ")
	a := t.kinds[kind]
	if a == nil && len(t.kinds) >= maxThrottled {
		kind = ""
		a = t.kinds[kind]
	}
	if a == nil {
		a = &allowance{left: throttleBurst, last: now}
		t.kinds[kind] = a
	}
	a.left = min(a.left+float64(now.Sub(a.last))/float64(throttleEvery), throttleBurst)
	a.last = now
	if a.left < 1 {
		a.suppressed++
		return 0, false
	}
	a.left--
	suppressed, a.suppressed = a.suppressed, 0
	return suppressed, true
}
