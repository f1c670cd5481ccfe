// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"go.uber.org/goleak"

	"github.com/balena-exporter/balena-exporter/internal/simulator"
)

// TestMain checks for leaked goroutines. It also runs the test binary as the exporter, for tests that need a process, such as
// those of signals and exit statuses.
func TestMain(m *testing.M) {
	if os.Getenv(graceVariable) == "" {
		grace = 24 * time.Hour // a scrape may be slow on a busy machine
	}
	if os.Getenv(mainVariable) != "" {
		main()
		os.Exit(0)
	}
	// The environment must not configure the exporters of the tests.
	for _, pair := range os.Environ() {
		if key, _, _ := strings.Cut(pair, "="); strings.HasPrefix(key, "BALENA_") || key == "CRAWL_INTERVAL" {
			_ = os.Unsetenv(key)
		}
	}
	// Most of these tests wait for a refresh or a process. The command line takes precedence.
	if err := flag.Set("test.parallel", "8"); err != nil {
		panic(err)
	}
	goleak.VerifyTestMain(m)
}

const (
	mainVariable = "EXPORTER_TEST_MAIN"
	// graceVariable makes the exporter use the real grace period.
	graceVariable = "EXPORTER_TEST_GRACE"
)

const (
	// secret is part of all tokens and passwords of the tests. No output of the exporter may contain it.
	secret = "s3cret"
	token  = secret + "-token"

	// patience is the timeout of the tests for events that take at most two seconds on an idle machine.
	patience = 8 * time.Minute
)

// eventually waits for a condition.
func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	again := time.NewTicker(10 * time.Millisecond)
	defer again.Stop()
	for end := time.After(patience); !condition(); {
		select {
		case <-again.C:
		case <-end:
			t.Fatalf("not within %s: %s", patience, what)
		}
	}
}

// A transcript collects the output of a program. It can be read while the program runs.
type transcript struct {
	mutex sync.Mutex
	text  bytes.Buffer
}

func (w *transcript) Write(p []byte) (int, error) {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	return w.text.Write(p)
}

func (w *transcript) String() string {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	return w.text.String()
}

// lines returns the lines that contain all words.
func (w *transcript) lines(words ...string) []string {
	var found []string
next:
	for line := range strings.Lines(w.String()) {
		for _, word := range words {
			if !strings.Contains(line, word) {
				continue next
			}
		}
		found = append(found, line)
	}
	return found
}

// A simulatedAPI is a simulated balena API that records requests and can be made unreachable.
type simulatedAPI struct {
	*simulator.Simulator
	url   string
	close func()
	down  atomic.Bool

	mutex    sync.Mutex
	received []request
}

// A request is a request to the API.
type request struct {
	at        time.Time
	resource  string
	firstPage bool
}

// serveAPI serves a simulated API that accepts the token.
func serveAPI(t *testing.T, config simulator.Config) *simulatedAPI {
	t.Helper()
	config.Tokens = []string{token}
	sim, err := simulator.New(config)
	if err != nil {
		t.Fatal(err)
	}
	a := &simulatedAPI{Simulator: sim}
	a.url, a.close = serveHandler(t, a)
	return a
}

// serveRecorded serves a simulated API with the recorded account.
func serveRecorded(t *testing.T, versions ...string) *simulatedAPI {
	t.Helper()
	return serveAPI(t, simulator.Config{Dataset: recorded(t), Versions: versions})
}

const recordedPath = "../../internal/simulator/testdata/dataset"

var loadRecorded = sync.OnceValues(func() (*simulator.Dataset, error) {
	return simulator.LoadDataset(os.DirFS(recordedPath))
})

func recorded(t *testing.T) *simulator.Dataset {
	t.Helper()
	dataset, err := loadRecorded()
	if err != nil {
		t.Fatal(err)
	}
	return dataset
}

