// SPDX-License-Identifier: Apache-2.0

package collector_test

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"regexp"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/balena-exporter/balena-exporter/internal/balena"
	"github.com/balena-exporter/balena-exporter/internal/balena/account"
	"github.com/balena-exporter/balena-exporter/internal/simulator"
)

// The metrics after incremental refreshes must be the same as after full refreshes. These tests change accounts at random,
// disturb the refreshes of a client, and compare its data with the true state:
//
//   - The exposition after an undisturbed refresh is identical to that of a new client.
//   - The exposition after a refresh during which the account changed contains all rows that were in reach during the whole
//     refresh, and no rows that did not exist. The values of each row are those of a moment of the refresh. Deleted rows may
//     remain until the next refresh if the number of rows did not change, and are counted. See [check].
//   - The exposition after a refresh with a fault is the same, or the refresh fails. A failed refresh does not change the last
//     snapshot.
//   - Each refresh ends.

var (
	historySeed  = flag.Uint64("history.seed", 0, "run the history with this seed, and print its log")
	historyCount = flag.Int("history.count", 0, "number of histories to run; 0 for 500, or fewer with -short and the race detector")
	historyFirst = flag.Uint64("history.first", 1, "seed of the first history to run")
	historyIn    = flag.String("history.edition", "", "edition of the server in all histories, openbalena or cloud; empty for either")
	historyAll   = flag.Bool("history.all", false, "run all histories, however many fail, and list the failures without their logs")
)

// A history is a sequence of random events: changes of an account, faults of its server, refreshes of a client.
type history struct {
	seed   uint64
	events []event
}

// An event depends only on its seed and on the current state, so that a history is valid without it.
type event struct {
	kind eventKind
	seed uint64
	// edits are the seeds of the edits of the account, if the event has any.
	edits []uint64
	// moments are the disturbances during a refresh. fault is the seed of a fault of the refresh, or 0.
	moments []moment
	fault   uint64
}

type eventKind int

const (
	changed       eventKind = iota // the account is edited
	ticked                         // a tick of the simulator
	passed                         // time passes
	clockSet                       // the server's clock is set
	rotated                        // the token is replaced
	upgraded                       // the server gains or loses version 7 of the API
	limited                        // a limit of rows is set or removed
	faultAdded                     // a lasting fault is added
	faultsRemoved                  // lasting faults are removed
	refreshed                      // the client refreshes
)

// A moment is a disturbance of a refresh before the response to one of its requests.
type moment struct {
	kind momentKind
	seed uint64
	// at is the number of the request in the refresh, counted from 1.
	at int
	// edits are the seeds of the edits of the account, if the moment has any.
	edits []uint64
}

type momentKind int

const (
	changes   momentKind = iota // the account is edited
	delayed                     // the body of the response is delayed
	clockStep                   // the server's clock is set
	canceled                    // the refresh is canceled
)

