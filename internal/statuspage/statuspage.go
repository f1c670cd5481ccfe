// SPDX-License-Identifier: Apache-2.0

// Package statuspage shows the snapshot to people: the state of the exporter on the landing page, all fleets
// at a glance under /fleets, and the devices of one fleet, worst first, under /fleets/{slug}. Fleets and
// devices are served as JSON as well, with ?format=json.
//
// The pages are plain HTML with one style sheet inside and no script, so that they can be read on any
// device, with any reader, and with a content security policy that lets nothing else happen. They do not
// reload by themselves: that would throw readers of screen readers and magnifiers back to the top (WCAG
// 2.2.1 and 3.2.5), and the age of the data says when a reload is worth it.
//
// All links and redirects are relative, so that the pages work behind a proxy that serves them under a prefix.
package statuspage

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
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
	// DeviceNames shows the names of devices; otherwise they appear by UUID alone.
	DeviceNames bool
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
}

// DeviceURLCloud is [Options.DeviceURL] for balenaCloud.
const DeviceURLCloud = "https://dashboard.balena-cloud.com/devices/{uuid}/summary"

const uuidPlaceholder = "{uuid}"

// DevicesPerPage is how many devices a page lists: enough to see what is wrong, few enough for a phone.
const DevicesPerPage = 100

// lateIntervals is after how many intervals data are called old, though no refresh failed: one that hangs
// does not fail for a while.
const lateIntervals = 3

// maxPages is how many pages are made and sent at the same time; further requests get 503. People need a few.
// sendTimeout is how long a page may take: a reader that stalls must not keep others out.
const (
	maxPages    = 20
	sendTimeout = 10 * time.Second
)

const name = "balena-exporter"

