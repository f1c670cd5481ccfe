// SPDX-License-Identifier: Apache-2.0

// Package statuspage serves the snapshot as web pages: the state of the exporter on the landing page, all fleets under
// /fleets, the devices of a fleet under /fleets/{slug}, a device under /devices/{uuid}, the problems of all fleets under
// /problems, and search results under /search. All pages except the landing page are also served as JSON
// (?format=json), and lists of devices as CSV (?format=csv).
//
// The pages are plain HTML with an inline style sheet and no scripts. They work in any browser, and with a content
// security policy that forbids everything else. Pages with data reload themselves by the header Refresh. A reload moves
// users of screen readers and magnifiers back to the top, so each of these pages begins with a link that stops
// reloading (WCAG 2.2.1). The links of a stopped page lead to stopped pages.
//
// All links and redirects are relative, so the pages work behind a proxy that serves them under a prefix.
package statuspage

import (
	"bytes"
	"cmp"
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

// Options configures the pages. All functions are called for each request and must be safe for concurrent use.
type Options struct {
	// Snapshot returns the current snapshot; nil if there is none or it is stale.
	Snapshot func() *balena.Snapshot
	// Status returns the status of the refreshes.
	Status func() Status
	// Interval is the time between refreshes.
	Interval time.Duration
	// DeviceURL is the URL of a device in the balena dashboard, with {uuid} in place of the UUID; empty for none.
	DeviceURL string
	// GrafanaURL is the URL of a Grafana server with the dashboards of deploy/grafana; empty for none.
	GrafanaURL string
	// RunbookURL is the URL of the directory of runbooks.
	RunbookURL string
	// DeviceNames shows the names of devices; otherwise only their UUIDs are shown.
	DeviceNames bool
	// Thresholds are the thresholds of problems.
	Thresholds problem.Thresholds
	// Recorder holds the history of the fleets; nil for none.
	Recorder *Recorder
	// Version is the version of the exporter, and Links are the links of the landing page.
	Version string
	Links   []Link
}

// Status is the status of the refreshes.
type Status struct {
	// Up reports whether the last refresh succeeded.
	Up bool
	// LastSuccess is the time of the last snapshot, even if it is stale; zero before the first successful refresh.
	LastSuccess time.Time
	// LastError and LastErrorTime are the error and the time of the last failed refresh. They remain set when later
	// refreshes succeed, and are empty if no refresh has failed.
	LastError     string
	LastErrorTime time.Time
	// Next is when the next refresh begins; zero while a refresh is running.
	Next time.Time
}

// DeviceURLCloud is [Options.DeviceURL] for balenaCloud.
const DeviceURLCloud = "https://dashboard.balena-cloud.com/devices/{uuid}/summary"

// lateAfterIntervals is the number of intervals after which a warning about the age of the data is shown, even if no
// refresh has failed: a refresh that hangs does not fail for a while.
const lateAfterIntervals = 3

// maxPages is the maximum number of concurrent requests; further requests get 503.
// maxWalks is the maximum number of concurrent walks through all devices; further walks wait. A walk takes a tenth of a
// second with a million devices, and scrapes and refreshes need the CPU too.
// sendTimeout is the maximum duration of a response, so that stalled clients do not block others.
const (
	maxPages    = 20
	maxWalks    = 2
	sendTimeout = 10 * time.Second
)

// minReloadInterval is the minimum time between two reloads of a page.
const minReloadInterval = 30 * time.Second

var (
	//go:embed *.html
	sources embed.FS
	//go:embed style.css
	style string

	pages = template.Must(template.New("").Funcs(template.FuncMap{"thousands": thousands}).ParseFS(sources, "*.html"))

	//nolint:gosec // the style sheet is not user input
	sheet = template.CSS(style)

	// policy allows only the page's own style sheet, identified by its hash, and forms of this server.
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
	// walks are the slots of walks through all devices.
	walks chan struct{}
}

// Paths are the paths that [NewHandler] serves, as patterns of [http.ServeMux].
var Paths = []string{"/{$}", "/fleets", "/fleets/", "/devices", "/devices/", "/problems", "/search"}

// NewHandler returns a handler of all pages. Methods other than GET and HEAD get 405. Without a current snapshot, all
// pages except the landing page are answered with 503, as HTML or JSON.
func NewHandler(o Options) http.Handler {
	h := &handler{Options: o, mux: http.NewServeMux(), slots: make(chan struct{}, maxPages), walks: make(chan struct{}, maxWalks)}
	h.mux.HandleFunc("GET /{$}", h.root)
	h.mux.HandleFunc("GET /fleets", h.serve("fleets", "Fleets", h.overview))
	h.mux.HandleFunc("GET /fleets/{$}", func(w http.ResponseWriter, r *http.Request) {
		to := url.URL{Path: "../fleets", RawQuery: r.URL.RawQuery}
		redirect(w, http.StatusMovedPermanently, to.String())
	})
	h.mux.HandleFunc("GET /fleets/{slug...}", h.serve("fleet", "", h.fleet))
	h.mux.HandleFunc("GET /devices", func(w http.ResponseWriter, _ *http.Request) {
		redirect(w, http.StatusSeeOther, "search") // there is no list of all devices
	})
	h.mux.HandleFunc("GET /devices/{slug...}", h.serve("device", "", h.device))
	h.mux.HandleFunc("GET /problems", h.serve("problems", "Problems", h.problems))
	h.mux.HandleFunc("GET /search", h.serve("search", "Search", h.search))
	return h
}

func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	header := w.Header()
	header.Set("Content-Security-Policy", policy)
	header.Set("Cross-Origin-Resource-Policy", "same-origin")
	header.Set("Referrer-Policy", "no-referrer") // do not disclose the exporter's address to balena
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("Cache-Control", "no-store") // device names may be confidential, and the data change every minute
	select {
	case h.slots <- struct{}{}:
		defer func() { <-h.slots }()
	default:
		header.Set("Retry-After", "1")
		http.Error(w, fmt.Sprintf("too many requests: at most %d pages are served concurrently; try again", maxPages), http.StatusServiceUnavailable)
		return
	}
	// Only writers of servers support deadlines.
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(sendTimeout))
	h.mux.ServeHTTP(w, r)
}

