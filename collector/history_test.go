package collector_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/balena-exporter/balena-exporter/collector"
	"github.com/balena-exporter/balena-exporter/internal/balena"
	"github.com/balena-exporter/balena-exporter/internal/exposition"
	"github.com/balena-exporter/balena-exporter/internal/simulator"
)

// An exporter that reads nothing but what changed must export what one exports that reads everything. These tests
// let accounts live: whatever happens to one, after each refresh a client that has followed it since its beginning
// and a new client say the same, byte for byte.

var (
	historySeed  = flag.Uint64("history.seed", 0, "tell one history, at length")
	historyCount = flag.Int("history.count", 0, "how many histories to try; 0 for 1500, or fewer with -short and the race detector")
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
}

type eventKind int

const (
	changed   eventKind = iota // something happens to the account
	lived                      // a tick of the simulator's own life
	passed                     // time passes
	clockSet                   // the server's clock is set
	rotated                    // the token is another
	upgraded                   // the server learns the API's version 7, or forgets it
	refreshed                  // the client refreshes, undisturbed
	disturbed                  // something happens while it does
	failed                     // a request fails
	cancelled                  // the refresh is called off
)

// newHistory makes up a history.
func newHistory(seed uint64) history {
	r := rand.New(rand.NewPCG(seed, 1))
	h := history{seed: seed}
	add := func(k eventKind) {
		e := event{kind: k, seed: r.Uint64()}
		if k == changed || k == disturbed {
			for range 1 + r.IntN(3) {
				e.happenings = append(e.happenings, r.Uint64())
			}
		}
		h.events = append(h.events, e)
	}
	add(refreshed)
	for range 5 + r.IntN(10) {
		for range r.IntN(6) {
			switch x := r.IntN(100); {
			case x < 60:
				add(changed)
			case x < 88:
				add(passed)
			case x < 93:
				add(lived)
			case x < 97:
				add(clockSet)
			case x < 98:
				add(rotated)
			default:
				add(upgraded)
			}
		}
		switch x := r.IntN(100); {
		case x < 8:
			add(disturbed)
		case x < 16:
			add(failed)
		case x < 20:
			add(cancelled)
		}
		add(refreshed)
	}
	return h
}

// tally counts the refreshes of histories.
type tally struct{ full, changes, distrusted, disturbed, errors int }

// A telling is a history under way.
type telling struct {
	*rand.Rand // of the event under way
	sim        *simulator.Simulator
	client     *balena.Client
	config     balena.Config // of the client, and of those that it is compared with
	options    collector.Options
	collector  *collector.Collector // for all of the history, as an exporter has one
	longest    time.Duration        // that a transaction may take
	clocks     struct {
		ours    atomic.Int64 // in nanoseconds since 1970
		servers atomic.Int64 // how far it is ahead of ours
		set     bool         // it was set since the last refresh
	}
	token     atomic.Pointer[string]
	withoutV7 atomic.Bool
	meanwhile struct { // what happens while a request is answered
		sync.Mutex
		in     int // so many requests
		happen func()
	}
	// always are the faults that the server has by nature.
	always simulator.Faults
	// downloads are the devices that the client may have seen at a download.
	downloads map[int]bool

	last      *collector.Snapshot
	lastPage  *page
	lastBuilt *exposition.Page
	lastText  string
	quiet     time.Time // until when the server wants to be left alone
	log       []string
	tally     tally
}

func (t *telling) now() time.Time { return time.Unix(0, t.clocks.ours.Load()) }

func (t *telling) serversNow() time.Time {
	return time.Unix(0, t.clocks.ours.Load()+t.clocks.servers.Load())
}

func (t *telling) tell(format string, args ...any) {
	t.log = append(t.log, fmt.Sprintf(format, args...))
}

