// Package refresh keeps the data fresh: it fetches a snapshot again and again in the background, one at a
// time and never because somebody scrapes, has it rendered, and swaps the new one in whole.
package refresh

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime/debug"
	"strings"
	"sync/atomic"
	"time"

	"github.com/go-kit/log"
	"github.com/go-kit/log/level"

	"github.com/balena-exporter/balena-exporter/internal/balena"
	"github.com/balena-exporter/balena-exporter/internal/balena/api"
	"github.com/balena-exporter/balena-exporter/internal/exposition"
)

// Config says how to refresh. All fields are required.
type Config struct {
	// Fetch reads a snapshot.
	Fetch func(context.Context) (*balena.Snapshot, error)
	// Render makes a page of it. What was rendered before, and the page that it gave, are there to be borrowed
	// from; both are nil the first time.
	Render func(s, before *balena.Snapshot, previous *exposition.Page) *exposition.Page
	// Observe is told how each refresh went; a refresh that was cancelled does not count.
	Observe func(s *balena.Snapshot, err error, took time.Duration)
	// Interval is the time from the beginning of one refresh to that of the next.
	Interval time.Duration
	// MaxStaleness is how long a snapshot is served while refreshes fail.
	MaxStaleness time.Duration
	Logger       log.Logger
}

const (
	// jitter spreads the refreshes of many exporters that started together, as a share of the wait.
	jitter = 0.05
	// firstRetry is the wait after the first failure of a server that can't be reached or wants to be asked
	// less. It doubles with every further failure up to the interval, at which there are no more requests
	// than in good times.
	firstRetry = 5 * time.Second
	// remindEvery is how often a failure that goes on is logged again.
	remindEvery = time.Hour
)

// Loop refreshes. Its snapshot and page may be read at any time by anybody.
type Loop struct {
	config  Config
	current atomic.Pointer[current]
	status  atomic.Pointer[Status]

	started  bool // the first snapshot has been fetched
	expired  bool // the log has been told that the data are too old
	slow     told
	distrust told
	api      balena.Version
	failures int // in a row
	told     told
	parts    map[balena.PartName]*told
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
	return &Loop{config: config, parts: map[balena.PartName]*told{}}
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
	s, err := l.config.Fetch(ctx)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err == nil {
		var before current
		if c := l.current.Load(); c != nil {
			before = *c
		}
		l.current.Store(&current{s, l.config.Render(s, before.snapshot, before.page)})
	}
	l.note(s, err)
	took := time.Since(began)
	l.config.Observe(s, err, took)
	l.log(s, err, took)
	if err == nil && s.Reading.Kind == balena.Full {
		// What a full sweep needed beside, and what it replaced, is not needed again for long. Last, since it
		// takes its time, and a scrape meanwhile should find the new data and the new balena_up.
		debug.FreeOSMemory()
	}
	return err
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
	backoff := spread(min(firstRetry<<min(max(l.failures-1, 0), 20), l.config.Interval))
	e, _ := errors.AsType[*api.Error](err)
	switch {
	case e != nil && e.Problem == api.RateLimited:
		// Never sooner than the server wants, and no storm when it says a second each time.
		return max(backoff, e.Wait+rand.N(time.Duration(float64(e.Wait)*jitter)+time.Second))
	case e != nil && e.Problem == api.Unavailable:
		return backoff
	}
	return max(spread(l.config.Interval)-took, 0)
}

// spread makes a wait a little shorter or longer.
func spread(d time.Duration) time.Duration {
	return time.Duration(float64(d) * (1 - jitter + 2*jitter*rand.Float64()))
}

// told is what the log has been told of a trouble: each kind of error once, again every hour while it
// lasts, and once that it is over. Kinds take turns where a proxy times out now and refuses then.
type told struct {
	since time.Time
	last  map[string]time.Time // by kind of error
}

// trouble tells whether err is worth a line, being news or long unmentioned.
func (t *told) trouble(err error, now time.Time) bool {
	// What differs from time to time, such as a count, makes no trouble another.
	kind := strings.Map(withoutDigits, err.Error())
	if e, ok := errors.AsType[*api.Error](err); ok {
		// On which page of a list it happened is chance, and the text may differ in nothing but a time.
		request, _, _ := strings.Cut(e.Request, " page ")
		kind = fmt.Sprint(request, e.Problem, e.Status)
		if e.Status == 0 && e.Problem != api.RateLimited {
			// There was no answer, for one reason or another: a name, a port, a certificate, a file.
			kind += strings.Map(withoutDigits, e.Err.Error())
		}
	}
	if t.last == nil {
		t.since, t.last = now, map[string]time.Time{}
	}
	if last, before := t.last[kind]; before && now.Sub(last) < remindEvery {
		return false
	}
	t.last[kind] = now
	return true
}

