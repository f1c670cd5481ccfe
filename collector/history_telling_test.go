// SPDX-License-Identifier: Apache-2.0

package collector_test

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/balena-exporter/balena-exporter/collector"
	"github.com/balena-exporter/balena-exporter/internal/balena"
	"github.com/balena-exporter/balena-exporter/internal/balena/account"
	balenaapi "github.com/balena-exporter/balena-exporter/internal/balena/api"
	"github.com/balena-exporter/balena-exporter/internal/exposition"
	"github.com/balena-exporter/balena-exporter/internal/simulator"
)

// A telling is a history under way.
type telling struct {
	*rand.Rand // of the event under way
	sim        *simulator.Simulator
	truths     http.Handler // answers whom the others are compared with
	client     reader
	config     account.Config // of the client, and of those that it is compared with
	options    collector.Options
	collector  *collector.Collector // for all of the history, as an exporter has one
	longest    time.Duration        // that a transaction may take
	clocks     struct {
		ours    atomic.Int64 // in nanoseconds since 1970
		servers atomic.Int64 // how far it is ahead of ours
		set     bool         // it was set since the last refresh read it
	}
	token     atomic.Pointer[string]
	withoutV7 atomic.Bool
	// upgrade is when the server learned version 7 or forgot it, and how many refreshes were since.
	upgrade struct {
		at    time.Time
		since int
	}
	// late is set if the server does not tell when rows of services and tags were written: only a full refresh sees all
	// changes of them.
	late bool
	// always are the faults that the server has by nature, lasting those that it has for now.
	always, lasting simulator.Faults
	// plain is set if the server does not compress its answers.
	plain bool
	// downloads are the devices that the client may have seen at a download.
	downloads map[int]bool

	last     *balena.Snapshot
	lastText string
	unproven bool      // nobody has compared what was served last with what is rendered from nothing
	lied     bool      // since the last refresh that went well a list of fleets was empty that is not
	empty    bool      // the last refresh found an account without fleets, and failed
	quiet    time.Time // until when the server wants to be left alone
	tally    tally

	serving sync.Mutex // a request, and all that happens meanwhile
	run     running

	mu  sync.Mutex
	log []fmt.Stringer
}

// running is a refresh under way.
type running struct {
	moments []moment // that are still to come
	cancel  context.CancelFunc
	asked   int // requests
	most    int // that a refresh may take
	// truths are what was true at its beginning, and after each moment at which the account changed.
	truths    []facts
	changed   bool // the account, meanwhile
	stepped   bool // the clock
	cancelled bool
	err       error
}

// said is a line of a story.
type said string

func (s said) String() string { return string(s) }

// asked is a request, as a line of a story.
type asked struct {
	n      int
	uri    string
	status int
}

var (
	selection = regexp.MustCompile(`(\?|&)\$(select|expand|orderby)=[^&]*`)
	reach     = regexp.MustCompile(`(belongs_to__application/any\(a:a/)?is_directly_accessible_by__user/any\(dau:1 eq 1\)\)?`)
)

func (a *asked) String() string {
	uri, err := url.PathUnescape(a.uri)
	if err != nil {
		uri = a.uri
	}
	uri = reach.ReplaceAllString(selection.ReplaceAllString(uri, ""), "accessible")
	if len(uri) > 300 {
		uri = uri[:300] + "…"
	}
	return fmt.Sprintf("    request %d: %s: %d", a.n, uri, a.status)
}

func (t *telling) tell(format string, args ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.log = append(t.log, said(fmt.Sprintf(format, args...)))
}

// story is what has happened.
func (t *telling) story() string {
	if t == nil {
		return ""
	}
	var b strings.Builder
	for i := 0; i < len(t.log); i++ {
		fmt.Fprintln(&b, t.log[i])
		pages := 0
		for i+2 < len(t.log) && nextPage(t.log[i], t.log[i+1]) && nextPage(t.log[i+1], t.log[i+2]) {
			i, pages = i+1, pages+1
		}
		if pages > 0 {
			fmt.Fprintf(&b, "    … %d pages …\n", pages)
		}
	}
	return b.String()
}

