// SPDX-License-Identifier: Apache-2.0

package collector

import (
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

var (
	upFamily = Description{
		Name: "balena_up", Type: "gauge",
		Help: "Whether the last refresh succeeded (1) or failed (0). Also 0 before the first successful refresh, and while the data are stale and therefore not served.",
	}
	lastSuccessFamily = Description{
		Name: "balena_exporter_last_refresh_success_timestamp_seconds", Type: "gauge",
		Help: "When the last successful refresh began.",
	}
	fleetsFamily = Description{
		Name: "balena_fleets", Type: "gauge", Series: "1 after the first successful refresh",
		Help: "Fleets read by the last successful refresh. 0 if the token has access to no fleets, or if the filters and --balena.shard select none.",
	}
	refreshDurationFamily = Description{
		Name: "balena_exporter_refresh_duration_seconds", Type: "histogram", Series: "14",
		Help: "Duration of refreshes, including requests, decoding, rendering and compression.",
	}
	refreshesFamily = Description{
		Name: "balena_exporter_refreshes_total", Type: "counter", Labels: []string{"result"}, Series: "2",
		Help: "Refreshes by result: success or error.",
	}
	refreshesByKindFamily = Description{
		Name: "balena_exporter_refreshes_by_kind_total", Type: "counter", Labels: []string{"kind"}, Series: "2",
		Help: "Successful refreshes by kind. A full refresh reads all data, an incremental refresh only changes since the previous refresh.",
	}
	devicesReadFamily = Description{
		Name: "balena_exporter_refresh_devices_read_total", Type: "counter", Labels: []string{"kind"}, Series: "2",
		Help: "Devices read by refreshes, by kind of refresh. Incremental refreshes overlap and therefore read more devices than changed.",
	}
	devicesChangedFamily = Description{
		Name: "balena_exporter_refresh_devices_changed_total", Type: "counter", Labels: []string{"kind"}, Series: "2",
		Help: "Devices that were added, removed or changed since the previous refresh, by kind of refresh. The first refresh counts all devices.",
	}
	refreshBytesFamily = Description{
		Name: "balena_exporter_refresh_response_bytes_total", Type: "counter", Labels: []string{"kind"}, Series: "2",
		Help: "Size of all API responses of successful refreshes, as transferred, by kind of refresh.",
	}
	lastFullRefreshFamily = Description{
		Name: "balena_exporter_last_full_refresh_timestamp_seconds", Type: "gauge", Series: "1 after the first successful refresh",
		Help: "When the last full refresh began.",
	}
	incrementalModeFamily = Description{
		Name: "balena_exporter_incremental_refresh_mode", Type: "gauge", Labels: []string{"mode"}, Series: "1 after the first successful refresh",
		Help: "The mode of incremental refreshes (1). devices_and_installs: query devices that changed or whose image installs changed. " +
			"devices: query only devices that changed, because the server does not report when image installs changed. full: read all data at every refresh.",
	}
	incrementalDisabledFamily = Description{
		Name: "balena_exporter_incremental_refresh_disabled", Type: "gauge", Labels: []string{"reason"}, Series: "5",
		Help: "Whether incremental refreshes are configured, but disabled for this reason (1). refused: the server rejects queries for changes. failing: these queries fail. " +
			"inconsistent: the responses are inconsistent. modified_at: the server does not update modified_at. no_date: the responses have no Date header. The log has the details.",
	}
	implausibleFamily = Description{
		Name: "balena_exporter_implausible_values_total", Type: "counter", Labels: []string{"field"}, Series: "1 per numeric field",
		Help: "Implausible values of a field of the API, such as a negative CPU usage. They are not exported. A value is counted when it is first read, and each time it changes to another implausible value.",
	}
	partSuccessFamily = Description{
		Name: "balena_exporter_refresh_part_success", Type: "gauge", Labels: []string{"part"}, Series: "1 per part",
		Help: "Whether this part of the last successful refresh succeeded (1) or failed (0). While a part fails, its last data are served until they are stale.",
	}
	partDurationFamily = Description{
		Name: "balena_exporter_refresh_part_duration_seconds", Type: "gauge", Labels: []string{"part"}, Series: "1 per part",
		Help: "How long it took to read this part the last time, whether or not it succeeded.",
	}
	apiVersionFamily = Description{
		Name: "balena_api_version_info", Type: "gauge", Labels: []string{"version"}, Series: "1 after the first successful refresh",
		Help: "The version of the balena API that the last successful refresh used (1). Some metrics have no samples on v6. A change of the version is logged as a warning.",
	}
	requestsFamily = Description{
		Name: "balena_api_requests_total", Type: "counter", Labels: []string{"resource", "code"}, Series: "1 per resource and status code",
		Help: "Requests to the balena API by resource and HTTP status code. The code is error if there was no complete response.",
	}
	requestDurationFamily = Description{
		Name: "balena_api_request_duration_seconds", Type: "histogram", Labels: []string{"resource"}, Series: "14 per resource",
		Help: "Duration of requests to the balena API, including reading the response.",
	}
	responseBytesFamily = Description{
		Name: "balena_api_response_bytes_total", Type: "counter", Labels: []string{"resource"}, Series: "1 per resource",
		Help: "Size of responses of the balena API, as transferred, usually compressed.",
	}
	rateLimitedFamily = Description{
		Name: "balena_api_rate_limited_total", Type: "counter",
		Help: "Responses of the balena API with the status 429 (too many requests).",
	}
	tokenExpiryFamily = Description{
		Name: "balena_api_token_expiry_timestamp_seconds", Type: "gauge", Series: "1 if the token is a session token",
		Help: "When the session token in use expires. An API key does not contain its expiry date; see balena_api_key_expiry_timestamp_seconds.",
	}
)

// exporterHeading is the heading of the metrics of the exporter itself, which are not in a table.
const exporterHeading = "Exporter and API"

// exporterFamilies returns the group in the order in which it is documented.
func exporterFamilies() []Description {
	families := []Description{
		upFamily, lastSuccessFamily, fleetsFamily, refreshDurationFamily, refreshesFamily, refreshesByKindFamily, devicesReadFamily,
		devicesChangedFamily, refreshBytesFamily, lastFullRefreshFamily, incrementalModeFamily, incrementalDisabledFamily, implausibleFamily, partSuccessFamily, partDurationFamily,
		apiVersionFamily, requestsFamily, requestDurationFamily, responseBytesFamily, rateLimitedFamily, tokenExpiryFamily,
	}
	for i := range families {
		families[i].Group = exporterHeading
		if families[i].Series == "" {
			families[i].Series = "1"
		}
	}
	return families
}

// Buckets in seconds. A refresh of 100,000 devices takes one or two seconds, or minutes if the API is slow. A request
// takes tens of milliseconds, and at most 30 seconds unless --balena.timeout is longer.
var (
	refreshBuckets = []float64{0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300}
	requestBuckets = []float64{0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30}
)

// Metrics are the metrics of the exporter itself. It is a [prometheus.Collector].
type Metrics struct {
	tokenExpiry  func() time.Time
	maxStaleness time.Duration
	last         atomic.Pointer[lastRefresh]

	refreshDuration prometheus.Histogram
	refreshes       *prometheus.CounterVec
	refreshesByKind *prometheus.CounterVec
	devicesRead     *prometheus.CounterVec
	devicesChanged  *prometheus.CounterVec
	refreshBytes    *prometheus.CounterVec
	implausible     *prometheus.CounterVec
	requests        *prometheus.CounterVec
	requestDuration *prometheus.HistogramVec
	responseBytes   *prometheus.CounterVec
	rateLimited     prometheus.Counter
}

// lastRefresh is the result of the last refresh. All fields but up are those of the last successful refresh.
type lastRefresh struct {
	up       bool
	fetched  time.Time // when it began; zero before the first successful refresh
	fleets   int
	full     time.Time // when the last successful full refresh began; zero before it
	version  balena.Version
	mode     balena.Mode
	disabled balena.Disabled
	parts    []balena.Part
}

// NewMetrics returns metrics with the value zero. tokenExpiry returns when the token in use expires; the zero time means
// never or unknown. Data older than maxStaleness are not served.
func NewMetrics(tokenExpiry func() time.Time, maxStaleness time.Duration) *Metrics {
	counter := func(d Description) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: d.Name, Help: d.Help}, d.Labels)
	}
	m := &Metrics{
		tokenExpiry:  tokenExpiry,
		maxStaleness: maxStaleness,
		refreshDuration: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: refreshDurationFamily.Name, Help: refreshDurationFamily.Help, Buckets: refreshBuckets,
		}),
		refreshes:       counter(refreshesFamily),
		refreshesByKind: counter(refreshesByKindFamily),
		devicesRead:     counter(devicesReadFamily),
		devicesChanged:  counter(devicesChangedFamily),
		refreshBytes:    counter(refreshBytesFamily),
		implausible:     counter(implausibleFamily),
		requests:        counter(requestsFamily),
		requestDuration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: requestDurationFamily.Name, Help: requestDurationFamily.Help, Buckets: requestBuckets,
		}, requestDurationFamily.Labels),
		responseBytes: counter(responseBytesFamily),
		rateLimited:   prometheus.NewCounter(prometheus.CounterOpts{Name: rateLimitedFamily.Name, Help: rateLimitedFamily.Help}),
	}
	m.last.Store(&lastRefresh{})
	// The series exist from the start: rate() does not see the first increment of a series that begins with it.
	m.refreshes.WithLabelValues(resultSuccess)
	m.refreshes.WithLabelValues(resultError)
	for _, kind := range []balena.Kind{balena.Full, balena.Incremental} {
		for _, counter := range m.byKind() {
			counter.WithLabelValues(string(kind))
		}
	}
	for _, f := range append(slices.Clone(balena.DeviceFigures), balena.DownloadProgress) {
		m.implausible.WithLabelValues(f.Field)
	}
	return m
}

