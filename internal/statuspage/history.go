// SPDX-License-Identifier: Apache-2.0

package statuspage

import (
	"fmt"
	"iter"
	"math"
	"strings"
	"sync"
	"time"

	"github.com/balena-exporter/balena-exporter/internal/balena"
)

// Recorder holds the history of the fleets. The zero value is ready to use.
type Recorder struct {
	mutex  sync.RWMutex
	fleets map[int64]*ring
}

// Record records the sums of a new snapshot, which the collector has computed. It must not be called concurrently with
// itself.
func (r *Recorder) Record(s *balena.Snapshot, tallies iter.Seq2[int64, *balena.Tally]) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	before := r.fleets
	r.fleets = make(map[int64]*ring, len(s.Fleets))
	slot := s.Time.Unix() / slotSeconds
	for id, tally := range tallies {
		fleet := before[id]
		if fleet == nil {
			fleet = &ring{first: slot, last: slot - 1}
		}
		fleet.add(slot, tally)
		r.fleets[id] = fleet
	}
}

// history returns the history of a fleet, nil if there are fewer than two points.
func (r *Recorder) history(fleet int64) *history {
	if r == nil {
		return nil
	}
	r.mutex.RLock()
	defer r.mutex.RUnlock()
	f := r.fleets[fleet]
	if f == nil || f.last == f.first {
		return nil
	}
	return f.history()
}

const (
	// slotSeconds is the time between two points of the history, and slots the number of points: 12 hours.
	slotSeconds = 300
	slots       = 144
)

// ring is the history of a fleet.
type ring struct {
	points [slots]point
	// first and last are the first and the last recorded slot, in slotSeconds since 1970.
	first, last int64
}

// point has the ratios of connected devices and of devices on their target release; NaN if unknown.
type point struct{ connected, onTarget float32 }

var noPoint = point{float32(math.NaN()), float32(math.NaN())}

// add adds a point. A later point in the same slot replaces it.
func (r *ring) add(slot int64, s *balena.Tally) {
	if slot < r.last {
		return // the clock was set back
	}
	for next := max(r.last+1, slot-slots+1); next <= slot; next++ {
		r.points[next%slots] = noPoint
	}
	r.last = slot
	p := noPoint
	if s.Devices > 0 {
		p.connected = float32(s.Connected) / float32(s.Devices)
	}
	if s.Targeted > 0 {
		p.onTarget = float32(s.OnTarget) / float32(s.Targeted)
	}
	r.points[slot%slots] = p
}

// history is the chart of a fleet's history.
type history struct {
	Since  moment
	Curves []curve
}

// curve is a ratio over time.
type curve struct {
	Name, Class string
	// Lines are the uninterrupted pieces of the curve, as points of polylines.
	Lines []string
	// Now and Min are the last and the minimum value, in percent.
	Now, Min int
	MinTime  string
}

// The size of the chart in units of its viewBox.
const (
	historyWidth  = slots - 1
	historyHeight = 40
)

func (r *ring) history() *history {
	from := max(r.first, r.last-slots+1)
	at := func(slot int64) time.Time { return time.Unix(slot*slotSeconds, 0) }
	h := &history{Since: since(at(from), at(r.last))}
	for _, kind := range []struct {
		name, class string
		of          func(point) float32
	}{
		{"Connected", "connected-line", func(p point) float32 { return p.connected }},
		{"On target release", "target-line", func(p point) float32 { return p.onTarget }},
	} {
		c := curve{Name: kind.name, Class: kind.class, Now: -1, Min: 101}
		var lines strings.Builder
		for slot := from; slot <= r.last; slot++ {
			value := kind.of(r.points[slot%slots])
			if math.IsNaN(float64(value)) {
				lines.WriteByte('\n') // ends a line of the curve
				continue
			}
			fmt.Fprintf(&lines, "%d,%.1f ", slot-r.last+historyWidth, (1-value)*historyHeight)
			if c.Now = int(value * 100); c.Now < c.Min {
				c.Min, c.MinTime = c.Now, at(slot).UTC().Format("15:04")
			}
		}
		for line := range strings.SplitSeq(lines.String(), "\n") {
			if line != "" {
				c.Lines = append(c.Lines, strings.TrimSpace(line))
			}
		}
		if c.Now >= 0 {
			h.Curves = append(h.Curves, c)
		}
	}
	if len(h.Curves) == 0 {
		return nil
	}
	return h
}