var behind = regexp.MustCompile(`%20gt%20\d+`)

// nextPage tells whether a request asks for the page after the one before, and both were answered alike.
func nextPage(before, line fmt.Stringer) bool {
	a, ok := before.(*asked)
	b, also := line.(*asked)
	return ok && also && a.status == b.status && behind.ReplaceAllString(a.uri, "") == behind.ReplaceAllString(b.uri, "")
}

func (t *telling) now() time.Time { return time.Unix(0, t.clocks.ours.Load()) }

func (t *telling) serversNow() time.Time {
	return time.Unix(0, t.clocks.ours.Load()+t.clocks.servers.Load())
}

// begin starts a history at a server that is otherwise as config says, and a client that is as change wants it.
func (h history) begin(config simulator.Config, change ...func(*account.Config)) (t *telling, end func(), err error) {
	r := rand.New(rand.NewPCG(h.seed, 2))
	t = &telling{Rand: r, downloads: map[int]bool{}}
	t.clocks.ours.Store(now.UnixNano())
	t.clocks.servers.Store(int64(oneOf(r, 0, 0, 1700*time.Millisecond, -5*time.Hour, 40*time.Minute)))
	t.token.Store(new("t0ken"))
	config.Now, config.Seed, config.CloudFields = t.serversNow, h.seed, r.IntN(3) == 0
	pageSize := oneOf(r, 1, 2, 3, 7, 50, 1000)
	if config.Fleets == 0 {
		config.Devices, config.Fleets = 3+r.IntN(25), 1+r.IntN(6)
		if r.IntN(16) == 0 {
			config.Devices, pageSize = 50+r.IntN(250), max(pageSize, 50)
		}
	}
	if t.sim, err = simulator.New(config); err != nil {
		return nil, nil, err
	}
	t.truths, t.late = t.sim.Faultless(), config.Edition == simulator.Cloud
	server := httptest.NewServer(t)
	address, err := url.Parse(server.URL)
	if err != nil {
		return nil, nil, err
	}

	o := everything()
	o.Devices, o.Services = r.IntN(8) > 0, r.IntN(3) > 0
	if r.IntN(4) == 0 {
		o.DeviceTags = nil
	}
	t.longest, t.plain = 55*time.Second, r.IntN(4) > 0
	if slices.ContainsFunc(h.events, event.setsClock) {
		t.longest = 25 * time.Second
	}
	t.config = account.Config{
		Version: oneOf(r, "", "", balena.V7, balena.V6), PageSize: pageSize,
		Config: balenaapi.Config{
			URL: address, Timeout: time.Minute, UserAgent: "history", Now: t.now,
			Token: func(context.Context) (string, error) { return *t.token.Load(), nil },
		},
		Options: account.Options{
			Devices: o.Devices, Releases: o.Releases, Services: o.Services, Keys: o.Keys, DeviceTags: o.DeviceTags, FleetTags: o.FleetTags,
			ArchivedFleets: r.IntN(2) == 0, Keep: time.Minute, FullRefreshInterval: oneOf(r, time.Hour, 3*time.Hour, 24*time.Hour),
		},
	}
	t.config.Stripes = 1 + int(h.seed%3) // not drawn, so that a history of a seed stays what it was
	switch r.IntN(6) {
	case 0:
		t.config.Include = regexp.MustCompile("/(alpha|greenhouse|kiosk)")
	case 1:
		t.config.Exclude = regexp.MustCompile("/(beta|kiosk)")
	case 2:
		t.config.Shard = balena.Shard{Index: r.IntN(2), Count: 2}
	case 3:
		t.config.ArchivedFleets = true // everything, then
	}
	if r.IntN(5) == 0 {
		t.always, t.config.PageSize = simulator.Faults{newLimit(r)}, max(pageSize, 50)
	}
	for _, f := range change {
		f(&t.config)
	}
	if t.client, err = newReader(t.config); err != nil {
		return nil, nil, err
	}
	o.Devices, o.Services, o.DeviceTags = t.config.Devices, t.config.Services, t.config.DeviceTags
	t.options, t.collector = o, of(nil, o)
	t.tell("%s, %d devices in %d fleets, fields of balenaCloud: %t, version %q, pages of %d, a full refresh every %s, archived fleets: %t, include %v, exclude %v, shard %v%s",
		cmp.Or(config.Edition, simulator.OpenBalena), config.Devices, config.Fleets, config.CloudFields || t.late, t.config.Version, t.config.PageSize, t.config.FullRefreshInterval, t.config.ArchivedFleets,
		t.config.Include, t.config.Exclude, t.config.Shard, told(", always", t.always))
	return t, func() { t.client.Close(); server.Close() }, nil
}