// newHistory returns the random history of a seed.
func newHistory(seed uint64) history {
	r, early := rand.New(rand.NewPCG(seed, 1)), rand.New(rand.NewPCG(seed, 7))
	h := history{seed: seed}
	seeds := func(n int) (seeds []uint64) {
		for range n {
			seeds = append(seeds, r.Uint64())
		}
		return seeds
	}
	add := func(k eventKind) *event {
		e := event{kind: k, seed: r.Uint64()}
		if k == changed {
			e.edits = seeds(1 + r.IntN(3))
		}
		h.events = append(h.events, e)
		return &h.events[len(h.events)-1]
	}
	disturb := func(e *event) {
		at := 1
		if r.IntN(4) == 0 {
			at += r.IntN(10)
		}
		for range 1 + r.IntN(4) {
			at += r.IntN(3)
			m := moment{at: at, seed: r.Uint64()}
			switch x := r.IntN(100); {
			case x < 84:
				m.edits = seeds(1 + r.IntN(2))
			case x < 90:
				m.kind = delayed
			case x < 94:
				m.kind = clockStep
			default:
				m.kind = canceled
			}
			e.moments = append(e.moments, m)
		}
		// Most decisions of a refresh depend on its first responses.
		for range early.IntN(5) {
			e.moments = append(e.moments, moment{at: 2 + early.IntN(4), seed: early.Uint64(), edits: []uint64{early.Uint64()}})
		}
		slices.SortStableFunc(e.moments, func(a, b moment) int { return cmp.Compare(a.at, b.at) })
	}
	if first := add(refreshed); r.IntN(6) == 0 {
		first.fault = r.Uint64()
	}
	for range 4 + r.IntN(8) {
		for range r.IntN(6) {
			switch x := r.IntN(1000); {
			case x < 580:
				add(changed)
			case x < 850:
				add(passed)
			case x < 900:
				add(ticked)
			case x < 940:
				add(clockSet)
			case x < 950:
				add(rotated)
			case x < 960:
				add(upgraded)
			case x < 965:
				add(limited)
			case x < 985:
				add(faultAdded)
			default:
				add(faultsRemoved)
			}
		}
		switch x := r.IntN(100); {
		case x < 35:
			disturb(add(refreshed))
		case x < 50:
			add(refreshed).fault = r.Uint64()
		case x < 55:
			e := add(refreshed)
			disturb(e)
			e.fault = r.Uint64()
		}
		add(refreshed)
	}
	return h
}

// tally counts the refreshes of histories, and the deleted rows that remained for a refresh. See [check].
type tally struct {
	full, changes, distrusted, disturbed, faulty, errors int
	remaining                                            remaining
}

func (t *tally) add(o tally) {
	t.full += o.full
	t.changes += o.changes
	t.distrusted += o.distrusted
	t.disturbed += o.disturbed
	t.faulty += o.faulty
	t.errors += o.errors
	t.remaining.add(o.remaining)
}

// run runs a history. The error describes how the exposition differs from the true state.
func (h history) run(ctx context.Context) (*replay, error) {
	config := simulator.Config{}
	if rand.New(rand.NewPCG(h.seed, 7)).IntN(2) == 0 {
		config.Edition = simulator.Cloud
	}
	config.Edition = cmp.Or(simulator.Edition(*historyIn), config.Edition)
	t, end, err := h.begin(config)
	if err != nil {
		return nil, err
	}
	defer end()
	for _, e := range h.events {
		if err := t.event(ctx, e); err != nil {
			return t, err
		}
	}
	return t, nil
}

// shorten removes events while the history still fails in the same way.
func (h history) shorten(ctx context.Context, err error) history {
	wrong := func(h history) bool {
		_, again := h.run(ctx)
		return again != nil && kindOf(again) == kindOf(err)
	}
	for n := len(h.events) / 2; n > 0; n /= 2 {
		for i := 0; i+n <= len(h.events); {
			if shorter := (history{h.seed, slices.Concat(h.events[:i], h.events[i+n:])}); wrong(shorter) {
				h = shorter
			} else {
				i += n
			}
		}
	}
	// with changes an event if the history still fails.
	with := func(i int, change func(*event)) bool {
		shorter := history{h.seed, slices.Clone(h.events)}
		change(&shorter.events[i])
		if !wrong(shorter) {
			return false
		}
		h = shorter
		return true
	}
	for i := range h.events {
		if h.events[i].fault != 0 {
			with(i, func(e *event) { e.fault = 0 })
		}
		for j := 0; j < len(h.events[i].moments); {
			if !with(i, func(e *event) { e.moments = without(e.moments, j) }) {
				for k := 0; k < len(h.events[i].moments[j].edits); {
					if !with(i, func(e *event) {
						e.moments = slices.Clone(e.moments)
						e.moments[j].edits = without(e.moments[j].edits, k)
					}) {
						k++
					}
				}
				j++
			}
		}
		for j := 0; j < len(h.events[i].edits); {
			if !with(i, func(e *event) { e.edits = without(e.edits, j) }) {
				j++
			}
		}
	}
	return h
}

