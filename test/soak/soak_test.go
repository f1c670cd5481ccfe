// SPDX-License-Identifier: Apache-2.0

//go:build unix

// Package soak runs the exporter with an API that has random faults, devices that change, and scrapers of all kinds.
// Afterwards the exposition must equal that of a new exporter, and memory, goroutines and file descriptors must be back
// to what they were before. `make soak` runs it.
package soak

import (
	"bufio"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/balena-exporter/balena-exporter/internal/simulator"
)

const (
	root  = "../.."
	token = "s0ak-t0ken-of-thirty-two-letters"

	devices, fleets = 500, 10

	// patience is how long to wait for events that take seconds on an idle machine.
	patience = 3 * time.Minute

	// round is the duration of the faults before each check.
	round = 10 * time.Second

	// pause is the time between two changes of the faults, and between two scrapes of one kind.
	pause = 300 * time.Millisecond
)

// The account and the server change faster than in reality, so that a minute is like hours.
var arguments = []string{
	"--balena.refresh-interval=1", "--balena.max-staleness=5s", "--balena.timeout=2s", "--balena.page-size=100",
	"--balena.full-refresh-interval=5s", "--balena.slow-interval=2s",
	"--collector.service", "--collector.device.tags=site,role", "--collector.fleet.tags=site",
	"--web.listen-address=127.0.0.1:0", "--web.health-listen-address=", "--web.max-requests=10",
}

func TestSoak(t *testing.T) {
	if os.Getenv("SOAK") == "" {
		t.Skip("set SOAK to the duration of the test, such as 1m")
	}
	length, err := time.ParseDuration(os.Getenv("SOAK"))
	if err != nil {
		t.Fatalf("SOAK: %v", err)
	}
	seed, err := strconv.ParseUint(os.Getenv("SOAK_SEED"), 10, 64)
	if err != nil {
		seed = rand.Uint64()
	}
	t.Logf("SOAK_SEED=%d", seed)
	random := rand.New(rand.NewPCG(seed, 0))

	sim, err := simulator.New(simulator.Config{Devices: devices, Fleets: fleets, Seed: seed, Tokens: []string{token}})
	if err != nil {
		t.Fatal(err)
	}
	api := httptest.NewServer(sim)
	t.Cleanup(api.Close)
	program := build(t)
	file := filepath.Join(t.TempDir(), "token")
	write(t, file)

	e := start(t, program, api.URL, file)
	calm := func() {
		write(t, file)
		e.settle(sim)
	}
	calm()
	e.storm(t.Context(), sim, random, file, 10*pause) // allocates everything that is allocated only once, such as pools
	calm()
	before := e.resources()
	for end := time.Now().Add(length); time.Now().Before(end); {
		e.storm(t.Context(), sim, random, file, min(round, time.Until(end)))
		calm()
		fresh := start(t, program, api.URL, file)
		fresh.settle(sim)
		e.eventually("the exposition equals that of a new exporter", func() error { return difference(fresh.data(), e.data()) })
		fresh.stop()
	}
	e.eventually("the resources are those before the faults", func() error { return before.compare(e.resources()) })
	e.stop()
}

// build builds the exporter.
func build(t *testing.T) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "balena-exporter")
	command := exec.CommandContext(t.Context(), "go", "build", "-o", program, "./cmd/balena-exporter")
	command.Dir = root
	if output, err := command.CombinedOutput(); err != nil {
		t.Fatalf("building the exporter: %v\n%s", err, output)
	}
	return program
}

// write writes the token to the file.
func write(t *testing.T, file string) {
	t.Helper()
	if err := errors.Join(os.WriteFile(file+".new", []byte(token), 0o600), os.Rename(file+".new", file)); err != nil {
		t.Fatal(err)
	}
}

// An exporter is a process that runs until the end of the test.
type exporter struct {
	t       *testing.T
	process *exec.Cmd
	address string
	ended   chan error
	client  *http.Client

	mutex sync.Mutex
	log   []string // the last lines
	lines int
}

var listening = regexp.MustCompile(`msg="Listening on".* address=(\S+)`)

