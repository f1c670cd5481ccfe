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

// Metrics of the exporter itself and of its dealings with the API. They live in an ordinary registry and
// are read at each scrape, whether or not there is a snapshot.

var (
	upFamily = Description{
		Name: "balena_up", Type: "gauge",
		Help: "Whether the last refresh of the data succeeded (1) or failed (0); 0 as well until the first one is done, and when the data have become too old to be served.",
	}
	lastSuccessFamily = Description{
		Name: "balena_exporter_last_refresh_success_timestamp_seconds", Type: "gauge",
		Help: "When the data that are served now were read, or the last data that were served.",
	}
	fleetsFamily = Description{
		Name: "balena_fleets", Type: "gauge", Series: "1 from the first refresh on",
		Help: "Fleets in the data now served, or in the last data there were; 0 when the token sees none, or when the filters and --balena.shard leave none.",
	}
	refreshDurationFamily = Description{
		Name: "balena_exporter_refresh_duration_seconds", Type: "histogram", Series: "14",
		Help: "How long refreshes took: asking the API, decoding, rendering and compressing.",
	}
	refreshesFamily = Description{
		Name: "balena_exporter_refreshes_total", Type: "counter", Labels: []string{"result"}, Series: "2",
		Help: "Refreshes by result, success or error.",
	}
	refreshesByKindFamily = Description{
		Name: "balena_exporter_refreshes_by_kind_total", Type: "counter", Labels: []string{"kind"}, Series: "2",
		Help: "Refreshes that succeeded, by kind: full reads everything, incremental only what changed since the refresh before.",
	}
	devicesReadFamily = Description{
		Name: "balena_exporter_refresh_devices_read_total", Type: "counter", Labels: []string{"kind"}, Series: "2",
		Help: "Devices that refreshes read, by kind of refresh. Incremental refreshes ask with some overlap, so this is more than what changed.",
	}
	devicesChangedFamily = Description{
		Name: "balena_exporter_refresh_devices_changed_total", Type: "counter", Labels: []string{"kind"}, Series: "2",
		Help: "Devices that were added, removed or changed since the refresh before, by kind of refresh. The first refresh counts all.",
	}
	refreshBytesFamily = Description{
		Name: "balena_exporter_refresh_response_bytes_total", Type: "counter", Labels: []string{"kind"}, Series: "2",
		Help: "Bytes of all answers to refreshes that succeeded as they were transferred, by kind of refresh.",
	}
	lastFullRefreshFamily = Description{
		Name: "balena_exporter_last_full_refresh_timestamp_seconds", Type: "gauge", Series: "1 from the first refresh on",
		Help: "When the last full refresh began.",
	}
	incrementalModeFamily = Description{
		Name: "balena_exporter_incremental_refresh_mode", Type: "gauge", Labels: []string{"mode"}, Series: "1 from the first refresh on",
		Help: "How refreshes ask for what changed (1): by devices_and_installs; by devices, where the server does not tell when image installs changed; or not at all, full.",
	}
	incrementalDisabledFamily = Description{
		Name: "balena_exporter_incremental_refresh_disabled", Type: "gauge", Labels: []string{"reason"}, Series: "5",
		Help: "Whether every refresh is a full one for a reason (1) although incremental refreshes are configured: the server's questions for changes are refused or failing, the answers are inconsistent, " +
			"modified_at does not move, or no_date comes with answers. The log has the details.",
	}
	implausibleFamily = Description{
		Name: "balena_exporter_implausible_values_total", Type: "counter", Labels: []string{"field"}, Series: "1 for each field of a number that devices report",
		Help: "Values of a field of the API that cannot be true, such as a negative CPU usage, and have no sample. A value counts when it is read first and each time it changes to another one that cannot be true.",
	}
	partSuccessFamily = Description{
		Name: "balena_exporter_refresh_part_success", Type: "gauge", Labels: []string{"part"}, Series: "1 for each part",
		Help: "Whether this part of the last refresh succeeded (1) or failed (0). While a part fails, its last data are served until they are too old.",
	}
	partDurationFamily = Description{
		Name: "balena_exporter_refresh_part_duration_seconds", Type: "gauge", Labels: []string{"part"}, Series: "1 for each part",
		Help: "How long this part of a refresh took the last time it succeeded.",
	}
	apiVersionFamily = Description{
		Name: "balena_api_version_info", Type: "gauge", Labels: []string{"version"}, Series: "1 from the first refresh on",
		Help: "Version of the balena API that answered the last successful refresh (1). On v6, some metrics have no samples. A change is logged as a warning.",
	}
	requestsFamily = Description{
		Name: "balena_api_requests_total", Type: "counter", Labels: []string{"resource", "code"}, Series: "1 for each resource and status",
		Help: "Requests to the balena API by resource and HTTP status; error where there was no complete answer.",
	}
	requestDurationFamily = Description{
		Name: "balena_api_request_duration_seconds", Type: "histogram", Labels: []string{"resource"}, Series: "14 for each resource",
		Help: "How long requests to the balena API took, the reading of the answer included.",
	}
	responseBytesFamily = Description{
		Name: "balena_api_response_bytes_total", Type: "counter", Labels: []string{"resource"}, Series: "1 for each resource",
		Help: "Bytes of answers of the balena API as they were transferred, compressed mostly.",
	}
	rateLimitedFamily = Description{
		Name: "balena_api_rate_limited_total", Type: "counter",
		Help: "Answers of the balena API that said 429, too many requests.",
	}
	tokenExpiryFamily = Description{
		Name: "balena_api_token_expiry_timestamp_seconds", Type: "gauge", Series: "1 when the token is a session token",
		Help: "When the session token in use expires. An API key does not tell; see balena_api_key_expiry_timestamp_seconds.",
	}
)

