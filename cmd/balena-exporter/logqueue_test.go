// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// gate is a writer that blocks until it is opened, like a pipe that is not read.
type gate struct {
	*transcript
	open chan struct{}
}

func (g gate) Write(p []byte) (int, error) {
	<-g.open
	return g.transcript.Write(p)
}

func startQueue(g gate) *logQueue {
	q := newLogQueue(g)
	q.start(func(lost int64) { fmt.Fprintf(g, "%d lost\n", lost) })
	return q
}

// TestLogQueueWritesAllLines checks that lines are written in order, and that flush waits for the last one.
func TestLogQueueWritesAllLines(t *testing.T) {
	g := gate{&transcript{}, make(chan struct{})}
	close(g.open)
	q := startQueue(g)
	var want strings.Builder
	for i := range 500 {
		fmt.Fprintf(q, "line %d\n", i)
		fmt.Fprintf(&want, "line %d\n", i)
	}
	q.flush(patience)
	if got := g.String(); got != want.String() {
		t.Errorf("got %s", got)
	}
}

// TestLogQueueDropsAndCounts checks that a full queue drops lines without waiting, and reports their number after it drained.
func TestLogQueueDropsAndCounts(t *testing.T) {
	for name, test := range map[string]struct {
		size, lines, lost int
	}{
		"lines": {10, 3000, 3000 - maxQueuedLines - 1}, // one more line is being written
		"bytes": {64 << 10, 50, 50 - maxQueuedBytes/(64<<10)},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := gate{&transcript{}, make(chan struct{})}
				q := startQueue(g)
				line := []byte(strings.Repeat("x", test.size-1) + "\n")
				for range test.lines {
					if n, err := q.Write(line); n != len(line) || err != nil {
						t.Fatalf("wrote %d bytes: %v", n, err)
					}
					synctest.Wait()
				}
				began := time.Now()
				q.flush(time.Second)
				if took := time.Since(began); took != time.Second {
					t.Errorf("flush took %s, want the timeout of 1s", took)
				}
				close(g.open)
				<-q.drained
				if got, want := strings.Count(g.String(), "x\n"), test.lines-test.lost; got != want {
					t.Errorf("%d lines were written, want %d", got, want)
				}
				if want := fmt.Sprintf("x\n%d lost\n", test.lost); !strings.HasSuffix(g.String(), want) {
					t.Errorf("the log does not end with %q", want)
				}
			})
		})
	}
}

// TestLogQueueContinuesAfterErrors checks that the queue continues after an error of the writer, such as a closed pipe.
func TestLogQueueContinuesAfterErrors(t *testing.T) {
	r, w := io.Pipe()
	_ = r.Close()
	q := newLogQueue(w)
	q.start(func(int64) {})
	fmt.Fprintln(q, "one")
	fmt.Fprintln(q, "two")
	q.flush(patience)
	if q.size.Load() != 0 {
		t.Errorf("%d bytes are still in the queue", q.size.Load())
	}
}