func start(t *testing.T, program, url, file string) *exporter {
	t.Helper()
	e := &exporter{t: t, ended: make(chan error, 1), client: &http.Client{Transport: &http.Transport{}, Timeout: patience}}
	e.process = exec.Command(program, append([]string{"--balena.api-url=" + url, "--balena.token-file=" + file}, arguments...)...)
	log, err := e.process.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := e.process.Start(); err != nil {
		t.Fatal(err)
	}
	addresses := make(chan string, 1)
	go func() {
		for lines := bufio.NewScanner(log); lines.Scan(); {
			if match := listening.FindStringSubmatch(lines.Text()); match != nil {
				addresses <- match[1]
			}
			if strings.Contains(lines.Text(), token) {
				t.Errorf("the log contains the token: %s", lines.Text())
			}
			e.mutex.Lock()
			e.lines++
			e.log = append(e.log[max(0, len(e.log)-50):], lines.Text())
			e.mutex.Unlock()
		}
		e.ended <- e.process.Wait()
	}()
	t.Cleanup(func() {
		_ = e.process.Process.Kill()
		e.client.CloseIdleConnections()
		if t.Failed() {
			e.mutex.Lock()
			defer e.mutex.Unlock()
			t.Logf("the last of %d lines of its log:\n%s", e.lines, strings.Join(e.log, "\n"))
		}
	})
	select {
	case e.address = <-addresses:
	case <-time.After(patience):
		t.Fatal("the exporter does not listen")
	}
	return e
}

// stop stops the exporter and checks its exit status.
func (e *exporter) stop() {
	e.t.Helper()
	_ = e.process.Process.Signal(syscall.SIGTERM)
	select {
	case err := <-e.ended:
		if err != nil {
			e.t.Errorf("the exporter ended with %v", err)
		}
	case <-time.After(patience):
		e.t.Error("the exporter does not stop")
	}
}

// eventually waits until a condition holds.
func (e *exporter) eventually(what string, condition func() error) {
	e.t.Helper()
	again := time.NewTicker(pause)
	defer again.Stop()
	for end := time.After(patience); ; {
		err := condition()
		if err == nil {
			return
		}
		select {
		case err := <-e.ended:
			e.t.Fatalf("the exporter ended: %v", err)
		case <-again.C:
		case <-end:
			e.t.Fatalf("not within %s: %s: %v", patience, what, err)
		}
	}
}

// settle removes all faults and waits until a full refresh has succeeded.
func (e *exporter) settle(sim *simulator.Simulator) {
	e.t.Helper()
	sim.SetFaults(nil)
	began := float64(time.Now().Unix())
	e.eventually("a full refresh succeeds", func() error {
		full := e.value("balena_exporter_last_full_refresh_timestamp_seconds")
		if e.value("balena_up") != 1 || full <= began {
			return fmt.Errorf("balena_up is %v, and the last full refresh was %v s ago", e.value("balena_up"), float64(time.Now().Unix())-full)
		}
		return nil
	})
}

