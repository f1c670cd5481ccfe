// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"io"
	"sync"
	"sync/atomic"
	"time"
)

// Bounds of a logQueue. An exporter writes few lines, of a few hundred bytes each.
const (
	maxQueuedLines = 1000
	maxQueuedBytes = 1 << 20
)

// A logQueue is an io.Writer that forwards lines to another writer in the background, so that logging does not block if the
// log is a pipe that is not read. If the queue is full, lines are dropped and counted.
type logQueue struct {
	w       io.Writer
	lines   chan []byte
	size    atomic.Int64     // bytes in lines
	dropped atomic.Int64     // lines, since the last report
	report  func(lost int64) // logs to w that lines were dropped; called while the queue is empty

	closing chan struct{}
	close   sync.Once
	drained chan struct{}
}

// newLogQueue returns a queue. Call start to write its lines.
func newLogQueue(w io.Writer) *logQueue {
	return &logQueue{w: w, lines: make(chan []byte, maxQueuedLines), closing: make(chan struct{}), drained: make(chan struct{})}
}

// start begins to write lines in the background, and calls report there with the number of dropped lines.
func (q *logQueue) start(report func(lost int64)) {
	q.report = report
	go q.drain()
}

// Write adds a line to the queue. It never fails.
func (q *logQueue) Write(line []byte) (int, error) {
	size := int64(len(line))
	if q.size.Add(size) <= maxQueuedBytes {
		select {
		case q.lines <- bytes.Clone(line):
			return len(line), nil
		default:
		}
	}
	q.size.Add(-size)
	q.dropped.Add(1)
	return len(line), nil
}

func (q *logQueue) drain() {
	defer close(q.drained)
	for {
		select {
		case line := <-q.lines:
			q.pass(line)
			continue
		default:
		}
		if lost := q.dropped.Swap(0); lost > 0 {
			q.report(lost)
		}
		select {
		case line := <-q.lines:
			q.pass(line)
		case <-q.closing:
			if len(q.lines) == 0 && q.dropped.Load() == 0 {
				return
			}
		}
	}
}

// pass writes a line. If that fails, for example because the reader has ended, the line is lost.
func (q *logQueue) pass(line []byte) {
	_, _ = q.w.Write(line)
	q.size.Add(-int64(len(line)))
}

// flush waits until all lines are written, at most for patience, and ends the queue.
func (q *logQueue) flush(patience time.Duration) {
	q.close.Do(func() { close(q.closing) })
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	select {
	case <-q.drained:
	case <-timeout.C:
	}
}
