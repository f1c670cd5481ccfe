// SPDX-License-Identifier: Apache-2.0

package account

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/balena-exporter/balena-exporter/internal/balena"
	"github.com/balena-exporter/balena-exporter/internal/balena/api"
)

// A conclusion of a refresh about a server is a guess: a proxy, a deployment or a failing server can look like another
// kind of server. This file has the types and the numbers of such guesses. docs/data-freshness.md, "What the exporter does
// not believe at once", lists them with the conditions under which they are accepted and dropped.
//
// Until a guess is accepted, the refresh fails or reads everything: the data may be late, but not wrong.
//
// There are several queries for changes, because not every server has the fields that the best one needs. They form a
// ladder: a query that is not answered is replaced by the next one, and the last one by reading everything.

const (
	// convincing is the number of consecutive observations that change a belief. atStart is how often in a row a version
	// must be missing before the first refresh uses the other one.
	convincing = 3
	atStart    = 6
	// relearn is the time after which a belief that makes refreshes more expensive is tested again: the server may have
	// been upgraded.
	relearn = time.Hour
	// overlap, in milliseconds, is the expected maximum duration of a transaction: modified_at of a row is the time at which
	// the transaction began. The server stops statements after 60 s.
	overlap = balena.Instant(60_000)
	// fewNewest is a number of devices whose reading at each refresh costs nothing.
	fewNewest = 10
	// maxClockDrift is the drift between two refreshes above which the server's clock is considered to have been set. The
	// server's time has a precision of a second.
	maxClockDrift = 30 * time.Second
)

// trust holds the conclusions about a server.
type trust struct {
	version belief[balena.Version]
	// cloud is whether the server has the fields that only balenaCloud has, cloudAsked when that was last checked.
	cloud      belief[bool]
	cloudAsked time.Time
	// empty is set if the last list of fleets was empty.
	empty bool
	// systemRefusals is how often in a row the server refused a query for system releases.
	systemRefusals int
	// modifiedAt is why modified_at cannot be trusted: a row changed without it. It is nil if it can. modifiedAtUntil is when
	// it may be trusted again, by the exporter's clock.
	modifiedAt      error
	modifiedAtUntil time.Time
	// changes is whether the answers to queries for changes are consistent.
	changes queryTrust
	// devices, services and tags are whether the server answers the respective queries for changes.
	devices, services, tags ladder
}

// belief is a value that was observed. The first observation is accepted; another value is accepted only after
// convincing observations in a row.
type belief[T comparable] struct {
	value    T
	observed bool
	against  int
}

func (b *belief[T]) holds(value T) bool { return b.observed && b.value == value }

// saw records an observation.
func (b *belief[T]) saw(value T) {
	if b.holds(value) {
		b.against = 0
		return
	}
	if b.against++; !b.observed || b.against >= convincing {
		*b = belief[T]{value: value, observed: true}
	}
}

// proved records what a full refresh has shown about modified_at.
func (t *trust) proved(p *proof, now time.Time) {
	switch err := p.verdict(); {
	case err != nil:
		t.modifiedAt, t.modifiedAtUntil, t.changes = err, now.Add(relearn), queryTrust{}
	case p.moved && !now.Before(t.modifiedAtUntil):
		t.modifiedAt = nil
	}
}

// queryTrust is whether a query for changes is used. Not using it is always correct, but more expensive.
type queryTrust struct {
	// reason is why it is not used, nil if it is; until is when it is tried again, by the exporter's clock.
	reason error
	until  time.Time
	// failures is how often in a row the query failed, or its answers were inconsistent.
	failures int
}

// asks reports whether the query may be used.
func (t *queryTrust) asks(now time.Time) bool { return t.reason == nil || !now.Before(t.until) }

// answered records that the query was answered and that the answers were consistent.
func (t *queryTrust) answered() { *t = queryTrust{} }

// failed records why the query failed, or its answers were inconsistent. It is tried once more. If that fails too, it is
// not used before until.
func (t *queryTrust) failed(reason error, until time.Time) {
	if t.failures++; t.failures >= 2 {
		t.reason, t.until = reason, until
	}
}

// ladder is which of the queries for changes are used, the best first. They are the rungs of the ladder. If none is used,
// everything is read.
type ladder [2]queryTrust

// asks reports whether any query may be used.
func (l *ladder) asks(now time.Time) bool {
	return slices.ContainsFunc(l[:], func(t queryTrust) bool { return t.asks(now) })
}

// rung returns the first query that may be used, or the number of queries if there is none.
func (l *ladder) rung() int {
	if i := slices.IndexFunc(l[:], func(t queryTrust) bool { return t.reason == nil }); i >= 0 {
		return i
	}
	return len(l)
}

// reason returns how the query above the rung failed. It is nil on the first rung.
func (l *ladder) reason() error {
	if i := l.rung(); i > 0 {
		return l[i-1].reason
	}
	return nil
}

// mode returns the mode of incremental refreshes, and the reason if it is not the best one.
func (f *refresh) mode() (mode balena.Mode, reason error) {
	t := &f.trust
	switch {
	case f.config.FullRefreshInterval == 0:
		return balena.Everything, nil
	case t.modifiedAt != nil: // until a full refresh proves the opposite
		return balena.Everything, t.modifiedAt
	case t.changes.reason != nil:
		return balena.Everything, t.changes.reason
	case !f.after.clock.Received.IsZero() && f.after.clock.Server.IsZero():
		return balena.Everything, errNoDate
	}
	return balena.Modes()[t.devices.rung()], t.devices.reason()
}

