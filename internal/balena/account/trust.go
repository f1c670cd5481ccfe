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

// What a refresh finds out about a server is a guess: a proxy, a deployment or a server in trouble answers like a
// server that is different. This file has all that is found out, what it takes to believe it, and what undoes it.
//
//	what                                believed                                undone
//	version of the API                  convincing refreshes in a row; by the   convincing refreshes in a row
//	                                    first one, v6 once v7 was missing
//	                                    atStart times
//	no fields of balenaCloud            refused twice, while the same question  answered convincing times in a row,
//	                                    without them is answered                asked every relearn
//	an account without fleets           said by two refreshes in a row, or      one fleet
//	                                    twice by the first one
//	no answer to a question for changes refused or failed twice in a row        answered once, asked every relearn
//	changes do not add up               twice in a row                          once added up, asked every relearn
//	modified_at stands still            seen once                               seen to move, after relearn
//
// While something is not believed yet, the refresh fails, or reads everything: the exporter may be late for it, and
// never wrong.
//
// There are several questions for changes, since not every server has the fields that the best one needs. They make a
// ladder: a question that is believed not to be answered gives way to the next one, and the last one to reading
// everything.

const (
	// convincing is how many observations in a row undo a belief, and atStart how often in a row a version must be
	// missing for the other one to be the first that is believed.
	convincing = 3
	atStart    = 6
	// relearn is how long to believe what makes refreshes dearer: the server may be upgraded meanwhile.
	relearn = time.Hour
	// overlap, in milliseconds, is how long a transaction may take until its rows are seen: a row's modified_at is the
	// time at which the transaction began. The server stops statements after 60 s.
	overlap = balena.Instant(60_000)
	// fewNewest are so few devices that reading them at each refresh costs nothing.
	fewNewest = 10
	// maxClockDrift is the drift between the server's clock and ours from one refresh to the next beyond which the
	// server's clock is considered to have been set. The server tells it in whole seconds.
	maxClockDrift = 30 * time.Second
)

// trust is what has been found out about a server.
type trust struct {
	version belief[balena.Version]
	// cloud is whether the server has the fields that only balenaCloud has, and cloudAsked when it was asked last.
	cloud      belief[bool]
	cloudAsked time.Time
	// empty is set if the last list of fleets was empty.
	empty bool
	// changes is whether what changed can be asked for at all: whether the answers add up and modified_at moves.
	changes changesTrust
	// devices, services and tags are whether the server answers the questions for what changed.
	devices, services, tags ladder
}

// belief is something that was observed. The first observation is believed, for want of anything better; another
// value only when it was seen convincing times in a row.
type belief[T comparable] struct {
	value   T
	known   bool
	against int
}

func (b *belief[T]) is(value T) bool { return b.known && b.value == value }

// saw takes an observation into account.
func (b *belief[T]) saw(value T) {
	if b.is(value) {
		b.against = 0
		return
	}
	if b.against++; !b.known || b.against >= convincing {
		*b = belief[T]{value: value, known: true}
	}
}

// changesTrust is whether a question for changes is asked. Not asking is always right, and dearer.
type changesTrust struct {
	// reason is why it is not asked, nil if it is; until is when it is asked again, by our clock.
	reason error
	until  time.Time
	// still is set if modified_at was seen to stand still: then it is not asked before it has been seen to move.
	still bool
	// failures is how often in a row the question failed, or its answers did not add up.
	failures int
}

// asks reports whether the question may be asked.
func (t *changesTrust) asks(now time.Time) bool {
	return t.reason == nil || !t.still && !now.Before(t.until)
}

// answered notes that the question was answered and that the answers added up.
func (t *changesTrust) answered() { *t = changesTrust{} }

// failed notes why the question failed, or its answers did not add up. It is asked once more; when that fails, too, not
// before until.
func (t *changesTrust) failed(reason error, until time.Time) {
	if t.failures++; t.failures >= 2 && !t.still {
		t.reason, t.until = reason, until
	}
}

// proved notes what a full refresh has shown of modified_at.
func (t *changesTrust) proved(p *proof, now time.Time) {
	switch err := p.verdict(); {
	case err != nil:
		*t = changesTrust{reason: err, until: now.Add(relearn), still: true}
	case t.still && p.moved && !now.Before(t.until):
		*t = changesTrust{}
	}
}

// ladder is which of the questions for changes are asked, the best first. They are the rungs of the ladder; below the last
// there is only reading everything.
type ladder [2]changesTrust

// asks reports whether any question may be asked.
func (l *ladder) asks(now time.Time) bool {
	return slices.ContainsFunc(l[:], func(t changesTrust) bool { return t.asks(now) })
}

