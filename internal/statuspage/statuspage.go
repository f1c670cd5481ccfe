// SPDX-License-Identifier: Apache-2.0

// Package statuspage shows the snapshot to people: the state of the exporter on the landing page, all fleets
// at a glance under /fleets, the devices of one fleet under /fleets/{slug}, a device under /devices/{uuid}, what is wrong
// anywhere under /problems, and what is searched for under /search. All but the landing page are served as JSON as well, with
// ?format=json, and lists of devices as CSV, with ?format=csv.
//
// The pages are plain HTML with one style sheet inside and no script, so that they can be read on any
// device, with any reader, and with a content security policy that lets nothing else happen. Pages of data
// renew themselves by a header. That throws readers of screen readers and magnifiers back to the top, so each of these pages
// begins with a link that holds it still (WCAG 2.2.1), which further pages keep to.
//
// All links and redirects are relative, so that the pages work behind a proxy that serves them under a prefix.
package statuspage

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"html/template"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/balena-exporter/balena-exporter/internal/balena"
	"github.com/balena-exporter/balena-exporter/internal/problem"
)

// Options says what to show. All functions are called at each request, by many goroutines at once.
type Options struct {
	// Snapshot returns the newest snapshot; nil when there is none or it is too old to be shown.
	Snapshot func() *balena.Snapshot
	// Status returns how the refreshes went.
	Status func() Status
	// Interval is the time between refreshes.
	Interval time.Duration
	// DeviceURL is the address of balena's own page of a device, with {uuid} for the device's UUID; empty
	// where there is no such page.
	DeviceURL string
	// GrafanaURL is the address of a Grafana that has the dashboards of deploy/grafana; empty for none.
	GrafanaURL string
	// RunbookURL is where the runbooks of the alerts are.
	RunbookURL string
	// DeviceNames shows the names of devices; otherwise they appear by UUID alone.
	DeviceNames bool
	// Thresholds are the limits of problems.
	Thresholds problem.Thresholds
	// Recorder keeps the history of the fleets; nil for none.
	Recorder *Recorder
	// Version is the version of the exporter, and Links is where the landing page leads.
	Version string
	Links   []Link
}

// Status is how the refreshes went.
type Status struct {
	// Up tells whether the last refresh succeeded.
	Up bool
	// LastSuccess is when the newest data were fetched, shown or not; zero when no refresh succeeded yet.
	LastSuccess time.Time
	// LastError is the error of the last refresh that failed, and LastErrorTime when that was. They stay
	// when refreshes succeed again; empty and zero when none ever failed.
	LastError     string
	LastErrorTime time.Time
	// Next is when the next refresh begins; zero while one is under way.
	Next time.Time
}

// DeviceURLCloud is [Options.DeviceURL] for balenaCloud.
const DeviceURLCloud = "https://dashboard.balena-cloud.com/devices/{uuid}/summary"

const uuidPlaceholder = "{uuid}"

// lateIntervals is after how many intervals data are called old, though no refresh failed: one that hangs
// does not fail for a while.
const lateIntervals = 3

// maxPages is how many pages are made and sent at the same time; further requests get 503. People need a few.
// maxWalks is how many of them go through the devices at the same time; further ones wait. That takes a tenth of a second at a
// million devices, and scrapes and refreshes need the CPU as well.
// sendTimeout is how long a page may take: a reader that stalls must not keep others out.
const (
	maxPages    = 20
	maxWalks    = 2
	sendTimeout = 10 * time.Second
)

const name = "balena-exporter"

// minRenewal is how long a page stays as it is at least.
const minRenewal = 30 * time.Second

