package exposition

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/klauspost/compress/flate"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/common/expfmt"
)

const (
	// stallTimeout is how long a scraper may take nothing. It is longer than any
	// pause of a healthy network, and several times Prometheus' default timeout
	// for a whole scrape (10 s).
	stallTimeout = 30 * time.Second

	// scrapeTimeout bounds a scrape as a whole, so that a scraper that takes a byte
	// now and then does not stay for ever. Longer scrape intervals are not sensible:
	// Prometheus forgets a series after 5 minutes.
	scrapeTimeout = 5 * time.Minute

	// maxPages is how many different pages are being sent at most: the current one,
	// the one before for scrapes that overlap a refresh, and one more for slow ones.
	maxPages = 3

	// writeBytes is what is written at once, and thus what a scraper has to take
	// within stallTimeout: 2 kB/s. Larger writes cost memory and save nothing;
	// writing fragments as they are costs up to two thirds more CPU.
	writeBytes = 64 << 10

	// logInterval keeps an error that occurs at every scrape from flooding the log.
	logInterval = 10 * time.Minute
)

// contentType is the text format that every scraper reads. OpenMetrics is not
// offered: it would need a second set of fragments.
const contentType = "text/plain; version=0.0.4; charset=utf-8"

// gzipHeader starts a gzip member without name and time; see RFC 1952, section 2.3.
var gzipHeader = []byte{
	0x1f, 0x8b, // magic number
	8,          // deflate
	0,          // no flags
	0, 0, 0, 0, // no modification time
	4,   // compressed with the fastest algorithm
	255, // unknown operating system
}

// HandlerOptions says what is served and how.
type HandlerOptions struct {
	// Page returns the current page, or nil when there is none: then the live part
	// is served alone. It is called once per scrape and must not block.
	Page func() *Page

	// Live is gathered at every scrape and follows the page. None of its families
	// may have the name of a family of the page: the text format wants each family
	// once, and nothing here would notice. May be nil.
	Live prometheus.Gatherer

	// MaxRequests is the number of scrapes served at once; more get a 503.
	// Zero or less: no limit.
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
	slots  chan struct{} // as many as scrapes are allowed at once; nil: any number
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
		h.slots = make(chan struct{}, options.MaxRequests)
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
	if h.slots != nil {
		select {
		case h.slots <- struct{}{}:
			defer func() { <-h.slots }()
		default:
			http.Error(w, fmt.Sprintf("Limit of concurrent requests reached (%d), try again later.", h.MaxRequests),
				http.StatusServiceUnavailable)
			return
		}
	}
	s := h.begin(w, r)
	defer h.end(s)
	var slow slowness
	if err := h.serve(s, r); errors.As(err, &slow) {
		h.report(sending, fmt.Errorf("scraper %s did not take its answer in time: %w", r.RemoteAddr, slow))
	}
}

// serve answers a scrape, of which the page is fixed by now.
func (h *handler) serve(s *scrape, r *http.Request) error {
	live, tail := buffers.Get().(*bytes.Buffer), buffers.Get().(*bytes.Buffer)
	defer buffers.Put(live)
	defer buffers.Put(tail)
	live.Reset()
	tail.Reset()
	h.gather(live)

	header := s.w.Header()
	header.Set("Content-Type", contentType)
	header.Set("Cache-Control", "no-store")
	header.Add("Vary", "Accept-Encoding")
	length := s.page.text + int64(live.Len())
	zipped := prefersGzip(r.Header)
	if zipped {
		header.Set("Content-Encoding", "gzip")
		s.page.writeTail(tail, live.Bytes())
		length = int64(len(gzipHeader)) + s.page.compressed + int64(tail.Len())
	}
	header.Set("Content-Length", strconv.FormatInt(length, 10))
	if r.Method == http.MethodHead {
		return nil
	}

	// Fewer, larger writes: worth more than the copies they cost. The buffer keeps
	// the first error for Flush.
	out := bufio.NewWriterSize(s, writeBytes)
	if zipped {
		out.Write(gzipHeader)
		s.page.writeDeflate(out)
		out.Write(tail.Bytes())
	} else {
		s.page.writeText(out)
		out.Write(live.Bytes())
	}
	return out.Flush()
}

