// SPDX-License-Identifier: Apache-2.0

package exposition

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// Some of these tests use the fake clock of synctest. It advances only while all
// goroutines wait, so their times are exact. The scraper's connection is then a net.Pipe,
// which buffers nothing.

// pipes is a net.Listener whose connections are made by dial.
type pipes chan net.Conn

func (p pipes) Accept() (net.Conn, error) {
	c, ok := <-p
	if !ok {
		return nil, net.ErrClosed
	}
	return c, nil
}
func (p pipes) Close() error   { return nil }
func (p pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipe", Net: "pipe"} }

// A caller is a connection from an address.
type caller struct {
	net.Conn
	address string
}

func (c caller) RemoteAddr() net.Addr { return &net.UnixAddr{Name: c.address, Net: "pipe"} }

// pipeServer serves in the test's bubble. ended receives a value whenever a scrape ends.
func pipeServer(t *testing.T, handler http.Handler) (dial func() net.Conn, ended chan bool) {
	t.Helper()
	dialFrom, ended := pipeServerFrom(t, handler)
	return func() net.Conn { return dialFrom("pipe") }, ended
}

// pipeServerFrom does the same for scrapers of several addresses.
func pipeServerFrom(t *testing.T, handler http.Handler) (dial func(address string) net.Conn, ended chan bool) {
	t.Helper()
	listener := make(pipes)
	ended = make(chan bool, 1000)
	server := &http.Server{Handler: announce(handler, ended)}
	stopped := make(chan bool)
	go func() {
		defer close(stopped)
		if err := server.Serve(listener); !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
	}()
	t.Cleanup(func() {
		close(listener)
		<-stopped
		server.Close()
	})
	return func(address string) net.Conn {
		client, server := net.Pipe()
		t.Cleanup(func() { client.Close() })
		listener <- caller{server, address}
		return client
	}, ended
}

// announce sends a value to ended at the end of each call of the handler.
func announce(handler http.Handler, ended chan<- bool) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() { ended <- true }()
		handler.ServeHTTP(w, r)
	})
}

