// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestThrottle checks that 300 failed TLS handshakes cause ten lines, and then one line per minute with the number of
// suppressed lines.
func TestThrottle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		_, slogger := newLoggers(&out, "info", "logfmt")
		server := newServer(nil, slogger)
		lines := func(text string) int {
			defer out.Reset()
			return strings.Count(out.String(), text)
		}
		failHandshakes := func(n int) {
			for i := range n {
				server.ErrorLog.Printf("http: TLS handshake error from 192.0.2.%d:%d: EOF %d", i%256, i, i)
			}
		}
		failHandshakes(300)
		if got := lines("TLS handshake error"); got != throttleBurst {
			t.Errorf("%d lines of 300 failed handshakes, want %d", got, throttleBurst)
		}
		// Other kinds of lines are throttled separately.
		server.ErrorLog.Print("http: panic serving 192.0.2.1:1: EOF")
		if got := lines("panic serving"); got != 1 {
			t.Errorf("%d lines of a panic, want 1", got)
		}
		time.Sleep(throttleEvery) //nolint:forbidigo // the time of synctest
		failHandshakes(300)
		if got := out.String(); strings.Count(got, "\n") != 1 || !strings.Contains(got, "suppressed=290") {
			t.Errorf("the log after a minute is %s", got)
		}
		lines("")
		time.Sleep(time.Hour) //nolint:forbidigo // the time of synctest
		failHandshakes(300)
		if got := lines("TLS handshake error"); got != throttleBurst {
			t.Errorf("%d lines after an hour, want %d", got, throttleBurst)
		}
	})
}

// TestThrottleIsBounded checks that further kinds of lines beyond the maximum count as one kind.
func TestThrottleIsBounded(t *testing.T) {
	throttle := newThrottle(slog.DiscardHandler)
	admitted := 0
	for i := range 10_000 {
		if _, ok := throttle.admit(fmt.Sprintf("some %d text", i), time.Unix(0, 0)); ok {
			admitted++
		}
	}
	if want := maxThrottled + throttleBurst; admitted != want || len(throttle.kinds) != maxThrottled+1 {
		t.Errorf("%d lines of %d kinds, want %d of %d", admitted, len(throttle.kinds), want, maxThrottled+1)
	}
}