// begin starts a history at a server that is otherwise as config says, and a client that is as change wants it.
func (h history) begin(config simulator.Config, change ...func(*balena.Config)) (t *telling, end func(), err error) {
	t = &telling{Rand: rand.New(rand.NewPCG(h.seed, 2)), downloads: map[int]bool{}}
	t.clocks.ours.Store(now.UnixNano())
	t.clocks.servers.Store(int64(oneOf(t, 0, 0, 1700*time.Millisecond, -5*time.Hour, 40*time.Minute)))
	t.token.Store(new("t0ken"))
	config.Now, config.Seed, config.CloudFields = t.serversNow, h.seed, t.IntN(3) == 0
	pageSize := oneOf(t, 1, 2, 3, 7, 50, 1000)
	if config.Fleets == 0 {
		config.Devices, config.Fleets = 3+t.IntN(25), 1+t.IntN(6)
		if t.IntN(16) == 0 {
			config.Devices, pageSize = 50+t.IntN(250), max(pageSize, 50)
		}
	}
	if t.sim, err = simulator.New(config); err != nil {
		return nil, nil, err
	}
	server := httptest.NewServer(t)
	address, err := url.Parse(server.URL)
	if err != nil {
		return nil, nil, err
	}

	o := everything()
	o.Devices, o.Services = t.IntN(8) > 0, t.IntN(3) > 0
	if t.IntN(4) == 0 {
		o.DeviceTags = nil
	}
	t.longest = 55 * time.Second
	if slices.ContainsFunc(h.events, func(e event) bool { return e.kind == clockSet }) {
		t.longest = 25 * time.Second
	}
	t.config = balena.Config{
		URL: address, Version: oneOf(t, "", "", balena.V7, balena.V6), Timeout: time.Minute, PageSize: pageSize, UserAgent: "test",
		Token: func() (string, error) { return *t.token.Load(), nil }, Now: t.now,
		Options: balena.Options{
			Devices: o.Devices, Releases: o.Releases, Services: o.Services, Keys: o.Keys, DeviceTags: o.DeviceTags, FleetTags: o.FleetTags,
			ArchivedFleets: t.IntN(2) == 0, Keep: time.Minute, FullSweepInterval: oneOf(t, time.Hour, 3*time.Hour, 24*time.Hour),
		},
	}
	switch t.IntN(6) {
	case 0:
		t.config.Include = regexp.MustCompile("/(alpha|greenhouse|kiosk)")
	case 1:
		t.config.Exclude = regexp.MustCompile("/(beta|kiosk)")
	case 2:
		t.config.Shard = balena.Shard{Index: t.IntN(2), Count: 2}
	case 3:
		t.config.ArchivedFleets = true // everything, then
	}
	for _, f := range change {
		f(&t.config)
	}
	if t.client, err = balena.NewClient(t.config); err != nil {
		return nil, nil, err
	}
	o.Devices, o.Services, o.DeviceTags = t.config.Devices, t.config.Services, t.config.DeviceTags
	t.options, t.collector = o, of(nil, o)
	t.tell("%d devices in %d fleets, balenaCloud: %t, version %q, pages of %d, a full sweep every %s, archived fleets: %t, include %v, exclude %v, shard %v",
		config.Devices, config.Fleets, config.CloudFields, t.config.Version, pageSize, t.config.FullSweepInterval, t.config.ArchivedFleets,
		t.config.Include, t.config.Exclude, t.config.Shard)
	return t, func() { t.client.Close(); server.Close() }, nil
}

// tell lets a history happen. The error says where what was exported is not what is true.
func (h history) tell(ctx context.Context) (*telling, error) {
	t, end, err := h.begin(simulator.Config{})
	if err != nil {
		return nil, err
	}
	defer end()
	for _, e := range h.events {
		t.Rand = rand.New(rand.NewPCG(e.seed, 3))
		if err := t.event(ctx, e); err != nil {
			return t, err
		}
	}
	return t, nil
}

func oneOf[T any](t *telling, of ...T) T { return of[t.IntN(len(of))] }

