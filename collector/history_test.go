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

// An exporter that reads nothing but what changed must export what one exports that reads everything. These tests let
// accounts live, disturb the refreshes of a client that follows them, and hold what it reads against the truth:
//
//   - An undisturbed refresh serves, byte for byte, what a new client serves that reads everything.
//   - A refresh during which the account changes serves what is in reach all along, nothing that never was, and each
//     row as it was at some moment of the refresh. See [check].
//   - A refresh to which a fault happens serves the same, or fails. One that fails changes nothing of the last snapshot.
//   - A refresh ends.

var (
	historySeed  = flag.Uint64("history.seed", 0, "tell one history, at length")
	historyCount = flag.Int("history.count", 0, "how many histories to try; 0 for 500, or fewer with -short and the race detector")
	historyFirst = flag.Uint64("history.first", 1, "the seed of the first history to try")
	historyAll   = flag.Bool("history.all", false, "try all histories, however many go wrong, and list those without telling them")
)

// A history is an account, somebody who follows it, and what happens to both.
type history struct {
	seed   uint64
	events []event
}

// An event depends on its own seed and on what there is, so that the rest of a history makes sense without it.
type event struct {
	kind eventKind
	seed uint64
	// happenings are the seeds of what happens to the account, if anything does.
	happenings []uint64
	// moments are those of a refresh at which something happens, and fault is the seed of a fault that happens to it;
	// 0 is none.
	moments []moment
	fault   uint64
}

type eventKind int

const (
	changed   eventKind = iota // something happens to the account
	lived                      // a tick of the simulator's own life
	passed                     // time passes
	clockSet                   // the server's clock is set
	rotated                    // the token is another
	upgraded                   // the server learns the API's version 7, or forgets it
	limited                    // a limit of rows is set, or lifted
	broke                      // a fault happens from now on
	mended                     // and does not any more
	refreshed                  // the client refreshes
)

// A moment of a refresh is right before one of its requests is answered.
type moment struct {
	kind momentKind
	seed uint64
	// at counts the requests of the refresh from 1.
	at int
	// happenings are the seeds of what happens to the account, if anything does.
	happenings []uint64
}

type momentKind int

const (
	changes   momentKind = iota // something happens to the account
	lingers                     // the body of the answer takes its time
	clockStep                   // the server's clock is set
	calledOff                   // the refresh is called off
)

// newHistory makes up a history.
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
			e.happenings = seeds(1 + r.IntN(3))
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
				m.happenings = seeds(1 + r.IntN(2))
			case x < 90:
				m.kind = lingers
			case x < 94:
				m.kind = clockStep
			default:
				m.kind = calledOff
			}
			e.moments = append(e.moments, m)
		}
		// Most of what a refresh decides depends on its first answers.
		for range early.IntN(5) {
			e.moments = append(e.moments, moment{at: 2 + early.IntN(4), seed: early.Uint64(), happenings: []uint64{early.Uint64()}})
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
				add(lived)
			case x < 940:
				add(clockSet)
			case x < 950:
				add(rotated)
			case x < 960:
				add(upgraded)
			case x < 965:
				add(limited)
			case x < 985:
				add(broke)
			default:
				add(mended)
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

// tally counts the refreshes of histories.
type tally struct{ full, changes, distrusted, disturbed, faulty, errors int }

func (t *tally) add(o tally) {
	t.full += o.full
	t.changes += o.changes
	t.distrusted += o.distrusted
	t.disturbed += o.disturbed
	t.faulty += o.faulty
	t.errors += o.errors
}

// tell lets a history happen. The error says where what was exported is not what is true.
func (h history) tell(ctx context.Context) (*telling, error) {
	config := simulator.Config{}
	if rand.New(rand.NewPCG(h.seed, 7)).IntN(2) == 0 {
		config.Edition = simulator.Cloud
	}
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

// shorten leaves out what happens while the history still goes wrong in the same way.
func (h history) shorten(ctx context.Context, err error) history {
	wrong := func(h history) bool {
		_, again := h.tell(ctx)
		return again != nil && sortOf(again) == sortOf(err)
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
	// with tries the history with another event in the place of one.
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
				for k := 0; k < len(h.events[i].moments[j].happenings); {
					if !with(i, func(e *event) {
						e.moments = slices.Clone(e.moments)
						e.moments[j].happenings = without(e.moments[j].happenings, k)
					}) {
						k++
					}
				}
				j++
			}
		}
		for j := 0; j < len(h.events[i].happenings); {
			if !with(i, func(e *event) { e.happenings = without(e.happenings, j) }) {
				j++
			}
		}
	}
	return h
}

// without returns what there is but for the i-th.
func without[T any](of []T, i int) []T { return slices.Concat(of[:i], of[i+1:]) }

var particulars = regexp.MustCompile(`\S*[\d/]\S*`)

// sortOf is the beginning of an error, without what it is about.
func sortOf(err error) string {
	words := strings.Fields(particulars.ReplaceAllString(err.Error(), ""))
	return strings.Join(words[:min(len(words), 12)], " ")
}

// complain tells of a history that went wrong, shortened to what it takes.
func (h history) complain(t *testing.T, err error) {
	t.Helper()
	shortest := h.shorten(t.Context(), err)
	told, again := shortest.tell(t.Context())
	if again == nil {
		told, again = h.tell(t.Context()) // it depends on chance
	}
	t.Errorf("history %d: %v\n\nin short:\n%s\n%v\n\ngo test ./collector -run History -history.seed=%d tells it at length", h.seed, err,
		told.story(), again, h.seed)
}

