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

// A replay runs a history.
type replay struct {
	*rand.Rand // for the current event
	sim        *simulator.Simulator
	faultless  http.Handler // serves the reference clients
	client     reader
	config     account.Config // of the client, and of the reference clients
	options    collector.Options
	collector  *collector.Collector
	targets    *targets
	longest    time.Duration // maximum duration of a transaction
	clocks     struct {
		ours    atomic.Int64 // the client's clock, in nanoseconds since 1970
		servers atomic.Int64 // the difference between the server's clock and the client's
		set     bool         // the server's clock was set since the last refresh
	}
	token     atomic.Pointer[string]
	withoutV7 atomic.Bool
	// upgrade is the time when the server gained or lost version 7, and the number of refreshes since then.
	upgrade struct {
		at    time.Time
		since int
	}
	// late is set if services and tags have no modified_at on the server, so that only a full refresh detects all their changes.
	late bool
	// always are permanent faults of the server, and lasting are faults that may be removed.
	always, lasting simulator.Faults
	// plain is set if the server does not compress responses.
	plain bool
	// downloads are the devices that the client may have read while they were downloading.
	downloads map[int]bool

	last     *balena.Snapshot
	lastText string
	unproven bool      // the last served text has not been compared with one rendered from scratch
	emptied  bool      // a fault made the list of fleets empty since the last refresh without errors
	empty    bool      // the last refresh found an account without fleets, and failed
	quiet    time.Time // end of the pause that the server requested
	tally    tally

	serving sync.Mutex // held while a request is served
	run     running

	mu  sync.Mutex
	log []fmt.Stringer
}

// running is the state of the current refresh.
type running struct {
	moments     []moment // pending
	cancel      context.CancelFunc
	requests    int // number of requests
	maxRequests int // maximum number of requests
	// facts are the facts at the beginning and after each change of the account.
	facts     []facts
	changed   bool // the account was changed
	stepped   bool // the server's clock was set
	cancelled bool
	err       error
}

// note is a line of text in the log of a replay.
type note string

func (n note) String() string { return string(n) }

// loggedRequest is a line of a request in the log of a replay.
type loggedRequest struct {
	n      int
	uri    string
	status int
}

var (
	selection = regexp.MustCompile(`(\?|&)\$(select|expand|orderby)=[^&]*`)
	reach     = regexp.MustCompile(`(belongs_to__application/any\(a:a/)?is_directly_accessible_by__user/any\(dau:1 eq 1\)\)?`)
)