// setsClock tells whether the server's clock is set, for which transactions must be shorter.
func (e event) setsClock() bool {
	return e.kind == clockSet || slices.ContainsFunc(e.moments, func(m moment) bool { return m.kind == clockStep })
}

// told tells of faults.
func told(what string, faults simulator.Faults) string {
	if len(faults) == 0 {
		return ""
	}
	b, err := json.Marshal(faults)
	if err != nil {
		return err.Error()
	}
	return what + " " + string(b)
}

func (t *telling) event(ctx context.Context, e event) error {
	r := rand.New(rand.NewPCG(e.seed, 3))
	t.Rand = r
	switch e.kind {
	case changed:
		t.change(r, e.happenings, happenings, false)
	case lived:
		t.sim.Tick()
		t.tell("a tick")
	case passed:
		t.pass(oneOf(r, time.Millisecond, 400*time.Millisecond, 3*time.Second, 20*time.Second, time.Minute, 5*time.Minute, 61*time.Minute))
	case clockSet:
		t.setClock(r)
	case rotated:
		token := fmt.Sprintf("t0ken%d", r.Uint32())
		t.token.Store(&token)
		t.tell("the token is another")
	case upgraded:
		if t.config.Version == "" {
			t.withoutV7.Store(!t.withoutV7.Load())
			t.upgrade.at, t.upgrade.since = t.now(), 0
			t.tell("the server forgets version 7: %t", t.withoutV7.Load())
		}
	case limited:
		t.always = nil
		if r.IntN(3) > 0 {
			t.always = simulator.Faults{newLimit(r)}
		}
		t.tell("the server limits rows%s", told(":", t.always))
	case broke:
		t.lasting = append(t.lasting, t.fault(r, true))
		t.tell("faults last:%s", told("", t.lasting))
	case mended:
		if t.lasting != nil {
			t.lasting = nil
			t.tell("no faults last")
		}
	case refreshed:
		return t.refresh(ctx, e)
	}
	return nil
}

// fault makes up a fault that a client can tell from the truth. On balenaCloud a guest may read the releases and tags of
// public fleets: there is no telling that list from one of an account that has none.
func (t *telling) fault(r *rand.Rand, lasts bool) simulator.Fault {
	f := newFault(r, lasts)
	if t.late && f.Guest && slices.Contains([]string{"", "release", "application_tag"}, f.Resource) {
		f.Guest, f.Status = false, http.StatusUnauthorized
	}
	return f
}

// setClock sets the server's clock, once between two refreshes. No client can notice a clock that is set forth and back.
func (t *telling) setClock(r *rand.Rand) {
	if t.clocks.set {
		return
	}
	d := oneOf(r, 300*time.Millisecond, time.Second, 4*time.Second, 20*time.Second, 31*time.Second, 2*time.Minute, time.Hour, 7*time.Hour) * oneOf[time.Duration](r, 1, -1)
	t.clocks.servers.Add(int64(d))
	t.clocks.set = true
	t.tell("the server's clock is set by %s", d)
}

