// SPDX-License-Identifier: Apache-2.0

package exposition

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// pageOf returns a page of the given numbers of families and pieces, and its text. The
// first family is appended.
func pageOf(t testing.TB, families, pieces int) (*Page, string) {
	t.Helper()
	b := NewBuilder(bare(families), nil)
	for piece := range pieces {
		text := func(family int) []byte { return lines(uint64(100*family+piece), fragmentText+17*piece) }
		b.Append(0, text(0))
		for family := 1; family < families; family++ {
			b.Add(family, text(family))
		}
	}
	page := b.Page()
	return page, text(t, page)
}

func always(page *Page) func() *Page { return func() *Page { return page } }

// fixed returns a live part that is the same at every scrape.
func fixed(t testing.TB) prometheus.Gatherer {
	t.Helper()
	registry := prometheus.NewRegistry()
	gauge := prometheus.NewGauge(prometheus.GaugeOpts{Name: "live", Help: "The live part."})
	gauge.Set(42)
	registry.MustRegister(gauge)
	return registry
}

const fixedText = "# HELP live The live part.\n# TYPE live gauge\nlive 42\n"

// serve starts a server, to be closed at the end of the test.
func serve(t testing.TB, options HandlerOptions) (url string) {
	t.Helper()
	server := httptest.NewServer(NewHandler(options))
	t.Cleanup(server.Close)
	return server.URL
}

