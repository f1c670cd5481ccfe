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

// TestMain checks for leaked goroutines, and can run the test binary as the exporter, with the exporter's main. Tests of
// signals and exit statuses start it, with the race detector if that is on.
func TestMain(m *testing.M) {
	if os.Getenv(graceVariable) == "" {
		grace = 24 * time.Hour // a scrape takes as long as it takes on a busy machine
	}
	if os.Getenv(mainVariable) != "" {
		main()
		os.Exit(0)
	}
	// The environment of the user does not configure the tests.
	for _, pair := range os.Environ() {
		if key, _, _ := strings.Cut(pair, "="); strings.HasPrefix(key, "BALENA_") || key == "CRAWL_INTERVAL" {
			_ = os.Unsetenv(key)
		}
	}
	// Most of these tests wait for the next refresh or the next process, so more of them can run in parallel. The
	// command line has precedence.
	if err := flag.Set("test.parallel", "8"); err != nil {
		panic(err)
	}
	goleak.VerifyTestMain(m)
}

const (
	mainVariable = "EXPORTER_TEST_MAIN"
	// graceVariable gives the exporter its usual grace.
	graceVariable = "EXPORTER_TEST_GRACE"
)

const (
	// secret is part of all tokens and passwords of the tests, and must never be in any output of the exporter.
	secret = "s3cret"
	token  = secret + "-token"

	// patience is how long to wait for events that take milliseconds, or a second or two, on an idle machine. It is not a
	// limit that is tested.
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

// A transcript is the output of a program. It may be read while the program writes.
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

// A simulatedAPI is a simulated balena API that can be disconnected from the network, and that records its requests.
type simulatedAPI struct {
	*simulator.Simulator
	url   string
	close func()
	down  atomic.Bool

	mutex sync.Mutex
	asked []request
}

// A request is a request to the API.
type request struct {
	at        time.Time
	resource  string
	firstPage bool
}

// serveAPI serves the API of the configuration, which accepts the token.
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

// serveRecorded serves an API with the recorded content.
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
	a.asked = append(a.asked, request{time.Now(), path.Base(r.URL.Path), strings.Contains(r.URL.RawQuery, "id%20gt%200&")})
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
	return slices.Clone(a.asked)
}

// serveHandler serves an API of any kind to the end of the test.
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

	stop  func()        // asks it to stop
	ended chan struct{} // closed when it has ended
	err   error         // its result
	kill  func()        // ends it at once
}

// start runs an exporter in this process until the end of the test, and returns when it listens. If the arguments name no
// token file, start adds one.
func start(t *testing.T, url string, args ...string) *exporter {
	t.Helper()
	e := launch(t, url, args...)
	e.listens(args)
	return e
}

// launch is like start, but does not wait.
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

// startCommand does the same in a process of its own; prepare may change the command before.
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
	e.listens(args)
	return e
}

// command returns the exporter as a command with the arguments.
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

// defaults returns arguments for settings that are not in args.
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
	// Even on a busy machine, requests do not time out and data do not become stale.
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

// write replaces a file atomically, like a mounted Secret: a reader sees either the old or the new content.
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
		for _, said := range []string{e.stdout.String(), e.stderr.String()} {
			if strings.Contains(said, secret) {
				t.Errorf("a secret was written: %s", said)
			}
		}
		if t.Failed() {
			t.Logf("the exporter's log:\n%s", e.stderr)
		}
	})
	return e
}

// newClient returns an HTTP client that shares no connections.
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

// listens waits until the exporter listens on its addresses.
func (e *exporter) listens(args []string) {
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

// end stops the exporter, which must succeed.
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

// url returns an address on the metrics port.
func (e *exporter) url(path string) string { return "http://" + e.addresses[0] + path }

// An answer is a complete HTTP answer.
type answer struct {
	status int
	header http.Header
	body   string
}

// get sends a request to the exporter. The answer must not contain a secret.
func (e *exporter) get(url string) answer {
	e.t.Helper()
	a, err := get(e.client, url, nil)
	if err != nil {
		e.t.Fatal(err)
	}
	if strings.Contains(a.body, secret) || strings.Contains(fmt.Sprint(a.header), secret) {
		e.t.Errorf("%s tells a secret: %v %s", url, a.header, a.body)
	}
	return a
}

func get(client *http.Client, url string, prepare func(*http.Request)) (answer, error) {
	request, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		return answer{}, err
	}
	if prepare != nil {
		prepare(request)
	}
	response, err := client.Do(request)
	if err != nil {
		return answer{}, err
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	return answer{response.StatusCode, response.Header, string(body)}, err
}

// families are the metric families of a scrape by name.
type families map[string]*dto.MetricFamily

// scrape scrapes the exporter.
func (e *exporter) scrape() families {
	e.t.Helper()
	a := e.get(e.url("/metrics"))
	if a.status != http.StatusOK {
		e.t.Fatalf("/metrics answers %d: %s", a.status, a.body)
	}
	return parsed(e.t, a.body)
}

func parsed(t *testing.T, body string) families {
	t.Helper()
	parser := expfmt.NewTextParser(model.UTF8Validation)
	f, err := parser.TextToMetricFamilies(strings.NewReader(body))
	if err != nil {
		t.Fatalf("not a valid exposition: %v", err)
	}
	return f
}

// has reports whether the family has a sample.
func (f families) has(name string) bool { return len(f[name].GetMetric()) > 0 }

// value returns the value of the only sample with the labels, given as names and values in turn, or 0.
func (f families) value(name string, labels ...string) float64 {
	for _, m := range f[name].GetMetric() {
		if matches(m, labels) {
			return m.GetGauge().GetValue() + m.GetCounter().GetValue()
		}
	}
	return 0
}

func matches(m *dto.Metric, labels []string) bool {
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

// by returns the values of a family by a label.
func (f families) by(name, label string) map[string]float64 {
	values := map[string]float64{}
	for _, m := range f[name].GetMetric() {
		values[labelOf(m, label)] += m.GetGauge().GetValue() + m.GetCounter().GetValue()
	}
	return values
}

// sample waits for a scrape in which the condition holds for the value of a series, and returns its body.
func (e *exporter) sample(series string, condition func(float64) bool) (body string) {
	e.t.Helper()
	eventually(e.t, series+" is as it should be", func() bool {
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

// up waits for a scrape in which balena_up has a value, and returns it. The next scrape may have another value.
func (e *exporter) up(want float64) families {
	e.t.Helper()
	return parsed(e.t, e.sample("balena_up", func(v float64) bool { return v == want }))
}

// refreshes waits for a scrape after the given number of further refreshes with a result, and returns it.
func (e *exporter) refreshes(more float64, result string) families {
	e.t.Helper()
	series := `balena_exporter_refreshes_total{result="` + result + `"}`
	before, _ := valueIn(e.get(e.url("/metrics")).body, series)
	return parsed(e.t, e.sample(series, func(v float64) bool { return v >= before+more }))
}

const (
	success = "success"
	failure = "error"
)

// startWithToken starts a process that gets the token from its environment.
func startWithToken(t *testing.T, url string, args ...string) *exporter {
	t.Helper()
	args = append([]string{"--balena.api-url=" + url, "--web.listen-address=127.0.0.1:0", "--web.health-listen-address=127.0.0.1:0"}, args...)
	return startCommand(t, func(c *exec.Cmd) { c.Env = append(c.Env, "BALENA_TOKEN="+token) }, args)
}