// redirect redirects to a relative path, which http.Redirect would make absolute.
func redirect(w http.ResponseWriter, code int, path string) {
	w.Header().Set("Location", path)
	w.WriteHeader(code)
}

// view returns the problems of a snapshot.
func (h *handler) view(s *balena.Snapshot, now time.Time) *problem.View {
	return h.Thresholds.Of(s, balena.Instant(now.UnixMilli()))
}

// acquireWalk waits for a slot for a walk through all devices. The caller must call release.
func (h *handler) acquireWalk() (release func()) {
	h.walks <- struct{}{}
	return func() { <-h.walks }
}

// page is the data of the page template.
type page struct {
	// Kind is the name of the template of the content.
	Kind, Title string
	// Content is the data of the page, and the answer in JSON; nil if there is only a message.
	Content any
	// List is the list of devices in the content, or nil.
	List *list
	// Message is the text of a page without data.
	Message string
	// Formats links to the page in other formats.
	Formats []link
	// Root is the relative path to the root, and slug the rest of the path, which is the slug of a fleet or a UUID.
	Root, slug string
	// Query is the searched text.
	Query    string
	Style    template.CSS
	Interval string
	// Seconds is the time between reloads. Held is set if the page does not reload, and Toggle is the address of the page
	// in the other mode.
	Seconds int
	Held    bool
	Toggle  string
	*state
	// Warning is a warning about the data, or nil.
	Warning *warning

	now    time.Time
	query  url.Values
	status Status
	// redirect is the path to which the request is redirected; empty to send the page.
	redirect string
}

// state describes the age and completeness of the data.
type state struct {
	Time       moment  `json:"time"`
	AgeSeconds float64 `json:"age_seconds"`
	Up         bool    `json:"up"`
	// LastError remains set when later refreshes succeed.
	LastError     string `json:"last_error,omitempty"`
	LastErrorTime moment `json:"last_error_time,omitzero"`
	// FailedParts are the parts that the last refresh could not read. Their data may be outdated or missing.
	FailedParts []failedPart `json:"failed_parts"`
}

// failedPart is a part of the last refresh that failed.
type failedPart struct {
	Part  balena.PartName `json:"part"`
	Error string          `json:"error"`
}

// Reloadable reports whether the page may reload itself. A reload of the search page would discard text that is being typed.
func (p *page) Reloadable() bool { return p.Kind != "search" || p.Content == nil }

// Reloads reports whether the page reloads itself.
func (p *page) Reloads() bool { return p.Reloadable() && !p.Held }

// Link returns the relative address of another page. The links of a stopped page lead to stopped pages.
func (p *page) Link(path string) string {
	if p.Held {
		path += either(strings.Contains(path, "?"), "&", "?") + "hold=1"
	}
	return p.Root + path
}

// warning is a warning about the data.
type warning struct {
	What    string
	Details []string
	// Next is a sentence about the next refresh, and Runbook the address of a runbook.
	Next, Runbook string
}

// page returns a page without content.
func (h *handler) page(r *http.Request, kind, title string) *page {
	query, status, now := r.URL.Query(), h.Status(), time.Now()
	p := &page{
		Kind: kind, Root: cmp.Or(strings.Repeat("../", strings.Count(r.URL.EscapedPath(), "/")-1), "./"),
		slug: slugOf(r.PathValue("slug")), Style: sheet, Interval: duration(h.Interval),
		Seconds: int(max(h.Interval, minReloadInterval).Seconds()), Held: query.Get("hold") != "",
		state: &state{
			Up: status.Up, LastError: status.LastError, LastErrorTime: since(status.LastErrorTime, now),
			FailedParts: []failedPart{},
		},
		now: now, query: r.URL.Query(), status: status,
	}
	p.Title = cmp.Or(title, p.slug)
	set(query, "hold", either(p.Held, "", "1"))
	p.Toggle = "?" + query.Encode()
	return p
}