// request makes a request and returns the answer with its body as sent.
func request(t testing.TB, method, url, acceptEncoding string) (*http.Response, []byte) {
	t.Helper()
	request, err := http.NewRequest(method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if acceptEncoding != "" {
		request.Header.Set("Accept-Encoding", acceptEncoding)
	}
	transport := &http.Transport{DisableCompression: true, DisableKeepAlives: true}
	response, err := transport.RoundTrip(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatalf("reading the body: %v", err)
	}
	return response, body
}

// gunzip reads one gzip member, after which nothing may follow.
func gunzip(t testing.TB, file []byte) string {
	t.Helper()
	source := bytes.NewReader(file) // an io.ByteReader, so that gzip does not read ahead
	r, err := gzip.NewReader(source)
	if err != nil {
		t.Fatalf("reading the gzip header: %v", err)
	}
	r.Multistream(false)
	content, err := io.ReadAll(r)
	if err != nil {
		t.Fatalf("reading the gzip member: %v", err)
	}
	if source.Len() > 0 {
		t.Fatalf("%d bytes follow the gzip member", source.Len())
	}
	return string(content)
}

func TestAnswers(t *testing.T) {
	full, fullText := pageOf(t, 3, 3)
	small := NewBuilder(bare(1), nil)
	small.Append(0, []byte("small 1\n"))
	longLabel := fmt.Sprintf("long{label=%q} 1\n", strings.Repeat("ü\"\\\n", 2_500)) // 10,000 characters
	long := NewBuilder(bare(1), nil)
	long.Append(0, []byte(longLabel))

	for _, test := range []struct {
		name string
		page *Page
		live prometheus.Gatherer
		want string
	}{
		{"page and live part", full, fixed(t), fullText + fixedText},
		{"page alone", full, nil, fullText},
		{"live part alone, no page yet", nil, fixed(t), fixedText},
		{"live part alone, empty page", NewBuilder(bare(3), nil).Page(), fixed(t), fixedText},
		{"nothing at all", nil, nil, ""},
		{"small page", small.Page(), fixed(t), "small 1\n" + fixedText},
		{"a label of 10,000 characters", long.Page(), fixed(t), longLabel + fixedText},
	} {
		t.Run(test.name, func(t *testing.T) {
			url := serve(t, HandlerOptions{Page: always(test.page), Live: test.live})

			zipped, body := request(t, "GET", url, "gzip")
			if got := gunzip(t, body); got != test.want {
				t.Errorf("gzip: got %d bytes of text that differ from the %d wanted", len(got), len(test.want))
			}
			checkHeader(t, zipped, http.Header{
				"Content-Type":     {"text/plain; version=0.0.4; charset=utf-8"},
				"Content-Encoding": {"gzip"},
				"Content-Length":   {fmt.Sprint(len(body))},
				"Vary":             {"Accept-Encoding"},
				"Cache-Control":    {"no-store"},
			})

			plain, body := request(t, "GET", url, "")
			if string(body) != test.want {
				t.Errorf("identity: got %d bytes that differ from the %d wanted", len(body), len(test.want))
			}
			checkHeader(t, plain, http.Header{
				"Content-Type":   {"text/plain; version=0.0.4; charset=utf-8"},
				"Content-Length": {fmt.Sprint(len(body))},
				"Vary":           {"Accept-Encoding"},
				"Cache-Control":  {"no-store"},
			})

			for acceptEncoding, get := range map[string]*http.Response{"gzip": zipped, "identity": plain} {
				head, body := request(t, "HEAD", url, acceptEncoding)
				if len(body) > 0 {
					t.Errorf("HEAD, %s: %d bytes of body", acceptEncoding, len(body))
				}
				checkHeader(t, head, get.Header)
			}
		})
	}
}

func checkHeader(t *testing.T, response *http.Response, want http.Header) {
	t.Helper()
	if response.StatusCode != http.StatusOK {
		t.Errorf("status %s", response.Status)
	}
	got, want := response.Header.Clone(), want.Clone()
	for _, header := range []http.Header{got, want} {
		header.Del("Date")
		header.Del("Connection")
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%s: header %v, want %v", response.Request.Method, got, want)
	}
}

// The headers Accept are those of known scrapers. Each of them must get the text format 0.0.4.
func TestEveryScraperGetsTheTextFormat(t *testing.T) {
	url := serve(t, HandlerOptions{Live: fixed(t), Page: always(nil)})
	for name, accept := range map[string]string{
		"Prometheus 2.0": "text/plain;version=0.0.4;q=1,*/*;q=0.1",
		"Prometheus 2.53": "application/openmetrics-text;version=1.0.0;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4," +
			"text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
		"Prometheus 3": "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4," +
			"text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,text/plain;version=0.0.4;q=0.2,*/*;q=0.1",
		"Prometheus 3 with native histograms": "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.6," +
			"application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4," +
			"text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,text/plain;version=0.0.4;q=0.2,*/*;q=0.1",
		"vmagent": "text/plain;version=0.0.4;q=1,*/*;q=0.1",
		"curl":    "*/*",
		"nothing": "",
	} {
		request, err := http.NewRequest("GET", url, nil)
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("Accept", accept)
		response, err := http.DefaultTransport.RoundTrip(request)
		if err != nil {
			t.Fatal(err)
		}
		var family dto.MetricFamily
		err = expfmt.NewDecoder(response.Body, expfmt.ResponseFormat(response.Header)).Decode(&family)
		response.Body.Close()
		if err != nil || family.GetName() != "live" || family.GetMetric()[0].GetGauge().GetValue() != 42 {
			t.Errorf("%s: decoding by the answer's Content-Type %q: %v, %v",
				name, response.Header.Get("Content-Type"), &family, err)
		}
	}
	http.DefaultTransport.(*http.Transport).CloseIdleConnections()
}

func TestOtherProgramsReadTheAnswer(t *testing.T) {
	page, want := pageOf(t, 3, 3)
	want += fixedText
	url := serve(t, HandlerOptions{Page: always(page), Live: fixed(t)})
	_, file := request(t, "GET", url, "gzip")
	for _, command := range [][]string{
		{"gzip", "-t"},
		{"zcat"},
		{"python3", "-c", "import gzip, sys; sys.stdout.buffer.write(gzip.decompress(sys.stdin.buffer.read()))"},
		{"curl", "-sS", "--compressed", url},
		{"curl", "-sS", url},
	} {
		t.Run(strings.Join(command[:min(3, len(command))], " "), func(t *testing.T) {
			path, err := exec.LookPath(command[0])
			if err != nil {
				t.Skip(err)
			}
			program := exec.Command(path, command[1:]...)
			program.Stdin = bytes.NewReader(file)
			var complaints strings.Builder
			program.Stderr = &complaints
			got, err := program.Output()
			if err != nil || complaints.Len() > 0 {
				t.Fatalf("failed: %v: %s", err, complaints.String())
			}
			if command[0] != "gzip" && string(got) != want {
				t.Errorf("got %d bytes of text that differ from the %d wanted", len(got), len(want))
			}
		})
	}
}

func TestOtherMethodsAreRefused(t *testing.T) {
	url := serve(t, HandlerOptions{Page: always(nil)})
	for _, method := range []string{"POST", "PUT", "DELETE", "OPTIONS"} {
		response, _ := request(t, method, url, "")
		if response.StatusCode != http.StatusMethodNotAllowed || response.Header.Get("Allow") != "GET, HEAD" {
			t.Errorf("%s: status %d, Allow %q", method, response.StatusCode, response.Header.Get("Allow"))
		}
	}
}

// gatherFunc makes a Gatherer of a function.
type gatherFunc func() ([]*dto.MetricFamily, error)

func (f gatherFunc) Gather() ([]*dto.MetricFamily, error) { return f() }

func TestRequestsBeyondTheLimitGet503(t *testing.T) {
	page, want := pageOf(t, 1, 1)
	synctest.Test(t, func(t *testing.T) {
		const limit = 3
		gathering, release := make(chan bool), make(chan bool)
		live := gatherFunc(func() ([]*dto.MetricFamily, error) {
			gathering <- true
			<-release
			return nil, nil
		})
		handler := NewHandler(HandlerOptions{Page: always(page), Live: live, MaxRequests: limit})
		scrape := func() *httptest.ResponseRecorder {
			recorder := httptest.NewRecorder()
			handler.ServeHTTP(recorder, httptest.NewRequest("GET", "/", nil))
			return recorder
		}
		var scrapes sync.WaitGroup
		for range limit {
			scrapes.Go(func() {
				if got := scrape(); got.Code != 200 || got.Body.String() != want {
					t.Error("a scrape within the limit got something else")
				}
			})
			<-gathering
		}
		began := time.Now()
		refused := scrape()
		if got, want := refused.Body.String(), "Limit of concurrent requests reached (3), try again later.\n"; refused.Code != 503 || got != want {
			t.Errorf("beyond the limit: status %d, %q", refused.Code, got)
		}
		if took := time.Since(began); took != slotPatience {
			t.Errorf("refused after %s, want %s", took, slotPatience)
		}
		close(release)
		scrapes.Wait()
		go func() { <-gathering }()
		if got := scrape(); got.Code != 200 {
			t.Errorf("when all are done: status %d", got.Code)
		}
	})
}

// logTo returns a logger that writes into a buffer, without times.
func logTo(w io.Writer) *slog.Logger {
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{
		ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		},
	}))
}