var (
	//go:embed *.html
	sources embed.FS
	//go:embed style.css
	style string

	pages = template.Must(template.New("").Funcs(template.FuncMap{"thousands": thousands}).ParseFS(sources, "*.html"))

	//nolint:gosec // it is ours
	sheet = template.CSS(style)

	// policy allows the page's own style sheet, which it knows by its hash, forms of this server, and nothing else.
	policy = "default-src 'none'; style-src 'sha256-" + hash(style) + "'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)

func hash(s string) string {
	sum := sha256.Sum256([]byte(s))
	return base64.StdEncoding.EncodeToString(sum[:])
}

type handler struct {
	Options
	mux   *http.ServeMux
	slots chan struct{}
	// walks are the slots of those that go through the devices.
	walks chan struct{}
}

// Paths are the paths of which [NewHandler] answers requests, in the form of [http.ServeMux].
var Paths = []string{"/{$}", "/fleets", "/fleets/", "/devices", "/devices/", "/problems", "/search"}

// NewHandler returns a handler of all pages. Requests other than GET and HEAD get 405. As long as there is no snapshot to
// show, all but the landing page are answered with 503, as a page or as JSON.
func NewHandler(o Options) http.Handler {
	h := &handler{Options: o, mux: http.NewServeMux(), slots: make(chan struct{}, maxPages), walks: make(chan struct{}, maxWalks)}
	h.mux.HandleFunc("GET /{$}", h.root)
	h.mux.HandleFunc("GET /fleets", h.overviewPage)
	h.mux.HandleFunc("GET /fleets/{$}", func(w http.ResponseWriter, r *http.Request) {
		// http.Redirect would make the path absolute.
		to := url.URL{Path: "../fleets", RawQuery: r.URL.RawQuery}
		w.Header().Set("Location", to.String())
		w.WriteHeader(http.StatusMovedPermanently)
	})
	h.mux.HandleFunc("GET /fleets/{slug...}", h.fleetPageOf)
	h.mux.HandleFunc("GET /devices", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Location", "search") // nothing lists all devices
		w.WriteHeader(http.StatusSeeOther)
	})
	h.mux.HandleFunc("GET /devices/{uuid...}", h.devicePageOf)
	h.mux.HandleFunc("GET /problems", h.problemsPageOf)
	h.mux.HandleFunc("GET /search", h.searchPageOf)
	return h
}

func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	header := w.Header()
	header.Set("Content-Security-Policy", policy)
	header.Set("Cross-Origin-Resource-Policy", "same-origin")
	header.Set("Referrer-Policy", "no-referrer") // balena need not know from where somebody looks at a device
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("Cache-Control", "no-store") // names of customers' devices, and old a minute later
	select {
	case h.slots <- struct{}{}:
		defer func() { <-h.slots }()
	default:
		header.Set("Retry-After", "1")
		http.Error(w, fmt.Sprintf("%d pages are being served at the same time, which is the limit; try again", maxPages), http.StatusServiceUnavailable)
		return
	}
	// Not every writer can; those of servers can.
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(sendTimeout))
	h.mux.ServeHTTP(w, r)
}

// walking waits for a slot to go through the devices, and returns what gives it back.
func (h *handler) walking() (end func()) {
	h.walks <- struct{}{}
	return func() { <-h.walks }
}

// page is what all pages have in common.
type page struct {
	Title string
	// Up is the way to the root.
	Up string
	// Here is the page in the navigation; empty for one that is not in it.
	Here     string
	Query    string
	Style    template.CSS
	Interval string
	// Renewal is when the page renews itself, Held that it does not, and Switch the way to the other of both.
	Renewal time.Duration
	Held    bool
	Switch  string
	// Trouble is set when something is wrong with the data.
	Trouble *trouble
	Time    moment
	// LastError is of a trouble that is over.
	LastError     string
	LastErrorTime moment
	// Message is all there is to say on a page without data.
	Message string
	// Formats is where the same is for machines.
	Formats []link

	Landing  *landing
	Overview *overview
	Fleet    *fleetPage
	Problems *problemsPage
	Search   *searchPage
	Device   *devicePage
	List     *listPage

	now time.Time
	// waiting is set where there are no data.
	waiting bool
}