func (a *simulatedAPI) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.mutex.Lock()
	a.received = append(a.received, request{time.Now(), path.Base(r.URL.Path), strings.Contains(r.URL.RawQuery, "id%20gt%200&")})
	a.mutex.Unlock()
	if a.down.Load() {
		panic(http.ErrAbortHandler) // closes the connection
	}
	a.Simulator.ServeHTTP(w, r)
}

// requests returns the requests to the API so far.
func (a *simulatedAPI) requests() []request {
	a.mutex.Lock()
	defer a.mutex.Unlock()
	return slices.Clone(a.received)
}

// serveHandler serves a handler until the end of the test.
func serveHandler(t *testing.T, handler http.Handler) (url string, stop func()) {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	return server.URL, server.Close
}

// An exporter is a running exporter.
type exporter struct {
	t              *testing.T
	stdout, stderr *transcript
	addresses      []string // of the metrics port
	health         string
	client         *http.Client

	stop  func()        // stops it gracefully
	ended chan struct{} // closed at its end
	err   error         // its result
	kill  func()        // ends it immediately
}

// start runs an exporter in this process until the end of the test, and waits until it listens. It adds a token file unless
// the arguments contain one.
func start(t *testing.T, url string, args ...string) *exporter {
	t.Helper()
	e := launch(t, url, args...)
	e.waitForListeners(args)
	return e
}

// launch is like start, but does not wait until the exporter listens.
func launch(t *testing.T, url string, args ...string) *exporter {
	t.Helper()
	e := newExporter(t)
	ctx, cancel := context.WithCancel(t.Context())
	e.stop, e.kill = cancel, cancel
	args = append(defaults(t, url, args), args...)
	go func() {
		defer close(e.ended)
		e.err = run(ctx, args, e.stdout, e.stderr)
	}()
	return e
}

// startCommand is like start, but runs the exporter as a process. prepare may change the command.
func startCommand(t *testing.T, prepare func(*exec.Cmd), args []string) *exporter {
	t.Helper()
	e := newExporter(t)
	command := command(t, args...)
	command.Stdout, command.Stderr = e.stdout, e.stderr
	if prepare != nil {
		prepare(command)
	}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	e.stop = func() { e.signal(command, syscall.SIGTERM) }
	e.kill = func() { _ = command.Process.Kill() }
	go func() {
		defer close(e.ended)
		e.err = command.Wait()
	}()
	e.waitForListeners(args)
	return e
}

// command returns the command that runs the exporter with the arguments.
func command(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	executable, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	command := exec.Command(executable, args...)
	command.Env = append(os.Environ(), mainVariable+"=1")
	return command
}

func (e *exporter) signal(command *exec.Cmd, signal os.Signal) {
	if err := command.Process.Signal(signal); err != nil {
		e.t.Errorf("cannot send %s: %v", signal, err)
	}
}

// defaults returns the arguments of the tests that are not in args.
func defaults(t *testing.T, url string, args []string) []string {
	t.Helper()
	args = append(args, "")
	given := func(flag string) bool {
		for _, arg := range args {
			if strings.HasPrefix(arg, flag+"=") {
				return true
			}
		}
		return false
	}
	defaults := []string{"--balena.api-url=" + url}
	if !given("--balena.token-file") {
		defaults = append(defaults, "--balena.token-file="+write(t, t.TempDir(), "token", token+"\n"))
	}
	// Requests must not time out and data must not become stale on a busy machine.
	for _, flag := range []string{"--balena.timeout", "--balena.max-staleness"} {
		if !given(flag) {
			defaults = append(defaults, flag+"=24h")
		}
	}
	if !given("--web.listen-address") {
		defaults = append(defaults, "--web.listen-address=127.0.0.1:0")
	}
	if !given("--web.health-listen-address") {
		defaults = append(defaults, "--web.health-listen-address=127.0.0.1:0")
	}
	return defaults
}