func (t *telling) event(ctx context.Context, e event) error {
	switch e.kind {
	case changed:
		t.change(e.happenings)
	case lived:
		t.sim.Tick()
		t.tell("a tick")
	case passed:
		t.pass(oneOf(t, time.Millisecond, 400*time.Millisecond, 3*time.Second, 20*time.Second, time.Minute, 5*time.Minute, 61*time.Minute))
	case clockSet:
		// Once between two refreshes: of a clock that is set back and forth nobody learns.
		if !t.clocks.set {
			d := oneOf(t, 300*time.Millisecond, time.Second, 4*time.Second, 20*time.Second, 31*time.Second, 2*time.Minute, time.Hour, 7*time.Hour) * oneOf[time.Duration](t, 1, -1)
			t.clocks.servers.Add(int64(d))
			t.clocks.set = true
			t.tell("the server's clock is set by %s", d)
		}
	case rotated:
		token := fmt.Sprintf("t0ken%d", t.Uint32())
		t.token.Store(&token)
		t.tell("the token is another")
	case upgraded:
		if t.config.Version == "" {
			t.withoutV7.Store(!t.withoutV7.Load())
			t.tell("the server forgets version 7: %t", t.withoutV7.Load())
		}
	case refreshed:
		return t.refresh(ctx, "")
	case disturbed:
		t.meanwhile.Lock()
		t.meanwhile.in = 1 + t.IntN(12)
		t.meanwhile.happen = func() {
			t.pass(oneOf(t, 0, time.Millisecond, 3*time.Second))
			t.noteDownloads()
			t.change(e.happenings)
		}
		t.meanwhile.Unlock()
		return t.refresh(ctx, "disturbed")
	case failed:
		t.fail()
		return t.refresh(ctx, "failing")
	case cancelled:
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		t.meanwhile.Lock()
		t.meanwhile.in, t.meanwhile.happen = 1+t.IntN(12), cancel
		t.meanwhile.Unlock()
		return t.refresh(ctx, "called off")
	}
	return nil
}

func (t *telling) pass(d time.Duration) {
	t.clocks.ours.Add(int64(d))
	t.tell("%s pass", d)
}

// change lets something happen to the account: a few things at once, in a transaction that takes its time.
func (t *telling) change(happenings []uint64) {
	t.sim.Update(func(st *simulator.State) {
		at := st.Now()
		if t.IntN(4) == 0 {
			at = at.Add(-time.Duration(t.Int64N(int64(t.longest))))
		}
		var told []string
		for _, seed := range happenings {
			e := &editor{State: st, Rand: rand.New(rand.NewPCG(seed, 4)), at: at, downloads: t.downloads}
			if what := e.happen(); what != "" {
				told = append(told, what)
			}
		}
		t.tell("%s by the server's clock, in a transaction that began %s before: %s", st.Now().Time().Format(time.TimeOnly+".000"),
			st.Now().Time().Sub(at.Time()), strings.Join(told, "; "))
	})
}

// fail lets one of the next requests fail.
func (t *telling) fail() {
	f := simulator.Fault{Times: 1, From: 1 + t.IntN(12), Resource: oneOf(t, "", "", "", "application", "device", "image_install", "device_tag", "release")}
	if f.Resource != "" {
		f.From = 1 + t.IntN(3)
	}
	switch t.IntN(8) {
	case 0, 1:
		f.Status, f.RetryAfter = http.StatusTooManyRequests, simulator.Duration{Duration: oneOf(t, time.Second, 30*time.Second)}
	case 2:
		f.Status, f.Body = http.StatusInternalServerError, "boom"
	case 3:
		f.Status = oneOf(t, http.StatusInternalServerError, http.StatusBadGateway)
		if t.last != nil && !t.last.CloudFields && f.Status == http.StatusInternalServerError {
			// What a server says that does not know the fields of balenaCloud is believed for an hour.
			f.Status = http.StatusServiceUnavailable
		}
	case 4:
		f.CutAfter = 1 + t.IntN(400)
	case 5:
		f.Spoil = oneOf(t, simulator.SpoilJSON, simulator.SpoilHTML)
	case 6:
		f.Guest = true
	case 7:
		f.Resource, f.From, f.Page, f.Status = oneOf(t, "device", "image_install"), 0, 2, http.StatusGatewayTimeout
	}
	t.sim.SetFaults(simulator.Faults{f})
	t.tell("this is going to fail: %+v", f)
}