// Switchable tells whether the page shows something that changes. The search does not: it would take away what is typed.
func (p *page) Switchable() bool { return p.Search == nil && (p.Time.UTC != "" || p.waiting) }

// Renews tells whether the page renews itself.
func (p *page) Renews() bool { return p.Switchable() && !p.Held }

// Seconds is the renewal in seconds.
func (p *page) Seconds() int { return int(p.Renewal.Seconds()) }

// To is the way to another page from this one, where a page that is held still leads to others that are.
func (p *page) To(path string) string {
	if p.Held {
		path += either(strings.Contains(path, "?"), "&", "?") + "hold=1"
	}
	return p.Up + path
}

// trouble is what is wrong with the data.
type trouble struct {
	What    string
	Details []string
	// Next says when the exporter tries again, and Runbook is where to read what to do.
	Next, Runbook string
}

// page returns a page without its contents.
func (h *handler) page(r *http.Request, title string) *page {
	query := r.URL.Query()
	p := &page{
		Title: title, Up: strings.Repeat("../", strings.Count(r.URL.EscapedPath(), "/")-1), Style: sheet, Interval: duration(h.Interval),
		Renewal: max(h.Interval, minRenewal), Held: query.Get("hold") != "", now: time.Now(),
	}
	if p.Up == "" {
		p.Up = "./"
	}
	if p.Held {
		query.Del("hold")
	} else {
		query.Set("hold", "1")
	}
	p.Switch = "?" + query.Encode()
	if status := h.Status(); status.Up && status.LastError != "" {
		p.LastError, p.LastErrorTime = status.LastError, since(status.LastErrorTime, p.now)
	}
	return p
}

// open returns a page about all fleets, which is the entry here of the navigation, and the snapshot that it shows. Without a
// snapshot it answers the request, and returns false.
func (h *handler) open(w http.ResponseWriter, r *http.Request, title, here string) (*page, *balena.Snapshot, bool) {
	p := h.page(r, title)
	p.Here = here
	s := h.Snapshot()
	if s == nil {
		h.noData(w, r, p)
		return nil, nil, false
	}
	h.describe(p, s)
	return p, s, true
}

// describe tells of the data's age, and of what is wrong with them.
func (h *handler) describe(p *page, s *balena.Snapshot) {
	p.Time = since(s.Time, p.now)
	status := h.Status()
	switch {
	case !status.Up:
		p.Trouble = h.failure(p, &status)
		p.Trouble.What += " These data are " + p.Time.Ago + " old."
	case p.now.Sub(s.Time) > lateIntervals*h.Interval:
		p.Trouble = &trouble{What: "These data are " + p.Time.Ago + " old. The refresh takes longer than it should.", Runbook: h.runbook("BalenaDataStale")}
	}
	for _, failed := range failedParts(s) {
		if p.Trouble == nil {
			p.Trouble = &trouble{What: "Part of the data could not be read and may be old.", Runbook: h.runbook("BalenaRefreshPartFailing")}
		}
		p.Trouble.Details = append(p.Trouble.Details, string(failed.Part)+": "+failed.Error)
	}
}

// failure describes a refresh that failed.
func (h *handler) failure(p *page, status *Status) *trouble {
	t := &trouble{What: "The last refresh failed.", Next: "The exporter is trying again now.", Runbook: h.runbook("BalenaAPIFailing")}
	if status.LastError != "" {
		t.Details = []string{status.LastError}
	}
	if wait := status.Next.Sub(p.now); wait > 0 {
		t.Next = "The exporter tries again in " + duration(wait+time.Second-1) + "."
	}
	return t
}

// noData answers a request for data when there is nothing to show.
func (h *handler) noData(w http.ResponseWriter, r *http.Request, p *page) {
	h.explain(p)
	p.Title = "No data"
	w.Header().Set("Retry-After", strconv.Itoa(max(1, int(h.Interval.Seconds()))))
	h.fail(w, r, http.StatusServiceUnavailable, p, p.Message)
}