const (
	resultSuccess = "success"
	resultError   = "error"
)

// ObserveRefresh counts a refresh that returned a snapshot or an error. It must not be called concurrently.
func (m *Metrics) ObserveRefresh(s *balena.Snapshot, err error, duration time.Duration) {
	m.refreshDuration.Observe(duration.Seconds())
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
		last.version, last.mode, last.disabled, last.parts = s.APIVersion, s.Reading.Mode, s.Reading.Disabled, s.Parts
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
		m.rateLimited.Inc()
	}
}

// ObserveImplausible counts new implausible values of a field; see [Options].
func (m *Metrics) ObserveImplausible(field string, values int) {
	m.implausible.WithLabelValues(field).Add(float64(values))
}

// byKind returns the counters with the label kind.
func (m *Metrics) byKind() []*prometheus.CounterVec {
	return []*prometheus.CounterVec{m.refreshesByKind, m.devicesRead, m.devicesChanged, m.refreshBytes}
}

func (m *Metrics) vectors() []prometheus.Collector {
	vectors := []prometheus.Collector{m.refreshDuration, m.refreshes, m.implausible, m.requests, m.requestDuration, m.responseBytes, m.rateLimited}
	for _, counter := range m.byKind() {
		vectors = append(vectors, counter)
	}
	return vectors
}

