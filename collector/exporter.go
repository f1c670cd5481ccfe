// SPDX-License-Identifier: Apache-2.0

package collector

import (
	"iter"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/balena-exporter/balena-exporter/internal/balena"
	"github.com/balena-exporter/balena-exporter/internal/balena/api"
)

// Metrics of the exporter itself and of its requests to the API. They are in an ordinary registry and are gathered for
// each scrape, even without a snapshot.

// exporterHeading is the heading of the metrics of the exporter itself.
const exporterHeading = "Exporter and API"

// Buckets in seconds. A refresh of 100,000 devices takes one or two seconds, or minutes if the API is slow. A request
// takes tens of milliseconds, and at most 30 seconds unless --balena.timeout is longer.
var (
	refreshBuckets = []float64{0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300}
	requestBuckets = []float64{0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30}
)

// Metrics are the metrics of the exporter itself. It is a [prometheus.Collector].
type Metrics struct {
	table anyTable
	last  atomic.Pointer[lastRefresh]

	refreshDuration *prometheus.HistogramVec
	refreshes       *prometheus.CounterVec
	refreshesByKind *prometheus.CounterVec
	devicesRead     *prometheus.CounterVec
	devicesChanged  *prometheus.CounterVec
	refreshBytes    *prometheus.CounterVec
	implausible     *prometheus.CounterVec
	requests        *prometheus.CounterVec
	requestDuration *prometheus.HistogramVec
	responseBytes   *prometheus.CounterVec
	rateLimited     *prometheus.CounterVec
}

// lastRefresh is the result of the last refresh. All fields but up are those of the last successful refresh.
type lastRefresh struct {
	up      bool
	fetched time.Time // when it began; zero before the first successful refresh
	fleets  int
	full    time.Time // when the last successful full refresh began; zero before it
	version balena.Version
	reading balena.Reading
	parts   []balena.Part
}

