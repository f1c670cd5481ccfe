package main

import (
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// hanging is an API that takes requests, says so, and never answers. It says as well when a request was given up.
type hanging struct{ asked, gone chan bool }

func newHanging() hanging { return hanging{make(chan bool, 100), make(chan bool, 100)} }

func (h hanging) ServeHTTP(_ http.ResponseWriter, r *http.Request) {
	h.asked <- true
	<-r.Context().Done()
	h.gone <- true
}

// stops has an exporter end after stop, which tells it to, and reads what it has begun to send. It waits for nothing else:
// the tests give scrapers and the API longer than the patience of this function.
func (e *exporter) stops(stop func()) {
	e.t.Helper()
	stop()
	select {
	case <-e.ended:
	case <-time.After(patience):
		e.kill()
		e.t.Fatal("the exporter does not end")
	}
	if e.err != nil {
		e.t.Errorf("the exporter ended with %v, want exit status 0", e.err)
	}
	e.tells(1, "msg=stopping")
	e.tells(1, "msg=stopped")
	e.tells(0, "level=error")
}

func TestSignalsStopARefresh(t *testing.T) {
	t.Parallel()
	for _, signal := range []os.Signal{syscall.SIGTERM, syscall.SIGINT} {
		t.Run(signal.String(), func(t *testing.T) {
			t.Parallel()
			api := newHanging()
			url, _ := serveHandler(t, api)
			var process *exec.Cmd
			e := startCommand(t, func(c *exec.Cmd) { process = c }, defaults(t, url, nil))
			<-api.asked
			e.stops(func() { e.signal(process, signal) })
			<-api.gone
		})
	}
}

// A scrape that is being sent is sent to its end, while nobody new is let in.
func TestSignalsLetScrapesFinish(t *testing.T) {
	t.Parallel()
	for _, signal := range []os.Signal{syscall.SIGTERM, syscall.SIGINT} {
		t.Run(signal.String(), func(t *testing.T) {
			t.Parallel()
			var process *exec.Cmd
			e := startCommand(t, func(c *exec.Cmd) { process = c }, defaults(t, serveLarge(t).url, nil))
			e.sample("balena_up", func(v float64) bool { return v == 1 })
			e.client.CloseIdleConnections()
			stuck := e.stick()
			e.stops(func() {
				e.signal(process, signal)
				eventually(t, "nobody new is let in", func() bool {
					connection, err := net.Dial("tcp", e.addresses[0])
					if err == nil {
						_ = connection.Close()
					}
					return err != nil
				})
				select {
				case <-e.ended:
					t.Error("the exporter ended in the middle of a scrape")
				default:
				}
				stuck.finish()
			})
		})
	}
}

// In the same process, so that goroutines can be counted. Not parallel, so that they are this test's.
func TestNoGoroutineIsLeft(t *testing.T) {
	ignored := goleak.IgnoreCurrent()
	t.Run("after a refresh", func(t *testing.T) {
		e := start(t, serveAPI(t, small()).url)
		e.up(1)
		e.stops(e.stop)
	})
	t.Run("in a refresh", func(t *testing.T) {
		api := newHanging()
		url, _ := serveHandler(t, api)
		e := start(t, url)
		<-api.asked
		e.stops(e.stop)
		<-api.gone
	})
	t.Run("in a scrape", func(t *testing.T) {
		e := start(t, serveLarge(t).url)
		e.sample("balena_up", func(v float64) bool { return v == 1 })
		e.client.CloseIdleConnections()
		stuck := e.stick()
		e.stops(func() {
			e.stop()
			eventually(t, "it stops", func() bool { return strings.Contains(e.stderr.String(), "msg=stopping") })
			stuck.finish()
		})
	})
	goleak.VerifyNone(t, ignored)
}