// without returns a copy of a slice without its i-th element.
func without[T any](of []T, i int) []T { return slices.Concat(of[:i], of[i+1:]) }

var details = regexp.MustCompile(`\S*[\d/]\S*`)

// kindOf returns the beginning of an error, without numbers and names.
func kindOf(err error) string {
	words := strings.Fields(details.ReplaceAllString(err.Error(), ""))
	return strings.Join(words[:min(len(words), 12)], " ")
}

// report reports a failed history with the necessary events.
func (h history) report(t *testing.T, err error) {
	t.Helper()
	shortest := h.shorten(t.Context(), err)
	run, again := shortest.run(t.Context())
	if again == nil {
		run, again = h.run(t.Context()) // the failure is not reproducible
	}
	edition := ""
	if *historyIn != "" {
		edition = " -history.edition=" + *historyIn
	}
	t.Errorf("history %d: %v\n\nin short:\n%s\n%v\n\ngo test ./collector -run History -history.seed=%d%s prints the whole history", h.seed, err,
		run.logText(), again, h.seed, edition)
}

func TestHistory(t *testing.T) {
	// Histories allocate much memory, and use little of it at a time.
	defer debug.SetGCPercent(debug.SetGCPercent(400))
	if *historySeed != 0 {
		h := newHistory(*historySeed)
		run, err := h.run(t.Context())
		t.Log(run.logText())
		if err != nil {
			h.report(t, err)
		}
		return
	}
	n := *historyCount
	if n == 0 {
		switch {
		case testing.Short() && raceEnabled:
			n = 20
		case testing.Short() || raceEnabled:
			n = 100
		default:
			n = 500
		}
	}
	var (
		workers sync.WaitGroup
		next    atomic.Uint64
		mu      sync.Mutex
		all     tally
		wrong   bool
	)
	for range runtime.GOMAXPROCS(0) {
		workers.Go(func() {
			for i := next.Add(1); i <= uint64(n); i = next.Add(1) {
				seed := *historyFirst + i - 1
				h := newHistory(seed)
				run, err := h.run(t.Context())
				mu.Lock()
				if run != nil {
					all.add(run.tally)
				}
				stop := wrong && !*historyAll
				wrong = wrong || err != nil
				mu.Unlock()
				switch {
				case stop:
					return
				case err != nil && *historyAll:
					t.Errorf("history %d: %v", seed, err)
				case err != nil:
					h.report(t, err)
					return
				}
			}
		})
	}
	workers.Wait()
	t.Logf("%d histories: %+v", n, all)
	if rows := all.remaining.devices + all.remaining.services + all.remaining.tags; rows > 2+all.disturbed/100 {
		t.Errorf("%d deleted rows remained after %d disturbed refreshes, which are too many", rows, all.disturbed)
	}
	// The proportions are random with fewer histories.
	if refreshes := all.full + all.changes; !wrong && n >= 100 && all.changes < refreshes/3 {
		t.Errorf("only %d of %d refreshes were incremental", all.changes, refreshes)
	}
}

