// SPDX-License-Identifier: Apache-2.0

package exposition

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"slices"
	"strconv"
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
	page       *Page
	selection  *Selection
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

// begin starts a scrape of the current page, and ends scrapes of pages that are too old.
func (h *handler) begin(w http.ResponseWriter, r *http.Request, selection *Selection, mine *slot) *scrape {
	ctx, cancel := context.WithCancelCause(r.Context()) // done when the client disconnects
	ctx, release := context.WithTimeoutCause(ctx, scrapeTimeout, errTooLong)
	mine.progressed()
	s := &scrape{
		selection:  selection,
		slot:       mine,
		w:          w,
		controller: http.NewResponseController(w),
		ctx:        ctx,
		cancel:     func(cause error) { cancel(cause); release() },
		cut:        make(chan struct{}),
	}
	s.stop = context.AfterFunc(ctx, func() {
		defer close(s.cut)
		// A deadline in the past ends a blocked write. If the ResponseWriter does not
		// support deadlines, the scrape ends when the write returns.
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

// end removes the scrape from those in flight.
func (h *handler) end(s *scrape) {
	if !s.stop() {
		<-s.cut // the ResponseWriter must not be touched after the handler returned
	}
	s.cancel(nil)
	h.mutex.Lock()
	defer h.mutex.Unlock()
	h.inFlight = slices.DeleteFunc(h.inFlight, func(other *scrape) bool { return other == s })
}

// send answers a scrape with its page and the live part.
func (s *scrape) send(r *http.Request, live []byte) error {
	tail := buffers.Get().(*bytes.Buffer)
	defer buffers.Put(tail)
	tail.Reset()

	page := s.page.selected(s.selection)
	header := s.w.Header()
	header.Set("Content-Type", contentType)
	header.Set("Cache-Control", "no-store")
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