// write replaces a file atomically, like the kubelet replaces a mounted Secret.
func write(t *testing.T, dir, name, content string) (file string) {
	t.Helper()
	file = filepath.Join(dir, name)
	if err := os.WriteFile(file+".new", []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(file+".new", file); err != nil {
		t.Fatal(err)
	}
	return file
}

func newExporter(t *testing.T) *exporter {
	t.Helper()
	e := &exporter{t: t, stdout: &transcript{}, stderr: &transcript{}, ended: make(chan struct{}), client: newClient(t)}
	t.Cleanup(func() {
		select {
		case <-e.ended:
		default:
			e.end()
		}
		for _, output := range []string{e.stdout.String(), e.stderr.String()} {
			if strings.Contains(output, secret) {
				t.Errorf("the output contains a secret: %s", output)
			}
		}
		if t.Failed() {
			t.Logf("the exporter's log:\n%s", e.stderr)
		}
	})
	return e
}

// newClient returns an HTTP client with its own connections.
func newClient(t *testing.T) *http.Client {
	transport := &http.Transport{DisableCompression: true}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: patience}
}

var (
	listening       = regexp.MustCompile(`"?msg"?[:=]"Listening on".*|.*"msg":"Listening on".*`)
	healthListening = regexp.MustCompile(`.*"?msg"?[:=]"health endpoints listen".*`)
	addressOf       = regexp.MustCompile(`"?address"?[:=]"?([^ "\n]+)`)
)

// waitForListeners waits until the exporter listens on its addresses.
func (e *exporter) waitForListeners(args []string) {
	e.t.Helper()
	want, health := 0, true
	for _, arg := range args {
		if strings.HasPrefix(arg, "--web.listen-address=") {
			want++
		}
		health = health && arg != "--web.health-listen-address="
	}
	eventually(e.t, "the exporter listens", func() bool {
		select {
		case <-e.ended:
			e.t.Fatalf("the exporter ended with %v", e.err)
		default:
		}
		e.addresses, e.health = nil, ""
		log := e.stderr.String()
		for _, line := range listening.FindAllString(log, -1) {
			if address := addressOf.FindStringSubmatch(line); address != nil && !slices.Contains(e.addresses, address[1]) {
				e.addresses = append(e.addresses, address[1])
			}
		}
		if address := addressOf.FindStringSubmatch(healthListening.FindString(log)); address != nil {
			e.health = "http://" + address[1]
		}
		return len(e.addresses) >= max(want, 1) && strings.Contains(e.health, "http") == health
	})
}

// end stops the exporter and checks that it ends without an error.
func (e *exporter) end() {
	e.t.Helper()
	e.stop()
	select {
	case <-e.ended:
		if e.err != nil {
			e.t.Errorf("the exporter ended with %v", e.err)
		}
	case <-time.After(patience):
		e.kill()
		<-e.ended
		e.t.Errorf("the exporter does not end")
	}
}

// url returns a URL on the metrics port.
func (e *exporter) url(path string) string { return "http://" + e.addresses[0] + path }

// A response is an HTTP response with its body.
type response struct {
	status int
	header http.Header
	body   string
}

// get sends a request to the exporter and checks that the response contains no secret.
func (e *exporter) get(url string) response {
	e.t.Helper()
	a, err := get(e.client, url, nil)
	if err != nil {
		e.t.Fatal(err)
	}
	if strings.Contains(a.body, secret) || strings.Contains(fmt.Sprint(a.header), secret) {
		e.t.Errorf("%s returned a secret: %v %s", url, a.header, a.body)
	}
	return a
}

func get(client *http.Client, url string, prepare func(*http.Request)) (response, error) {
	request, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		return response{}, err
	}
	if prepare != nil {
		prepare(request)
	}
	res, err := client.Do(request)
	if err != nil {
		return response{}, err
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(res.Body)
	return response{res.StatusCode, res.Header, string(body)}, err
}