func TestMetricsThatCouldBeGatheredAreServed(t *testing.T) {
	page, want := pageOf(t, 1, 1)
	good := fixed(t)
	live := gatherFunc(func() ([]*dto.MetricFamily, error) {
		families, err := good.Gather()
		name, counter := "broken", dto.MetricType_COUNTER
		return append([]*dto.MetricFamily{
			// A counter without a value: encoding fails after the lines of HELP and TYPE.
			{Name: &name, Help: &name, Type: &counter, Metric: []*dto.Metric{{}}},
		}, families...), errors.Join(err, errors.New("the disk is gone"))
	})
	var log bytes.Buffer
	metrics := prometheus.NewPedanticRegistry()
	handler := NewHandler(HandlerOptions{Page: always(page), Live: live, Registerer: metrics, ErrorLog: logTo(&log)})
	for range 100 {
		recorder := httptest.NewRecorder()
		handler.ServeHTTP(recorder, httptest.NewRequest("GET", "/", nil))
		if recorder.Code != 200 || recorder.Body.String() != want+fixedText {
			t.Fatalf("status %d, %d bytes, want 200 and the %d bytes that are right",
				recorder.Code, recorder.Body.Len(), len(want+fixedText))
		}
	}
	if got := strings.Count(log.String(), "\n"); got != 2 {
		t.Errorf("got %d lines in the log, want one for each cause:\n%s", got, &log)
	}
	if !strings.Contains(log.String(), `cause=gathering err="the disk is gone"`) || !strings.Contains(log.String(), "cause=encoding") {
		t.Errorf("the log does not say what is wrong:\n%s", &log)
	}
	wantErrors := map[string]float64{"gathering": 100, "encoding": 100, "sending": 0}
	if got := errorCounts(t, metrics); !reflect.DeepEqual(got, wantErrors) {
		t.Errorf("counted %v, want %v", got, wantErrors)
	}
}