// ServeHTTP answers for the simulator, and lets happen what happens meanwhile.
func (t *telling) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if t.withoutV7.Load() && strings.HasPrefix(r.RequestURI, "/v7/") {
		r.RequestURI = "/v0/" // which no server has
	}
	t.meanwhile.Lock()
	happen := t.meanwhile.happen
	if t.meanwhile.in--; t.meanwhile.in != 0 {
		happen = nil
	}
	t.meanwhile.Unlock()
	if happen != nil {
		happen()
	}
	t.sim.ServeHTTP(w, r)
}

// refresh lets the client refresh, and compares what it exports with what a new client does. how says what goes wrong.
func (t *telling) refresh(ctx context.Context, how string) error {
	s, err := t.client.Fetch(ctx)
	t.sim.SetFaults(t.always)
	t.meanwhile.Lock()
	happened := t.meanwhile.happen != nil && t.meanwhile.in <= 0
	t.meanwhile.happen = nil
	t.meanwhile.Unlock()
	defer t.noteDownloads()
	if t.last != nil && text(t.last, t.options) != t.lastText {
		return errors.New("a refresh changed the last snapshot, or it was not rendered as one is that is rendered from nothing")
	}
	if err == nil {
		p, b := newPage(t.collector, t.lastPage), exposition.NewBuilder(exposition.Layout(t.collector.Layout()), t.lastBuilt)
		t.collector.Render(s, t.last, twice{p, b})
		p.before = nil // a history keeps no more than it needs
		t.last, t.lastPage, t.lastBuilt, t.lastText = s, p, b.Page(), p.String()
		if served := serve(t.lastBuilt); served != t.lastText {
			return fmt.Errorf("what is served (+) is not what was written (-):\n%s", lineDiff(t.lastText, served))
		}
		err = failure(s)
	}
	if err != nil {
		t.tally.errors++
		t.tell("refresh %s fails: %v", how, err)
		if e, ok := errors.AsType[*balena.Error](err); ok && e.Wait > 0 {
			t.quiet = t.now().Add(e.Wait)
		}
		wait := t.quiet.Sub(t.now())
		if how == "" && wait <= 0 {
			return errors.New("there was no reason to fail")
		}
		if s != nil && !happened && onlyApart(s) {
			err := t.compare(ctx, s, func(exposition string) string { return apart.ReplaceAllString(exposition, "") })
			if err != nil {
				return err
			}
		}
		if wait > 0 && t.IntN(4) > 0 {
			t.pass(wait + time.Millisecond)
		}
		return nil
	}
	t.clocks.set = false
	switch s.Reading.Kind {
	case balena.Changes:
		t.tally.changes++
	case balena.Full:
		t.tally.full++
	default:
		return fmt.Errorf("a refresh of kind %q", s.Reading.Kind)
	}
	if s.Reading.Distrust != nil {
		t.tally.distrusted++
	}
	t.tell("refresh %s: %+v", how, s.Reading)
	if happened {
		t.tally.disturbed++
		return nil // what of it was seen, nobody can tell
	}
	clear(t.downloads)
	return t.compare(ctx, s, func(exposition string) string { return exposition })
}

// compare compares some of what is exported with what a new client's exporter exports.
func (t *telling) compare(ctx context.Context, s *collector.Snapshot, some func(exposition string) string) error {
	config := t.config
	config.Version, config.PageSize, config.FullSweepInterval = s.APIVersion, 1000, 0
	fresh, err := balena.NewClient(config)
	if err != nil {
		return err
	}
	defer fresh.Close()
	want, err := fresh.Fetch(ctx)
	if err == nil {
		err = failure(want)
	}
	if err != nil {
		return fmt.Errorf("a new client fails: %w", err)
	}
	if want.Devices.Len() == 0 {
		want.CloudFields = s.CloudFields // which nobody can tell who has seen no device
	}
	if truth, got := some(text(want, t.options)), some(t.lastText); got != truth {
		return fmt.Errorf("after a refresh of kind %s (- the truth, + what is exported):\n%s", s.Reading.Kind, lineDiff(truth, got))
	}
	return nil
}

