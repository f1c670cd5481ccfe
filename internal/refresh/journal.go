// SPDX-License-Identifier: Apache-2.0

package refresh

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/go-kit/log"
	"github.com/go-kit/log/level"

	"github.com/balena-exporter/balena-exporter/internal/balena"
	"github.com/balena-exporter/balena-exporter/internal/balena/api"
)

// A journal writes to the log how refreshes go: each trouble when it begins and when it ends, and once an hour
// while it lasts. The rest is of level debug.
type journal struct {
	logger       log.Logger
	maxStaleness time.Duration

	mutex   sync.Mutex // the expiry is a goroutine of its own
	started bool       // a refresh has succeeded
	api     balena.Version
	mode    balena.Mode
	expiry  *time.Timer // logs that the data served expire
	expired bool        // the data served last have expired

	refreshing, stale, slow, disabled trouble
	parts                             map[balena.PartName]*trouble
}

func newJournal(logger log.Logger, maxStaleness time.Duration) *journal {
	return &journal{logger: logger, maxStaleness: maxStaleness, parts: map[balena.PartName]*trouble{}}
}

// close ends the journal: nothing is logged any more because time passes.
func (j *journal) close() {
	j.mutex.Lock()
	defer j.mutex.Unlock()
	if j.expiry != nil {
		j.expiry.Stop()
	}
}

// failed logs a refresh that failed, the last one of so many in a row.
func (j *journal) failed(err error, failures int) {
	j.mutex.Lock()
	defer j.mutex.Unlock()
	line := level.Debug(j.logger)
	if j.refreshing.isNews(err) {
		line = level.Error(j.logger)
	}
	_ = line.Log("msg", "cannot refresh the data", "err", err, "failures", failures)
}

// succeeded logs a refresh that succeeded and took so long.
func (j *journal) succeeded(s *balena.Snapshot, took time.Duration) {
	j.mutex.Lock()
	defer j.mutex.Unlock()
	line, msg := level.Debug(j.logger), "refreshed the data"
	about := []any{"fleets", len(s.Fleets), "devices", s.Devices.Len(), "api", s.APIVersion, "duration", took.Round(time.Millisecond)}
	lasted, was := j.refreshing.end()
	if was {
		line, msg = level.Info(j.logger), "refreshing the data works again"
		about = append(about, "failed_for", lasted)
	}
	if !j.started {
		line, msg = level.Info(j.logger), "the first data are here"
	}
	about = append(about, "kind", s.Reading.Kind, "read", s.Reading.Devices, "changed", s.Reading.Changed)
	if s.Reading.Why != "" && j.started {
		about = append(about, "why", s.Reading.Why)
	}
	_ = line.Log(append([]any{"msg", msg}, about...)...)

	switch {
	case !j.started && len(s.Fleets) == 0:
		_ = level.Warn(j.logger).Log("msg", "the token may see no fleet, or none is chosen")
	case j.started && s.APIVersion != j.api:
		_ = level.Warn(j.logger).Log("msg", "the server now speaks another version of the API, and some metrics change with it", "was", j.api, "is", s.APIVersion)
	}
	j.logMode(s.Reading)
	j.started, j.api, j.mode = true, s.APIVersion, s.Reading.Mode

	j.age(s.Time, took)
	for _, p := range s.Parts {
		j.logPart(p)
	}
}

var (
	errSlow  = errors.New("refreshing takes longer than data may be old, so that none are served: raise --balena.max-staleness or --balena.refresh-interval")
	errStale = errors.New("the data are too old: fleets and devices disappear until a refresh succeeds")
)

// age logs when the data of that time are too old to be served, now or later.
func (j *journal) age(at time.Time, took time.Duration) {
	// Data that expired between two refreshes may do so again and again: that is one trouble.
	if !j.expired {
		j.stale.end()
	}
	j.expired = false
	if j.expiry != nil {
		j.expiry.Stop()
	}
	if left := j.maxStaleness - time.Since(at); left >= 0 {
		j.slow.end()
		j.expiry = time.AfterFunc(left+1, func() { j.expire(at) })
	} else if j.slow.isNews(errSlow) {
		_ = level.Warn(j.logger).Log("msg", errSlow, "duration", took.Round(time.Millisecond), "max_staleness", j.maxStaleness)
	}
}

