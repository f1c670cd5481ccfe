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

// contentType is the text format that every scraper reads. OpenMetrics is not
// offered: it would need a second set of fragments.
const contentType = "text/plain; version=0.0.4; charset=utf-8"

// logInterval keeps an error that occurs at every scrape from flooding the log.
const logInterval = 10 * time.Minute

// HandlerOptions says what is served and how.
type HandlerOptions struct {
	// Page returns the current page, or nil when there is none: then the live part
	// is served alone. It is called once per scrape and must not block.
	Page func() *Page

	// Live is gathered at every scrape and follows the page. None of its families
	// may have the name of a family of the page: the text format wants each family
	// once, and nothing here would notice. May be nil.
	Live prometheus.Gatherer

	// MaxRequests is the number of scrapes served at once. As many more wait for some
	// seconds, and get a 503 then; scrapers that stall, or that have more than their
	// share, give way to them. Zero or less: no limit.
	MaxRequests int

	// Registerer receives the promhttp_metric_handler_* metrics that operators
	// know from other exporters. Nil: none.
	Registerer prometheus.Registerer

	// ErrorLog receives what goes wrong, at most one line in ten minutes for each
	// kind of error. Nil: nothing is logged.
	ErrorLog *slog.Logger
}

// NewHandler returns the handler that serves scrapes. It answers GET and HEAD,
// with gzip or without as the client prefers, always with a Content-Length.
//
// What fails in the live part is left out and logged; the rest is served. Errors
// are counted in promhttp_metric_handler_errors_total with the causes "gathering",
// "encoding", as elsewhere, and "sending" for scrapers that were cut off because
// they were too slow. Those that go away on their own are not counted.
//
// Write deadlines are set as bytes are taken, in place of http.Server.WriteTimeout.
//
// NewHandler panics if its metrics cannot be registered: use one Registerer for
// one handler.
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
	slots  *slots // nil: any number of scrapes is served at once
	errors *prometheus.CounterVec

	mutex    sync.Mutex
	inFlight []*scrape            // in the order of their pages
	logged   map[string]time.Time // when an error was logged last, by cause
}

// The causes of errors.
const (
	gathering = "gathering" // collecting the live part
	encoding  = "encoding"  // a family of the live part cannot be written as text
	sending   = "sending"   // a scraper was too slow and was cut off
)

func newHandler(options HandlerOptions) *handler {
	h := &handler{
		HandlerOptions: options,
		logged:         map[string]time.Time{},
		errors: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "promhttp_metric_handler_errors_total",
			Help: "Total number of internal errors encountered by the promhttp metric handler.",
		}, []string{"cause"}),
	}
	if options.MaxRequests > 0 {
		h.slots = &slots{limit: options.MaxRequests}
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
		http.Error(w, "Metrics are read with GET or HEAD.", http.StatusMethodNotAllowed)
		return
	}
	var mine *slot
	if h.slots != nil {
		if mine = h.slots.acquire(r.Context(), r.RemoteAddr); mine == nil {
			http.Error(w, fmt.Sprintf("Limit of concurrent requests reached (%d), try again later.", h.MaxRequests),
				http.StatusServiceUnavailable)
			return
		}
		defer h.slots.release(mine)
		r = r.WithContext(mine.ctx)
	}
	live := buffers.Get().(*bytes.Buffer)
	defer buffers.Put(live)
	live.Reset()
	h.gather(live) // before there is a page to hold

	s := h.begin(w, r, mine)
	defer h.end(s)
	var slow slowness
	if err := s.send(r, live.Bytes()); errors.As(err, &slow) {
		h.report(sending, fmt.Errorf("scraper %s did not take its answer in time: %w", r.RemoteAddr, slow))
	}
}

// buffers are for the live part, as text and compressed.
var buffers = sync.Pool{New: func() any { return new(bytes.Buffer) }}

// gather writes the live part.
func (h *handler) gather(w *bytes.Buffer) {
	if h.Live == nil {
		return
	}
	families, err := h.Live.Gather() // what could be gathered, even with an error
	if err != nil {
		h.report(gathering, err)
	}
	encoder := expfmt.NewEncoder(w, expfmt.NewFormat(expfmt.TypeTextPlain))
	for _, family := range families {
		complete := w.Len()
		if err := encoder.Encode(family); err != nil {
			w.Truncate(complete) // half a family would spoil the whole answer
			h.report(encoding, err)
		}
	}
}

// report counts an error, and logs it unless one of its kind was logged lately.
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
		h.ErrorLog.Error("error serving metrics; further ones are only counted for a while",
			"cause", cause, "err", err, "silence", logInterval)
	}
}