// apart are the families of parts that no other family has anything to do with.
var apart = regexp.MustCompile(`(?m)^(# \w+ )?balena_(fleet_service|device_service|fleet_tags|device_tags|api_key).*\n`)

// onlyApart tells whether no other parts failed.
func onlyApart(s *collector.Snapshot) bool {
	return !slices.ContainsFunc(s.Parts, func(p balena.Part) bool {
		return p.Err != nil && !slices.Contains([]balena.PartName{balena.PartServices, balena.PartFleetTags, balena.PartDeviceTags, balena.PartKeys}, p.Name)
	})
}

// twice writes to two writers: to a simple one, and to that of an exporter.
type twice [2]collector.Writer

func (w twice) Append(family int, lines []byte) {
	for _, to := range w {
		to.Append(family, lines)
	}
}

func (w twice) Run(key, before any, changed func(int) bool, lines func(int) []byte) {
	for _, to := range w {
		to.Run(key, before, changed, lines)
	}
}

// serve is the text of a page as a scraper gets it that does not take compressed ones.
func serve(p *exposition.Page) string {
	w := httptest.NewRecorder()
	exposition.NewHandler(exposition.HandlerOptions{Page: func() *exposition.Page { return p }, Live: prometheus.NewRegistry()}).
		ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	return w.Body.String()
}

// noteDownloads remembers which devices are at a download.
func (t *telling) noteDownloads() {
	t.sim.Update(func(st *simulator.State) {
		for _, i := range st.Installs.All() {
			if i.Status == "Downloading" {
				t.downloads[i.DeviceID] = true
			}
		}
	})
}

// failure is the first error of the parts of a refresh.
func failure(s *collector.Snapshot) error {
	for _, p := range s.Parts {
		if p.Err != nil {
			return p.Err
		}
	}
	return nil
}

// lineDiff lists the first lines in which two expositions differ.
func lineDiff(want, got string) string {
	const most = 12
	var lines []string
	add := func(sign string, text, other string) {
		known := map[string]bool{}
		for line := range strings.Lines(other) {
			known[line] = true
		}
		n := 0
		for line := range strings.Lines(text) {
			if known[line] {
				continue
			}
			if n++; n > most {
				lines = append(lines, sign+" …\n")
				return
			}
			lines = append(lines, sign+" "+line)
		}
	}
	add("-", want, got)
	add("+", got, want)
	if lines == nil {
		return "the same lines in another order"
	}
	return strings.Join(lines, "")
}

// shorten leaves out events while the history still goes wrong.
func (h history) shorten(ctx context.Context) history {
	for n := len(h.events) / 2; n > 0; n /= 2 {
		for i := 0; i+n <= len(h.events); {
			shorter := history{h.seed, slices.Concat(h.events[:i], h.events[i+n:])}
			if shorter.wrong(ctx) {
				h = shorter
			} else {
				i += n
			}
		}
	}
	for i := range h.events {
		for j := 0; j < len(h.events[i].happenings); {
			shorter := history{h.seed, slices.Clone(h.events)}
			all := h.events[i].happenings
			shorter.events[i].happenings = slices.Concat(all[:j], all[j+1:])
			if shorter.wrong(ctx) {
				h = shorter
			} else {
				j++
			}
		}
	}
	return h
}

func (h history) wrong(ctx context.Context) bool {
	_, err := h.tell(ctx)
	return err != nil
}

// complain tells of a history that went wrong, shortened to what it takes.
func (h history) complain(t *testing.T, err error) {
	t.Helper()
	shortest := h.shorten(t.Context())
	told, again := shortest.tell(t.Context())
	if again == nil {
		told, again = h.tell(t.Context()) // it depends on chance
	}
	t.Errorf("history %d: %v\n\nin short:\n%s\n%v\n\ngo test ./collector -run History -history.seed=%d tells it at length", h.seed, err,
		strings.Join(told.log, "\n"), again, h.seed)
}

