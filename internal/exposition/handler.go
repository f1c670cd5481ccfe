// SPDX-License-Identifier: Apache-2.0

package exposition

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/common/expfmt"
)

// contentType is the text format that every scraper understands. OpenMetrics is not
// offered: it would need a second set of fragments.
const contentType = "text/plain; version=0.0.4; charset=utf-8"

// logInterval is the minimum time between two log lines for errors of the same cause.
// It keeps an error that occurs at every scrape from flooding the log.
const logInterval = 10 * time.Minute

// HandlerOptions configures a handler.
type HandlerOptions struct {
	// Page returns the current page, or nil if there is none. Without a page only the
	// live part is served. Page is called once per scrape and must not block.
	Page func() *Page

	// Live is gathered at every scrape and follows the page. None of its families
	// may have the name of a family of the page: the text format allows each family
	// once, and the handler does not check this. Live may be nil.
	Live prometheus.Gatherer

	// Groups are the groups of families that scrapes may request.
	Groups []string

	// Parts is the number of sections of the pages. A scrape may request one of as many parts, or of a number of parts that
	// divides it. Zero and one mean that there are no parts.
	Parts int

	// MaxRequests is the maximum number of scrapes served at once. The same number of
	// further scrapes may wait; after a few seconds they get a 503. Scrapers that stall,
	// or that use more than their share, give way to those that wait. Zero or less means
	// no limit.
	MaxRequests int

	// Registerer receives the promhttp_metric_handler_* metrics that operators
	// know from other exporters. If it is nil, there are none.
	Registerer prometheus.Registerer

	// ErrorLog receives errors, at most one line in ten minutes for each cause.
	// If it is nil, nothing is logged.
	ErrorLog *slog.Logger
}

// LiveGroup is the group of the live part. Scrapes may request it like a group of the page.
const LiveGroup = "exporter"

// NewHandler returns the handler that serves scrapes. It answers GET and HEAD,
// with or without gzip as the client prefers, always with a Content-Length.
// The parameters collect[] and part select what is served; see [Selection].
//
// A metric of the live part that fails is left out and logged; the rest is served. Errors
// are counted in promhttp_metric_handler_errors_total. The causes are "gathering" and
// "encoding", as in promhttp, and "sending" for scrapers that were disconnected because
// they were too slow. Scrapers that disconnect on their own are not counted.
//
// The handler sets write deadlines as bytes are sent; http.Server.WriteTimeout is not needed.
//
// NewHandler panics if its metrics cannot be registered: every handler needs its own
// Registerer.
func NewHandler(options HandlerOptions) http.Handler {
	h := newHandler(options)
	if options.Registerer == nil {
		return h
	}
	options.Registerer.MustRegister(h.errors)
	return promhttp.InstrumentMetricHandler(options.Registerer, h)
}

type handler struct {
	HandlerOptions
	sender *Sender
	errors *prometheus.CounterVec

	mutex  sync.Mutex
	logged map[string]time.Time // time of the last log line, by cause
}

// The causes of errors.
const (
	gathering = "gathering" // the live part could not be collected
	encoding  = "encoding"  // a family of the live part cannot be written as text
	sending   = "sending"   // a scraper was too slow and was disconnected
)

func newHandler(options HandlerOptions) *handler {
	h := &handler{
		HandlerOptions: options,
		sender:         NewSender(options.MaxRequests),
		logged:         map[string]time.Time{},
		errors: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "promhttp_metric_handler_errors_total",
			Help: "Total number of internal errors encountered by the promhttp metric handler.",
		}, []string{"cause"}),
	}
	if h.ErrorLog == nil {
		h.ErrorLog = slog.New(slog.DiscardHandler)
	}
	for _, cause := range []string{gathering, encoding, sending} {
		h.errors.WithLabelValues(cause)
	}
	return h
}

// ServeHTTP implements http.Handler.
func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "Method not allowed; use GET or HEAD.", http.StatusMethodNotAllowed)
		return
	}
	selection, err := h.selection(r.URL.Query())
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	live := buffers.Get().(*bytes.Buffer)
	defer buffers.Put(live)
	err = h.sender.Send(w, r, func() *Answer {
		live.Reset()
		if selection.Part == 0 && selection.has(LiveGroup) {
			h.gather(live)
		}
		w.Header().Set("Content-Type", contentType)
		w.Header().Set("Cache-Control", "no-store")
		return &Answer{Page: h.Page, Selection: *selection, Tail: live.Bytes()}
	})
	if slow, ok := errors.AsType[slowness](err); ok {
		h.report(sending, fmt.Errorf("scraper %s did not read the response in time: %w", r.RemoteAddr, slow))
	}
}

// buffers hold the live part, as text and compressed.
var buffers = sync.Pool{New: func() any { return new(bytes.Buffer) }}

// gather writes the live part.
func (h *handler) gather(w *bytes.Buffer) {
	if h.Live == nil {
		return
	}
	families, err := h.Live.Gather() // returns what it could gather, even with an error
	if err != nil {
		h.report(gathering, err)
	}
	encoder := expfmt.NewEncoder(w, expfmt.NewFormat(expfmt.TypeTextPlain))
	for _, family := range families {
		complete := w.Len()
		if err := encoder.Encode(family); err != nil {
			w.Truncate(complete) // an incomplete family would make the whole answer invalid
			h.report(encoding, err)
		}
	}
}

// report counts an error, and logs it unless an error of the same cause was logged recently.
func (h *handler) report(cause string, err error) {
	h.errors.WithLabelValues(cause).Inc()
	h.mutex.Lock()
	last, before := h.logged[cause]
	due := !before || time.Since(last) >= logInterval
	if due {
		h.logged[cause] = time.Now()
	}
	h.mutex.Unlock()
	if due {
		h.ErrorLog.Error("error serving metrics; further errors with this cause are counted, but not logged during the time of silence",
			"cause", cause, "err", err, "silence", logInterval)
	}
}