func (t *telling) pass(d time.Duration) {
	if d > 0 {
		t.clocks.ours.Add(int64(d))
		t.tell("%s pass", d)
	}
}

// change lets something of a kind happen to the account: a few things at once, in a transaction that takes its time. If
// it is focused, much of it concerns one fleet.
func (t *telling) change(r *rand.Rand, seeds []uint64, kind []happening, focused bool) {
	began := t.serversNow()
	if r.IntN(4) == 0 {
		began = began.Add(-time.Duration(r.Int64N(int64(t.longest))))
	}
	var told []string
	t.sim.UpdateSince(began, func(st *simulator.State) {
		for _, seed := range seeds {
			e := &editor{State: st, Rand: rand.New(rand.NewPCG(seed, 4)), at: st.Now(), downloads: t.downloads, options: &t.config.Options, focused: focused}
			if what := e.happen(kind); what != "" {
				told = append(told, what)
			}
		}
	})
	t.tell("%s by the server's clock, in a transaction that began %s before: %s", t.serversNow().UTC().Format(time.TimeOnly+".000"),
		t.serversNow().Sub(began), strings.Join(told, "; "))
}

// truthful is the user agent of clients to whose requests no faults happen.
const truthful = "truth"

// ServeHTTP lets the moments of the refresh happen that are due, and has the simulator answer the request.
func (t *telling) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.UserAgent() == truthful {
		r.Header.Del("Accept-Encoding")
		t.truths.ServeHTTP(w, r)
		return
	}
	t.serving.Lock()
	defer t.serving.Unlock()
	if t.plain {
		r.Header.Del("Accept-Encoding")
	}
	a := t.meanwhile(r)
	if t.withoutV7.Load() && strings.HasPrefix(r.RequestURI, "/v7/") {
		r.RequestURI = "/v0/" // which no server has
	}
	t.sim.ServeHTTP(&answer{ResponseWriter: w, t: t, asked: a}, r)
}

