// SPDX-License-Identifier: Apache-2.0

package exposition

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"
)

const (
	// stallTimeout is the time in which a scraper must read data. It is longer than
	// pauses of healthy networks, and several times the default scrape timeout of
	// Prometheus (10 s).
	stallTimeout = 30 * time.Second

	// scrapeTimeout is the maximum duration of a scrape. Longer scrapes are useless, because
	// Prometheus drops series after 5 minutes without a sample.
	scrapeTimeout = 5 * time.Minute

	// maxPages is the maximum number of versions of a page being sent: the current one, the
	// previous one for scrapes that overlap a refresh, and another for slow scrapers.
	maxPages = 3

	// writeBytes is the size of a write. A scraper must read it within stallTimeout, which
	// is 2 kB/s. Larger writes need memory and save nothing, and a write per fragment needs
	// up to two thirds more CPU.
	writeBytes = 64 << 10
)

// A scrape is a response that is being sent. It is the io.Writer of the body. Writes fail
// when the scrape must end.
type scrape struct {
	name       string
	page       *Page
	selection  Selection
	slot       *slot
	w          http.ResponseWriter
	controller *http.ResponseController

	ctx  context.Context
	stop func() bool
	cut  chan struct{} // closed after the deadline that ends a blocked write is set

	extended time.Time // when the write deadline was last set
}

// A slowness is the reason for disconnecting a slow scraper.
type slowness string

func (s slowness) Error() string { return string(s) }

const (
	errStalled    = slowness("it read nothing for 30 s")
	errTooLong    = slowness("the scrape took longer than 5 min")
	errSuperseded = slowness("its data are outdated and newer data are being served")
	errSlotNeeded = slowness("other scrapers waited for a slot, and it had stalled or used more than its share")
)

var emptyPage = &Page{}

// A Sender sends pages. It limits the number of concurrent requests, their duration, and the
// number of old pages that they hold.
type Sender struct {
	slots slots

	mutex    sync.Mutex
	inFlight []*scrape // in the order in which they began
}

// NewSender returns a Sender with a limit of concurrent requests; see MaxRequests in [HandlerOptions]. Zero or less means no
// limit.
func NewSender(maxRequests int) *Sender {
	if maxRequests <= 0 {
		maxRequests = math.MaxInt
	}
	return &Sender{slots: slots{limit: maxRequests}}
}

// A Response is the response to a request.
type Response struct {
	// Page returns the page, or nil for an empty one. It must not block.
	Page func() *Page
	// Selection selects the text of the page to send.
	Selection Selection
	// Tail is text that follows the page. It is compressed for each request.
	Tail []byte
	// Name identifies all versions of a page, of which at most three are sent at a time.
	Name string
}

// Send serves a GET or HEAD request, with gzip if the client prefers it, and always with a
// Content-Length. When the request has a slot, Send calls respond. It returns the response
// and sets headers, or returns nil if it has sent a response.
//
// Send sets write deadlines, so that http.Server.WriteTimeout is not needed. The error is
// the reason why the response is incomplete.
func (s *Sender) Send(w http.ResponseWriter, r *http.Request, respond func() *Response) error {
	slot := s.slots.acquire(r.Context(), r.RemoteAddr)
	if slot == nil {
		http.Error(w, fmt.Sprintf("Limit of concurrent requests reached (%d), try again later.", s.slots.limit),
			http.StatusServiceUnavailable)
		return nil
	}
	defer s.slots.release(slot)
	a := respond() // before begin, so that the scrape does not hold a page
	if a == nil {
		return nil
	}
	ctx, cancel := context.WithTimeoutCause(slot.ctx, scrapeTimeout, errTooLong)
	defer cancel()
	scrape := s.begin(ctx, w, slot, a)
	defer s.end(scrape)
	return scrape.send(r, a.Tail)
}

