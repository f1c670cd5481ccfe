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

// contentType is the text format, which all scrapers support. OpenMetrics would need a
// second set of fragments.
const contentType = "text/plain; version=0.0.4; charset=utf-8"

// logInterval is the minimum time between two log lines for errors of the same cause.
// An error at every scrape must not flood the log.
const logInterval = 10 * time.Minute

// HandlerOptions configures a handler.
type HandlerOptions struct {
	// Page returns the current page, or nil to serve only the live part. It is called once
	// per scrape and must not block.
	Page func() *Page

	// Live is gathered at every scrape and follows the page. Its families must not be
	// families of the page, which the handler does not check. Live may be nil.
	Live prometheus.Gatherer

	// Groups are the groups of families that scrapes may request.
	Groups []string

	// Parts is the number of sections of the pages. Scrapes may divide a page into this number of parts, or into a divisor
	// of it. Zero and one disable parts.
	Parts int

	// MaxRequests is the maximum number of concurrent scrapes. The same number of further
	// scrapes may wait for a few seconds before they get a 503. Scrapes are canceled for
	// waiting ones if they stall, or if their scraper uses more than its share. Zero or less
	// means no limit.
	MaxRequests int

	// Registerer receives the promhttp_metric_handler_* metrics. It may be nil.
	Registerer prometheus.Registerer

	// ErrorLog receives errors, at most one line in ten minutes for each cause.
	// If it is nil, nothing is logged.
	ErrorLog *slog.Logger
}

// LiveGroup is the group of the live part. Scrapes may request it like a group of the page.
const LiveGroup = "exporter"

// NewHandler returns the handler of scrapes. It serves GET and HEAD requests, with gzip if
// the client prefers it, and always with a Content-Length. The parameters collect[] and part
// select the text; see [Selection].
//
// A metric of the live part that fails is omitted and logged. Errors are counted in
// promhttp_metric_handler_errors_total. The causes are "gathering" and "encoding", as in
// promhttp, and "sending" for slow scrapers that were disconnected.
//
// The handler sets write deadlines, so that http.Server.WriteTimeout is not needed.
//
// NewHandler panics if its metrics cannot be registered. Each handler needs a separate
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
	err = h.sender.Send(w, r, func() *Response {
		live.Reset()
		if selection.Part == 0 && selection.has(LiveGroup) {
			h.gather(live)
		}
		w.Header().Set("Content-Type", contentType)
		w.Header().Set("Cache-Control", "no-store")
		return &Response{Page: h.Page, Selection: *selection, Tail: live.Bytes()}
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
	families, err := h.Live.Gather() // may return families and an error
	if err != nil {
		h.report(gathering, err)
	}
	encoder := expfmt.NewEncoder(w, expfmt.NewFormat(expfmt.TypeTextPlain))
	for _, family := range families {
		complete := w.Len()
		if err := encoder.Encode(family); err != nil {
			w.Truncate(complete) // an incomplete family would make the response invalid
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