func ask(t *testing.T, c net.Conn) {
	t.Helper()
	if _, err := fmt.Fprint(c, "GET / HTTP/1.1\r\nHost: exporter\r\nAccept-Encoding: gzip\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
}

func TestAScraperThatReadsNothingIsDisconnected(t *testing.T) {
	page, _ := pageOf(t, 2, 2)
	synctest.Test(t, func(t *testing.T) {
		metrics := prometheus.NewRegistry()
		var log bytes.Buffer
		dial, ended := pipeServer(t, NewHandler(HandlerOptions{Page: always(page), Registerer: metrics, ErrorLog: logTo(&log)}))
		start := time.Now()
		ask(t, dial())
		<-ended
		if took := time.Since(start); took != stallTimeout {
			t.Errorf("disconnected after %v, want %v", took, stallTimeout)
		}
		if got := errorCounts(t, metrics)["sending"]; got != 1 {
			t.Errorf("counted %v errors of sending, want 1", got)
		}
		if !strings.Contains(log.String(), "scraper pipe did not read the response in time: it read nothing for 30 s") {
			t.Errorf("the log does not say what happened: %q", &log)
		}
	})
}

// slowly is a reader that reads at most 8 KiB per pause.
type slowly struct {
	net.Conn
	pause time.Duration
}

func (s slowly) Read(p []byte) (int, error) {
	time.Sleep(s.pause) //nolint:forbidigo // the time of synctest
	return s.Conn.Read(p[:min(len(p), 8<<10)])
}

// readSlowly requests a page, reads the answer, and returns how long that took.
func readSlowly(t *testing.T, c net.Conn, pause time.Duration) (body []byte, took time.Duration, err error) {
	t.Helper()
	start := time.Now()
	ask(t, c)
	response, err := http.ReadResponse(bufio.NewReaderSize(slowly{c, pause}, 8<<10), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err = io.ReadAll(response.Body)
	return body, time.Since(start), err
}

func TestASlowScraperGetsTheWholePage(t *testing.T) {
	page := largePages(1, pageBytes)[0]
	want := text(t, page)
	synctest.Test(t, func(t *testing.T) {
		dial, ended := pipeServer(t, NewHandler(HandlerOptions{Page: always(page)}))
		body, took, err := readSlowly(t, dial(), time.Second)
		if err != nil {
			t.Fatal(err)
		}
		if gunzip(t, body) != want {
			t.Error("the text received is not that of the page")
		}
		if took < 4*stallTimeout || took > scrapeTimeout {
			t.Errorf("the scraper took only %v: it was not slow, so the test proves nothing", took)
		}
		<-ended
	})
}

func TestAScrapeEndsAfterItsTimeout(t *testing.T) {
	page := largePages(1, 2*pageBytes)[0]
	synctest.Test(t, func(t *testing.T) {
		metrics := prometheus.NewRegistry()
		dial, ended := pipeServer(t, NewHandler(HandlerOptions{Page: always(page), Registerer: metrics}))
		const pause = 3 * time.Second // progress, but not enough
		_, took, err := readSlowly(t, dial(), pause)
		if err == nil {
			t.Error("the scraper got everything")
		}
		if took < scrapeTimeout || took > scrapeTimeout+pause {
			t.Errorf("ended after %v, want %v", took, scrapeTimeout)
		}
		<-ended
		if got := errorCounts(t, metrics)["sending"]; got != 1 {
			t.Errorf("counted %v errors of sending, want 1", got)
		}
	})
}

// lateWriter is a ResponseWriter whose write blocks until a deadline in the past is set. Setting that deadline takes a
// second.
type lateWriter struct {
	discard
	deadline chan struct{} // closed when setting the deadline begins
	set      bool          // setting the deadline has ended
}

func (l *lateWriter) Write([]byte) (int, error) {
	<-l.deadline
	return 0, os.ErrDeadlineExceeded
}

func (l *lateWriter) SetWriteDeadline(at time.Time) error {
	if at.After(time.Now()) {
		return nil
	}
	close(l.deadline)
	time.Sleep(time.Second) //nolint:forbidigo // the time of synctest
	l.set = true
	return nil
}

// The server may reuse a ResponseWriter for the next request once the handler has returned, so it must not be used
// afterwards.
func TestTheResponseWriterIsNotUsedAfterTheHandlerReturned(t *testing.T) {
	page, _ := pageOf(t, 2, 2)
	synctest.Test(t, func(t *testing.T) {
		ctx, leave := context.WithCancel(t.Context())
		time.AfterFunc(time.Minute/4, leave)
		w := &lateWriter{discard: discard{header: http.Header{}}, deadline: make(chan struct{})}
		NewHandler(HandlerOptions{Page: always(page)}).ServeHTTP(w, httptest.NewRequestWithContext(ctx, "GET", "/", nil))
		if !w.set {
			t.Error("the handler returned while the write deadline was being set")
		}
		synctest.Wait()
		time.Sleep(time.Minute) //nolint:forbidigo // the time of synctest
	})
}

func TestErrorsAreLoggedAgainAfterAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		live := gatherFunc(func() ([]*dto.MetricFamily, error) { return nil, fmt.Errorf("it is %v", time.Now()) })
		handler := NewHandler(HandlerOptions{Page: always(nil), Live: live, ErrorLog: logTo(&log)})
		const interval = 15 * time.Second
		for range 3 * logInterval / interval {
			handler.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil))
			time.Sleep(interval) //nolint:forbidigo // the time of synctest
		}
		if got := strings.Count(log.String(), "\n"); got != 3 {
			t.Errorf("an error at every scrape: %d lines in %v, want 3", got, 3*logInterval)
		}
	})
}

// The following tests use TCP and the real clock. They do not depend on how long anything takes.

