// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/exporter-toolkit/web"
	"go.uber.org/goleak"
)

// hanging is an API that never responds. It reports when a request begins and when it is canceled.
type hanging struct{ began, canceled chan bool }

func newHanging() hanging { return hanging{make(chan bool, 100), make(chan bool, 100)} }

func (h hanging) ServeHTTP(_ http.ResponseWriter, r *http.Request) {
	h.began <- true
	<-r.Context().Done()
	h.canceled <- true
}

// checkStop calls stop and checks that the exporter ends without an error. It must not wait for the API, which never responds
// in these tests.
func (e *exporter) checkStop(stop func()) {
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
	e.checkLog(1, "msg=stopping")
	e.checkLog(1, "msg=stopped")
	e.checkLog(0, "level=error")
}

func TestSignalsCancelARefresh(t *testing.T) {
	t.Parallel()
	for _, signal := range []os.Signal{syscall.SIGTERM, syscall.SIGINT} {
		t.Run(signal.String(), func(t *testing.T) {
			t.Parallel()
			api := newHanging()
			url, _ := serveHandler(t, api)
			var process *exec.Cmd
			e := startCommand(t, func(c *exec.Cmd) { process = c }, defaults(t, url, nil))
			<-api.began
			e.checkStop(func() { e.signal(process, signal) })
			<-api.canceled
		})
	}
}

// TestScrapesAreCompletedAfterASignal checks that a scrape in progress is completed, and that new connections are refused.
func TestScrapesAreCompletedAfterASignal(t *testing.T) {
	t.Parallel()
	for _, signal := range []os.Signal{syscall.SIGTERM, syscall.SIGINT} {
		t.Run(signal.String(), func(t *testing.T) {
			t.Parallel()
			var process *exec.Cmd
			e := startCommand(t, func(c *exec.Cmd) { process = c }, defaults(t, serveLarge(t).url, nil))
			e.waitForSample("balena_up", func(v float64) bool { return v == 1 })
			e.client.CloseIdleConnections()
			stuck := e.startStuckScrape()
			e.checkStop(func() {
				e.signal(process, signal)
				eventually(t, "new connections are refused", func() bool {
					connection, err := net.Dial("tcp", e.addresses[0])
					if err == nil {
						_ = connection.Close()
					}
					return err != nil
				})
				select {
				case <-e.ended:
					t.Error("the exporter ended during a scrape")
				default:
				}
				stuck.finish()
			})
		})
	}
}

// TestGoroutinesEnd runs the exporter in this process to find leaked goroutines. It is not parallel, because the goroutines of
// other tests would be found, too.
func TestGoroutinesEnd(t *testing.T) {
	ignored := goleak.IgnoreCurrent()
	t.Run("after a refresh", func(t *testing.T) {
		e := start(t, serveAPI(t, smallAccount()).url)
		e.waitForUp(1)
		e.checkStop(e.stop)
	})
	t.Run("during a refresh", func(t *testing.T) {
		api := newHanging()
		url, _ := serveHandler(t, api)
		e := start(t, url)
		<-api.began
		e.checkStop(e.stop)
		<-api.canceled
	})
	t.Run("during a scrape", func(t *testing.T) {
		e := start(t, serveLarge(t).url)
		e.waitForSample("balena_up", func(v float64) bool { return v == 1 })
		e.client.CloseIdleConnections()
		stuck := e.startStuckScrape()
		e.checkStop(func() {
			e.stop()
			eventually(t, "the exporter stops", func() bool { return strings.Contains(e.stderr.String(), "msg=stopping") })
			stuck.finish()
		})
	})
	goleak.VerifyNone(t, ignored)
}

// TestStopDuringAHangingRefresh checks that serve returns within the grace period. It is not parallel, because it changes the
// grace period of all tests.
func TestStopDuringAHangingRefresh(t *testing.T) {
	defer func(was time.Duration) { grace = was }(grace)
	grace = 4 * time.Second
	var out transcript
	logger, slogger := newLoggers(&out, "info", "logfmt")
	none, unused := "", false
	c := &config{web: &web.FlagConfig{WebListenAddresses: &[]string{"127.0.0.1:0"}, WebSystemdSocket: &unused, WebConfigFile: &none}}
	release, released := make(chan struct{}), make(chan struct{})
	hang := func(context.Context) {
		defer close(released)
		<-release
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- serve(ctx, c, http.NotFoundHandler(), hang, logger, slogger) }()
	eventually(t, "the server listens", func() bool { return len(out.lines("Listening on")) > 0 })
	stop()
	select {
	case err := <-ended:
		if err != nil {
			t.Errorf("serve returned %v", err)
		}
	case <-time.After(patience):
		t.Error("serve does not return")
	}
	if len(out.lines("level=warn", "stopping while a refresh hangs", "timeout=5s")) != 1 {
		t.Errorf("the log does not report the refresh that hangs: %s", &out)
	}
	close(release)
	<-released
}

// startHanging starts a process that hangs at its start while it reads a named pipe. release closes the pipe.
func startHanging(t *testing.T) (process *exec.Cmd, stderr *transcript, release func()) {
	t.Helper()
	pipe := filepath.Join(t.TempDir(), "ca.pem")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	stderr = &transcript{}
	args := append(defaults(t, "http://127.0.0.1:1", nil), "--balena.ca-file="+pipe)
	process = command(t, args...)
	process.Env = append(process.Env, graceVariable+"=real")
	process.Stderr = stderr
	if err := process.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = process.Process.Kill() })
	var writer *os.File
	eventually(t, "the process opens the file", func() (opened bool) {
		var err error
		writer, err = os.OpenFile(pipe, os.O_WRONLY|syscall.O_NONBLOCK, 0) // fails without a reader
		return err == nil
	})
	return process, stderr, func() { _ = writer.Close() }
}