func TestHistory(t *testing.T) {
	// Histories leave much to collect and keep little.
	defer debug.SetGCPercent(debug.SetGCPercent(400))
	if *historySeed != 0 {
		h := newHistory(*historySeed)
		told, err := h.tell(t.Context())
		t.Log(told.story())
		if err != nil {
			h.complain(t, err)
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
				told, err := h.tell(t.Context())
				mu.Lock()
				if told != nil {
					all.add(told.tally)
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
					h.complain(t, err)
					return
				}
			}
		})
	}
	workers.Wait()
	t.Logf("%d histories: %+v", n, all)
	// Fewer histories may have another mixture by chance.
	if refreshes := all.full + all.changes; !wrong && n >= 100 && all.changes < refreshes/3 {
		t.Errorf("only %d of %d refreshes read nothing but changes", all.changes, refreshes)
	}
}

// TestServersThatDoNotTellWhatChanged: at a server that does not take the question, or does not answer it right, every
// refresh reads everything and says why.
func TestServersThatDoNotTellWhatChanged(t *testing.T) {
	const question = "modified_at gt"
	for _, test := range []struct {
		name   string
		config simulator.Config
		fault  simulator.Fault
		before int // so many refreshes before it is known
		why    string
	}{
		{"400", simulator.Config{}, simulator.Fault{Query: question, Status: 400, Body: `"Malformed url"`}, 3, "answered 400"},
		{"a blank 500", simulator.Config{}, simulator.Fault{Query: question, Status: 500}, 3, "answered 500"},
		{"null", simulator.Config{ModifiedAtIsNull: true}, simulator.Fault{}, 0, "has no modified_at"},
		{"standing still", simulator.Config{ModifiedAtStandsStill: true}, simulator.Fault{}, 0, "modified_at"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			seeds := uint64(10)
			if testing.Short() || raceEnabled {
				seeds = 2
			}
			for seed := range seeds {
				test.config.Devices, test.config.Fleets = 40, 4
				told, end, err := history{seed: seed}.begin(test.config, func(c *account.Config) {
					c.FullRefreshInterval = 24 * time.Hour
					c.Include, c.Exclude, c.Shard = nil, nil, balena.Shard{}
				})
				if err != nil {
					t.Fatal(err)
				}
				defer end()
				told.always = nil
				if test.fault.Query != "" {
					told.always = simulator.Faults{test.fault}
				}
				for refresh := range 12 {
					if err := told.refresh(t.Context(), event{}); err != nil {
						t.Fatalf("%s\n%v", told.story(), err)
					}
					r := told.last.Reading
					why := fmt.Sprint(r.Distrust)
					if known := refresh >= test.before; r.Kind != balena.Full || known != (r.Mode == balena.Everything) || known && !strings.Contains(why, test.why) {
						t.Errorf("%s\nrefresh %d: %+v", told.story(), refresh, r)
					}
					told.pass(oneOf(told.Rand, 0, 15*time.Second, 50*time.Minute))
					told.change(told.Rand, []uint64{told.Uint64(), told.Uint64(), told.Uint64()}, happenings, false)
				}
			}
		})
	}
}

// TestRefreshThatEndsEarly is called off, or a request of it fails, whichever it is: the next one sees what it had seen.
func TestRefreshThatEndsEarly(t *testing.T) {
	for what, change := range map[string]func(*simulator.State){
		"rows change": func(st *simulator.State) {
			st.Installs.All()[0].Status = "exited"
			st.DeviceTags.All()[0].Value = "changed"
			st.Device(2).DeviceTypeID++
		},
		"as many rows come into reach as go": func(st *simulator.State) {
			st.Device(4).FleetID = 1
			st.Installs.Delete(st.InstallsOf(7)[0].ID)
		},
	} {
		for _, how := range []string{"called off", "failing"} {
			t.Run(what+", "+how, func(t *testing.T) {
				for request := 1; request <= 12; request++ {
					told, end, err := history{seed: 3}.begin(simulator.Config{Devices: 10, Fleets: 2}, func(c *account.Config) {
						c.FullRefreshInterval, c.PageSize, c.ArchivedFleets = 24*time.Hour, 1000, true
						c.Include, c.Exclude, c.Shard = nil, nil, balena.Shard{}
						c.Devices, c.Services, c.DeviceTags = true, true, everything().DeviceTags
					})
					if err != nil {
						t.Fatal(err)
					}
					defer end()
					told.always = nil
					told.sim.Update(func(st *simulator.State) {
						st.Device(4).FleetID = st.AddFleet(simulator.Fleet{Class: "block"}).ID // out of reach
					})
					if err := told.refresh(t.Context(), event{}); err != nil {
						t.Fatal(err)
					}
					told.sim.Update(change)
					told.pass(5 * time.Minute)
					told.sim.Update(func(st *simulator.State) { st.Device(5).Name = "renamed" })
					e := event{}
					if how == "called off" {
						e.moments = []moment{{kind: calledOff, at: request}}
					} else {
						told.lasting = simulator.Faults{{From: request, Times: 1, Status: 502}}
					}
					err = told.refresh(t.Context(), e)
					told.lasting = nil
					for _, err := range []error{err, told.refresh(t.Context(), event{})} {
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