// stuckServer serves over connections with small buffers. It returns a function
// that starts a scrape and reads only the first line of the answer.
func stuckServer(t *testing.T, handler http.Handler) (scrape func() net.Conn, ended chan bool) {
	t.Helper()
	ended = make(chan bool, 10)
	server := httptest.NewUnstartedServer(announce(handler, ended))
	server.Config.ConnState = func(c net.Conn, state http.ConnState) {
		if state == http.StateNew {
			c.(*net.TCPConn).SetWriteBuffer(4 << 10)
		}
	}
	server.Start()
	t.Cleanup(server.Close)
	return func() net.Conn {
		c, err := net.Dial("tcp", server.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		c.(*net.TCPConn).SetReadBuffer(4 << 10)
		ask(t, c)
		line := make([]byte, len("HTTP/1.1 200 OK\r\n"))
		if _, err := io.ReadFull(c, line); err != nil || string(line) != "HTTP/1.1 200 OK\r\n" {
			t.Fatalf("got %q, %v", line, err)
		}
		return c
	}, ended
}

// largePages returns pages whose text cannot be compressed.
func largePages(n, size int) (pages []*Page) {
	random := rand.NewChaCha8([32]byte{})
	text := make([]byte, size)
	for range n {
		random.Read(text)
		b := NewBuilder(bare(1), nil)
		b.Append(0, text)
		pages = append(pages, b.Page())
	}
	return pages
}

// pageBytes is more than the buffers of a connection to stuckServer hold.
const pageBytes = 1 << 20

func TestAScraperThatDisconnectsIsNotCounted(t *testing.T) {
	metrics := prometheus.NewRegistry()
	scrape, ended := stuckServer(t, NewHandler(HandlerOptions{Page: always(largePages(1, pageBytes)[0]), Registerer: metrics}))
	scrape().Close()
	<-ended
	if got := errorCounts(t, metrics)["sending"]; got != 0 {
		t.Errorf("counted %v errors of sending, want none: it is not slow", got)
	}
}

func TestStuckScrapersHoldFewPages(t *testing.T) {
	const more = 4
	pages := largePages(maxPages+more, pageBytes)
	var current atomic.Pointer[Page]
	metrics := prometheus.NewRegistry()
	h := newHandler(HandlerOptions{Page: current.Load})
	metrics.MustRegister(h.errors)
	scrape, ended := stuckServer(t, h)

	held := func() map[*Page]int {
		h.sender.mutex.Lock()
		defer h.sender.mutex.Unlock()
		held := map[*Page]int{}
		for _, s := range h.sender.inFlight {
			held[s.page]++
		}
		return held
	}
	for i, page := range pages {
		current.Store(page)
		scrape()
		scrape() // two scrapers of each page
		if i >= maxPages {
			<-ended // the scrapes of the oldest page
			<-ended
		}
		got := held()
		if len(got) != min(i+1, maxPages) {
			t.Fatalf("scrapes of %d pages are in flight after page %d", len(got), i)
		}
		for _, newer := range pages[max(0, i-maxPages+1) : i+1] {
			if got[newer] != 2 {
				t.Errorf("after page %d: %d scrapes of a page that may be held, want 2", i, got[newer])
			}
		}
	}
	if got := errorCounts(t, metrics)["sending"]; got != 2*more {
		t.Errorf("counted %v errors of sending, want %d", got, 2*more)
	}
}

// HTTP/2 has many scrapes on one connection and sets deadlines in its own way.
func TestStuckScrapersOverHTTP2(t *testing.T) {
	const windowBytes = 4 << 20 // what Go's client accepts of an answer that is not read
	pages := largePages(maxPages+1, windowBytes+pageBytes)
	var current atomic.Pointer[Page]
	metrics := prometheus.NewRegistry()
	ended := make(chan bool, len(pages))
	server := httptest.NewUnstartedServer(announce(NewHandler(HandlerOptions{Page: current.Load, Registerer: metrics}), ended))
	server.EnableHTTP2 = true
	server.StartTLS()
	defer server.Close()
	var bodies []io.ReadCloser
	for _, page := range pages {
		current.Store(page)
		response, err := server.Client().Get(server.URL)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { response.Body.Close() })
		if response.ProtoMajor != 2 {
			t.Fatalf("got an answer by %s", response.Proto)
		}
		bodies = append(bodies, response.Body)
	}
	<-ended
	if got := errorCounts(t, metrics)["sending"]; got != 1 {
		t.Errorf("counted %v errors of sending, want 1", got)
	}
	for i, body := range bodies {
		n, err := io.Copy(io.Discard, body)
		if i == 0 && (err == nil || n >= pages[i].TextBytes()) {
			t.Errorf("the oldest page: %d bytes, %v, want fewer and an error", n, err)
		}
		if i > 0 && (err != nil || n != pages[i].TextBytes()) {
			t.Errorf("page %d: %d bytes, %v, want %d", i, n, err, pages[i].TextBytes())
		}
	}
}

