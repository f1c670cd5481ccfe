// SPDX-License-Identifier: Apache-2.0

// Package refresh keeps the data up to date. In the background it reads one snapshot after another, renders it, and
// replaces the previous snapshot as a whole. A scrape never causes a refresh.
package refresh

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime/debug"
	"sync/atomic"
	"time"

	"github.com/go-kit/log"

	"github.com/balena-exporter/balena-exporter/internal/balena"
	"github.com/balena-exporter/balena-exporter/internal/balena/api"
	"github.com/balena-exporter/balena-exporter/internal/exposition"
)

// Config configures a Loop. All fields are required.
type Config struct {
	// Fetch reads a snapshot.
	Fetch func(context.Context) (*balena.Snapshot, error)
	// Render makes a page of a snapshot.
	Render func(*balena.Snapshot) *exposition.Page
	// Observe is called with the outcome and the duration of each refresh, except one that was canceled.
	Observe func(s *balena.Snapshot, err error, duration time.Duration)
	// Interval is the time from the beginning of one refresh to the beginning of the next.
	Interval time.Duration
	// MaxStaleness is how long a snapshot is served while refreshes fail.
	MaxStaleness time.Duration
	// Timeout is the maximum duration of a refresh. A refresh that takes longer fails.
	Timeout time.Duration
	Logger  log.Logger
}

const (
	// jitter spreads the refreshes of exporters that started together. It is a fraction of the wait.
	jitter = 0.05
	// firstRetry is the wait after the first failure of a server that is unavailable or limits the rate of requests.
	// The wait doubles with every further failure up to the interval. Failures then cause no more requests than
	// successful refreshes do.
	firstRetry = 5 * time.Second
	// pauseShare is the minimum pause between two refreshes as a fraction of the interval, so that a slow server has
	// times without requests.
	pauseShare = 0.1
)

// Loop refreshes repeatedly. Its methods Snapshot, Page and Status are safe for concurrent use.
type Loop struct {
	config   Config
	current  atomic.Pointer[current]
	status   atomic.Pointer[Status]
	failures int // consecutive
	journal  *journal
}

// Status is the outcome of the refreshes so far.
type Status struct {
	// Up reports whether the last refresh succeeded.
	Up bool
	// LastSuccess is the time of the newest data, whether they are still served or not; zero if no refresh has
	// succeeded yet.
	LastSuccess time.Time
	// LastError and LastErrorTime are the error and the time of the last refresh that failed. They remain set when later
	// refreshes succeed; they are empty and zero if no refresh has failed.
	LastError     string
	LastErrorTime time.Time
	// Next is when the next refresh begins; zero while a refresh is running.
	Next time.Time
}

// Status returns the outcome of the refreshes so far.
func (l *Loop) Status() Status { return *l.status.Load() }

// update changes the status. Only Run calls it.
func (l *Loop) update(change func(*Status)) {
	status := l.Status()
	change(&status)
	l.status.Store(&status)
}

// current is the snapshot that is served, and its page; both nil if there is none.
type current struct {
	snapshot *balena.Snapshot
	page     *exposition.Page
}

// New returns a Loop. Call Run to start it.
func New(config Config) *Loop {
	l := &Loop{config: config, journal: newJournal(config.Logger, config.MaxStaleness)}
	l.current.Store(&current{})
	l.status.Store(&Status{})
	return l
}

// Snapshot returns the newest snapshot, or nil if there is none or it is stale.
func (l *Loop) Snapshot() *balena.Snapshot { return l.fresh().snapshot }

// Page returns the page of the newest snapshot, or nil if there is none or it is stale.
func (l *Loop) Page() *exposition.Page { return l.fresh().page }

// fresh returns the current data unless they are stale. It checks their age at each call, so that data become stale
// even while a refresh hangs.
func (l *Loop) fresh() current {
	c := *l.current.Load()
	if c.snapshot == nil || time.Since(c.snapshot.Time) > l.config.MaxStaleness {
		return current{}
	}
	return c
}

// Run refreshes until the context is canceled.
func (l *Loop) Run(ctx context.Context) {
	defer l.journal.close()
	for {
		began := time.Now()
		err := l.once(ctx)
		if ctx.Err() != nil {
			return
		}
		wait := l.wait(err, time.Since(began))
		l.update(func(s *Status) { s.Next = time.Now().Add(wait) })
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
			l.update(func(s *Status) { s.Next = time.Time{} })
		}
	}
}

// once performs one refresh.
func (l *Loop) once(ctx context.Context) error {
	began := time.Now()
	s, err := l.fetch(ctx)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		l.failures++
		l.update(func(status *Status) {
			status.Up, status.LastError, status.LastErrorTime = false, err.Error(), time.Now()
		})
		l.config.Observe(nil, err, time.Since(began))
		l.journal.failed(err, l.failures)
		return err
	}
	l.current.Store(&current{s, l.config.Render(s)})
	l.failures = 0
	l.update(func(status *Status) { status.Up, status.LastSuccess = true, s.Time })
	duration := time.Since(began)
	l.config.Observe(s, nil, duration)
	l.journal.succeeded(s, duration)
	if s.Reading.Kind == balena.Full {
		// The next full refresh is a long time away, so return the memory of this one and of the replaced data to the
		// system. This takes time and therefore happens last: scrapes already get the new data and the new balena_up.
		debug.FreeOSMemory()
	}
	return nil
}

// fetch reads a snapshot, and fails if that takes longer than the timeout.
func (l *Loop) fetch(ctx context.Context) (*balena.Snapshot, error) {
	bounded, cancel := context.WithTimeout(ctx, l.config.Timeout)
	defer cancel()
	s, err := l.config.Fetch(bounded)
	if err != nil && bounded.Err() != nil {
		return nil, fmt.Errorf("the refresh was stopped because it took longer than %s: raise --balena.max-staleness, or divide the fleets with --balena.shard", l.config.Timeout)
	}
	return s, err
}

// wait returns how long to wait after a refresh with this error and duration.
func (l *Loop) wait(err error, duration time.Duration) time.Duration {
	pause := max(spread(l.config.Interval)-duration, time.Duration(pauseShare*float64(l.config.Interval)))
	if err == nil {
		return pause
	}
	backoff := spread(min(firstRetry<<min(l.failures-1, 20), l.config.Interval))
	e, _ := errors.AsType[*api.Error](err)
	if e == nil {
		return max(pause, backoff)
	}
	if e.Problem == api.Unavailable || e.Problem == api.RateLimited {
		pause = 0 // the server may recover soon
	}
	if e.Wait > 0 {
		// Never retry sooner than the server permits.
		pause = max(pause, e.Wait+rand.N(time.Duration(float64(e.Wait)*jitter)+time.Second))
	}
	return max(pause, backoff)
}

// spread adds jitter to a wait.
func spread(d time.Duration) time.Duration {
	return time.Duration(float64(d) * (1 - jitter + 2*jitter*rand.Float64()))
}