func (a *loggedRequest) String() string {
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

// note adds a line to the log.
func (t *replay) note(format string, args ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.log = append(t.log, note(fmt.Sprintf(format, args...)))
}

// logText returns the log as text.
func (t *replay) logText() string {
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

var pageStart = regexp.MustCompile(`%20gt%20\d+`)

// nextPage reports whether a request is for the page after that of the previous request, with the same status.
func nextPage(before, line fmt.Stringer) bool {
	a, ok := before.(*loggedRequest)
	b, ok2 := line.(*loggedRequest)
	return ok && ok2 && a.status == b.status && pageStart.ReplaceAllString(a.uri, "") == pageStart.ReplaceAllString(b.uri, "")
}

func (t *replay) now() time.Time { return time.Unix(0, t.clocks.ours.Load()) }

func (t *replay) serversNow() time.Time {
	return time.Unix(0, t.clocks.ours.Load()+t.clocks.servers.Load())
}

// begin starts a history with the configuration of the simulator. change may modify the configuration of the client.
func (h history) begin(config simulator.Config, change ...func(*account.Config)) (t *replay, end func(), err error) {
	r := rand.New(rand.NewPCG(h.seed, 2))
	t = &replay{Rand: r, downloads: map[int]bool{}}
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
	t.faultless, t.late = t.sim.Faultless(), config.Edition == simulator.Cloud
	server := httptest.NewServer(t)
	address, err := url.Parse(server.URL)
	if err != nil {
		return nil, nil, err
	}

	o := allGroups()
	o.Devices, o.Services = r.IntN(8) > 0, r.IntN(3) > 0
	if r.IntN(4) == 0 {
		o.DeviceTags = false
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
			Location: o.Location, Devices: o.Devices, Releases: o.Releases, Services: o.Services, ServiceSummary: o.ServiceSummary, Keys: o.Keys, OS: o.OS,
			ArchivedFleets: r.IntN(2) == 0, Keep: time.Minute, FullRefreshInterval: oneOf(r, time.Hour, 3*time.Hour, 24*time.Hour),
		},
	}
	t.config.Stripes = 1 + int(h.seed%3) // derived from the seed without changing the random events of a history
	t.config.OS = h.seed%4 == 0          // only in a quarter of the histories, because system releases take many requests
	requestTags(&t.config.Options, o)
	switch r.IntN(6) {
	case 0:
		t.config.Include = regexp.MustCompile("/(alpha|greenhouse|kiosk)")
	case 1:
		t.config.Exclude = regexp.MustCompile("/(beta|kiosk)")
	case 2:
		t.config.Shard = balena.Shard{Index: r.IntN(2), Count: 2}
	case 3:
		t.config.ArchivedFleets = true // so that all fleets are in reach
	}
	if r.IntN(5) == 0 {
		t.always, t.config.PageSize = simulator.Faults{t.newLimit(r)}, max(pageSize, 50)
	}
	for _, f := range change {
		f(&t.config)
	}
	if t.client, err = newReader(t.config); err != nil {
		return nil, nil, err
	}
	o.Devices, o.Services, o.DeviceTags = t.config.Devices, t.config.Services, t.config.DeviceTags != nil
	t.options, t.collector, t.targets = o, of(nil, o), newTargets(t.config.DeviceTags)
	t.note("%s, %d devices in %d fleets, fields of balenaCloud: %t, version %q, pages of %d, a full refresh every %s, archived fleets: %t, include %v, exclude %v, shard %v%s",
		cmp.Or(config.Edition, simulator.OpenBalena), config.Devices, config.Fleets, config.CloudFields || t.late, t.config.Version, t.config.PageSize, t.config.FullRefreshInterval, t.config.ArchivedFleets,
		t.config.Include, t.config.Exclude, t.config.Shard, describe(", always", t.always))
	return t, func() { t.client.Close(); server.Close() }, nil
}

// setsClock reports whether the event sets the server's clock. Transactions must then be shorter.
func (e event) setsClock() bool {
	return e.kind == clockSet || slices.ContainsFunc(e.moments, func(m moment) bool { return m.kind == clockStep })
}

// describe returns a description of faults after a prefix, or "" if there are none.
func describe(prefix string, faults simulator.Faults) string {
	if len(faults) == 0 {
		return ""
	}
	b, err := json.Marshal(faults)
	if err != nil {
		return err.Error()
	}
	return prefix + " " + string(b)
}

func (t *replay) event(ctx context.Context, e event) error {
	r := rand.New(rand.NewPCG(e.seed, 3))
	t.Rand = r
	switch e.kind {
	case changed:
		t.change(r, e.edits, edits, false)
	case ticked:
		t.sim.Tick()
		t.note("a tick")
	case passed:
		t.advance(oneOf(r, time.Millisecond, 400*time.Millisecond, 3*time.Second, 20*time.Second, time.Minute, 5*time.Minute, 61*time.Minute))
	case clockSet:
		t.setClock(r)
	case rotated:
		token := fmt.Sprintf("t0ken%d", r.Uint32())
		t.token.Store(&token)
		t.note("the token is replaced")
	case upgraded:
		if t.config.Version == "" {
			t.withoutV7.Store(!t.withoutV7.Load())
			t.upgrade.at, t.upgrade.since = t.now(), 0
			t.note("the server is without version 7: %t", t.withoutV7.Load())
		}
	case limited:
		t.always = nil
		if r.IntN(3) > 0 {
			t.always = simulator.Faults{t.newLimit(r)}
		}
		t.note("the server limits rows%s", describe(":", t.always))
	case faultAdded:
		t.lasting = append(t.lasting, t.fault(r, true))
		t.note("faults last:%s", describe("", t.lasting))
	case faultsRemoved:
		if t.lasting != nil {
			t.lasting = nil
			t.note("no faults last")
		}
	case refreshed:
		return t.refresh(ctx, e)
	}
	return nil
}

// fault returns a random fault that clients can detect. On balenaCloud, requests without a token can read the releases and tags
// of public fleets. Clients cannot distinguish these responses from those of an account without releases and tags.
func (t *replay) fault(r *rand.Rand, lasts bool) simulator.Fault {
	f := newFault(r, lasts)
	if t.late && f.Guest && slices.Contains([]string{"", "release", "application_tag"}, f.Resource) {
		f.Guest, f.Status = false, http.StatusUnauthorized
	}
	return f
}

// newLimit returns a random limit of rows, with which lists do not exceed the maximum number of pages of clients.
func (t *replay) newLimit(r *rand.Rand) simulator.Fault {
	f := newLimit(r)
	t.sim.Update(func(st *simulator.State) {
		if max(st.Devices.Len(), st.Installs.Len()) > 100 {
			f.MaxRows = max(f.MaxRows, 20)
		}
	})
	return f
}

// setClock sets the server's clock, at most once between two refreshes, because clients cannot detect a clock that is set
// forward and back.
func (t *replay) setClock(r *rand.Rand) {
	if t.clocks.set {
		return
	}
	d := oneOf(r, 300*time.Millisecond, time.Second, 4*time.Second, 20*time.Second, 31*time.Second, 2*time.Minute, time.Hour, 7*time.Hour) * oneOf[time.Duration](r, 1, -1)
	t.clocks.servers.Add(int64(d))
	t.clocks.set = true
	t.note("the server's clock is set by %s", d)
}

func (t *replay) advance(d time.Duration) {
	if d > 0 {
		t.clocks.ours.Add(int64(d))
		t.note("%s pass", d)
	}
}

// change applies random edits of a kind to the account in a transaction, which may take some time. If it is focused, many of
// them change the same fleet.
func (t *replay) change(r *rand.Rand, seeds []uint64, kind []edit, focused bool) {
	began := t.serversNow()
	if r.IntN(4) == 0 {
		began = began.Add(-time.Duration(r.Int64N(int64(t.longest))))
	}
	var descriptions []string
	t.sim.UpdateSince(began, func(st *simulator.State) {
		for _, seed := range seeds {
			e := &editor{State: st, Rand: rand.New(rand.NewPCG(seed, 4)), at: st.Now(), downloads: t.downloads, options: &t.config.Options, focused: focused}
			if what := e.apply(kind); what != "" {
				descriptions = append(descriptions, what)
			}
		}
	})
	t.note("%s by the server's clock, in a transaction that began %s before: %s", t.serversNow().UTC().Format(time.TimeOnly+".000"),
		t.serversNow().Sub(began), strings.Join(descriptions, "; "))
}

// referenceAgent is the user agent of reference clients, which are served without faults.
const referenceAgent = "reference"

// ServeHTTP performs the moments before the request, and serves it by the simulator.
func (t *replay) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.UserAgent() == referenceAgent {
		r.Header.Del("Accept-Encoding")
		t.faultless.ServeHTTP(w, r)
		return
	}
	t.serving.Lock()
	defer t.serving.Unlock()
	if t.plain {
		r.Header.Del("Accept-Encoding")
	}
	a := t.disturb(r)
	if t.withoutV7.Load() && strings.HasPrefix(r.RequestURI, "/v7/") {
		r.RequestURI = "/v0/" // a version that does not exist
	}
	t.sim.ServeHTTP(&recordedResponse{ResponseWriter: w, t: t, request: a}, r)
}

