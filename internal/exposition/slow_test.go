package exposition

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// Time is that of synctest in some of these tests: it stands still while anything
// can happen, and so their times are exact. The scraper's connection is a net.Pipe
// then, in which nothing is buffered.

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

// pipeServer serves in the test's bubble. ended gets a value whenever a scrape ends.
func pipeServer(t *testing.T, handler http.Handler) (dial func() net.Conn, ended chan bool) {
	t.Helper()
	listener := make(pipes)
	ended = make(chan bool, 10)
	server := &http.Server{Handler: announce(handler, ended)}
	stopped := make(chan bool)
	go func() {
		defer close(stopped)
		if err := server.Serve(listener); err != http.ErrServerClosed && err != net.ErrClosed {
			t.Error(err)
		}
	}()
	t.Cleanup(func() {
		close(listener)
		<-stopped
		server.Close()
	})
	return func() net.Conn {
		client, server := net.Pipe()
		t.Cleanup(func() { client.Close() })
		listener <- server
		return client
	}, ended
}

// announce makes the end of each call of a handler known.
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

func TestAScraperThatTakesNothingIsLetGo(t *testing.T) {
	page, _ := pageOf(t, 2, 2)
	synctest.Test(t, func(t *testing.T) {
		metrics := prometheus.NewRegistry()
		var log bytes.Buffer
		dial, ended := pipeServer(t, NewHandler(HandlerOptions{Page: always(page), Registerer: metrics, ErrorLog: logTo(&log)}))
		start := time.Now()
		ask(t, dial())
		<-ended
		if took := time.Since(start); took != stallTimeout {
			t.Errorf("let go after %v, want %v", took, stallTimeout)
		}
		if got := errorCounts(t, metrics)["sending"]; got != 1 {
			t.Errorf("counted %v errors of sending, want 1", got)
		}
		if !strings.Contains(log.String(), "scraper pipe did not take its answer in time") {
			t.Errorf("the log does not tell what happened: %q", &log)
		}
	})
}

func TestASlowScraperGetsTheWholePage(t *testing.T) {
	page, want := pageOf(t, 2, 6)
	synctest.Test(t, func(t *testing.T) {
		dial, ended := pipeServer(t, NewHandler(HandlerOptions{Page: always(page)}))
		c := dial()
		start := time.Now()
		ask(t, c)
		var answer bytes.Buffer
		const piece = 4 << 10
		for len(ended) == 0 {
			if _, err := io.CopyN(&answer, c, piece); err != nil {
				t.Fatal(err)
			}
			time.Sleep(3 * time.Second)
			synctest.Wait()
			if int64(answer.Len()) > page.CompressedBytes()-piece {
				break // less than a piece is left
			}
		}
		if took := time.Since(start); took < 2*stallTimeout {
			t.Fatalf("the scraper took only %v: the test tests nothing", took)
		}
		go func() { // the rest, whatever its length
			<-ended
			c.SetReadDeadline(time.Now().Add(time.Second))
		}()
		io.Copy(&answer, c)
		_, body, found := bytes.Cut(answer.Bytes(), []byte("\r\n\r\n"))
		if !found {
			t.Fatal("no header was received")
		}
		if got := gunzip(t, body); got != want {
			t.Error("the text received is not that of the page")
		}
	})
}

func TestAScrapeEndsSomeTime(t *testing.T) {
	page, _ := pageOf(t, 10, 10)
	synctest.Test(t, func(t *testing.T) {
		metrics := prometheus.NewRegistry()
		dial, ended := pipeServer(t, NewHandler(HandlerOptions{Page: always(page), Registerer: metrics}))
		c := dial()
		start := time.Now()
		ask(t, c)
		for len(ended) == 0 { // always some progress, but never done
			if _, err := io.CopyN(io.Discard, c, 8<<10); err != nil && len(ended) == 0 {
				t.Fatal(err)
			}
			time.Sleep(10 * time.Second)
			synctest.Wait()
		}
		if took := time.Since(start); took < scrapeTimeout || took > scrapeTimeout+10*time.Second {
			t.Errorf("ended after %v, want %v", took, scrapeTimeout)
		}
		if got := errorCounts(t, metrics)["sending"]; got != 1 {
			t.Errorf("counted %v errors of sending, want 1", got)
		}
	})
}

func TestErrorsAreLoggedAgainAfterAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		handler := NewHandler(HandlerOptions{Page: always(nil), ErrorLog: logTo(&log),
			Live: gatherFunc(func() ([]*dto.MetricFamily, error) { return nil, fmt.Errorf("it is %v", time.Now()) })})
		const interval = 15 * time.Second
		for range 3 * logInterval / interval {
			handler.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil))
			time.Sleep(interval)
		}
		if got := strings.Count(log.String(), "\n"); got != 3 {
			t.Errorf("an error at every scrape: %d lines in %v, want 3", got, 3*logInterval)
		}
	})
}

// The following are over TCP, with the real time, of which they need none.

// stuckServer serves over connections with small buffers, and returns a function
// that starts a scrape and reads the first line of the answer only.
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

// largePages returns pages too large for the buffers of a connection.
func largePages(t *testing.T, n int) (pages []*Page) {
	for i := range n {
		b := NewBuilder(1, nil)
		b.Append(0, lines(uint64(i), 1<<20))
		page := b.Page()
		if page.CompressedBytes() < 256<<10 {
			t.Fatalf("a page of %d bytes may be buffered as a whole", page.CompressedBytes())
		}
		pages = append(pages, page)
	}
	return pages
}

func TestAScraperThatGoesAwayIsForgotten(t *testing.T) {
	metrics := prometheus.NewRegistry()
	scrape, ended := stuckServer(t, NewHandler(HandlerOptions{Page: always(largePages(t, 1)[0]), Registerer: metrics}))
	scrape().Close()
	<-ended
	if got := errorCounts(t, metrics)["sending"]; got != 0 {
		t.Errorf("counted %v errors of sending, want none: it is not slow", got)
	}
}

func TestStuckScrapersHoldFewPages(t *testing.T) {
	const more = 4
	pages := largePages(t, maxPages+more)
	var current atomic.Pointer[Page]
	metrics := prometheus.NewRegistry()
	h := newHandler(HandlerOptions{Page: current.Load})
	metrics.MustRegister(h.errors)
	scrape, ended := stuckServer(t, h)

	held := func() map[*Page]int {
		h.mutex.Lock()
		defer h.mutex.Unlock()
		held := map[*Page]int{}
		for _, s := range h.inFlight {
			held[s.page]++
		}
		return held
	}
	for i, page := range pages {
		current.Store(page)
		scrape()
		scrape() // two scrapers of each page
		if i >= maxPages {
			<-ended // those of the oldest page
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

// A ResponseWriter of which deadlines cannot be set, such as one of a middleware
// that does not unwrap, is served nevertheless.
func TestWithoutDeadlinesScrapesWorkToo(t *testing.T) {
	page, want := pageOf(t, 2, 2)
	recorder := httptest.NewRecorder() // has none
	NewHandler(HandlerOptions{Page: always(page)}).ServeHTTP(recorder, httptest.NewRequest("GET", "/", nil))
	if recorder.Body.String() != want {
		t.Error("the text received is not that of the page")
	}
}