// meanwhile lets the moments happen that come before a request is answered. It returns the request as a line of the story.
func (t *telling) meanwhile(req *http.Request) *asked {
	run := &t.run
	run.asked++
	a := &asked{n: run.asked, uri: req.RequestURI}
	if run.asked > run.most {
		run.err = fmt.Errorf("a refresh has no end: there were %d requests, and a list has no more than %d rows", run.asked, run.most)
		run.cancel()
	}
	for len(run.moments) > 0 && run.moments[0].at <= run.asked {
		m := run.moments[0]
		run.moments = run.moments[1:]
		r := rand.New(rand.NewPCG(m.seed, 5))
		switch m.kind {
		case changes:
			t.pass(oneOf(r, 0, time.Millisecond, 3*time.Second))
			t.noteDownloads()
			t.change(r, m.happenings, oneOf(r, happenings, comings, comings), true)
			truth, err := t.observe(run.truths[0].APIVersion)
			if err != nil {
				run.err = err
				run.cancel()
			}
			run.truths, run.changed = append(run.truths, truth), true
		case lingers:
			t.pass(oneOf(r, 3*time.Second, 31*time.Second, 50*time.Second))
		case clockStep:
			t.setClock(r)
			run.stepped = true
		case calledOff:
			t.tell("the refresh is called off")
			run.cancelled = true
			run.cancel()
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.log = append(t.log, a)
	return a
}

// An answer notes its status, and how long the server wants to be left alone.
type answer struct {
	http.ResponseWriter
	t     *telling
	asked *asked
}

func (a *answer) Unwrap() http.ResponseWriter { return a.ResponseWriter }

func (a *answer) WriteHeader(status int) {
	a.t.mu.Lock()
	a.asked.status = status
	a.t.mu.Unlock()
	if status == http.StatusTooManyRequests || status == http.StatusServiceUnavailable && a.Header().Get("Retry-After") != "" {
		wait := time.Minute
		if s, err := strconv.Atoi(a.Header().Get("Retry-After")); err == nil {
			wait = time.Duration(s) * time.Second
		}
		a.t.quiet = a.t.now().Add(wait)
	}
	a.ResponseWriter.WriteHeader(status)
}

// refresh lets the client refresh, and compares what it exports with the truth.
func (t *telling) refresh(ctx context.Context, e event) error {
	mark := len(t.log)
	var faults simulator.Faults
	if e.fault != 0 {
		faults = simulator.Faults{t.fault(rand.New(rand.NewPCG(e.fault, 6)), false)}
		if faults[0].Spoil == simulator.SpoilEmpty && t.lied {
			faults[0].Spoil = simulator.SpoilHTML
		}
		t.tell("a fault is due:%s", told("", faults))
	}
	faults = slices.Concat(faults, t.lasting)
	t.sim.SetFaults(slices.Concat(faults, t.always))
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	t.run = running{moments: e.moments, cancel: cancel, most: t.mostRequests()}
	if len(e.moments) > 0 {
		truth, err := t.observe(t.expectedVersion())
		if err != nil {
			return err
		}
		t.run.truths = []facts{truth}
	}

	s, err := t.client.Fetch(ctx)

	t.serving.Lock() // a refresh that is called off does not wait for its last answer
	defer t.serving.Unlock()
	t.run.moments = nil
	if t.run.err != nil {
		return t.run.err
	}
	faulty := 0
	for i, n := range t.sim.Happened()[:len(faults)] {
		faulty += n
		t.lied = t.lied || n > 0 && faults[i].Spoil == simulator.SpoilEmpty
	}
	if t.upgrade.since++; faulty > 0 && t.learning() {
		t.upgrade.at, t.upgrade.since = t.now(), 0 // a server in trouble does not show its versions
	}
	defer t.noteDownloads()
	if t.last != nil && (t.unproven || err != nil || t.IntN(4) == 0) && text(t.last, t.options) != t.lastText {
		return errors.New("a refresh changed the last snapshot, or it was not rendered as one is that is rendered from nothing")
	}
	reason, before := err, t.last
	if err == nil {
		t.last, t.lastText, t.unproven = s, serve(t.collector.Render(s)), true
		reason = failure(s)
	}
	if reason != nil {
		t.tally.errors++
		t.tell("the refresh fails: %v", reason)
		if err := t.mayFail(faulty > 0); err != nil {
			return err
		}
	} else {
		t.empty, t.lied = false, false
	}
	if faulty > 0 {
		t.tally.faulty++
	}
	if err == nil {
		t.clocks.set = t.run.stepped
		switch s.Reading.Kind {
		case balena.Incremental:
			t.tally.changes++
		case balena.Full:
			t.tally.full++
		default:
			return fmt.Errorf("a refresh of kind %q", s.Reading.Kind)
		}
		if s.Reading.Distrust != nil {
			t.tally.distrusted++
		}
		t.tell("the refresh serves %d devices in %d fleets: %+v", s.Devices.Len(), len(s.Fleets), s.Reading)
		if err := t.judge(s, before); err != nil {
			return err
		}
	}
	if reason == nil && !t.run.changed && faulty == 0 {
		// A refresh as any other: its requests say nothing.
		t.log = slices.Concat(t.log[:mark], slices.DeleteFunc(t.log[mark:], func(line fmt.Stringer) bool { _, ok := line.(*asked); return ok }))
		clear(t.downloads)
	}
	if wait := t.quiet.Sub(t.now()); reason != nil && wait > 0 && t.IntN(4) > 0 {
		t.pass(wait + time.Millisecond)
	}
	return nil
}

// judge returns what is wrong with the snapshot of a refresh, given the snapshot before.
func (t *telling) judge(s, before *balena.Snapshot) error {
	if want := t.expectedVersion(); s.APIVersion != want && !t.learning() {
		return fmt.Errorf("the client speaks version %s of the API, and the server has %s", s.APIVersion, want)
	}
	if t.run.changed {
		t.tally.disturbed++
		return check(s, before, t.run.truths, t.isLate(s))
	}
	truth, err := t.observe(s.APIVersion)
	if err != nil {
		return err
	}
	truth.Time = s.Time
	some := func(exposition string) string { return exposition }
	if t.unproven = failure(s) != nil || t.isLate(s); t.unproven {
		if !onlyApart(s) {
			return check(s, before, []facts{truth}, t.isLate(s))
		}
		some = func(exposition string) string { return apart.ReplaceAllString(exposition, "") }
	}
	if truth.Devices.Len() == 0 {
		truth.CloudFields = s.CloudFields // which nobody can tell who has seen no device
	}
	if want, got := some(text(truth.Snapshot, t.options)), some(t.lastText); got != want {
		return fmt.Errorf("after a refresh of kind %s (- the truth, + what is exported):\n%s", s.Reading.Kind, lineDiff(want, got))
	}
	return nil
}

// isLate tells whether services and tags of a snapshot may be what they were at the last full refresh.
func (t *telling) isLate(s *balena.Snapshot) bool {
	return t.late && s.Reading.Kind == balena.Incremental
}

// mayFail returns an error if there was no reason for a refresh, or a part of it, to fail.
func (t *telling) mayFail(faulty bool) error {
	if faulty || t.run.changed || t.run.cancelled || t.quiet.After(t.now()) || t.learning() {
		return nil
	}
	truth, err := t.observe(t.expectedVersion())
	if err != nil {
		return err
	}
	// A list without fleets may be asked for twice before it is believed.
	if len(truth.Fleets) == 0 && !t.empty {
		t.empty = true
		return nil
	}
	return errors.New("there was no reason to fail")
}

// expectedVersion is the version of the API that the client ought to speak.
func (t *telling) expectedVersion() balena.Version {
	switch {
	case t.config.Version != "":
		return t.config.Version
	case t.withoutV7.Load():
		return balena.V6
	}
	return balena.V7
}

// learning tells whether a client need not know yet that the server has another version of the API.
func (t *telling) learning() bool {
	const (
		refreshes = 6
		within    = time.Hour + time.Minute
	)
	return !t.upgrade.at.IsZero() && (t.upgrade.since <= refreshes || t.now().Sub(t.upgrade.at) <= within)
}

// mostRequests is how many requests a refresh may take: several for each page of all lists, pages being as small as
// the server makes them.
func (t *telling) mostRequests() int {
	rows := 0
	t.sim.Update(func(st *simulator.State) {
		rows = st.Fleets.Len() + st.Devices.Len() + st.Installs.Len() + st.DeviceTags.Len() + st.FleetTags.Len() + st.Releases.Len() + st.DeviceTypes.Len() + st.APIKeys.Len()
	})
	page := t.config.PageSize
	for _, f := range t.always {
		page = min(page, f.MaxRows)
	}
	return 100 + 4*rows/max(page, 1)
}

// apart are the families of parts that no other family has anything to do with.
var apart = regexp.MustCompile(`(?m)^(# \w+ )?balena_(fleet_devices_by_service_status|device_service|fleet_tags|device_tags|api_key).*\n`)

// onlyApart tells whether no other parts failed.
func onlyApart(s *balena.Snapshot) bool {
	return !slices.ContainsFunc(s.Parts, func(p balena.Part) bool {
		return p.Err != nil && !slices.Contains([]balena.PartName{balena.PartServices, balena.PartFleetTags, balena.PartDeviceTags, balena.PartKeys}, p.Name)
	})
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
func failure(s *balena.Snapshot) error {
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
