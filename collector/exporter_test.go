package collector_test

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/balena-exporter/balena-exporter/collector"
	"github.com/balena-exporter/balena-exporter/internal/balena"
)

func TestExporterTellsHowTheLastRefreshWent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const maxStaleness = 5 * time.Minute
		m := collector.NewMetrics(func() time.Time { return time.Time{} }, maxStaleness)
		r := prometheus.NewPedanticRegistry()
		r.MustRegister(m)
		up := func(want float64) {
			t.Helper()
			families, err := r.Gather()
			if err != nil {
				t.Fatal(err)
			}
			if got := samples(families)["balena_up{}"]; got != want {
				t.Errorf("balena_up is %v, want %v", got, want)
			}
		}
		lastSuccess := func() int {
			return testutil.CollectAndCount(m, "balena_exporter_last_refresh_success_timestamp_seconds")
		}

		up(0)
		if lastSuccess() != 0 {
			t.Error("there is a time of the last success before the first")
		}
		m.ObserveRefresh(&collector.Snapshot{Time: time.Now(), Parts: []balena.Part{
			{Name: balena.PartReleases, Duration: time.Second}, {Name: balena.PartKeys, Duration: 2 * time.Second, Err: errors.New("no")},
		}}, nil, time.Second)
		up(1)
		if lastSuccess() != 1 {
			t.Error("there is no time of the last success")
		}
		if err := testutil.CollectAndCompare(m, strings.NewReader(`
# HELP balena_exporter_collector_duration_seconds How long an optional collector took to read its data the last time it did.
# TYPE balena_exporter_collector_duration_seconds gauge
balena_exporter_collector_duration_seconds{collector="api_key"} 2
balena_exporter_collector_duration_seconds{collector="release"} 1
# HELP balena_exporter_collector_success Whether an optional collector read its data in the last refresh. Its last data stand in until they are too old.
# TYPE balena_exporter_collector_success gauge
balena_exporter_collector_success{collector="api_key"} 0
balena_exporter_collector_success{collector="release"} 1
`), "balena_exporter_collector_duration_seconds", "balena_exporter_collector_success"); err != nil {
			t.Error(err)
		}
		m.ObserveRefresh(nil, errors.New("unavailable"), time.Second)
		up(0)
		m.ObserveRefresh(&collector.Snapshot{Time: time.Now()}, nil, time.Second)
		up(1)

		// The next refresh hangs.
		time.Sleep(maxStaleness)
		up(1)
		time.Sleep(time.Nanosecond)
		up(0)
		if err := testutil.CollectAndCompare(m, strings.NewReader(`
# HELP balena_exporter_refreshes_total Refreshes by result, success or error.
# TYPE balena_exporter_refreshes_total counter
balena_exporter_refreshes_total{result="error"} 1
balena_exporter_refreshes_total{result="success"} 2
`), "balena_exporter_refreshes_total"); err != nil {
			t.Error(err)
		}
	})
}

func TestExporterCountsRequests(t *testing.T) {
	expiry := time.Unix(1900000000, 0)
	m := collector.NewMetrics(func() time.Time { return expiry }, time.Hour)
	m.ObserveExchange(balena.Exchange{Resource: "device", Status: 200, Duration: 30 * time.Millisecond, Bytes: 1000})
	m.ObserveExchange(balena.Exchange{Resource: "device", Status: 200, Duration: 3 * time.Second, Bytes: 500})
	m.ObserveExchange(balena.Exchange{Resource: "device", Status: 429})
	m.ObserveExchange(balena.Exchange{Resource: "application"})
	if err := testutil.CollectAndCompare(m, strings.NewReader(`
# HELP balena_api_rate_limited_total Answers of the balena API that said 429, too many requests.
# TYPE balena_api_rate_limited_total counter
balena_api_rate_limited_total 1
# HELP balena_api_requests_total Requests to the balena API by resource and HTTP status; error where there was no complete answer.
# TYPE balena_api_requests_total counter
balena_api_requests_total{code="200",resource="device"} 2
balena_api_requests_total{code="429",resource="device"} 1
balena_api_requests_total{code="error",resource="application"} 1
# HELP balena_api_response_bytes_total Bytes of answers of the balena API as they were transferred, compressed mostly.
# TYPE balena_api_response_bytes_total counter
balena_api_response_bytes_total{resource="application"} 0
balena_api_response_bytes_total{resource="device"} 1500
# HELP balena_api_token_expiry_timestamp_seconds When the session token in use expires. An API key does not tell; see balena_api_key_expiry_timestamp_seconds.
# TYPE balena_api_token_expiry_timestamp_seconds gauge
balena_api_token_expiry_timestamp_seconds 1.9e+09
`), "balena_api_rate_limited_total", "balena_api_requests_total", "balena_api_response_bytes_total", "balena_api_token_expiry_timestamp_seconds"); err != nil {
		t.Error(err)
	}
	problems, err := testutil.CollectAndLint(m)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}
