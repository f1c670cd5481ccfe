// SPDX-License-Identifier: Apache-2.0

package account

import (
	"errors"
	"fmt"
	"time"

	"github.com/balena-exporter/balena-exporter/internal/balena"
	"github.com/balena-exporter/balena-exporter/internal/balena/api"
)

// Queries for changes depend on time: on the server's clock, and on modified_at, which the server sets when a row is written.

const (
	// overlap, in milliseconds, is the expected maximum duration of a transaction: modified_at of a row is the time at which
	// the transaction began. The server stops statements after 60 s.
	overlap = balena.Instant(60_000)
	// fewNewest is a number of devices whose reading at each refresh costs nothing.
	fewNewest = 10
	// maxClockDrift is the drift between two refreshes above which the server's clock is considered to have been set. The
	// server's time has a precision of a second.
	maxClockDrift = 30 * time.Second
)

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
	if f.before.horizon.newest != 0 && f.before.asked == f.after.asked && !drifted(f.before.clock, f.after.clock) {
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