// lastRefreshFamilies returns the families whose samples are created at each collection.
func lastRefreshFamilies() []Description {
	return []Description{upFamily, lastSuccessFamily, fleetsFamily, lastFullRefreshFamily, incrementalModeFamily, incrementalDisabledFamily, partSuccessFamily, partDurationFamily, apiVersionFamily, tokenExpiryFamily}
}

// Describe implements [prometheus.Collector].
func (m *Metrics) Describe(ch chan<- *prometheus.Desc) {
	for _, c := range m.vectors() {
		c.Describe(ch)
	}
	for _, d := range lastRefreshFamilies() {
		ch <- prometheus.NewDesc(d.Name, d.Help, d.Labels, nil)
	}
}

// Collect implements [prometheus.Collector].
func (m *Metrics) Collect(ch chan<- prometheus.Metric) {
	for _, c := range m.vectors() {
		c.Collect(ch)
	}
	send := func(d Description, value float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(prometheus.NewDesc(d.Name, d.Help, d.Labels, nil), prometheus.GaugeValue, value, labels...)
	}
	last := m.last.Load()
	// The data may become stale while a refresh is running.
	send(upFamily, boolean(last.up && time.Since(last.fetched) <= m.maxStaleness))
	if !last.fetched.IsZero() {
		send(lastSuccessFamily, balena.Instant(last.fetched.UnixMilli()).Seconds())
		send(fleetsFamily, float64(last.fleets))
	}
	if !last.full.IsZero() {
		send(lastFullRefreshFamily, balena.Instant(last.full.UnixMilli()).Seconds())
	}
	if last.version != "" {
		send(apiVersionFamily, 1, string(last.version))
	}
	if last.mode != "" {
		send(incrementalModeFamily, 1, string(last.mode))
	}
	for _, reason := range balena.DisabledReasons() {
		send(incrementalDisabledFamily, boolean(last.disabled == reason), string(reason))
	}
	for _, p := range last.parts {
		send(partSuccessFamily, boolean(p.Err == nil), string(p.Name))
		send(partDurationFamily, p.Duration.Seconds(), string(p.Name))
	}
	if t := m.tokenExpiry(); !t.IsZero() {
		send(tokenExpiryFamily, float64(t.Unix()))
	}
}