// errorCounts returns promhttp_metric_handler_errors_total by cause.
func errorCounts(t *testing.T, metrics prometheus.Gatherer) map[string]float64 {
	t.Helper()
	families, err := metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	counts := map[string]float64{}
	for _, family := range families {
		if family.GetName() == "promhttp_metric_handler_errors_total" {
			for _, metric := range family.GetMetric() {
				counts[metric.GetLabel()[0].GetValue()] = metric.GetCounter().GetValue()
			}
		}
	}
	return counts
}

func TestHandlerMetrics(t *testing.T) {
	registry := prometheus.NewPedanticRegistry()
	url := serve(t, HandlerOptions{Page: always(nil), Live: registry, Registerer: registry})
	request(t, "GET", url, "gzip")
	request(t, "HEAD", url, "gzip")
	request(t, "DELETE", url, "")
	_, got := request(t, "GET", url, "")
	const want = `# HELP promhttp_metric_handler_errors_total Total number of internal errors encountered by the promhttp metric handler.
# TYPE promhttp_metric_handler_errors_total counter
promhttp_metric_handler_errors_total{cause="encoding"} 0
promhttp_metric_handler_errors_total{cause="gathering"} 0
promhttp_metric_handler_errors_total{cause="sending"} 0
# HELP promhttp_metric_handler_requests_in_flight Current number of scrapes being served.
# TYPE promhttp_metric_handler_requests_in_flight gauge
promhttp_metric_handler_requests_in_flight 1
# HELP promhttp_metric_handler_requests_total Total number of scrapes by HTTP status code.
# TYPE promhttp_metric_handler_requests_total counter
promhttp_metric_handler_requests_total{code="200"} 2
promhttp_metric_handler_requests_total{code="405"} 1
promhttp_metric_handler_requests_total{code="500"} 0
promhttp_metric_handler_requests_total{code="503"} 0
`
	if string(got) != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestNamesThatNeedQuotesAreEscapedAsTheFormatWants(t *testing.T) {
	registry := prometheus.NewRegistry()
	registry.MustRegister(prometheus.NewGauge(prometheus.GaugeOpts{Name: "live.with.dots", Help: "UTF-8."}))
	_, got := request(t, "GET", serve(t, HandlerOptions{Page: always(nil), Live: registry}), "")
	want := "# HELP live_with_dots UTF-8.\n# TYPE live_with_dots gauge\nlive_with_dots 0\n"
	if string(got) != want {
		t.Errorf("got %q, want %q (default scheme %v)", got, want, model.NameEscapingScheme)
	}
}

// Scrapes that overlap a swap get the old page or the new page, never parts of both.
func TestScrapesWhilePagesChange(t *testing.T) {
	const families, pieces, scrapers, swaps = 5, 2, 8, 10
	// Families 1 and 3 change with every generation, the others never.
	build := func(previous *Page, generation int) *Page {
		b := NewBuilder(bare(families), previous)
		for piece := range pieces {
			for family := range families {
				changes := family%2 == 1
				text := uint64(100*family + piece)
				if changes {
					text += uint64(1000 * generation)
				}
				switch {
				case family < 2:
					b.Append(family, lines(text, fragmentText))
				case previous == nil || changes:
					b.Add(family, lines(text, fragmentText))
				default:
					b.Keep(family, piece)
				}
			}
		}
		return b.Page()
	}
	var pages [swaps + 1]*Page
	var texts [swaps + 1]string
	var previous *Page
	for generation := range pages {
		previous = build(previous, generation)
		pages[generation] = previous
		texts[generation] = text(t, previous)
	}

	var current atomic.Pointer[Page]
	current.Store(pages[0])
	url := serve(t, HandlerOptions{Page: current.Load, Live: fixed(t)})
	for generation := range swaps {
		var scrapes sync.WaitGroup
		for i := range scrapers {
			scrapes.Go(func() {
				var got string
				if i%2 == 0 {
					_, body := request(t, "GET", url, "gzip")
					got = gunzip(t, body)
				} else {
					_, body := request(t, "GET", url, "identity")
					got = string(body)
				}
				if got != texts[generation]+fixedText && got != texts[generation+1]+fixedText {
					t.Errorf("generation %d: the answer is neither the page before nor the one after the swap", generation)
				}
			})
		}
		current.Store(pages[generation+1])
		scrapes.Wait()
	}
}
