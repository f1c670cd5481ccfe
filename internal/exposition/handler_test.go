package exposition

import (
	"bytes"
	"compress/gzip"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

// gunzip reads one gzip member, after which nothing may follow.
func gunzip(t testing.TB, file []byte) string {
	t.Helper()
	source := bytes.NewReader(file) // an io.ByteReader, so that nothing is read ahead
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

// fixed is a live part that is the same at every scrape.
func fixed(t testing.TB) prometheus.Gatherer {
	t.Helper()
	registry := prometheus.NewRegistry()
	gauge := prometheus.NewGauge(prometheus.GaugeOpts{Name: "live", Help: "The live part."})
	gauge.Set(42)
	registry.MustRegister(gauge)
	return registry
}

const fixedText = "# HELP live The live part.\n# TYPE live gauge\nlive 42\n"

func always(page *Page) func() *Page { return func() *Page { return page } }

// get returns the answer with its body as sent.
func get(t testing.TB, method, url, acceptEncoding string) (*http.Response, []byte) {
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

func TestGzipAndIdentityAreTheSameText(t *testing.T) {
	page, want := pageOf(t, 3, 3)
	server := httptest.NewServer(NewHandler(HandlerOptions{Page: always(page), Live: fixed(t)}))
	defer server.Close()

	response, body := get(t, "GET", server.URL, "gzip")
	if got := response.Header.Get("Content-Encoding"); got != "gzip" {
		t.Errorf("Content-Encoding %q, want gzip", got)
	}
	if got := gunzip(t, body); got != want+fixedText {
		t.Errorf("gzip: %d bytes of other text, want %d", len(got), len(want+fixedText))
	}
	if response.ContentLength != int64(len(body)) {
		t.Errorf("gzip: Content-Length %d, but %d bytes", response.ContentLength, len(body))
	}

	response, body = get(t, "GET", server.URL, "")
	if got := response.Header.Get("Content-Encoding"); got != "" {
		t.Errorf("Content-Encoding %q, want none", got)
	}
	if string(body) != want+fixedText {
		t.Errorf("identity: %d bytes of other text, want %d", len(body), len(want+fixedText))
	}
	if response.ContentLength != int64(len(body)) {
		t.Errorf("identity: Content-Length %d, but %d bytes", response.ContentLength, len(body))
	}
}

// pageOf returns a page with runs of families, and its text.
func pageOf(t testing.TB, families, runs int) (*Page, string) {
	t.Helper()
	b := NewBuilder(families, nil)
	for run := range runs {
		for family := range families {
			b.Append(family, lines(uint64(100*family+run), fragmentText+17*run))
		}
	}
	page := b.Page()
	return page, text(t, page)
}