var (
	//go:embed page.html
	pageSource string
	//go:embed style.css
	style string

	pages = template.Must(template.New("").Funcs(template.FuncMap{"thousands": thousands}).Parse(pageSource))

	//nolint:gosec // it is ours
	sheet = template.CSS(style)

	// policy allows the page's own style sheet, which it knows by its hash, and nothing else.
	policy = "default-src 'none'; style-src 'sha256-" + hash(style) + "'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

func hash(s string) string {
	sum := sha256.Sum256([]byte(s))
	return base64.StdEncoding.EncodeToString(sum[:])
}

type handler struct {
	Options
	views views
	mux   *http.ServeMux
	slots chan struct{}
}

// NewHandler returns a handler of /, of /fleets and of everything below that. Requests other than GET and HEAD
// get 405. As long as there is no snapshot to show, /fleets is answered with 503, as a page or as JSON.
func NewHandler(o Options) http.Handler {
	h := &handler{Options: o, mux: http.NewServeMux(), slots: make(chan struct{}, maxPages)}
	h.mux.HandleFunc("GET /{$}", h.root)
	h.mux.HandleFunc("GET /fleets", h.fleets)
	h.mux.HandleFunc("GET /fleets/{$}", func(w http.ResponseWriter, r *http.Request) {
		// http.Redirect would make the path absolute.
		to := url.URL{Path: "../fleets", RawQuery: r.URL.RawQuery}
		w.Header().Set("Location", to.String())
		w.WriteHeader(http.StatusMovedPermanently)
	})
	h.mux.HandleFunc("GET /fleets/{slug...}", h.fleet)
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

// page is what all pages have in common.
type page struct {
	Title string
	// Home and Fleets are the ways to the landing page and to the overview.
	Home, Fleets string
	Style        template.CSS
	Interval     string
	// Trouble is set when something is wrong with the data.
	Trouble *trouble
	Time    moment
	// LastError is of a trouble that is over.
	LastError     string
	LastErrorTime moment
	// Message is all there is to say on a page without data.
	Message string

	Landing  *landing
	Overview *overview
	Fleet    *fleetPage
}

// trouble is what is wrong with the data.
type trouble struct {
	What    string
	Details []string
}

func (h *handler) fleets(w http.ResponseWriter, r *http.Request) {
	now := time.Now()
	p := h.page(now, "Fleets", "./", "fleets")
	s := h.Snapshot()
	if s == nil {
		h.noData(w, r, p, now)
		return
	}
	h.describe(p, s, now)
	p.Overview = h.views.of(s, h.Interval).overview
	h.send(w, r, http.StatusOK, p, struct {
		state
		*overview
	}{h.state(s, now), p.Overview})
}

func (h *handler) fleet(w http.ResponseWriter, r *http.Request) {
	now := time.Now()
	slug := slugOf(r.PathValue("slug"))
	up := strings.Repeat("../", strings.Count(r.URL.EscapedPath(), "/")-1)
	p := h.page(now, slug, up, up+"fleets")
	s := h.Snapshot()
	if s == nil {
		h.noData(w, r, p, now)
		return
	}
	h.describe(p, s, now)
	listing := h.views.of(s, h.Interval).listings[slug]
	if listing == nil {
		p.Title = "No such fleet"
		h.fail(w, r, http.StatusNotFound, p, "The token may see no fleet of this name, or the fleet has been renamed or removed.")
		return
	}
	query := r.URL.Query()
	number := 1
	if text := query.Get("page"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 {
			p.Title = "No such page"
			h.fail(w, r, http.StatusBadRequest, p, "Pages have numbers from 1.")
			return
		}
		number = n
	}
	p.Fleet = h.newFleetPage(s, listing, query.Get("status"), number, now)
	h.send(w, r, http.StatusOK, p, struct {
		state
		*fleetPage
	}{h.state(s, now), p.Fleet})
}

func (h *handler) page(now time.Time, title, home, fleets string) *page {
	p := &page{Title: title, Home: home, Fleets: fleets, Style: sheet, Interval: duration(h.Interval)}
	if status := h.Status(); status.Up && status.LastError != "" {
		p.LastError, p.LastErrorTime = status.LastError, since(status.LastErrorTime, now)
	}
	return p
}

// describe tells of the data's age, and of what is wrong with them.
func (h *handler) describe(p *page, s *balena.Snapshot, now time.Time) {
	p.Time = since(s.Time, now)
	status := h.Status()
	switch {
	case !status.Up:
		p.Trouble = &trouble{What: "The last refresh failed. These data are " + p.Time.Ago + " old."}
		if status.LastError != "" {
			p.Trouble.Details = []string{status.LastError}
		}
	case now.Sub(s.Time) > lateIntervals*h.Interval:
		p.Trouble = &trouble{What: "These data are " + p.Time.Ago + " old. The refresh takes longer than it should."}
	}
	for _, failed := range failedParts(s) {
		if p.Trouble == nil {
			p.Trouble = &trouble{What: "Part of the data could not be read and may be old."}
		}
		p.Trouble.Details = append(p.Trouble.Details, string(failed.Part)+": "+failed.Error)
	}
}

// noData answers a request for data when there is nothing to show.
func (h *handler) noData(w http.ResponseWriter, r *http.Request, p *page, now time.Time) {
	h.explain(p, now)
	p.Title = "No data"
	w.Header().Set("Retry-After", strconv.Itoa(max(1, int(h.Interval.Seconds()))))
	h.fail(w, r, http.StatusServiceUnavailable, p, p.Message)
}

// explain tells why there is nothing to show.
func (h *handler) explain(p *page, now time.Time) {
	status := h.Status()
	p.Message = "The exporter has just started, and the first data are on their way."
	switch {
	case !status.LastSuccess.IsZero():
		p.Message = "The last data are " + since(status.LastSuccess, now).Ago + " old, which is too old to be shown."
	case status.LastError != "":
		p.Message = "No refresh has succeeded since the exporter started."
	}
	if !status.Up && status.LastError != "" {
		p.Trouble = &trouble{What: "The last refresh failed.", Details: []string{status.LastError}}
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
		sendPage(w, code, p)
	case "json":
		var body bytes.Buffer
		encoder := json.NewEncoder(&body)
		encoder.SetIndent("", "  ")
		err := encoder.Encode(data)
		sendBody(w, code, "application/json", &body, err)
	default:
		http.Error(w, "the format is json, or html if none is given", http.StatusBadRequest)
	}
}

func sendPage(w http.ResponseWriter, code int, p *page) {
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

// deviceURL returns the address of balena's page of a device, empty for none.
func (h *handler) deviceURL(uuid string) string {
	return strings.ReplaceAll(h.DeviceURL, uuidPlaceholder, url.PathEscape(uuid))
}

// slugPath is the path of a fleet's page, relative to the overview. Slugs are the server's to choose: a browser or a
// proxy would take "..", "." or nothing between two slashes for a way to another page. Such a segment is written
// behind a tilde, and so is one that begins with a tilde. The slugs of balena have none of these.
func slugPath(slug string) string {
	segments := strings.Split(slug, "/")
	for i, s := range segments {
		if strings.Trim(s, ".") == "" || s[0] == '~' {
			s = "~" + s
		}
		segments[i] = url.PathEscape(s)
	}
	return "fleets/" + strings.Join(segments, "/")
}

// slugOf is the slug of the fleet of a path, the reverse of slugPath.
func slugOf(path string) string {
	segments := strings.Split(path, "/")
	for i, s := range segments {
		segments[i] = strings.TrimPrefix(s, "~")
	}
	return strings.Join(segments, "/")
}