// explain tells why there is nothing to show.
func (h *handler) explain(p *page) {
	p.waiting = true
	status := h.Status()
	p.Message = "The exporter has just started, and the first data are on their way."
	switch {
	case !status.LastSuccess.IsZero():
		p.Message = "The last data are " + since(status.LastSuccess, p.now).Ago + " old, which is too old to be shown."
	case status.LastError != "":
		p.Message = "No refresh has succeeded since the exporter started."
	}
	if !status.Up && status.LastError != "" {
		p.Trouble = h.failure(p, &status)
	}
}

// fail sends a page, or JSON, that consists of a message.
func (h *handler) fail(w http.ResponseWriter, r *http.Request, code int, p *page, message string) {
	p.Message = message
	answer := struct {
		Error string `json:"error"`
		// RefreshError is why there are no data, where that is known.
		RefreshError string `json:"refresh_error,omitempty"`
	}{Error: message}
	if status := h.Status(); code == http.StatusServiceUnavailable && !status.Up {
		answer.RefreshError = status.LastError
	}
	h.send(w, r, code, p, answer)
}

// send sends the page, or the same as JSON if that is asked for.
func (h *handler) send(w http.ResponseWriter, r *http.Request, code int, p *page, data any) {
	switch r.URL.Query().Get("format") {
	case "":
		h.sendPage(w, code, p)
	case "json":
		var body bytes.Buffer
		encoder := json.NewEncoder(&body)
		encoder.SetIndent("", "  ")
		err := encoder.Encode(data)
		sendBody(w, code, "application/json", &body, err)
	default:
		http.Error(w, "the format is json, csv for a list of devices, or html if none is given", http.StatusBadRequest)
	}
}

// sendPage sends a page. Pages of data, and those that wait for data, renew themselves.
func (h *handler) sendPage(w http.ResponseWriter, code int, p *page) {
	if p.Renews() {
		w.Header().Set("Refresh", strconv.Itoa(p.Seconds()))
	}
	var body bytes.Buffer
	err := pages.ExecuteTemplate(&body, "page", p)
	sendBody(w, code, "text/html; charset=utf-8", &body, err)
}

// sendBody sends a body that is complete, so that no reader gets half of one, or the error that it ended in.
func sendBody(w http.ResponseWriter, code int, contentType string, body *bytes.Buffer, err error) {
	if err != nil {
		http.Error(w, "cannot render the page: "+err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("Content-Length", strconv.Itoa(body.Len()))
	w.WriteHeader(code)
	_, _ = w.Write(body.Bytes())
}

// state is what the JSON answers tell of the data.
type state struct {
	Time       time.Time `json:"time"`
	AgeSeconds float64   `json:"age_seconds"`
	Up         bool      `json:"up"`
	// LastError stays when refreshes succeed again.
	LastError     string     `json:"last_error,omitempty"`
	LastErrorTime *time.Time `json:"last_error_time,omitempty"`
	// FailedParts are the parts of the data that the last refresh could not read, and that may be old or missing.
	FailedParts []failedPart `json:"failed_parts"`
}

// failedPart is a part of the data that could not be read.
type failedPart struct {
	Part  balena.PartName `json:"part"`
	Error string          `json:"error"`
}

func failedParts(s *balena.Snapshot) []failedPart {
	failed := []failedPart{}
	for _, part := range s.Parts {
		if part.Err != nil {
			failed = append(failed, failedPart{part.Name, part.Err.Error()})
		}
	}
	return failed
}

func (h *handler) state(s *balena.Snapshot, now time.Time) state {
	status := h.Status()
	t := state{Time: s.Time.UTC(), AgeSeconds: now.Sub(s.Time).Seconds(), Up: status.Up, LastError: status.LastError, FailedParts: failedParts(s)}
	if !status.LastErrorTime.IsZero() {
		utc := status.LastErrorTime.UTC()
		t.LastErrorTime = &utc
	}
	return t
}
