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

// A journal logs the results of refreshes. A failure is logged when it begins, when it ends, and once an hour while it lasts.
// Other results are logged at level debug.
type journal struct {
	logger       log.Logger
	maxStaleness time.Duration

	mutex   sync.Mutex // expiry runs in another goroutine
	started bool       // a refresh has succeeded
	api     balena.Version
	mode    balena.Mode
	expiry  *time.Timer // logs that the current data become stale
	expired bool        // the last data that were served have become stale

	refreshing, stale, slow, disabled failure
	parts                             map[balena.PartName]*failure
}

func newJournal(logger log.Logger, maxStaleness time.Duration) *journal {
	return &journal{logger: logger, maxStaleness: maxStaleness, parts: map[balena.PartName]*failure{}}
}

// close stops the timer: the journal no longer logs on its own.
func (j *journal) close() {
	j.mutex.Lock()
	defer j.mutex.Unlock()
	if j.expiry != nil {
		j.expiry.Stop()
	}
}

// failed logs a refresh that failed. failures is the number of consecutive failures, this one included.
func (j *journal) failed(err error, failures int) {
	j.mutex.Lock()
	defer j.mutex.Unlock()
	line := level.Debug(j.logger)
	if j.refreshing.shouldLog(err) {
		line = level.Error(j.logger)
	}
	_ = line.Log("msg", "refresh failed", "err", err, "failures", failures)
}

// succeeded logs a refresh that succeeded, and its duration.
func (j *journal) succeeded(s *balena.Snapshot, duration time.Duration) {
	j.mutex.Lock()
	defer j.mutex.Unlock()
	line, msg := level.Debug(j.logger), "refresh succeeded"
	fields := []any{"fleets", len(s.Fleets), "devices", s.Devices.Len(), "api", s.APIVersion, "duration", duration.Round(time.Millisecond)}
	lasted, failing := j.refreshing.end()
	if failing {
		line, msg = level.Info(j.logger), "refresh succeeded again"
		fields = append(fields, "failed_for", lasted)
	}
	if !j.started {
		line, msg = level.Info(j.logger), "first refresh succeeded"
	}
	fields = append(fields, "kind", s.Reading.Kind, "read", s.Reading.Devices, "changed", s.Reading.Changed)
	if s.Reading.Why != "" && j.started {
		fields = append(fields, "why", s.Reading.Why)
	}
	_ = line.Log(append([]any{"msg", msg}, fields...)...)

	switch {
	case !j.started && len(s.Fleets) == 0:
		_ = level.Warn(j.logger).Log("msg", "no fleets: the token has access to none, or the options select none")
	case j.started && s.APIVersion != j.api:
		_ = level.Warn(j.logger).Log("msg", "the API version of the server has changed, and some metrics change with it", "from", j.api, "to", s.APIVersion)
	}
	j.logMode(s.Reading)
	j.started, j.api, j.mode = true, s.APIVersion, s.Reading.Mode

	j.age(s.Time, duration)
	for _, p := range s.Parts {
		j.logPart(p)
	}
}

var (
	errSlow  = errors.New("a refresh takes so long that its data are stale when it ends, and no data are served: raise --balena.max-staleness or --balena.refresh-interval")
	errStale = errors.New("the data are stale: fleets and devices are not served until a refresh succeeds")
)

// age logs that the data read at a time are stale, now or when they become so.
func (j *journal) age(at time.Time, duration time.Duration) {
	// If data become stale before each refresh, this is one failure.
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
	} else if j.slow.shouldLog(errSlow) {
		_ = level.Warn(j.logger).Log("msg", errSlow, "duration", duration.Round(time.Millisecond), "max_staleness", j.maxStaleness)
	}
}

// expire logs that the data read at a time are no longer served.
func (j *journal) expire(at time.Time) {
	j.mutex.Lock()
	defer j.mutex.Unlock()
	j.expired = true
	if j.stale.shouldLog(errStale) {
		_ = level.Warn(j.logger).Log("msg", errStale, "age", time.Since(at).Round(time.Second), "max_staleness", j.maxStaleness)
	}
}

// logMode logs changes of the query for changed devices. It repeats a warning while incremental refreshes are disabled.
func (j *journal) logMode(r balena.Reading) {
	if r.Disabled != "" {
		if j.disabled.shouldLog(r.Reason) {
			_ = level.Warn(j.logger).Log("msg", "incremental refreshes are disabled: every refresh reads all devices", "reason", r.Disabled, "err", r.Reason)
		}
		return
	}
	lasted, disabled := j.disabled.end()
	switch {
	case disabled:
		_ = level.Info(j.logger).Log("msg", "incremental refreshes are enabled again", "mode", r.Mode, "disabled_for", lasted)
	case !j.started || r.Mode == j.mode:
	case r.Reason != nil:
		_ = level.Info(j.logger).Log("msg", "the server rejects a query for changes, so a simpler query is used", "mode", r.Mode, "err", r.Reason)
	default:
		_ = level.Info(j.logger).Log("msg", "the server accepts the first query for changes again", "mode", r.Mode)
	}
}

func (j *journal) logPart(p balena.Part) {
	t := j.parts[p.Name]
	if t == nil {
		t = &failure{}
		j.parts[p.Name] = t
	}
	if p.Err == nil {
		if lasted, failing := t.end(); failing {
			_ = level.Info(j.logger).Log("msg", "a part of the refresh succeeded again", "part", p.Name, "failed_for", lasted)
		}
	} else if t.shouldLog(p.Err) {
		_ = level.Warn(j.logger).Log("msg", "a part of the refresh failed", "part", p.Name, "err", p.Err)
	}
}

const (
	// remindEvery is the time after which an error of the same class is logged again.
	remindEvery = time.Hour
	// maxClasses is the maximum number of classes of errors in a failure.
	maxClasses = 16
)

// A failure is a period of errors. The errors may alternate between classes, such as timeouts and refused connections of a proxy.
type failure struct {
	since  time.Time
	logged map[string]time.Time // time of the last line by class of error, or nil without a failure
}

// shouldLog reports whether an error must be logged, because its class is new in this failure or was last logged an hour ago.
func (t *failure) shouldLog(err error) bool {
	now := time.Now()
	if t.logged == nil {
		*t = failure{now, map[string]time.Time{}}
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

// end ends the failure. It returns its duration, and whether there was one.
func (t *failure) end() (lasted time.Duration, ended bool) {
	lasted, ended = time.Since(t.since).Round(time.Second), t.logged != nil
	*t = failure{}
	return lasted, ended
}

// classOf returns the class of an error. Errors of one class have the same remedy. The class contains no text of the
// server: if the server varied its text, every failure would be logged.
func classOf(err error) string {
	e, ok := errors.AsType[*api.Error](err)
	if !ok {
		return withoutDigits(err.Error())
	}
	// The page of the list on which the request failed does not matter.
	request, _, _ := strings.Cut(e.Request, " page ")
	class := fmt.Sprint(request, " ", e.Problem, " ", e.Status)
	switch {
	case e.Request == "token":
		// The text is the exporter's own.
		class += withoutDigits(e.Err.Error())
	case e.Status == 0:
		class += reasonOf(e.Err)
	}
	return class
}

// reasonOf returns the network error that prevented an answer. An operator who has fixed one cause can then see the next
// one in the log.
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

// withoutDigits removes digits from a text, because IDs and counts vary.
func withoutDigits(s string) string {
	return strings.Map(func(r rune) rune {
		if '0' <= r && r <= '9' {
			return -1
		}
		return r
	}, s)
}
