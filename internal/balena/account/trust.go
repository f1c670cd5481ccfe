// SPDX-License-Identifier: Apache-2.0

package account

import (
	"errors"
	"slices"
	"time"

	"github.com/balena-exporter/balena-exporter/internal/balena"
	"github.com/balena-exporter/balena-exporter/internal/balena/api"
)

// A conclusion of a refresh about a server is a guess: a proxy, a deployment or a failing server can look like another
// kind of server. This file has the types and the numbers of such guesses. docs/data-freshness.md, "What the exporter does
// not believe at once", lists them with the conditions under which they are accepted and dropped.
//
// Until a guess is accepted, the refresh or its part fails, or reads everything: the data may be late, but not wrong.
//
// There are several queries for changes, because not every server has the fields that the best one needs. They form a
// ladder: a query that is not answered is replaced by the next one, and the last one by reading everything.

const (
	// convincing is the number of consecutive observations that change a belief. atStart is how often in a row a version
	// must be missing before the first refresh uses the other one.
	convincing = 3
	atStart    = 6
	// relearn is the time after which a conclusion that disables queries or fields is tested again: the server may have been
	// upgraded.
	relearn = time.Hour
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
	// modifiedAtErr is why modified_at cannot be trusted: a row changed without it. It is nil if it can. modifiedAtUntil is when
	// it may be trusted again, by the exporter's clock.
	modifiedAtErr   error
	modifiedAtUntil time.Time
	// consistency is whether the answers to queries for changes are consistent.
	consistency queryTrust
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
		t.modifiedAtErr, t.modifiedAtUntil, t.consistency = err, now.Add(relearn), queryTrust{}
	case p.moved && !now.Before(t.modifiedAtUntil):
		t.modifiedAtErr = nil
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

// usable reports whether the query may be used.
func (t *queryTrust) usable(now time.Time) bool { return t.reason == nil || !now.Before(t.until) }

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

// usable reports whether any query may be used.
func (l *ladder) usable(now time.Time) bool {
	return slices.ContainsFunc(l[:], func(t queryTrust) bool { return t.usable(now) })
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
	case t.modifiedAtErr != nil: // until a full refresh proves the opposite
		return balena.Everything, t.modifiedAtErr
	case t.consistency.reason != nil:
		return balena.Everything, t.consistency.reason
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
	case api.ProblemOf(reason) != "":
		return balena.Failing
	}
	return balena.ModifiedAt
}

// retry returns when to try a failed query again.
func (f *refresh) retry() time.Time {
	return f.snapshot.Time.Add(min(f.config.FullRefreshInterval, relearn))
}