// rung is the first question that is believed to be answered; the number of questions when none is.
func (l *ladder) rung() int {
	if i := slices.IndexFunc(l[:], func(t changesTrust) bool { return t.reason == nil }); i >= 0 {
		return i
	}
	return len(l)
}

// reason is why the first question is not the rung: how the one above the rung failed. It is nil on the first rung.
func (l *ladder) reason() error {
	if i := l.rung(); i > 0 {
		return l[i-1].reason
	}
	return nil
}

// mode is how changes are asked for, and why not in the best way.
func (f *refresh) mode() (mode balena.Mode, distrust error) {
	t := &f.trust
	switch {
	case f.config.FullRefreshInterval == 0:
		return balena.Everything, nil
	case t.changes.reason != nil: // until the server has proved otherwise
		return balena.Everything, t.changes.reason
	case !f.after.clock.Received.IsZero() && f.after.clock.Server.IsZero():
		return balena.Everything, errNoDate
	}
	return balena.Modes()[t.devices.rung()], t.devices.reason()
}

// disabledBy is the kind of reason for which changes are not asked for.
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

// retry is when to ask a question again that failed.
func (f *refresh) retry() time.Time {
	return f.snapshot.Time.Add(min(f.config.FullRefreshInterval, relearn))
}

// horizon is up to when the changes of an account are known.
type horizon struct {
	// newest is the newest modified_at, by the server's clock: 0 when there is none.
	newest balena.Instant
	// seen is when it was seen first, by our clock.
	seen time.Time
	// since is the time from which on changes have to be asked for.
	since balena.Instant
}

// horizonAfter is the horizon once changes were read up to newest. A time later than the server's own is none that it
// counts from.
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
	// Everything that was written until then has been asked for, and nothing was written since: it need not be read
	// over and over. The newest devices stay in the question, since a server that does not tell of them any more was
	// put back to an older state; unless many were written at once.
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

// errNoDate is why a server is not asked for changes that does not tell its time: nobody could say up to when
// its changes are known.
var errNoDate = errors.New("the server's answers have no header Date")

// clockIsSteady reports whether the server's clock went on since the last refresh as ours did.
func (f *refresh) clockIsSteady() bool {
	return steady(f.before.clock, f.after.clock)
}

// steady reports whether the server's clock went on between two answers as ours did. It did not if the server does not
// tell its time.
func steady(was, is api.Clock) bool {
	if was.Server.IsZero() || is.Server.IsZero() {
		return false
	}
	// How long passed by our clock is known but for how long the answers took.
	passed := is.Server.Sub(was.Server)
	least, most := is.Sent.Sub(was.Received), is.Received.Sub(was.Sent)
	return passed >= least-maxClockDrift && passed <= most+maxClockDrift
}

// proof is what a full refresh shows of whether modified_at tells of changes.
type proof struct {
	// since is the time from which on the server would have told of changes; 0 if it can't be compared.
	since balena.Instant
	// now is the server's time when the refresh began.
	now balena.Instant
	// newest is the newest modified_at, and event the newest time of anything that writes a device's row.
	newest, event balena.Instant
	// moved is set once a device was seen to have changed along with its modified_at, wrong if it was seen that
	// one did so without.
	moved bool
	wrong error
}

func (f *refresh) newProof() *proof {
	p := &proof{now: balena.Instant(f.after.clock.Server.UnixMilli())}
	if f.before.horizon.newest != 0 && f.before.asked == f.after.asked && f.clockIsSteady() {
		p.since = f.before.horizon.since
	}
	return p
}

// see takes a device into account, as it was known, if it was, and as it is.
func (p *proof) see(was, is *balena.Device) {
	p.newest = max(p.newest, is.Modified)
	for _, event := range [...]balena.Instant{is.LastConnectivity, is.HeartbeatChanged, is.UpdateChanged} {
		if event <= p.now { // a device's clock may have been ahead
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
	case was.Modified == is.Modified && is.Modified <= p.since: // else it would have been told
		p.wrong = fmt.Errorf("device %d changed, and its modified_at did not", is.ID)
	}
}

// sameRow reports whether two devices are the same in all that is written into the device's own row: a change of any
// of it moves modified_at.
func sameRow(a, b *balena.Device) bool {
	for i := range deviceFields {
		if field := &deviceFields[i]; !field.computed && !field.Same(a, b) {
			return false
		}
	}
	return true
}

// verdict returns why changes can't be asked for, nil if they can.
func (p *proof) verdict() error {
	if p.wrong == nil && !p.moved && p.event > p.newest+overlap {
		return errors.New("the modified_at of all devices is older than what happened to them last")
	}
	return p.wrong
}
