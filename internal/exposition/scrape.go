// SPDX-License-Identifier: Apache-2.0

package exposition

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"
)

const (
	// stallTimeout is how long a scraper may read nothing. It is longer than any
	// pause of a healthy network, and several times Prometheus' default timeout
	// for a whole scrape (10 s).
	stallTimeout = 30 * time.Second

	// scrapeTimeout is the maximum duration of a scrape, so that a scraper that reads
	// slowly does not stay forever. Longer scrapes are useless: Prometheus drops a series
	// after 5 minutes without a sample, so that scrapes are more frequent.
	scrapeTimeout = 5 * time.Minute

	// maxPages is the maximum number of different pages being sent: the current page,
	// the previous page for scrapes that overlap a refresh, and one more for slow scrapers.
	maxPages = 3

	// writeBytes is the size of a write, and thus what a scraper must read within
	// stallTimeout: 2 kB/s. Larger writes cost memory and save nothing; one write per
	// fragment costs up to two thirds more CPU.
	writeBytes = 64 << 10
)

// A scrape is one answer being sent. It is the io.Writer of the body; writing fails as
// soon as the scrape must end.
type scrape struct {
	of         string
	page       *Page
	selection  Selection
	slot       *slot
	w          http.ResponseWriter
	controller *http.ResponseController

	ctx    context.Context
	cancel context.CancelCauseFunc
	stop   func() bool
	cut    chan struct{} // closed once the deadline that ends a blocked write is set

	extended time.Time // when the write deadline was last set
}

// A slowness is the reason why a slow scraper was disconnected.
type slowness string

func (s slowness) Error() string { return string(s) }

const (
	errStalled    = slowness("it read nothing for 30 s")
	errTooLong    = slowness("the scrape took longer than 5 min")
	errSuperseded = slowness("its data are outdated and newer data are being served")
	errGaveWay    = slowness("other scrapers waited for a slot, and it had stalled or used more than its share")
)

var emptyPage = &Page{}

// A Sender answers requests with pages. It limits the number of requests that are answered at
// once, their duration, and the number of old pages that they hold.
type Sender struct {
	slots *slots // nil if the number of requests is not limited

	mutex    sync.Mutex
	inFlight []*scrape // in the order in which they began
}

// NewSender returns a Sender with a limit for the number of requests that are answered at once; see MaxRequests in
// [HandlerOptions]. Zero or less means no limit.
func NewSender(maxRequests int) *Sender {
	if maxRequests <= 0 {
		return &Sender{}
	}
	return &Sender{slots: &slots{limit: maxRequests}}
}

// An Answer is the answer to a request.
type Answer struct {
	// Page returns the page, or nil for an empty one. It must not block.
	Page func() *Page
	// Selection selects the text of the page to send.
	Selection Selection
	// Tail is text that follows the page. It is compressed for each request.
	Tail []byte
	// Of is a name for all versions of the page. A page replaces older pages with the same name.
	Of string
}

// Send answers a GET or HEAD request, with or without gzip as the client prefers, always
// with a Content-Length. When the request has a slot, Send calls answer, which returns the answer and sets
// the headers that depend on it, or returns nil if it has answered the request itself.
//
// Send sets write deadlines as bytes are sent; http.Server.WriteTimeout is not needed. The
// error is the reason why the client did not get the whole answer.
func (s *Sender) Send(w http.ResponseWriter, r *http.Request, answer func() *Answer) error {
	var mine *slot
	if s.slots != nil {
		if mine = s.slots.acquire(r.Context(), r.RemoteAddr); mine == nil {
			http.Error(w, fmt.Sprintf("Limit of concurrent requests reached (%d), try again later.", s.slots.limit),
				http.StatusServiceUnavailable)
			return nil
		}
		defer s.slots.release(mine)
		r = r.WithContext(mine.ctx)
	}
	a := answer() // first, so that the scrape holds no page meanwhile
	if a == nil {
		return nil
	}
	scrape := s.begin(w, r, mine, a)
	defer s.end(scrape)
	return scrape.send(r, a.Tail)
}

// begin starts a scrape of the page of an answer, and ends scrapes of pages that are too old.
func (s *Sender) begin(w http.ResponseWriter, r *http.Request, mine *slot, a *Answer) *scrape {
	ctx, cancel := context.WithCancelCause(r.Context()) // done when the client disconnects
	ctx, release := context.WithTimeoutCause(ctx, scrapeTimeout, errTooLong)
	mine.progressed()
	me := &scrape{
		of:         a.Of,
		selection:  a.Selection,
		slot:       mine,
		w:          w,
		controller: http.NewResponseController(w),
		ctx:        ctx,
		cancel:     func(cause error) { cancel(cause); release() },
		cut:        make(chan struct{}),
	}
	me.stop = context.AfterFunc(ctx, func() {
		defer close(me.cut)
		// A deadline in the past ends a blocked write. If the ResponseWriter does not
		// support deadlines, the scrape ends when the write returns.
		_ = me.controller.SetWriteDeadline(time.Unix(1, 0))
	})

	s.mutex.Lock()
	defer s.mutex.Unlock()
	me.page = emptyPage
	if page := a.Page(); page != nil {
		me.page = page
	}
	s.inFlight = append(s.inFlight, me)
	var newest []*Page
	for _, other := range slices.Backward(s.inFlight) {
		switch {
		case other.of != me.of || slices.Contains(newest, other.page):
		case len(newest) < maxPages:
			newest = append(newest, other.page)
		default:
			other.cancel(errSuperseded)
		}
	}
	return me
}

// end removes the scrape from those in flight.
func (s *Sender) end(me *scrape) {
	if !me.stop() {
		<-me.cut // the ResponseWriter must not be touched after the handler returned
	}
	me.cancel(nil)
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.inFlight = slices.DeleteFunc(s.inFlight, func(other *scrape) bool { return other == me })
}

// send answers a scrape with its page and the tail.
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

	// Fewer and larger writes save more than copying costs. The buffer keeps the first
	// error for Flush.
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

// Write sends p in parts of at most writeBytes, and notes progress after each. If it fails
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
	// Setting a deadline costs as much as a small write, so the last deadline is kept
	// for a while: every write has at least three quarters of stallTimeout.
	if now := time.Now(); now.Sub(s.extended) > stallTimeout/4 {
		_ = s.controller.SetWriteDeadline(now.Add(stallTimeout)) // not every ResponseWriter supports this
		s.extended = now
	}
	// Check last: the deadline set above could have overwritten that of AfterFunc.
	return context.Cause(s.ctx)
}

// reason returns why a write failed with err: a slowness, or err itself.
func (s *scrape) reason(err error) error {
	var slow slowness
	switch {
	case errors.As(context.Cause(s.ctx), &slow):
		return slow
	case time.Since(s.extended) >= stallTimeout:
		// err differs between HTTP/1 and HTTP/2, but the deadline has passed in both.
		return errStalled
	default:
		return err
	}
}