// disabledBy returns the kind of reason for which incremental refreshes are disabled.
func disabledBy(reason error) balena.Disabled {
	switch {
	case errors.Is(reason, errNoDate):
		return balena.NoDate
	case isInconsistent(reason):
		return balena.Inconsistent
	case api.NotUnderstood(reason):
		return balena.Refused
	case api.ProblemOf(reason) != 0:
		return balena.Failing
	}
	return balena.ModifiedAt
}

// retry returns when to try a failed query again.
func (f *refresh) retry() time.Time {
	return f.snapshot.Time.Add(min(f.config.FullRefreshInterval, relearn))
}

// horizon is the time up to which the changes of an account are known.
type horizon struct {
	// newest is the newest modified_at, by the server's clock; 0 if there is none.
	newest balena.Instant
	// seen is when it was first seen, by the exporter's clock.
	seen time.Time
	// since is the time from which the next query for changes must begin.
	since balena.Instant
}

// horizonAfter returns the horizon after changes were read up to newest. A time in the future of the server's clock is
// not used.
func (f *refresh) horizonAfter(newest balena.Instant) horizon {
	if server := f.after.clock.Server; !server.IsZero() {
		newest = min(newest, balena.Instant(server.UnixMilli()))
	}
	h := f.before.horizon
	if newest != h.newest {
		return horizon{newest: newest, seen: f.client.Now(), since: newest - overlap}
	}
	if f.snapshot.Time.Sub(h.seen) < time.Duration(overlap)*time.Millisecond {
		return h
	}
	// newest has been the newest for longer than a transaction takes, so everything that was written up to then has been
	// read. The next query begins just before newest, and its answer has the newest devices only. They cost little, and if
	// they are missing, the server was reset to an older state. If there are many of them, because they were written at
	// once, the query begins after newest, and the answer is empty.
	h.since = newest - 1
	crowd := 0
	for _, run := range f.snapshot.Devices.Runs() {
		if run.Newest < newest {
			continue
		}
		for _, d := range run.Devices {
			if d.Modified >= newest {
				crowd++
			}
		}
	}
	if crowd > fewNewest {
		h.since = newest
	}
	return h
}

// errNoDate is the reason for full refreshes if the server does not send its time: it is then unknown up to which time
// its changes are known.
var errNoDate = errors.New("the server's answers have no header Date")

// clockDrifted reports whether the server's clock has had a drift since the last refresh.
func (f *refresh) clockDrifted() bool { return drifted(f.before.clock, f.after.clock) }

// drifted reports whether the server's clock had a drift between two answers. It returns true if the server does not send
// its time.
func drifted(before, after api.Clock) bool {
	if before.Server.IsZero() || after.Server.IsZero() {
		return true
	}
	// The time between the answers, by the exporter's clock, is known only up to the duration of the requests.
	passed := after.Server.Sub(before.Server)
	least, most := after.Sent.Sub(before.Received), after.Received.Sub(before.Sent)
	return passed < least-maxClockDrift || passed > most+maxClockDrift
}

// proof is the evidence of a full refresh whether modified_at shows changes.
type proof struct {
	// since is the time from which a query for changes would have begun; 0 if there is nothing to compare with.
	since balena.Instant
	// now is the server's time when the refresh began.
	now balena.Instant
	// newest is the newest modified_at, event the newest time of an event that writes the row of a device.
	newest, event balena.Instant
	// moved is set if a device was seen to change together with its modified_at. wrong is set if a device was seen to
	// change without it.
	moved bool
	wrong error
}

func (f *refresh) newProof() *proof {
	p := &proof{now: balena.Instant(f.after.clock.Server.UnixMilli())}
	if f.before.horizon.newest != 0 && f.before.asked == f.after.asked && !f.clockDrifted() {
		p.since = f.before.horizon.since
	}
	return p
}

// see records a device. was is the device in the previous snapshot, or nil.
func (p *proof) see(was, is *balena.Device) {
	p.newest = max(p.newest, is.Modified)
	for _, event := range [...]balena.Instant{is.LastConnectivity, is.HeartbeatChanged, is.UpdateChanged} {
		if event <= p.now { // the clock of a device may be ahead
			p.event = max(p.event, event)
		}
	}
	switch {
	case p.wrong != nil:
	case is.Modified == 0:
		p.wrong = fmt.Errorf("device %d has no modified_at", is.ID)
	case was == nil || was.Equal(is) || sameRow(was, is):
	case was.Modified < is.Modified:
		p.moved = true
	case was.Modified == is.Modified && is.Modified <= p.since: // otherwise a query for changes finds it
		p.wrong = fmt.Errorf("device %d changed, and its modified_at did not", is.ID)
	}
}

// sameRow reports whether two devices have the same values in all fields that are stored in the row of the device. A change
// of such a field changes modified_at.
func sameRow(a, b *balena.Device) bool {
	for i := range deviceFields {
		if field := &deviceFields[i]; !field.computed && !field.Same(a, b) {
			return false
		}
	}
	return true
}

// verdict returns why queries for changes cannot be used, or nil.
func (p *proof) verdict() error {
	if p.wrong == nil && !p.moved && p.event > p.newest+overlap {
		return errors.New("the modified_at of all devices is older than what happened to them last")
	}
	return p.wrong
}