// begin starts a scrape of a page, and cancels scrapes of pages that are too old.
func (s *Sender) begin(ctx context.Context, w http.ResponseWriter, slot *slot, a *Response) *scrape {
	slot.progressed()
	current := &scrape{
		name:       a.Name,
		selection:  a.Selection,
		slot:       slot,
		w:          w,
		controller: http.NewResponseController(w),
		ctx:        ctx,
		cut:        make(chan struct{}),
	}
	current.stop = context.AfterFunc(ctx, func() {
		defer close(current.cut)
		// A deadline in the past ends a blocked write. If the ResponseWriter does not
		// support deadlines, the scrape ends when the write returns.
		_ = current.controller.SetWriteDeadline(time.Unix(1, 0))
	})

	s.mutex.Lock()
	defer s.mutex.Unlock()
	current.page = emptyPage
	if page := a.Page(); page != nil {
		current.page = page
	}
	s.inFlight = append(s.inFlight, current)
	var newest []*Page
	for _, other := range slices.Backward(s.inFlight) {
		switch {
		case other.name != current.name || slices.Contains(newest, other.page):
		case len(newest) < maxPages:
			newest = append(newest, other.page)
		default:
			other.slot.cancel(errSuperseded)
		}
	}
	return current
}

// end removes the scrape from inFlight.
func (s *Sender) end(current *scrape) {
	if !current.stop() {
		<-current.cut // the ResponseWriter must not be used after the handler returned
	}
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.inFlight = slices.DeleteFunc(s.inFlight, func(other *scrape) bool { return other == current })
}

// send sends the page of a scrape and the tail.
func (s *scrape) send(r *http.Request, live []byte) error {
	tail := buffers.Get().(*bytes.Buffer)
	defer buffers.Put(tail)
	tail.Reset()

	page := s.page.selected(&s.selection)
	header := s.w.Header()
	header.Add("Vary", "Accept-Encoding")
	length := page.text + int64(len(live))
	zipped := prefersGzip(r.Header)
	if zipped {
		header.Set("Content-Encoding", "gzip")
		page.writeTail(tail, live)
		length = int64(len(gzipHeader)) + page.compressed + int64(tail.Len())
	}
	header.Set("Content-Length", strconv.FormatInt(length, 10))
	if r.Method == http.MethodHead {
		return nil
	}

	// A few large writes need less CPU despite copying. Flush returns the first error.
	out := bufio.NewWriterSize(s, writeBytes)
	if zipped {
		_, _ = out.Write(gzipHeader)
		page.writeDeflate(out)
		_, _ = out.Write(tail.Bytes())
	} else {
		page.writeText(out)
		_, _ = out.Write(live)
	}
	return out.Flush()
}

// Write sends p in parts of at most writeBytes, and records progress after each. If it fails
// because the scraper is slow, the error is a slowness.
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
		s.slot.progressed()
		p = p[n:]
	}
	return written, nil
}

var _ io.Writer = (*scrape)(nil)

// extend sets the deadline of the next write, or fails if the scrape must end.
func (s *scrape) extend() error {
	// Setting a deadline needs as much CPU as a small write. It is not set for each write,
	// but each write has at least three quarters of stallTimeout.
	if now := time.Now(); now.Sub(s.extended) > stallTimeout/4 {
		_ = s.controller.SetWriteDeadline(now.Add(stallTimeout)) // not every ResponseWriter supports this
		s.extended = now
	}
	// This check must be last, because the deadline set above may have replaced that of AfterFunc.
	return context.Cause(s.ctx)
}

// reason returns the slowness because of which a write failed with err, or err.
func (s *scrape) reason(err error) error {
	var slow slowness
	switch {
	case errors.As(context.Cause(s.ctx), &slow):
		return slow
	case time.Since(s.extended) >= stallTimeout:
		// err differs between HTTP/1 and HTTP/2, but the deadline has passed.
		return errStalled
	default:
		return err
	}
}