// disturb performs the moments before a request. It returns the request as a line of the log.
func (t *replay) disturb(req *http.Request) *loggedRequest {
	run := &t.run
	run.requests++
	a := &loggedRequest{n: run.requests, uri: req.RequestURI}
	if run.requests > run.maxRequests {
		run.err = fmt.Errorf("a refresh does not end: it sent %d requests, want at most %d", run.requests, run.maxRequests)
		run.cancel()
	}
	for len(run.moments) > 0 && run.moments[0].at <= run.requests {
		m := run.moments[0]
		run.moments = run.moments[1:]
		r := rand.New(rand.NewPCG(m.seed, 5))
		switch m.kind {
		case changes:
			t.advance(oneOf(r, 0, time.Millisecond, 3*time.Second))
			t.noteDownloads()
			t.change(r, m.edits, oneOf(r, edits, reachEdits, reachEdits), true)
			truth, err := t.observe(run.facts[0].APIVersion)
			if err != nil {
				run.err = err
				run.cancel()
			}
			run.facts, run.changed = append(run.facts, truth), true
		case delayed:
			t.advance(oneOf(r, 3*time.Second, 31*time.Second, 50*time.Second))
		case clockStep:
			t.setClock(r)
			run.stepped = true
		case canceled:
			t.note("the refresh is canceled")
			run.cancelled = true
			run.cancel()
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.log = append(t.log, a)
	return a
}

// A recordedResponse records its status, and the pause that the server requests.
type recordedResponse struct {
	http.ResponseWriter
	t       *replay
	request *loggedRequest
}

func (a *recordedResponse) Unwrap() http.ResponseWriter { return a.ResponseWriter }

func (a *recordedResponse) WriteHeader(status int) {
	a.t.mu.Lock()
	a.request.status = status
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

// refresh performs a refresh of the client, and compares the exposition with that of a reference client.
func (t *replay) refresh(ctx context.Context, e event) error {
	mark := len(t.log)
	var faults simulator.Faults
	if e.fault != 0 {
		faults = simulator.Faults{t.fault(rand.New(rand.NewPCG(e.fault, 6)), false)}
		// Two consecutive empty lists of fleets are accepted.
		if faults[0].Spoil == simulator.SpoilEmpty && (t.emptied || t.empty || t.last != nil && len(t.last.Fleets) == 0) {
			faults[0].Spoil = simulator.SpoilHTML
		}
		t.note("a fault is due:%s", describe("", faults))
	}
	faults = slices.Concat(faults, t.lasting)
	t.sim.SetFaults(slices.Concat(faults, t.always))
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	t.run = running{moments: e.moments, cancel: cancel, maxRequests: t.maxRequests()}
	if len(e.moments) > 0 {
		truth, err := t.observe(t.expectedVersion())
		if err != nil {
			return err
		}
		t.run.facts = []facts{truth}
	}

	s, err := t.client.Fetch(ctx)

	t.serving.Lock() // a canceled refresh does not wait for its last response
	defer t.serving.Unlock()
	t.run.moments = nil
	if t.run.err != nil {
		return t.run.err
	}
	faulty := 0
	for i, n := range t.sim.Happened()[:len(faults)] {
		faulty += n
		t.emptied = t.emptied || n > 0 && faults[i].Spoil == simulator.SpoilEmpty
	}
	if t.upgrade.since++; faulty > 0 && t.mayUseOldVersion() {
		t.upgrade.at, t.upgrade.since = t.now(), 0 // faults can hide the versions of the server
	}
	defer t.noteDownloads()
	if t.last != nil && (t.unproven || err != nil || t.IntN(4) == 0) && text(t.last, t.options) != t.lastText {
		return errors.New("a refresh changed the last snapshot, or its exposition differed from one rendered from scratch")
	}
	reason, before := err, t.last
	if err == nil {
		t.last, t.lastText, t.unproven = s, serve(t.collector.Render(s)), true
		if err := t.targets.follow(s); err != nil {
			return err
		}
		reason = failure(s)
	}
	if reason != nil {
		t.tally.errors++
		t.note("the refresh fails: %v", reason)
		if err := t.checkFailure(faulty > 0); err != nil {
			return err
		}
	} else {
		t.empty, t.emptied = false, false
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
		if s.Reading.Reason != nil {
			t.tally.distrusted++
		}
		t.note("the refresh serves %d devices in %d fleets: %+v", s.Devices.Len(), len(s.Fleets), s.Reading)
		if err := t.compare(s, before); err != nil {
			return err
		}
	}
	if reason == nil && !t.run.changed && faulty == 0 {
		// Requests of undisturbed refreshes are not logged.
		t.log = slices.Concat(t.log[:mark], slices.DeleteFunc(t.log[mark:], func(line fmt.Stringer) bool { _, ok := line.(*loggedRequest); return ok }))
		clear(t.downloads)
	}
	if wait := t.quiet.Sub(t.now()); reason != nil && wait > 0 && t.IntN(4) > 0 {
		t.advance(wait + time.Millisecond)
	}
	return nil
}

// compare returns an error if the snapshot of a refresh is not correct. before is the previous snapshot.
func (t *replay) compare(s, before *balena.Snapshot) error {
	if want := t.expectedVersion(); s.APIVersion != want && !t.mayUseOldVersion() {
		return fmt.Errorf("the client uses version %s of the API, want %s", s.APIVersion, want)
	}
	if t.run.changed {
		t.tally.disturbed++
		left, err := check(s, before, t.run.facts, t.isLate(s))
		if t.tally.remaining.add(left); left != (remaining{}) {
			t.note("deleted rows stay: %+v", left)
		}
		return err
	}
	truth, err := t.observe(s.APIVersion)
	if err != nil {
		return err
	}
	truth.Time = s.Time
	some := func(exposition string) string { return exposition }
	if !t.config.Services && s.Reading.Kind == balena.Incremental {
		some = func(exposition string) string { return summary.ReplaceAllString(exposition, "") } // the row of an install may have been deleted
		t.unproven = true
	}
	if failure(s) != nil || t.isLate(s) {
		t.unproven = true
		if !onlyApart(s) {
			_, err := check(s, before, []facts{truth}, t.isLate(s))
			return err
		}
		some = func(exposition string) string { return apart.ReplaceAllString(exposition, "") }
	}
	if truth.Devices.Len() == 0 {
		truth.CloudFields, truth.Organizations = s.CloudFields, s.Organizations // unknown without devices
	}
	if want, got := some(text(truth.Snapshot, t.options)), some(t.lastText); got != want {
		return fmt.Errorf("after a refresh of kind %s (- want, + got):\n%s", s.Reading.Kind, lineDiff(want, got))
	}
	return nil
}

// isLate reports whether services and tags of a snapshot may be those of the last full refresh.
func (t *replay) isLate(s *balena.Snapshot) bool {
	return t.late && s.Reading.Kind == balena.Incremental
}

// checkFailure returns an error if a refresh or a part of it failed without a reason.
func (t *replay) checkFailure(faulty bool) error {
	if faulty || t.run.changed || t.run.cancelled || t.quiet.After(t.now()) || t.mayUseOldVersion() {
		return nil
	}
	truth, err := t.observe(t.expectedVersion())
	if err != nil {
		return err
	}
	// An empty list of fleets is accepted after two requests.
	if len(truth.Fleets) == 0 && !t.empty {
		t.empty = true
		return nil
	}
	return errors.New("the refresh failed without a reason")
}

// expectedVersion returns the version of the API that the client should use.
func (t *replay) expectedVersion() balena.Version {
	switch {
	case t.config.Version != "":
		return t.config.Version
	case t.withoutV7.Load():
		return balena.V6
	}
	return balena.V7
}

// mayUseOldVersion reports whether a client may not have detected another version of the API yet.
func (t *replay) mayUseOldVersion() bool {
	const (
		refreshes = 6
		within    = time.Hour + time.Minute
	)
	return !t.upgrade.at.IsZero() && (t.upgrade.since <= refreshes || t.now().Sub(t.upgrade.at) <= within)
}

// maxRequests returns the maximum number of requests of a refresh, which is a multiple of the number of pages of all lists.
func (t *replay) maxRequests() int {
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

// apart matches the families of parts on which no other family depends. Families depend on tags by the maintenance of devices.
var apart = regexp.MustCompile(`(?m)^(# \w+ )?balena_(fleet_devices_by_service_status|fleet_devices_healthy|device_service|fleet_tags|device_tags|api_key|` +
	`device_maintenance|fleet_devices_in_|fleet_devices_never_connected|fleet_devices_disconnected_longer_than|fleet_devices_os_|os_|supervisor_|device_os_(update_available|line|release)|device_supervisor_update_available).*\n`)

// summary matches the families of numbers of services.
var summary = regexp.MustCompile(`(?m)^(# \w+ )?balena_(fleet_devices_healthy|device_services).*\n`)

// onlyApart reports whether no other family depends on the failed parts.
func onlyApart(s *balena.Snapshot) bool {
	return !slices.ContainsFunc(s.Parts, func(p balena.Part) bool {
		return p.Err != nil && !slices.Contains([]balena.PartName{balena.PartServices, balena.PartFleetTags, balena.PartDeviceTags, balena.PartKeys, balena.PartSystemReleases}, p.Name)
	})
}

// serve returns the response to a scrape without compression.
func serve(p *exposition.Page) string {
	w := httptest.NewRecorder()
	exposition.NewHandler(exposition.HandlerOptions{Page: func() *exposition.Page { return p }, Live: prometheus.NewRegistry()}).
		ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	return w.Body.String()
}

// noteDownloads records the devices that are downloading.
func (t *replay) noteDownloads() {
	t.sim.Update(func(st *simulator.State) {
		for _, i := range st.Installs.All() {
			if i.Status == "Downloading" {
				t.downloads[i.DeviceID] = true
			}
		}
	})
}

// failure returns the first error of the parts of a refresh.
func failure(s *balena.Snapshot) error {
	for _, p := range s.Parts {
		if p.Err != nil {
			return p.Err
		}
	}
	return nil
}

// lineDiff returns the first lines in which two expositions differ.
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