func TestHistory(t *testing.T) {
	if *historySeed != 0 {
		h := newHistory(*historySeed)
		told, err := h.tell(t.Context())
		t.Log(strings.Join(told.log, "\n"))
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
			n = 1500
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
			for seed := next.Add(1); seed <= uint64(n); seed = next.Add(1) {
				h := newHistory(seed)
				told, err := h.tell(t.Context())
				mu.Lock()
				all.add(told.tally)
				stop := wrong
				wrong = wrong || err != nil
				mu.Unlock()
				if stop {
					return
				}
				if err != nil {
					h.complain(t, err)
					return
				}
			}
		})
	}
	workers.Wait()
	t.Logf("%d histories: %+v", n, all)
	// Fewer histories may have another mixture by chance.
	if refreshes := all.full + all.changes; !wrong && n >= 100 && all.changes < refreshes*2/3 {
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
		{"400", simulator.Config{}, simulator.Fault{Query: question, Status: 400, Body: `"Malformed url"`}, 1, "answered 400"},
		{"a blank 500", simulator.Config{}, simulator.Fault{Query: question, Status: 500}, 1, "answered 500"},
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
				told, end, err := history{seed: seed}.begin(test.config, func(c *balena.Config) {
					c.FullSweepInterval = 24 * time.Hour
					c.Include, c.Exclude, c.Shard = nil, nil, balena.Shard{}
				})
				if err != nil {
					t.Fatal(err)
				}
				defer end()
				if test.fault.Query != "" {
					told.always = simulator.Faults{test.fault}
					told.sim.SetFaults(told.always)
				}
				for refresh := range 12 {
					if err := told.refresh(t.Context(), ""); err != nil {
						t.Fatalf("%s\n%v", strings.Join(told.log, "\n"), err)
					}
					r := told.last.Reading
					why := fmt.Sprint(r.Distrust)
					if known := refresh >= test.before; r.Kind != balena.Full || known != strings.Contains(why, test.why) {
						t.Errorf("%s\nrefresh %d: %+v", strings.Join(told.log, "\n"), refresh, r)
					}
					told.pass(oneOf(told, 0, 15*time.Second, 50*time.Minute))
					told.change([]uint64{told.Uint64(), told.Uint64(), told.Uint64()})
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
					told, end, err := history{seed: 3}.begin(simulator.Config{Devices: 10, Fleets: 2}, func(c *balena.Config) {
						c.FullSweepInterval, c.PageSize, c.ArchivedFleets = 24*time.Hour, 1000, true
						c.Include, c.Exclude, c.Shard = nil, nil, balena.Shard{}
						c.Devices, c.Services, c.DeviceTags = true, true, everything().DeviceTags
					})
					if err != nil {
						t.Fatal(err)
					}
					defer end()
					told.sim.Update(func(st *simulator.State) {
						st.Device(4).FleetID = st.AddFleet(simulator.Fleet{Class: "block"}).ID // out of reach
					})
					if err := told.refresh(t.Context(), ""); err != nil {
						t.Fatal(err)
					}
					told.sim.Update(change)
					told.pass(5 * time.Minute)
					told.sim.Update(func(st *simulator.State) { st.Device(5).Name = "renamed" })
					ctx, cancel := context.WithCancel(t.Context())
					defer cancel()
					if how == "called off" {
						told.meanwhile.in, told.meanwhile.happen = request, cancel
					} else {
						told.sim.SetFaults(simulator.Faults{{From: request, Times: 1, Status: http.StatusBadGateway}})
					}
					for _, err := range []error{told.refresh(ctx, how), told.refresh(t.Context(), "")} {
						if err != nil {
							t.Errorf("at request %d: %v", request, err)
						}
					}
				}
			})
		}
	}
}

func (t *tally) add(o tally) {
	t.full += o.full
	t.changes += o.changes
	t.distrusted += o.distrusted
	t.disturbed += o.disturbed
	t.errors += o.errors
}