// withoutDigits leaves out of a text what differs from time to time, such as the client's port.
func withoutDigits(r rune) rune {
	if '0' <= r && r <= '9' {
		return -1
	}
	return r
}

// over tells whether there was a trouble, and how long.
func (t *told) over(now time.Time) (time.Duration, bool) {
	lasted, was := now.Sub(t.since), t.last != nil
	*t = told{}
	return lasted, was
}

func (l *Loop) log(s *balena.Snapshot, err error, took time.Duration) {
	now := time.Now()
	if err != nil {
		line := level.Debug(l.config.Logger)
		if l.told.trouble(err, now) {
			line = level.Error(l.config.Logger)
		}
		_ = line.Log("msg", "cannot refresh the data", "err", err, "failures", l.failures)
		if l.current.Load() != nil && l.fresh() == nil && !l.expired {
			l.expired = true
			_ = level.Warn(l.config.Logger).Log("msg", "the data are too old: fleets and devices disappear until a refresh succeeds", "max_staleness", l.config.MaxStaleness)
		}
		return
	}
	l.expired = false
	about := []any{"fleets", len(s.Fleets), "devices", s.Devices.Len(), "api", s.APIVersion, "duration", took.Round(time.Millisecond)}
	line, msg := level.Debug(l.config.Logger), "refreshed the data"
	lasted, was := l.told.over(now)
	if was {
		line, msg = level.Info(l.config.Logger), "refreshing the data works again"
		about = append(about, "failed_for", lasted.Round(time.Second))
	}
	first := !l.started
	if first {
		line, msg = level.Info(l.config.Logger), "the first data are here"
		l.started = true
	}
	about = append(about, "kind", s.Reading.Kind, "read", s.Reading.Devices, "changed", s.Reading.Changed)
	if s.Reading.Why != "" && !first {
		about = append(about, "why", s.Reading.Why)
	}
	_ = line.Log(append([]any{"msg", msg}, about...)...)
	if first && len(s.Fleets) == 0 {
		_ = level.Warn(l.config.Logger).Log("msg", "the token may see no fleet, or none is chosen")
	}
	if s.APIVersion != l.api && !first {
		_ = level.Info(l.config.Logger).Log("msg", "the server now speaks another version of the API", "was", l.api, "is", s.APIVersion)
	}
	l.api = s.APIVersion
	if l.fresh() != nil {
		l.slow = told{}
	} else if l.slow.trouble(errSlow, now) {
		_ = level.Warn(l.config.Logger).Log("msg", errSlow, "duration", took.Round(time.Millisecond), "max_staleness", l.config.MaxStaleness)
	}
	if s.Reading.Distrust == nil {
		if lasted, was := l.distrust.over(now); was {
			_ = level.Info(l.config.Logger).Log("msg", "the server is asked for changes again", "distrusted_for", lasted.Round(time.Second))
		}
	} else if l.distrust.trouble(s.Reading.Distrust, now) {
		_ = level.Warn(l.config.Logger).Log("msg", "the server is not asked for changes, everything is read each time", "err", s.Reading.Distrust)
	}
	for _, p := range s.Parts {
		l.logPart(p, now)
	}
}

var errSlow = errors.New("refreshing takes longer than data may be old, so that none are served: raise --balena.max-staleness or --balena.crawl-interval")

func (l *Loop) logPart(p balena.Part, now time.Time) {
	t := l.parts[p.Name]
	if t == nil {
		t = &told{}
		l.parts[p.Name] = t
	}
	if p.Err != nil {
		if t.trouble(p.Err, now) {
			_ = level.Warn(l.config.Logger).Log("msg", "an optional collector cannot read its data", "collector", p.Name, "err", p.Err)
		}
	} else if lasted, was := t.over(now); was {
		_ = level.Info(l.config.Logger).Log("msg", "an optional collector works again", "collector", p.Name, "failed_for", lasted.Round(time.Second))
	}
}
