// SPDX-License-Identifier: Apache-2.0

//go:build unix

package account_test

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"

	"github.com/balena-exporter/balena-exporter/internal/balena/account"
	"github.com/balena-exporter/balena-exporter/internal/balena/api"
	"github.com/balena-exporter/balena-exporter/internal/simulator"
)

// tape answers requests from memory with earlier answers of a server, as transferred.
type tape struct {
	server  http.Handler
	answers map[string]*httptest.ResponseRecorder
}

func (t *tape) RoundTrip(r *http.Request) (*http.Response, error) {
	uri := r.URL.RequestURI()
	answer, ok := t.answers[uri]
	if !ok {
		served := r.Clone(r.Context())
		served.RequestURI = uri
		answer = httptest.NewRecorder()
		t.server.ServeHTTP(answer, served)
		t.answers[uri] = answer
	}
	return &http.Response{
		StatusCode: answer.Code, Header: answer.Header(), Body: io.NopCloser(bytes.NewReader(answer.Body.Bytes())),
		ContentLength: int64(answer.Body.Len()), Request: r,
	}, nil
}

// processTime returns the CPU time of the process, including garbage collection.
func processTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkFetch measures a refresh of 100,000 devices with all their fields, without a network: building
// requests, decompressing, decoding. The baseline is reading and decompressing the same bytes without using
// them. Both are measured in CPU time, on which other load of the machine has the least influence. How many services run is
// read along, or not.
func BenchmarkFetch(b *testing.B) {
	b.Run("devices", func(b *testing.B) { benchmarkFetch(b, account.Options{}) })
	b.Run("devices and a summary of services", func(b *testing.B) { benchmarkFetch(b, account.Options{ServiceSummary: true}) })
}

func benchmarkFetch(b *testing.B, o account.Options) {
	o.Devices, o.Releases, o.ArchivedFleets, o.SlowInterval = true, true, true, time.Hour
	const devices = 100_000
	sim, err := simulator.New(simulator.Config{Devices: devices, Fleets: 200, Seed: 1, CloudFields: true})
	if err != nil {
		b.Fatal(err)
	}
	recorded := &tape{server: sim, answers: map[string]*httptest.ResponseRecorder{}}
	client, err := account.New(account.Config{
		Config:   api.Config{URL: &url.URL{Scheme: "http", Host: "balena.test"}, Token: api.StaticToken("token"), Timeout: time.Minute, Transport: recorded},
		PageSize: 1000, Options: o,
	})
	if err != nil {
		b.Fatal(err)
	}
	fetch := func() {
		if s, err := client.Fetch(context.Background()); err != nil || s.Devices.Len() != devices {
			b.Fatal(err)
		}
	}
	fetch() // learns about the server, and fills the tape
	clear(recorded.answers)
	fetch()
	recorded.server = nil

	var unzip gzip.Reader
	floor := func() {
		for _, answer := range recorded.answers {
			if answer.Header().Get("Content-Encoding") != "gzip" {
				continue // the empty page at the end of a list
			}
			if err := unzip.Reset(io.NopCloser(bytes.NewReader(answer.Body.Bytes()))); err != nil {
				b.Fatal(err)
			}
			if _, err := io.Copy(io.Discard, &unzip); err != nil {
				b.Fatal(err)
			}
		}
	}
	floor()
	cpu := func(f func()) time.Duration {
		began := processTime(b)
		f()
		return processTime(b) - began
	}

	var took, least time.Duration
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for b.Loop() {
		took += cpu(fetch)
		least += cpu(floor)
	}
	runtime.ReadMemStats(&after)
	b.ReportMetric(float64(took.Nanoseconds())/float64(b.N)/devices, "cpu-ns/device")
	b.ReportMetric(float64(after.Mallocs-before.Mallocs)/float64(b.N)/devices, "allocs/device")
	b.ReportMetric(float64(took)/float64(least), "x-floor")
}
