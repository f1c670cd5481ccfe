package balena

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"
)

// Whether it is enough to read what changed. A refresh reads everything now and then, whenever something does not
// add up, and always from a server that cannot be trusted to tell of all changes; a full sweep shows whether it can.

// steady is how far the server's clock may move otherwise than ours between two refreshes without being taken for
// one that was set. The server tells it in whole seconds, and answers may be late.
const steady = 30 * time.Second

// readDevices reads the devices of all chosen fleets.
func (f *fetch) readDevices(ctx context.Context) error {
	reading := &f.snapshot.Reading
	reading.Kind = Full
	counted := 0
	for i := range f.snapshot.Fleets {
		counted += f.snapshot.Fleets[i].counted
	}
	if counted == 0 {
		return nil
	}
	var err error
	if reading.Why = f.whySweep(); reading.Why != "" {
		err = f.sweep(ctx, counted)
	} else if err = f.readChanges(ctx); err == nil {
		f.doubtful, f.distrust = false, distrust{}
	} else {
		err = f.sweepInstead(ctx, counted, err)
	}
	if err != nil {
		return err
	}
	switch {
	case f.config.FullSweepInterval == 0:
	case f.distrust.err != nil: // until the server has proved otherwise
		reading.Distrust = f.distrust.err
	case f.theirs.IsZero():
		reading.Distrust = errNoDate
	}
	// A time later than the server's own is none that it counts from.
	if !f.theirs.IsZero() {
		f.newest = min(f.newest, Instant(f.theirs.UnixMilli()))
	}
	return nil
}

// sweepInstead reads all devices after those that changed could not be read, unless the reason for that forbids
// it too.
func (f *fetch) sweepInstead(ctx context.Context, counted int, reason error) error {
	problem, blank := problemOf(reason), errors.Is(reason, errBlank)
	if ctx.Err() != nil || problem == RateLimited {
		return reason
	}
	// A server in trouble is not asked for more, but once more. One that goes on failing may be able to list
	// devices and not to find those that changed, or not want the token to look at image installs.
	if (problem == Unavailable && !blank || problem == Unauthorized) && !f.doubtful {
		f.doubtful = true
		return reason
	}
	f.snapshot.Reading.Why = reason.Error()
	if err := f.sweep(ctx, counted); err != nil {
		return err
	}
	// A server that does not understand the question won't the next time. Whatever else it was says nothing
	// against it unless it happens again.
	refused := blank || statusOf(reason) == http.StatusBadRequest
	if (refused || f.doubtful) && !f.distrust.standsStill {
		f.distrust = distrust{err: reason, until: f.untilNextSweep()}
	}
	f.doubtful = !refused
	return nil
}

// whySweep returns why all devices are to be read, empty when it is enough to read those that changed.
func (f *fetch) whySweep() string {
	b, now := &f.baseline, f.snapshot.Time
	switch {
	case f.config.FullSweepInterval == 0:
		return "changes are not asked for"
	case b.swept.IsZero():
		return "nothing is known yet"
	case f.distrust.holds(now):
		return f.distrust.err.Error()
	case now.Sub(b.swept) >= f.config.FullSweepInterval:
		return "it is time"
	case b.newest == 0:
		return "no device was known"
	case b.token != f.token:
		return "the token is another"
	case b.can != f.can:
		return "the server is asked for other fields"
	case f.theirs.IsZero():
		return errNoDate.Error()
	case !f.clockIsSteady():
		return "the server's clock was set" // which hides what changed since
	}
	for i := range f.snapshot.Fleets {
		// The devices of a fleet that comes within reach have not changed for that.
		fleet := &f.snapshot.Fleets[i]
		if _, known := b.targets[fleet.ID]; !known && fleet.counted > 0 {
			return "a fleet with devices came: " + fleet.Slug
		}
	}
	return ""
}

// clockIsSteady tells whether the server's clock went on since the last refresh as ours did.
func (f *fetch) clockIsSteady() bool {
	b := &f.baseline
	if b.theirs.IsZero() || f.theirs.IsZero() {
		return false // nobody knows
	}
	drift := f.theirs.Sub(b.theirs) - f.ours.Sub(b.ours)
	return drift.Abs() <= steady
}

// distrust is why the server is not asked for changes, and until when, by our clock. A server whose modified_at
// has been seen to stand still is not asked again until then, and until it has been seen to move.
type distrust struct {
	err         error
	until       time.Time
	standsStill bool
}

func (d *distrust) holds(now time.Time) bool {
	return d.err != nil && (d.standsStill || now.Before(d.until))
}

// untilNextSweep is when a server is trusted again of which nothing worse is known.
func (f *fetch) untilNextSweep() time.Time {
	return f.snapshot.Time.Add(min(f.config.FullSweepInterval, relearn))
}

// errNoDate is why a server is not asked for changes that does not tell its time: nobody could say up to when
// its changes are known.
var errNoDate = errors.New("the server's answers have no header Date")

// proof is what a sweep shows of whether changes can be asked for: whether modified_at tells of them.
type proof struct {
	// since is the time from which on the server would have told of changes, and fleets has those that were
	// known then; since is 0 if there was none, or if it can't be compared.
	since  Instant
	fleets map[int64]int64
	// now is the server's time when the sweep began.
	now Instant
	// newest is the newest modified_at, and event the newest time of anything that writes a device's row.
	newest, event Instant
	// moved is set once a device was seen to have changed along with its modified_at, wrong if it was seen that
	// one did so without. late is set if one came so: a single one may have taken very long to be registered.
	moved       bool
	wrong, late error
}

func (f *fetch) newProof() proof {
	b := &f.baseline
	p := proof{fleets: b.targets, now: Instant(f.theirs.UnixMilli())}
	if b.newest != 0 && b.can == f.can && f.clockIsSteady() {
		p.since = b.newest - overlap
	}
	return p
}

// see takes a device into account, as it was known, if it was, and as it is.
func (p *proof) see(was, is *Device) {
	p.newest = max(p.newest, is.Modified)
	for _, event := range [...]Instant{is.LastConnectivity, is.HeartbeatChanged, is.UpdateChanged} {
		if event <= p.now { // a device's clock may have been ahead
			p.event = max(p.event, event)
		}
	}
	_, inReach := p.fleets[is.FleetID]
	if was != nil && !was.sameRow(is) && was.Modified < is.Modified {
		p.moved = true
	}
	switch {
	case p.wrong != nil:
	case is.Modified == 0:
		p.wrong = fmt.Errorf("device %d has no modified_at", is.ID)
	case is.Modified > p.since: // it would have been told
	case was == nil && inReach:
		p.late = fmt.Errorf("device %d came, and its modified_at is older than that", is.ID)
	case was != nil && was.Modified == is.Modified && !was.sameRow(is):
		p.wrong = fmt.Errorf("device %d changed, and its modified_at did not", is.ID)
	}
}

// verdict returns why changes can't be asked for, nil if they can.
func (p *proof) verdict() error {
	if p.wrong == nil && !p.moved && p.event > p.newest+overlap {
		return errors.New("the modified_at of all devices is older than what happened to them last")
	}
	return p.wrong
}