// A ResponseWriter without deadlines is served too, such as that of a middleware
// that does not unwrap.
func TestWithoutDeadlinesScrapesWorkToo(t *testing.T) {
	page, want := pageOf(t, 2, 2)
	recorder := httptest.NewRecorder() // has no deadlines
	NewHandler(HandlerOptions{Page: always(page)}).ServeHTTP(recorder, httptest.NewRequest("GET", "/", nil))
	if recorder.Body.String() != want {
		t.Error("the text received is not that of the page")
	}
}

// discard is a ResponseWriter that keeps nothing.
type discard struct {
	header http.Header
	bytes  int64
}

func (d *discard) Header() http.Header { return d.header }
func (d *discard) WriteHeader(int)     {}
func (d *discard) Write(p []byte) (int, error) {
	d.bytes += int64(len(p))
	return len(p), nil
}

// leaving is a ResponseWriter of a client that disconnects after the first write.
type leaving struct {
	discard
	leave context.CancelFunc
}

func (l *leaving) Write(p []byte) (int, error) {
	l.leave()
	return l.discard.Write(p)
}

func TestNothingIsWrittenForAScraperThatDisconnected(t *testing.T) {
	handler := NewHandler(HandlerOptions{Page: always(largePages(1, 10*writeBytes)[0])})
	for _, acceptEncoding := range []string{"gzip", "identity"} {
		ctx, leave := context.WithCancel(t.Context())
		request := httptest.NewRequestWithContext(ctx, "GET", "/", nil)
		request.Header.Set("Accept-Encoding", acceptEncoding)
		w := &leaving{discard{header: http.Header{}}, leave}
		handler.ServeHTTP(w, request)
		if w.bytes == 0 || w.bytes > writeBytes {
			t.Errorf("%s: %d bytes were written, want one write", acceptEncoding, w.bytes)
		}
	}
}

// A scrape allocates only what the live part and its buffers need, whatever the size of the page.
func TestScrapesAllocateLittle(t *testing.T) {
	const limit = 512 << 10
	handler := NewHandler(HandlerOptions{Page: always(largePages(1, 32*limit)[0]), Live: fixed(t)})
	for _, acceptEncoding := range []string{"gzip", "identity"} {
		request := httptest.NewRequest("GET", "/", nil)
		request.Header.Set("Accept-Encoding", acceptEncoding)
		var before, after runtime.MemStats
		const scrapes = 10
		var sent int64
		runtime.ReadMemStats(&before)
		for range scrapes {
			w := &discard{header: http.Header{}}
			handler.ServeHTTP(w, request)
			sent += w.bytes
		}
		runtime.ReadMemStats(&after)
		if sent < scrapes*32*limit {
			t.Errorf("%s: only %d bytes sent", acceptEncoding, sent)
		}
		if got := (after.TotalAlloc - before.TotalAlloc) / scrapes; got > limit {
			t.Errorf("%s: %d bytes allocated per scrape, want at most %d", acceptEncoding, got, limit)
		}
	}
}