// TestServersWithoutQueriesForChanges checks that all refreshes are full, and have a reason, if the server rejects queries for
// changes or returns invalid responses to them.
func TestServersWithoutQueriesForChanges(t *testing.T) {
	const query = "modified_at gt"
	for _, test := range []struct {
		name   string
		config simulator.Config
		fault  simulator.Fault
		before int // number of refreshes until the client detects the server
		why    string
	}{
		{"400", simulator.Config{}, simulator.Fault{Query: query, Status: 400, Body: `"Malformed url"`}, 3, "answered 400"},
		{"a blank 500", simulator.Config{}, simulator.Fault{Query: query, Status: 500}, 3, "answered 500"},
		{"null", simulator.Config{ModifiedAtIsNull: true}, simulator.Fault{}, 0, "has no modified_at"},
		{"standing still", simulator.Config{ModifiedAtIsConstant: true}, simulator.Fault{}, 0, "modified_at"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			seeds := uint64(10)
			if testing.Short() || raceEnabled {
				seeds = 2
			}
			for seed := range seeds {
				test.config.Devices, test.config.Fleets = 40, 4
				run, end, err := history{seed: seed}.begin(test.config, func(c *account.Config) {
					c.FullRefreshInterval = 24 * time.Hour
					c.Include, c.Exclude, c.Shard = nil, nil, balena.Shard{}
				})
				if err != nil {
					t.Fatal(err)
				}
				defer end()
				run.always = nil
				if test.fault.Query != "" {
					run.always = simulator.Faults{test.fault}
				}
				for refresh := range 12 {
					if err := run.refresh(t.Context(), event{}); err != nil {
						t.Fatalf("%s\n%v", run.logText(), err)
					}
					r := run.last.Reading
					why := fmt.Sprint(r.Reason)
					if known := refresh >= test.before; r.Kind != balena.Full || known != (r.Mode == balena.Everything) || known && !strings.Contains(why, test.why) {
						t.Errorf("%s\nrefresh %d: %+v", run.logText(), refresh, r)
					}
					run.advance(oneOf(run.Rand, 0, 15*time.Second, 50*time.Minute))
					run.change(run.Rand, []uint64{run.Uint64(), run.Uint64(), run.Uint64()}, edits, false)
				}
			}
		})
	}
}

// TestRefreshThatEndsEarly cancels refreshes, or lets one of their requests fail. The next refresh must read all changes again.
func TestRefreshThatEndsEarly(t *testing.T) {
	for what, change := range map[string]func(*simulator.State){
		"rows change": func(st *simulator.State) {
			st.Installs.All()[0].Status = "exited"
			st.DeviceTags.All()[0].Value = "changed"
			st.Device(2).DeviceTypeID++
		},
		"as many rows are added as removed": func(st *simulator.State) {
			st.Device(4).FleetID = 1
			st.Installs.Delete(st.InstallsOf(7)[0].ID)
		},
	} {
		for _, how := range []string{"canceled", "failing"} {
			t.Run(what+", "+how, func(t *testing.T) {
				for request := 1; request <= 12; request++ {
					run, end, err := history{seed: 3}.begin(simulator.Config{Devices: 10, Fleets: 2}, func(c *account.Config) {
						c.FullRefreshInterval, c.PageSize, c.ArchivedFleets = 24*time.Hour, 1000, true
						c.Include, c.Exclude, c.Shard = nil, nil, balena.Shard{}
						c.Devices, c.Services, c.DeviceTags = true, true, []string{"site", "owner"}
					})
					if err != nil {
						t.Fatal(err)
					}
					defer end()
					run.always = nil
					run.sim.Update(func(st *simulator.State) {
						st.Device(4).FleetID = st.AddFleet(simulator.Fleet{Class: "block"}).ID // out of reach
					})
					if err := run.refresh(t.Context(), event{}); err != nil {
						t.Fatal(err)
					}
					run.sim.Update(change)
					run.advance(5 * time.Minute)
					run.sim.Update(func(st *simulator.State) { st.Device(5).Name = "renamed" })
					e := event{}
					if how == "canceled" {
						e.moments = []moment{{kind: canceled, at: request}}
					} else {
						run.lasting = simulator.Faults{{From: request, Times: 1, Status: 502}}
					}
					err = run.refresh(t.Context(), e)
					run.lasting = nil
					for _, err := range []error{err, run.refresh(t.Context(), event{})} {
						if err != nil {
							t.Errorf("at request %d: %v", request, err)
						}
					}
				}
			})
		}
	}
}

func oneOf[T any](r *rand.Rand, of ...T) T { return of[r.IntN(len(of))] }