// families are the metric families of a scrape by name.
type families map[string]*dto.MetricFamily

// scrape scrapes the exporter.
func (e *exporter) scrape() families {
	e.t.Helper()
	a := e.get(e.url("/metrics"))
	if a.status != http.StatusOK {
		e.t.Fatalf("/metrics returned %d: %s", a.status, a.body)
	}
	return parseFamilies(e.t, a.body)
}

func parseFamilies(t *testing.T, body string) families {
	t.Helper()
	parser := expfmt.NewTextParser(model.UTF8Validation)
	f, err := parser.TextToMetricFamilies(strings.NewReader(body))
	if err != nil {
		t.Fatalf("the exposition is invalid: %v", err)
	}
	return f
}

// has reports whether the family has a sample.
func (f families) has(name string) bool { return len(f[name].GetMetric()) > 0 }

// value returns the value of the first sample with the labels, or 0. labels are pairs of names and values.
func (f families) value(name string, labels ...string) float64 {
	for _, m := range f[name].GetMetric() {
		if hasLabels(m, labels) {
			return m.GetGauge().GetValue() + m.GetCounter().GetValue()
		}
	}
	return 0
}

func hasLabels(m *dto.Metric, labels []string) bool {
	for i := 0; i < len(labels); i += 2 {
		if labelOf(m, labels[i]) != labels[i+1] {
			return false
		}
	}
	return true
}

func labelOf(m *dto.Metric, name string) string {
	for _, pair := range m.GetLabel() {
		if pair.GetName() == name {
			return pair.GetValue()
		}
	}
	return ""
}

// valuesBy returns the sums of a family by a label.
func (f families) valuesBy(name, label string) map[string]float64 {
	values := map[string]float64{}
	for _, m := range f[name].GetMetric() {
		values[labelOf(m, label)] += m.GetGauge().GetValue() + m.GetCounter().GetValue()
	}
	return values
}

// waitForSample waits for a scrape in which the condition holds for the value of a series, and returns its body.
func (e *exporter) waitForSample(series string, condition func(float64) bool) (body string) {
	e.t.Helper()
	eventually(e.t, series+" has the expected value", func() bool {
		body = e.get(e.url("/metrics")).body
		value, ok := valueIn(body, series)
		return ok && condition(value)
	})
	return body
}

// valueIn returns the value of a series in a scrape, without parsing the whole scrape.
func valueIn(body, series string) (float64, bool) {
	_, rest, ok := strings.Cut("\n"+body, "\n"+series+" ")
	if !ok {
		return 0, false
	}
	text, _, _ := strings.Cut(rest, "\n")
	value, err := strconv.ParseFloat(text, 64)
	return value, err == nil
}

// waitForUp waits for a scrape in which balena_up has a value, and returns it. The next scrape may have another value.
func (e *exporter) waitForUp(want float64) families {
	e.t.Helper()
	return parseFamilies(e.t, e.waitForSample("balena_up", func(v float64) bool { return v == want }))
}

// waitForRefreshes waits for a scrape after a number of further refreshes with a result, and returns it.
func (e *exporter) waitForRefreshes(more float64, result string) families {
	e.t.Helper()
	series := `balena_exporter_refreshes_total{result="` + result + `"}`
	before, _ := valueIn(e.get(e.url("/metrics")).body, series)
	return parseFamilies(e.t, e.waitForSample(series, func(v float64) bool { return v >= before+more }))
}

const (
	success = "success"
	failure = "error"
)

// startWithToken starts an exporter as a process with the token in its environment.
func startWithToken(t *testing.T, url string, args ...string) *exporter {
	t.Helper()
	args = append([]string{"--balena.api-url=" + url, "--web.listen-address=127.0.0.1:0", "--web.health-listen-address=127.0.0.1:0"}, args...)
	return startCommand(t, func(c *exec.Cmd) { c.Env = append(c.Env, "BALENA_TOKEN="+token) }, args)
}
