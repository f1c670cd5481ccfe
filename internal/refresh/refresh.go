// SPDX-License-Identifier: Apache-2.0

// Package refresh keeps the data fresh: it fetches a snapshot again and again in the background, one at a
// time and never because somebody scrapes, has it rendered, and swaps the new one in whole.
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

// Config says how to refresh. All fields are required.
type Config struct {
	// Fetch reads a snapshot.
	Fetch func(context.Context) (*balena.Snapshot, error)
	// Render makes a page of it.
	Render func(*balena.Snapshot) *exposition.Page
	// Observe is told how each refresh went; a refresh that was cancelled does not count.
	Observe func(s *balena.Snapshot, err error, took time.Duration)
	// Interval is the time from the beginning of one refresh to that of the next.
	Interval time.Duration
	// MaxStaleness is how long a snapshot is served while refreshes fail.
	MaxStaleness time.Duration
	// Timeout is how long a refresh may take. One that takes longer fails.
	Timeout time.Duration
	Logger  log.Logger
}

const (
	// jitter spreads the refreshes of many exporters that started together, as a share of the wait.
	jitter = 0.05
	// firstRetry is the wait after the first failure of a server that can't be reached or wants to be asked
	// less. It doubles with every further failure up to the interval, at which there are no more requests
	// than in good times.
	firstRetry = 5 * time.Second
	// pauseShare of the interval is the least pause between two refreshes, so that a server that is slow to
	// answer is left alone now and then.
	pauseShare = 0.1
)

// Loop refreshes. Its snapshot and page may be read at any time by anybody.
type Loop struct {
	config   Config
	current  atomic.Pointer[current]
	status   atomic.Pointer[Status]
	failures int // in a row
	journal  *journal
}

// Status is how the refreshes went.
type Status struct {
	// Up tells whether the last refresh succeeded.
	Up bool
	// LastSuccess is when the newest data were fetched, served or not; zero when no refresh succeeded yet.
	LastSuccess time.Time
	// LastError is the error of the last refresh that failed, and LastErrorTime when that was. They stay
	// when refreshes succeed again; empty and zero when none ever failed.
	LastError     string
	LastErrorTime time.Time
}

// Status returns how the refreshes went so far.
func (l *Loop) Status() Status {
	if s := l.status.Load(); s != nil {
		return *s
	}
	return Status{}
}

// current is what is served.
type current struct {
	snapshot *balena.Snapshot
	page     *exposition.Page
}

// New returns a loop that does not run yet.
func New(config Config) *Loop {
	return &Loop{config: config, journal: newJournal(config.Logger, config.MaxStaleness)}
}

// Snapshot returns the newest snapshot; nil when there is none or it is too old to be shown.
func (l *Loop) Snapshot() *balena.Snapshot {
	if c := l.fresh(); c != nil {
		return c.snapshot
	}
	return nil
}

// Page returns the newest snapshot as rendered; nil when there is none or it is too old to be shown.
func (l *Loop) Page() *exposition.Page {
	if c := l.fresh(); c != nil {
		return c.page
	}
	return nil
}

// fresh decides by the time of reading, so that data expire even while a refresh hangs.
func (l *Loop) fresh() *current {
	c := l.current.Load()
	if c == nil || time.Since(c.snapshot.Time) > l.config.MaxStaleness {
		return nil
	}
	return c
}

// Run refreshes until the context is cancelled.
func (l *Loop) Run(ctx context.Context) {
	defer l.journal.close()
	for {
		began := time.Now()
		err := l.once(ctx)
		if ctx.Err() != nil {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(l.wait(err, time.Since(began))):
		}
	}
}

// once refreshes one time.
func (l *Loop) once(ctx context.Context) error {
	began := time.Now()
	s, err := l.fetch(ctx)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err == nil {
		l.current.Store(&current{s, l.config.Render(s)})
	}
	l.note(s, err)
	took := time.Since(began)
	l.config.Observe(s, err, took)
	if err != nil {
		l.journal.failed(err, l.failures)
		return err
	}
	l.journal.succeeded(s, took)
	if s.Reading.Kind == balena.Full {
		// What a full refresh needed beside, and what it replaced, is not needed again for long. Last, since it
		// takes its time, and a scrape meanwhile should find the new data and the new balena_up.
		debug.FreeOSMemory()
	}
	return nil
}

// fetch fetches a snapshot within the time that a refresh may take.
func (l *Loop) fetch(ctx context.Context) (*balena.Snapshot, error) {
	bounded, cancel := context.WithTimeout(ctx, l.config.Timeout)
	defer cancel()
	s, err := l.config.Fetch(bounded)
	if err != nil && bounded.Err() != nil {
		return nil, fmt.Errorf("the refresh took longer than %s and was stopped: raise --balena.max-staleness, or divide the fleets with --balena.shard", l.config.Timeout)
	}
	return s, err
}

// note keeps how a refresh went.
func (l *Loop) note(s *balena.Snapshot, err error) {
	status := l.Status()
	if status.Up = err == nil; status.Up {
		l.failures = 0
		status.LastSuccess = s.Time
	} else {
		l.failures++
		status.LastError, status.LastErrorTime = err.Error(), time.Now()
	}
	l.status.Store(&status)
}

// wait is how long to wait after a refresh that ended in err and took so long.
func (l *Loop) wait(err error, took time.Duration) time.Duration {
	pause := max(spread(l.config.Interval)-took, time.Duration(pauseShare*float64(l.config.Interval)))
	if err == nil {
		return pause
	}
	backoff := spread(min(firstRetry<<min(l.failures-1, 20), l.config.Interval))
	e, _ := errors.AsType[*api.Error](err)
	if e == nil {
		return max(pause, backoff)
	}
	if e.Problem == api.Unavailable || e.Problem == api.RateLimited {
		pause = 0 // It may be over soon.
	}
	if e.Wait > 0 {
		// Never sooner than the server wants.
		pause = max(pause, e.Wait+rand.N(time.Duration(float64(e.Wait)*jitter)+time.Second))
	}
	return max(pause, backoff)
}

// spread makes a wait a little shorter or longer.
func spread(d time.Duration) time.Duration {
	return time.Duration(float64(d) * (1 - jitter + 2*jitter*rand.Float64()))
}