// scrape returns an exposition, which must be valid.
func (e *exporter) scrape() (text string, err error) {
	response, err := e.client.Get("http://" + e.address + "/metrics")
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != http.StatusOK {
		return "", fmt.Errorf("status %d: %w", response.StatusCode, err)
	}
	if strings.Contains(string(body), token) {
		e.t.Error("an exposition contains the token")
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	if _, err := parser.TextToMetricFamilies(strings.NewReader(string(body))); err != nil {
		return "", fmt.Errorf("not a valid exposition: %w", err)
	}
	return string(body), nil
}

// data returns the samples about the account, without those of the exporter itself.
func (e *exporter) data() []string {
	text, err := e.scrape()
	if err != nil {
		return []string{err.Error()}
	}
	lines := strings.Split(text, "\n")
	return slices.DeleteFunc(lines, func(line string) bool {
		for _, prefix := range []string{"balena_fleet", "balena_device", "balena_release", "balena_api_key"} {
			if strings.HasPrefix(line, prefix) {
				return false
			}
		}
		return true
	})
}

func difference(want, got []string) error {
	missing, more := 0, 0
	var example string
	have, wanted := map[string]bool{}, map[string]bool{}
	for _, line := range got {
		have[line] = true
	}
	for _, line := range want {
		wanted[line] = true
		if !have[line] {
			missing, example = missing+1, line
		}
	}
	for _, line := range got {
		if !wanted[line] {
			more++
		}
	}
	if missing+more > 0 || len(want) < devices || len(got) != len(want) {
		return fmt.Errorf("%[2]d of %[1]d lines are missing, and there are %[3]d other lines, such as %[4]s", len(want), missing, more, example)
	}
	return nil
}

func (e *exporter) value(series string) float64 {
	text, err := e.scrape()
	if err != nil {
		return -1
	}
	_, rest, _ := strings.Cut("\n"+text, "\n"+series+" ")
	number, _, _ := strings.Cut(rest, "\n")
	value, _ := strconv.ParseFloat(number, 64)
	return value
}

// resources are the resources that a process uses.
type resources struct{ goroutines, descriptors, heap, resident float64 }

func (e *exporter) resources() resources {
	return resources{e.value("go_goroutines"), e.value("process_open_fds"), e.value("go_memstats_heap_inuse_bytes"), e.value("process_resident_memory_bytes")}
}

// compare returns an error if resources have grown. Memory varies, so small growth is allowed: a leak of a kilobyte per
// second is found within an hour.
func (r resources) compare(now resources) error {
	const slack, heapSlack, residentSlack = 3, 4 << 20, 24 << 20
	if now.goroutines < 1 || now.goroutines > r.goroutines+slack || now.descriptors > r.descriptors+slack || now.heap > r.heap+heapSlack || now.resident > r.resident+residentSlack {
		return fmt.Errorf("the resources were %+v and are %+v", r, now)
	}
	return nil
}

// storm injects random faults for a time.
func (e *exporter) storm(ctx context.Context, sim *simulator.Simulator, random *rand.Rand, file string, length time.Duration) {
	e.t.Helper()
	ctx, cancel := context.WithTimeout(ctx, length)
	defer cancel()
	var scrapers sync.WaitGroup
	for range 2 {
		scrapers.Go(func() { e.every(ctx, e.scrapes) })
	}
	scrapers.Go(func() { e.every(ctx, func() { e.stalls(ctx) }) })
	scrapers.Go(func() { e.every(ctx, e.visits) })
	e.every(ctx, func() {
		sim.Tick()
		sim.Update(func(st *simulator.State) { changeDevices(st, random) })
		if random.IntN(3) == 0 { // on average, faults last about as long as a refresh and the wait before it
			sim.SetFaults(randomFaults(random))
		}
		e.spoilToken(random, file)
		if random.IntN(10) == 0 {
			_ = e.process.Process.Signal(syscall.SIGHUP)
		}
	})
	scrapers.Wait()
	select {
	case err := <-e.ended:
		e.t.Fatalf("the exporter ended: %v", err)
	default:
	}
}

// every calls a function repeatedly until the context is done.
func (e *exporter) every(ctx context.Context, do func()) {
	again := time.NewTicker(pause)
	defer again.Stop()
	for {
		select {
		case <-again.C:
			do()
		case <-ctx.Done():
			return
		}
	}
}

// scrapes is a scraper. Its scrapes must succeed despite all faults.
func (e *exporter) scrapes() {
	if _, err := e.scrape(); err != nil {
		e.t.Errorf("a scrape failed: %v", err)
	}
}

// stalls is a scraper that does not read its answer, and disconnects later.
func (e *exporter) stalls(ctx context.Context) {
	c, err := (&net.Dialer{}).DialContext(ctx, "tcp", e.address)
	if err != nil {
		return
	}
	_, _ = fmt.Fprint(c, "GET /metrics HTTP/1.1\r\nHost: exporter\r\n\r\n")
	context.AfterFunc(ctx, func() { _ = c.Close() })
}

// visits is a browser.
func (e *exporter) visits() {
	for _, path := range []string{"/", "/fleets", "/fleets?format=json", "/problems", "/search?q=a", "/-/healthy", "/nothing"} {
		response, err := e.client.Get("http://" + e.address + path)
		if err != nil {
			e.t.Errorf("%s: %v", path, err)
			continue
		}
		body := io.Reader(response.Body)
		if response.Header.Get("Content-Encoding") == "gzip" {
			body, _ = gzip.NewReader(response.Body)
		}
		answer, err := io.ReadAll(body)
		response.Body.Close()
		// Pages of data answer 503 if there are no data.
		if err != nil || response.StatusCode >= http.StatusInternalServerError && response.StatusCode != http.StatusServiceUnavailable {
			e.t.Errorf("%s answers %d: %v", path, response.StatusCode, err)
		}
		if strings.Contains(string(answer), token) {
			e.t.Errorf("%s contains the token", path)
		}
	}
}

// spoilToken sometimes makes the token file invalid or replaces it.
func (e *exporter) spoilToken(random *rand.Rand, file string) {
	var err error
	switch random.IntN(60) {
	case 0:
		err = os.Remove(file)
	case 1:
		if err = os.Remove(file); err == nil {
			err = syscall.Mkfifo(file, 0o600)
		}
	case 2:
		if err = os.Remove(file); err == nil {
			err = os.Symlink("/dev/zero", file)
		}
	case 3:
		if err = os.Remove(file); err == nil {
			err = os.WriteFile(file, []byte(token[:20]), 0o600)
		}
	case 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23:
		write(e.t, file)
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		e.t.Error(err)
	}
}

// changeDevices adds, deletes, moves and changes devices.
func changeDevices(st *simulator.State, random *rand.Rand) {
	pick := func() *simulator.Device {
		all := st.Devices.All()
		return st.Device(all[random.IntN(len(all))].ID)
	}
	apps := st.Fleets.All()
	fleet := apps[random.IntN(len(apps))].ID
	switch random.IntN(4) {
	case 0: // as often as devices are deleted, so that memory can be compared
		st.DeleteDevice(pick().ID)
		st.AddDevice(simulator.Device{Row: simulator.Row{CreatedAt: st.Now()}, FleetID: fleet})
	case 1:
		pick().FleetID = fleet
	case 2:
		pick().Disconnect(st.Now())
	case 3:
		pick().Connect(st.Now())
	}
}

var (
	resourcesOfAPI = []string{"", "application", "application", "device", "release", "image_install", "device_type", "api_key", "device_tag", "application_tag"}
	// Statuses that have a special meaning are more frequent: 404 for a missing version of the API, 500 for an unknown
	// field.
	statuses = []int{404, 404, 404, 404, 500, 500, 500, 200, 204, 302, 400, 401, 402, 403, 404, 408, 409, 413, 414, 418, 429, 451, 500, 501, 502, 503, 504, 520, 599}
	spoils   = []simulator.Spoil{
		simulator.SpoilJSON, simulator.SpoilHTML, simulator.SpoilTypes, simulator.SpoilNulls, simulator.SpoilNoIDs,
		simulator.SpoilTwice, simulator.SpoilPages, simulator.SpoilEmpty,
	}
	texts = []string{"", "", "no", `"no"`, "<html>no</html>", token, "Bearer " + token, strings.Repeat("long ", 10_000), "\u202eno\u2028"}
)

func anyOf[T any](random *rand.Rand, of []T) T { return of[random.IntN(len(of))] }

// randomFaults returns no faults in half of the cases, and up to three otherwise.
func randomFaults(random *rand.Rand) (faults simulator.Faults) {
	if random.IntN(2) == 0 {
		return nil
	}
	seconds := func(most float64) simulator.Duration {
		return simulator.Duration{Duration: time.Duration(most * random.Float64() * float64(time.Second))}
	}
	for range 1 + random.IntN(3) {
		f := simulator.Fault{Resource: anyOf(random, resourcesOfAPI), Times: 1} // a single failure
		if random.IntN(2) == 0 {
			f.From, f.Every, f.Times = random.IntN(4), random.IntN(4), random.IntN(10)
		}
		switch random.IntN(9) {
		case 0, 1, 2:
			f.Status, f.Body = anyOf(random, statuses), anyOf(random, texts)
			// Without Retry-After, the exporter pauses for a minute after a 429.
			f.RetryAfter, f.RetryAfterDate = simulator.Duration{Duration: time.Second}, random.IntN(2) == 0
		case 3, 4:
			f.Spoil = anyOf(random, spoils)
		case 5:
			f.Latency = seconds(3)
		case 6:
			f.CutAfter = 1 + random.IntN(10_000)
		case 7:
			f.Pace, f.Endless = seconds(0.1), random.IntN(2) == 0
		case 8:
			f.Guest, f.Redirect = random.IntN(2) == 0, anyOf(random, []string{"", "http://127.0.0.1:1", "https://example.invalid"})
		}
		faults = append(faults, f)
	}
	return faults
}