// exporterHeading is the heading of the exporter's own metrics, which belong to no table.
const exporterHeading = "Exporter and API"

// exporterFamilies is the group as it is documented.
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

// Buckets in seconds: a refresh takes a second or two for 100,000 devices, and minutes from an API in
// trouble; a request tens of milliseconds, and at most 30 seconds unless --balena.timeout is longer.
var (
	refreshBuckets = []float64{0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300}
	requestBuckets = []float64{0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30}
)

// Metrics counts what the exporter does. It is a [prometheus.Collector].
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

// lastRefresh is how the last refresh went.
type lastRefresh struct {
	up       bool
	fetched  time.Time // zero as long as none succeeded
	fleets   int
	full     time.Time // when the last full refresh began; zero as long as none succeeded
	version  balena.Version
	mode     balena.Mode
	disabled balena.Disabled
	parts    []balena.Part
}

// NewMetrics returns metrics at zero. tokenExpiry returns when the token in use expires, zero for never or
// unknown; data older than maxStaleness are not served.
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
	// Counters that begin to exist when they first count hide their first event from rate().
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

// ObserveRefresh counts a refresh, which gave a snapshot or an error. One goroutine at a time may call it.
func (m *Metrics) ObserveRefresh(s *balena.Snapshot, err error, took time.Duration) {
	m.refreshDuration.Observe(took.Seconds())
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

// ObserveImplausible counts new values of a field that cannot be true. It is for [Options].
func (m *Metrics) ObserveImplausible(field string, values int) {
	m.implausible.WithLabelValues(field).Add(float64(values))
}

// byKind are the counters of refreshes that are told apart by kind.
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

// constants are the families whose samples are made of the last refresh at each collection.
func constants() []Description {
	return []Description{upFamily, lastSuccessFamily, fleetsFamily, lastFullRefreshFamily, incrementalModeFamily, incrementalDisabledFamily, partSuccessFamily, partDurationFamily, apiVersionFamily, tokenExpiryFamily}
}

// Describe implements [prometheus.Collector].
func (m *Metrics) Describe(ch chan<- *prometheus.Desc) {
	for _, c := range m.vectors() {
		c.Describe(ch)
	}
	for _, d := range constants() {
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
	// A refresh may hang for longer than the data before it may be served.
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
