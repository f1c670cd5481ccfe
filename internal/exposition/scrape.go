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
	// stallTimeout is how long a scraper may take nothing. It is longer than any
	// pause of a healthy network, and several times Prometheus' default timeout
	// for a whole scrape (10 s).
	stallTimeout = 30 * time.Second

	// scrapeTimeout bounds sending as a whole, so that a scraper that takes a little
	// now and then does not stay for ever. Nobody waits longer: Prometheus forgets a
	// series after 5 minutes, so that scrapes are not farther apart.
	scrapeTimeout = 5 * time.Minute

	// maxPages is how many different pages are being sent at most: the current one,
	// the one before for scrapes that overlap a refresh, and one more for slow ones.
	maxPages = 3

	// writeBytes is what is written at once, and thus what a scraper has to take
	// within stallTimeout: 2 kB/s. Larger writes cost memory and save nothing;
	// writing fragments as they are costs up to two thirds more CPU.
	writeBytes = 64 << 10
)

// A scrape is one answer being sent, and an io.Writer for its body that fails as
// soon as the scrape is to end, for whatever reason.
type scrape struct {
	page       *Page
	slot       *slot
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
	errGaveWay    = slowness("others waited for a slot, and it took nothing or had more than its share")
)

var emptyPage = &Page{}

// begin starts a scrape of the current page, and ends those that hold too old ones.
func (h *handler) begin(w http.ResponseWriter, r *http.Request, mine *slot) *scrape {
	ctx, cancel := context.WithCancelCause(r.Context()) // done when the client is gone
	ctx, release := context.WithTimeoutCause(ctx, scrapeTimeout, errTooLong)
	mine.progressed()
	s := &scrape{
		slot:       mine,
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

// send answers a scrape with its page and the live part.
func (s *scrape) send(r *http.Request, live []byte) error {
	tail := buffers.Get().(*bytes.Buffer)
	defer buffers.Put(tail)
	tail.Reset()

	header := s.w.Header()
	header.Set("Content-Type", contentType)
	header.Set("Cache-Control", "no-store")
	header.Add("Vary", "Accept-Encoding")
	length := s.page.text + int64(len(live))
	zipped := prefersGzip(r.Header)
	if zipped {
		header.Set("Content-Encoding", "gzip")
		s.page.writeTail(tail, live)
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
		_, _ = out.Write(gzipHeader)
		s.page.writeDeflate(out)
		_, _ = out.Write(tail.Bytes())
	} else {
		s.page.writeText(out)
		_, _ = out.Write(live)
	}
	return out.Flush()
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
		s.slot.progressed()
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