// writeTail writes what follows the page's fragments in a gzip member that ends
// with the live text: that text as the final deflate blocks, and the trailer.
func (p *Page) writeTail(w *bytes.Buffer, live []byte) {
	// The stateless compressor saves each scrape the better one's tables (1 MB).
	mustWrite(0, flate.StatelessDeflate(w, live, true, nil))
	var trailer [8]byte
	binary.LittleEndian.PutUint32(trailer[:4], crc32.Update(p.crc, crc32.IEEETable, live))
	binary.LittleEndian.PutUint32(trailer[4:], uint32(p.text+int64(len(live)))) // modulo 2^32, as defined
	w.Write(trailer[:])
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

// A scrape is one answer being sent, and an io.Writer for its body that fails as
// soon as the scrape is to end, for whatever reason.
type scrape struct {
	page       *Page
	w          http.ResponseWriter
	controller *http.ResponseController

	ctx    context.Context
	cancel context.CancelCauseFunc
	stop   func() bool
	cut    chan struct{} // closed once a write under way was told to fail

	extended time.Time // when the write deadline was set last
}

// A slowness is why a scraper was cut off.
type slowness string

func (s slowness) Error() string { return string(s) }

const (
	errStalled    = slowness("nothing was taken for a while")
	errTooLong    = slowness("the scrape took too long")
	errSuperseded = slowness("newer pages are being served")
)

var emptyPage = &Page{}

// begin starts a scrape of the current page, and ends those that hold too old ones.
func (h *handler) begin(w http.ResponseWriter, r *http.Request) *scrape {
	ctx, cancel := context.WithCancelCause(r.Context()) // done when the client is gone
	ctx, release := context.WithTimeoutCause(ctx, scrapeTimeout, errTooLong)
	s := &scrape{
		w:          w,
		controller: http.NewResponseController(w),
		ctx:        ctx,
		cancel:     func(cause error) { cancel(cause); release() },
		cut:        make(chan struct{}),
	}
	s.stop = context.AfterFunc(ctx, func() {
		defer close(s.cut)
		// A deadline in the past ends a write that is blocked. Without support for
		// deadlines there is nothing to be done before the write returns.
		_ = s.controller.SetWriteDeadline(time.Unix(1, 0))
	})

	h.mutex.Lock()
	defer h.mutex.Unlock()
	s.page = emptyPage
	if page := h.Page(); page != nil {
		s.page = page
	}
	h.inFlight = append(h.inFlight, s)
	pages := 1
	for i := len(h.inFlight) - 2; i >= 0; i-- {
		if h.inFlight[i].page != h.inFlight[i+1].page {
			pages++
		}
		if pages > maxPages {
			h.inFlight[i].cancel(errSuperseded)
		}
	}
	return s
}

// end gives the page back.
func (h *handler) end(s *scrape) {
	if !s.stop() {
		<-s.cut // the ResponseWriter must not be touched after the handler returned
	}
	s.cancel(nil)
	h.mutex.Lock()
	defer h.mutex.Unlock()
	h.inFlight = slices.DeleteFunc(h.inFlight, func(other *scrape) bool { return other == s })
}

// Write sends p in pieces small enough for progress to be seen. If it fails because
// the scraper is slow, the error is a slowness.
func (s *scrape) Write(p []byte) (written int, err error) {
	for len(p) > 0 {
		if err := s.extend(); err != nil {
			return written, err
		}
		n, err := s.w.Write(p[:min(len(p), writeBytes)])
		written += n
		if err != nil {
			return written, s.reason(err)
		}
		p = p[n:]
	}
	return written, nil
}

var _ io.Writer = (*scrape)(nil)

// extend gives the next write its time, or fails if the scrape is to end.
func (s *scrape) extend() error {
	// Setting a deadline costs as much as a small write, so that of the last write
	// is good enough for a while: a write has three quarters of the time at least.
	if now := time.Now(); now.Sub(s.extended) > stallTimeout/4 {
		_ = s.controller.SetWriteDeadline(now.Add(stallTimeout)) // not every ResponseWriter can
		s.extended = now
	}
	// Only now, since a deadline set above could have undone that of AfterFunc.
	return context.Cause(s.ctx)
}

// reason returns why a write failed with err.
func (s *scrape) reason(err error) error {
	var slow slowness
	switch {
	case errors.As(context.Cause(s.ctx), &slow):
		return slow
	case time.Since(s.extended) >= stallTimeout:
		// What err is differs between HTTP/1 and 2, but the deadline has passed.
		return errStalled
	default:
		return err
	}
}