// NewMetrics returns metrics with the value zero. tokenExpiry returns when the token in use expires; the zero time means
// never or unknown. Data older than maxStaleness are not served.
func NewMetrics(tokenExpiry func() time.Time, maxStaleness time.Duration) *Metrics {
	m := &Metrics{}
	m.last.Store(&lastRefresh{})
	// The subject of the table is the last refresh. Counters and histograms are vectors that are kept between refreshes.
	last := kind[lastRefresh]{
		all:      func(*view) iter.Seq[lastRefresh] { return slices.Values([]lastRefresh{*m.last.Load()}) },
		identity: func(_ *lastRefresh, values []string) []string { return values },
	}
	m.table = last.table(exporterHeading, "1",
		gauge("balena_up", "Whether the last refresh succeeded (1) or failed (0). Also 0 before the first successful refresh, and while the data are stale and therefore not served.", "",
			// The data may become stale while a refresh is running.
			func(l *lastRefresh) float64 { return boolean(l.up && time.Since(l.fetched) <= maxStaleness) }),
		gauge("balena_exporter_last_refresh_success_timestamp_seconds", "When the last successful refresh began.", "",
			func(l *lastRefresh) float64 { return timestamp(l.fetched) }),
		gauge("balena_fleets", "Fleets read by the last successful refresh. 0 if the token has access to no fleets, or if the filters and --balena.shard select none.", "",
			func(l *lastRefresh) float64 { return onlyIf(!l.fetched.IsZero(), float64(l.fleets)) }).series(afterSuccess),
		histogram(&m.refreshDuration, refreshBuckets, "balena_exporter_refresh_duration_seconds",
			"Duration of refreshes, including requests, decoding, rendering and compression.").series("14"),
		counter(&m.refreshes, "balena_exporter_refreshes_total",
			"Refreshes by result: success or error.", "result").series("2"),
		counter(&m.refreshesByKind, "balena_exporter_refreshes_by_kind_total",
			"Successful refreshes by kind. A full refresh reads all data, an incremental refresh only changes since the previous refresh.", "kind").series("2"),
		counter(&m.devicesRead, "balena_exporter_refresh_devices_read_total",
			"Devices read by refreshes, by kind of refresh. Incremental refreshes overlap and therefore read more devices than changed.", "kind").series("2"),
		counter(&m.devicesChanged, "balena_exporter_refresh_devices_changed_total",
			"Devices that were added, removed or changed since the previous refresh, by kind of refresh. The first refresh counts all devices.", "kind").series("2"),
		counter(&m.refreshBytes, "balena_exporter_refresh_response_bytes_total",
			"Size of all API responses of successful refreshes, as transferred, by kind of refresh.", "kind").series("2"),
		gauge("balena_exporter_last_full_refresh_timestamp_seconds", "When the last full refresh began.", "",
			func(l *lastRefresh) float64 { return timestamp(l.full) }).series(afterSuccess),
		state("balena_exporter_incremental_refresh_mode", "The mode of incremental refreshes (1). devices_and_installs: query devices that changed or whose image installs changed. "+
			"devices: query only devices that changed, because the server does not report when image installs changed. full: read all data at every refresh.", "", "mode",
			func(l *lastRefresh) string { return string(l.reading.Mode) }).series(afterSuccess),
		labeled("balena_exporter_incremental_refresh_disabled", "Whether incremental refreshes are configured, but disabled for this reason (1). refused: the server rejects queries for changes. failing: these queries fail. "+
			"inconsistent: the responses are inconsistent. modified_at: the server does not update modified_at. no_date: the responses have no Date header. The log has the details.", "", []string{"reason"},
			func(l *lastRefresh, out *samples) {
				for _, reason := range balena.DisabledReasons() {
					out.add(boolean(l.reading.Disabled == reason), string(reason))
				}
			}).series("5"),
		counter(&m.implausible, "balena_exporter_implausible_values_total",
			"Implausible values of a field of the API, such as a negative CPU usage. They are not exported. A value is counted when it is first read, and each time it changes to another implausible value.", "field").
			series("1 per numeric field"),
		labeled("balena_exporter_refresh_part_success", "Whether this part of the last successful refresh succeeded (1) or failed (0). While a part fails, its last data are served until they are stale.", "", []string{"part"},
			func(l *lastRefresh, out *samples) {
				for _, p := range l.parts {
					out.add(boolean(p.Err == nil), string(p.Name))
				}
			}).series("1 per part"),
		labeled("balena_exporter_refresh_part_duration_seconds", "How long it took to read this part the last time, whether or not it succeeded.", "", []string{"part"},
			func(l *lastRefresh, out *samples) {
				for _, p := range l.parts {
					out.add(p.Duration.Seconds(), string(p.Name))
				}
			}).series("1 per part"),
		state("balena_api_version_info", "The version of the balena API that the last successful refresh used (1). Some metrics have no samples on v6. A change of the version is logged as a warning.", "", "version",
			func(l *lastRefresh) string { return string(l.version) }).series(afterSuccess),
		counter(&m.requests, "balena_api_requests_total",
			"Requests to the balena API by resource and HTTP status code. The code is error if there was no complete response.", "resource", "code").
			series("1 per resource and status code"),
		histogram(&m.requestDuration, requestBuckets, "balena_api_request_duration_seconds",
			"Duration of requests to the balena API, including reading the response.", "resource").series("14 per resource"),
		counter(&m.responseBytes, "balena_api_response_bytes_total",
			"Size of responses of the balena API, as transferred, usually compressed.", "resource").series("1 per resource"),
		counter(&m.rateLimited, "balena_api_rate_limited_total",
			"Responses of the balena API with the status 429 (too many requests)."),
		gauge("balena_api_token_expiry_timestamp_seconds", "When the session token in use expires. An API key does not contain its expiry date; see balena_api_key_expiry_timestamp_seconds.", "",
			func(*lastRefresh) float64 { return timestamp(tokenExpiry()) }).series("1 if the token is a session token"),
	)
	// The series exist from the start: rate() does not see the first increment of a series that begins with it.
	m.refreshDuration.WithLabelValues()
	m.rateLimited.WithLabelValues()
	m.refreshes.WithLabelValues(resultSuccess)
	m.refreshes.WithLabelValues(resultError)
	for _, k := range []balena.Kind{balena.Full, balena.Incremental} {
		for _, counter := range []*prometheus.CounterVec{m.refreshesByKind, m.devicesRead, m.devicesChanged, m.refreshBytes} {
			counter.WithLabelValues(string(k))
		}
	}
	for _, f := range append(slices.Clone(balena.DeviceFigures), balena.DownloadProgress) {
		m.implausible.WithLabelValues(f.Field)
	}
	return m
}

