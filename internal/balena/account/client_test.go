// SPDX-License-Identifier: Apache-2.0

package account_test

import (
	"context"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/balena-exporter/balena-exporter/internal/balena"
	"github.com/balena-exporter/balena-exporter/internal/balena/account"
	"github.com/balena-exporter/balena-exporter/internal/balena/api"
	"github.com/balena-exporter/balena-exporter/internal/simulator"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// token is the token in all tests. No output may contain it.
const token = "0123456789abcdefSECRETfedcba9876"

// noon is the time at which the tests begin.
var noon = time.Date(2026, time.November, 22, 12, 0, 0, 0, time.UTC)

// A clock stands still until a test advances it.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func newClock() *clock { return &clock{now: noon} }

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// recorded is the dataset of a real server.
var recorded = sync.OnceValues(func() (*simulator.Dataset, error) {
	return simulator.LoadDataset(os.DirFS("../../simulator/testdata/dataset"))
})

// newSimulator simulates a server with the recorded content of a real one, unless the configuration has another.
func newSimulator(t testing.TB, config simulator.Config) *simulator.Simulator {
	t.Helper()
	if config.Dataset == nil && config.Fleets == 0 {
		dataset, err := recorded()
		if err != nil {
			t.Fatal(err)
		}
		config.Dataset = dataset
	}
	if config.Tokens == nil {
		config.Tokens = []string{token}
	}
	sim, err := simulator.New(config)
	if err != nil {
		t.Fatal(err)
	}
	return sim
}

// small is an account for tests in which the size does not matter.
var small = simulator.Config{Devices: 210, Fleets: 7, Seed: 1}

// serve serves a handler until the end of the test and returns its address.
func serve(t testing.TB, h http.Handler) string {
	t.Helper()
	return start(t, h, (*httptest.Server).Start).URL
}

func start(t testing.TB, h http.Handler, begin func(*httptest.Server)) *httptest.Server {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	s.Config.ErrorLog = log.New(io.Discard, "", 0) // handshakes and bodies fail on purpose
	begin(s)
	t.Cleanup(s.Close)
	return s
}

// newClient returns a client that reads everything.
func newClient(t testing.TB, address string, changes ...func(*account.Config)) *account.Reader {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	config := account.Config{
		Config:   api.Config{URL: u, Token: api.StaticToken(token), Timeout: time.Minute, UserAgent: "balena-exporter/test"},
		PageSize: 1000,
		Options: account.Options{
			Devices: true, Releases: true, Services: true, ServiceSummary: true, Keys: true, OS: true, ArchivedFleets: true,
			DeviceTags: []string{"site", "owner"}, FleetTags: []string{"note", "team"},
			SlowInterval: 15 * time.Minute, Keep: 5 * time.Minute,
		},
	}
	for _, change := range changes {
		change(&config)
	}
	c, err := account.New(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// fewer configures the default: neither services nor tags are read.
func fewer(c *account.Config) {
	c.Services, c.DeviceTags, c.FleetTags = false, nil, nil
}

// withoutSummary does not read how many services run: a server that does not tell when image installs were written
// lets a full refresh find it.
func withoutSummary(c *account.Config) { c.ServiceSummary = false }

func withClock(k *clock) func(*account.Config) {
	return func(c *account.Config) { c.Now = k.Now }
}

// through configures a client that sends its requests through rt instead of a network.
func through(rt http.RoundTripper) func(*account.Config) {
	return func(c *account.Config) { c.Transport = rt }
}

// isFirstPage reports whether a request is for the first page of a list.
func isFirstPage(r *http.Request) bool {
	return !strings.Contains(r.URL.RawQuery, "id%20gt%20") || strings.Contains(r.URL.RawQuery, "id%20gt%200&")
}

func pagesOf(n int) func(*account.Config) {
	return func(c *account.Config) { c.PageSize = n }
}

// fetch reads a snapshot, which must not fail.
func fetch(t testing.TB, c *account.Reader) *balena.Snapshot {
	t.Helper()
	s, err := c.Fetch(context.Background())
	if err != nil {
		t.Fatalf("Fetch: %v", err)
	}
	return s
}

// fetchError reads a snapshot, which must fail.
func fetchError(t testing.TB, c *account.Reader) error {
	t.Helper()
	s, err := c.Fetch(context.Background())
	if err == nil {
		t.Fatal("Fetch succeeded, want an error")
	}
	if s != nil {
		t.Errorf("Fetch returned a snapshot along with the error %q", err)
	}
	if strings.Contains(err.Error(), token) {
		t.Error("the error holds the token")
	}
	return err
}

// fetchWithParts reads a snapshot of which no part may fail.
func fetchWithParts(t testing.TB, c *account.Reader) *balena.Snapshot {
	t.Helper()
	s := fetch(t, c)
	for _, p := range s.Parts {
		if p.Err != nil {
			t.Errorf("part %s: %v", p.Name, p.Err)
		}
	}
	return s
}

// part returns a part of a snapshot by name.
func part(t testing.TB, s *balena.Snapshot, name balena.PartName) balena.Part {
	t.Helper()
	i := slices.IndexFunc(s.Parts, func(p balena.Part) bool { return p.Name == name })
	if i < 0 {
		t.Fatalf("the snapshot tells nothing of the part %q", name)
	}
	return s.Parts[i]
}

// A sniffer passes requests on and records them as transferred.
type sniffer struct {
	next http.Handler
	mu   sync.Mutex
	seen []*http.Request
}

func (s *sniffer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	s.seen = append(s.seen, r)
	s.mu.Unlock()
	s.next.ServeHTTP(w, r)
}

// requests returns the requests since its last call.
func (s *sniffer) requests() []*http.Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	seen := s.seen
	s.seen = nil
	return seen
}

// uncompressed answers like a server without gzip.
func uncompressed(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Header.Del("Accept-Encoding")
		next.ServeHTTP(w, r)
	})
}