// status waits for a process and returns its exit status.
func status(t *testing.T, process *exec.Cmd) int {
	t.Helper()
	ended := make(chan error, 1)
	go func() { ended <- process.Wait() }()
	select {
	case err := <-ended:
		if exit, ok := errors.AsType[*exec.ExitError](err); err != nil && !ok {
			t.Fatal(err)
		} else if ok {
			return exit.ExitCode()
		}
		return 0
	case <-time.After(patience):
		_ = process.Process.Kill()
		<-ended
		t.Fatal("the process does not end")
		return 0
	}
}

// TestOneSignalEndsAHangingProcess checks that a process ends after the grace period if it hangs in an operation without a
// context.
func TestOneSignalEndsAHangingProcess(t *testing.T) {
	t.Parallel()
	process, stderr, release := startHanging(t)
	defer release()
	if err := process.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if got := status(t, process); got != 1 {
		t.Errorf("exit status %d, want 1", got)
	}
	if want := "balena-exporter: error: did not stop within 5s\n"; stderr.String() != want {
		t.Errorf("stderr is %q, want %q", stderr, want)
	}
}

func TestTwoSignalsEndAProcessImmediately(t *testing.T) {
	t.Parallel()
	for signal, want := range map[syscall.Signal]int{syscall.SIGTERM: 143, syscall.SIGINT: 130} {
		t.Run(signal.String(), func(t *testing.T) {
			t.Parallel()
			process, stderr, release := startHanging(t)
			defer release()
			// A pending signal is not sent again. The exit status shows which signal was the second.
			ended := make(chan struct{})
			go func() {
				again := time.NewTicker(10 * time.Millisecond)
				defer again.Stop()
				for {
					_ = process.Process.Signal(signal)
					select {
					case <-ended:
						return
					case <-again.C:
					}
				}
			}()
			if got := status(t, process); got != want {
				t.Errorf("exit status %d, want %d", got, want)
			}
			close(ended)
			if stderr.String() != "" {
				t.Errorf("stderr is %q, want nothing", stderr)
			}
		})
	}
}

// startWithStderr starts a process that logs to a file, and waits for the first successful refresh.
func startWithStderr(t *testing.T, url string, stderr *os.File, args ...string) (process *exec.Cmd, metrics func() string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := listener.Addr().String()
	_ = listener.Close()
	process = command(t, append(defaults(t, url, args), append(args, "--web.listen-address="+address)...)...)
	process.Stderr = stderr
	if err := process.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = process.Process.Kill() })
	client := newClient(t)
	metrics = func() string {
		a, err := get(client, "http://"+address+"/metrics", nil)
		if err != nil {
			return err.Error()
		}
		return a.body
	}
	eventually(t, "balena_up is 1", func() bool { return strings.Contains(metrics(), "\nbalena_up 1\n") })
	return process, metrics
}

// fullPipe returns the write end of a full pipe.
func fullPipe(t *testing.T) *os.File {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = w.Close()
		_ = r.Close()
	})
	connection, err := w.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	for full := false; !full; {
		if err := connection.Write(func(fd uintptr) bool {
			_, err := syscall.Write(int(fd), make([]byte, 4096))
			full = errors.Is(err, syscall.EAGAIN)
			return true
		}); err != nil {
			t.Fatal(err)
		}
	}
	return w
}

// TestBlockedLog checks that the exporter starts, serves and stops while its log is not read.
func TestBlockedLog(t *testing.T) {
	t.Parallel()
	process, metrics := startWithStderr(t, serveAPI(t, smallAccount()).url, fullPipe(t), "--log.level=debug", "--balena.refresh-interval=1")
	eventually(t, "refreshes go on", func() bool {
		n, _ := valueIn(metrics(), `balena_exporter_refreshes_total{result="success"}`)
		return n >= 3
	})
	if err := process.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if got := status(t, process); got != 0 {
		t.Errorf("exit status %d, want 0", got)
	}
}

// TestClosedLog checks that the exporter continues if the reader of its log or the terminal is closed.
func TestClosedLog(t *testing.T) {
	t.Parallel()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	read := make(chan struct{})
	go func() {
		defer close(read)
		_, _ = io.ReadFull(r, make([]byte, 100)) // the exporter has begun to log
		_ = r.Close()
	}()
	process, metrics := startWithStderr(t, serveAPI(t, smallAccount()).url, w, "--log.level=debug", "--balena.refresh-interval=1")
	_ = w.Close()
	<-read
	if err := process.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	before, _ := valueIn(metrics(), `balena_exporter_refreshes_total{result="success"}`)
	eventually(t, "refreshes go on", func() bool {
		n, _ := valueIn(metrics(), `balena_exporter_refreshes_total{result="success"}`)
		return n >= before+3
	})
	if err := process.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if got := status(t, process); got != 0 {
		t.Errorf("exit status %d, want 0", got)
	}
}

// TestTokenFileBecomesAPipe checks that only refreshes fail if the token file is replaced by a pipe.
func TestTokenFileBecomesAPipe(t *testing.T) {
	t.Parallel()
	file := write(t, t.TempDir(), "token", token)
	e := start(t, serveAPI(t, smallAccount()).url, "--balena.token-file="+file, "--balena.refresh-interval=1")
	e.waitForUp(1)
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(file, 0o600); err != nil {
		t.Fatal(err)
	}
	e.waitForUp(0)
	e.checkLog(1, "level=error", file+" is not a regular file")
	e.stop()
	select {
	case <-e.ended:
	case <-time.After(patience):
		t.Error("the exporter does not end")
	}
}