// expire logs that the data of that time are not served any more.
func (j *journal) expire(at time.Time) {
	j.mutex.Lock()
	defer j.mutex.Unlock()
	j.expired = true
	if j.stale.isNews(errStale) {
		_ = level.Warn(j.logger).Log("msg", errStale, "age", time.Since(at).Round(time.Second), "max_staleness", j.maxStaleness)
	}
}

// logMode logs that changes are asked for in another way than before, and reminds while they are not asked for.
func (j *journal) logMode(r balena.Reading) {
	if r.Disabled != "" {
		if j.disabled.isNews(r.Distrust) {
			_ = level.Warn(j.logger).Log("msg", "the server is not asked for changes, everything is read each time", "reason", r.Disabled, "err", r.Distrust)
		}
		return
	}
	lasted, disabled := j.disabled.end()
	switch {
	case disabled:
		_ = level.Info(j.logger).Log("msg", "the server is asked for changes again", "mode", r.Mode, "disabled_for", lasted)
	case !j.started || r.Mode == j.mode:
	case r.Distrust != nil:
		_ = level.Info(j.logger).Log("msg", "the server does not answer one question for changes and is asked the next one", "mode", r.Mode, "err", r.Distrust)
	default:
		_ = level.Info(j.logger).Log("msg", "the server answers the first question for changes again", "mode", r.Mode)
	}
}

func (j *journal) logPart(p balena.Part) {
	t := j.parts[p.Name]
	if t == nil {
		t = &trouble{}
		j.parts[p.Name] = t
	}
	if p.Err == nil {
		if lasted, was := t.end(); was {
			_ = level.Info(j.logger).Log("msg", "a part of the refresh works again", "part", p.Name, "failed_for", lasted)
		}
	} else if t.isNews(p.Err) {
		_ = level.Warn(j.logger).Log("msg", "a part of the refresh failed", "part", p.Name, "err", p.Err)
	}
}

const (
	// remindEvery is how often an error of a class that goes on is logged again.
	remindEvery = time.Hour
	// maxClasses of errors are told apart in a trouble. There are hardly more of them.
	maxClasses = 16
)

// A trouble is a time in which something does not work, for one reason or several that take turns, such as a proxy
// that times out now and refuses then.
type trouble struct {
	since  time.Time
	logged map[string]time.Time // by class of error; nil when all is well
}

// isNews reports whether an error is worth a line: its class is new in this trouble, or was not logged for long.
func (t *trouble) isNews(err error) bool {
	now := time.Now()
	if t.logged == nil {
		*t = trouble{now, map[string]time.Time{}}
	}
	class := classOf(err)
	last, known := t.logged[class]
	if !known && len(t.logged) >= maxClasses {
		class = "others"
		last, known = t.logged[class]
	}
	if known && now.Sub(last) < remindEvery {
		return false
	}
	t.logged[class] = now
	return true
}

// end reports whether there was a trouble, and how long it lasted.
func (t *trouble) end() (lasted time.Duration, was bool) {
	lasted, was = time.Since(t.since).Round(time.Second), t.logged != nil
	*t = trouble{}
	return lasted, was
}

// classOf returns the class of an error, which says what to do about it. Nothing of it is taken from the server's
// own words: a server that varies them would have each failure be news.
func classOf(err error) string {
	e, ok := errors.AsType[*api.Error](err)
	if !ok {
		return withoutDigits(err.Error())
	}
	// On which page of a list it happened is chance.
	request, _, _ := strings.Cut(e.Request, " page ")
	class := fmt.Sprint(request, " ", e.Problem, " ", e.Status)
	switch {
	case e.Request == "token":
		// The exporter's own sentence.
		class += withoutDigits(e.Err.Error())
	case e.Status == 0:
		class += reasonOf(e.Err)
	}
	return class
}

// reasonOf tells apart why there was no answer, as far as that is a matter of the network: whoever mends one thing
// after the other sees the next.
func reasonOf(err error) string {
	if number, ok := errors.AsType[syscall.Errno](err); ok {
		return number.Error()
	}
	if _, ok := errors.AsType[*net.DNSError](err); ok {
		return "name"
	}
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return "certificate"
	}
	_, alert := errors.AsType[tls.AlertError](err)
	_, header := errors.AsType[tls.RecordHeaderError](err)
	if alert || header {
		return "TLS"
	}
	return ""
}

// withoutDigits leaves out of a sentence what differs from time to time, such as a device's id.
func withoutDigits(s string) string {
	return strings.Map(func(r rune) rune {
		if '0' <= r && r <= '9' {
			return -1
		}
		return r
	}, s)
}