// afterSuccess is the number of series of families without a value before the first refresh that succeeds.
const afterSuccess = "1 after the first successful refresh"

// counter creates a vector of counters, and returns a family with its samples.
func counter(v **prometheus.CounterVec, name, help string, labels ...string) family[lastRefresh] {
	*v = prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	return vector(*v, "counter", name, help, labels)
}

// histogram creates a vector of histograms, and returns a family with its samples.
func histogram(v **prometheus.HistogramVec, buckets []float64, name, help string, labels ...string) family[lastRefresh] {
	*v = prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets}, labels)
	return vector(*v, "histogram", name, help, labels)
}

func vector(v prometheus.Collector, metricType, name, help string, labels []string) family[lastRefresh] {
	f := labeled(name, help, "", labels, func(_ *lastRefresh, out *samples) { v.Collect(out.metrics) })
	f.Type = metricType
	return f
}

// timestamp returns a time in seconds, and [none] for the zero time.
func timestamp(t time.Time) float64 {
	return onlyIf(!t.IsZero(), balena.Instant(t.UnixMilli()).Seconds())
}

const (
	resultSuccess = "success"
	resultError   = "error"
)

// ObserveRefresh counts a refresh that returned a snapshot or an error. It must not be called concurrently.
func (m *Metrics) ObserveRefresh(s *balena.Snapshot, err error, duration time.Duration) {
	m.refreshDuration.WithLabelValues().Observe(duration.Seconds())
	last := *m.last.Load()
	if err != nil {
		m.refreshes.WithLabelValues(resultError).Inc()
		last.up = false
	} else {
		m.refreshes.WithLabelValues(resultSuccess).Inc()
		kind := string(s.Reading.Kind)
		m.refreshesByKind.WithLabelValues(kind).Inc()
		m.devicesRead.WithLabelValues(kind).Add(float64(s.Reading.Devices))
		m.devicesChanged.WithLabelValues(kind).Add(float64(s.Reading.Changed))
		m.refreshBytes.WithLabelValues(kind).Add(float64(s.Reading.Bytes))
		last.up, last.fetched, last.fleets = true, s.Time, len(s.Fleets)
		last.version, last.reading, last.parts = s.APIVersion, s.Reading, s.Parts
		if s.Reading.Kind == balena.Full {
			last.full = s.Time
		}
	}
	m.last.Store(&last)
}

// ObserveExchange counts a request to the API.
func (m *Metrics) ObserveExchange(e api.Exchange) {
	code := "error"
	if e.Status != 0 {
		code = strconv.Itoa(e.Status)
	}
	m.requests.WithLabelValues(e.Resource, code).Inc()
	m.requestDuration.WithLabelValues(e.Resource).Observe(e.Duration.Seconds())
	m.responseBytes.WithLabelValues(e.Resource).Add(float64(e.Bytes))
	if e.Status == 429 {
		m.rateLimited.WithLabelValues().Inc()
	}
}

// ObserveImplausible counts new implausible values of a field; see [Options].
func (m *Metrics) ObserveImplausible(field string, values int) {
	m.implausible.WithLabelValues(field).Add(float64(values))
}

// Describe implements [prometheus.Collector].
func (m *Metrics) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range m.table.descriptions() {
		ch <- d.desc()
	}
}

// Collect implements [prometheus.Collector].
func (m *Metrics) Collect(ch chan<- prometheus.Metric) { m.table.collect(nil, ch) }