// failure is the answer to a request that fails.
type failure struct {
	code    int
	title   string
	Message string `json:"error"`
	// RefreshError is the error of the last refresh if there is no snapshot.
	RefreshError string `json:"refresh_error,omitempty"`
}

func fail(code int, title, message string) *failure {
	return &failure{code: code, title: title, Message: message}
}

// serve returns a handler of pages with data. The function fill adds them to a page.
func (h *handler) serve(kind, title string, fill func(*page, *balena.Snapshot) *failure) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		p := h.page(r, kind, title)
		var failed *failure
		if s := h.Snapshot(); s != nil {
			h.describe(p, s)
			failed = fill(p, s)
		} else {
			h.explain(p)
			failed = fail(http.StatusServiceUnavailable, "No data", p.Message)
			if !p.Up {
				failed.RefreshError = p.LastError
			}
			w.Header().Set("Retry-After", strconv.Itoa(max(1, int(h.Interval.Seconds()))))
		}
		h.send(w, p, failed)
	}
}

// describe sets the age of the data, and the warning about them if there is one.
func (h *handler) describe(p *page, s *balena.Snapshot) {
	p.Time, p.AgeSeconds = since(s.Time, p.now), p.now.Sub(s.Time).Seconds()
	switch {
	case !p.Up:
		p.Warning = h.refreshFailed(p)
		p.Warning.What += " These data are " + p.Time.Ago() + " old."
	case p.now.Sub(s.Time) > lateAfterIntervals*h.Interval:
		p.Warning = &warning{What: "These data are " + p.Time.Ago() + " old. The current refresh takes longer than expected.", Runbook: h.runbook("BalenaDataStale")}
	}
	for _, part := range s.Parts {
		if part.Err == nil {
			continue
		}
		if p.Warning == nil {
			p.Warning = &warning{What: "Part of the data could not be read and may be outdated.", Runbook: h.runbook("BalenaRefreshPartFailing")}
		}
		failed := failedPart{part.Name, part.Err.Error()}
		p.Warning.Details = append(p.Warning.Details, string(failed.Part)+": "+failed.Error)
		p.FailedParts = append(p.FailedParts, failed)
	}
}

// refreshFailed returns the warning about a failed refresh.
func (h *handler) refreshFailed(p *page) *warning {
	t := &warning{What: "The last refresh failed.", Next: "The exporter is retrying now.", Runbook: h.runbook("BalenaAPIFailing")}
	if p.LastError != "" {
		t.Details = []string{p.LastError}
	}
	if wait := p.status.Next.Sub(p.now); wait > 0 {
		t.Next = "The exporter retries in " + duration(wait+time.Second-1) + "."
	}
	return t
}

// explain sets the message about a missing snapshot.
func (h *handler) explain(p *page) {
	p.Message = "The exporter has just started. The first refresh is running."
	switch {
	case !p.status.LastSuccess.IsZero():
		p.Message = "The last data are " + since(p.status.LastSuccess, p.now).Ago() + " old. They are stale and are not shown."
	case p.LastError != "":
		p.Message = "No refresh has succeeded since the exporter started."
	}
	if !p.Up && p.LastError != "" {
		p.Warning = h.refreshFailed(p)
	}
}

// send sends a page as HTML, JSON or CSV, as the request asks for.
func (h *handler) send(w http.ResponseWriter, p *page, failed *failure) {
	code, content := http.StatusOK, p.Content
	if failed != nil {
		content = failed
		code, p.Title, p.Message = failed.code, failed.title, failed.Message
	}
	switch format := p.query.Get("format"); {
	case p.redirect != "":
		redirect(w, http.StatusSeeOther, p.redirect)
	case format == "":
		sendHTML(w, code, p)
	case format == "json":
		var body bytes.Buffer
		encoder := json.NewEncoder(&body)
		encoder.SetIndent("", "  ")
		err := encoder.Encode(content)
		sendBody(w, code, "application/json", &body, err)
	case format == "csv" && p.List != nil:
		p.List.sendCSV(w)
	default:
		http.Error(w, "unsupported format: use json, csv (lists of devices only), or omit the parameter for HTML", http.StatusBadRequest)
	}
}

// sendHTML sends a page as HTML.
func sendHTML(w http.ResponseWriter, code int, p *page) {
	if p.Reloads() {
		w.Header().Set("Refresh", strconv.Itoa(p.Seconds))
	}
	var body bytes.Buffer
	err := pages.ExecuteTemplate(&body, "page", p)
	sendBody(w, code, "text/html; charset=utf-8", &body, err)
}

// sendBody sends a complete body, or the error that occurred while rendering it.
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
