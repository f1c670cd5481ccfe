// SPDX-License-Identifier: Apache-2.0

package collector_test

import (
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/common/expfmt"

	"github.com/balena-exporter/balena-exporter/collector"
	"github.com/balena-exporter/balena-exporter/internal/balena"
	balenaapi "github.com/balena-exporter/balena-exporter/internal/balena/api"
)

func TestMetricsOfTheLastRefresh(t *testing.T) {
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
			t.Error("there is a time of the last success before the first success")
		}
		m.ObserveRefresh(&balena.Snapshot{Time: time.Now(), Reading: balena.Reading{Kind: balena.Full}, Parts: []balena.Part{
			{Name: balena.PartReleases, Duration: time.Second}, {Name: balena.PartKeys, Duration: 2 * time.Second, Err: errors.New("no")},
		}}, nil, time.Second)
		up(1)
		if lastSuccess() != 1 {
			t.Error("there is no time of the last success")
		}
		if err := testutil.CollectAndCompare(m, strings.NewReader(`
# HELP balena_exporter_refresh_part_duration_seconds How long it took to read this part the last time, whether or not it succeeded.
# TYPE balena_exporter_refresh_part_duration_seconds gauge
balena_exporter_refresh_part_duration_seconds{part="api_key"} 2
balena_exporter_refresh_part_duration_seconds{part="release"} 1
# HELP balena_exporter_refresh_part_success Whether this part of the last successful refresh succeeded (1) or failed (0). While a part fails, its last data are served until they are stale.
# TYPE balena_exporter_refresh_part_success gauge
balena_exporter_refresh_part_success{part="api_key"} 0
balena_exporter_refresh_part_success{part="release"} 1
`), "balena_exporter_refresh_part_duration_seconds", "balena_exporter_refresh_part_success"); err != nil {
			t.Error(err)
		}
		m.ObserveRefresh(nil, errors.New("unavailable"), time.Second)
		up(0)
		m.ObserveRefresh(&balena.Snapshot{Time: time.Now(), Reading: balena.Reading{Kind: balena.Full}}, nil, time.Second)
		up(1)

		// The next refresh hangs.
		time.Sleep(maxStaleness)
		up(1)
		time.Sleep(time.Nanosecond)
		up(0)
		if err := testutil.CollectAndCompare(m, strings.NewReader(`
# HELP balena_exporter_refreshes_total Refreshes by result: success or error.
# TYPE balena_exporter_refreshes_total counter
balena_exporter_refreshes_total{result="error"} 1
balena_exporter_refreshes_total{result="success"} 2
`), "balena_exporter_refreshes_total"); err != nil {
			t.Error(err)
		}
	})
}

// TestMetricsOfDataRead checks the counters of devices and bytes by kind of refresh. Failed refreshes are not counted.
func TestMetricsOfDataRead(t *testing.T) {
	m := collector.NewMetrics(func() time.Time { return time.Time{} }, time.Hour)
	compare := func(when, want string) {
		t.Helper()
		if err := testutil.CollectAndCompare(
			m, strings.NewReader(want), "balena_exporter_refreshes_by_kind_total", "balena_exporter_refresh_devices_read_total",
			"balena_exporter_refresh_devices_changed_total", "balena_exporter_refresh_response_bytes_total",
			"balena_exporter_last_full_refresh_timestamp_seconds", "balena_exporter_incremental_refresh_mode", "balena_exporter_incremental_refresh_disabled",
		); err != nil {
			t.Errorf("%s: %v", when, err)
		}
	}
	observe := func(second int64, reading balena.Reading) {
		m.ObserveRefresh(&balena.Snapshot{Time: time.Unix(second, 0), Reading: reading}, nil, time.Second)
	}
	disabled := func(why balena.Disabled) string {
		text := `
# HELP balena_exporter_incremental_refresh_disabled Whether incremental refreshes are configured, but disabled for this reason (1). refused: the server rejects queries for changes. failing: these queries fail. inconsistent: the responses are inconsistent. modified_at: the server does not update modified_at. no_date: the responses have no Date header. The log has the details.
# TYPE balena_exporter_incremental_refresh_disabled gauge
`
		for _, reason := range []balena.Disabled{"refused", "failing", "inconsistent", "modified_at", "no_date"} {
			value := 0
			if reason == why {
				value = 1
			}
			text += fmt.Sprintf("balena_exporter_incremental_refresh_disabled{reason=%q} %d\n", reason, value)
		}
		return text
	}
	mode := func(is balena.Mode) string {
		return fmt.Sprintf(`
# HELP balena_exporter_incremental_refresh_mode The mode of incremental refreshes (1). devices_and_installs: query devices that changed or whose image installs changed. devices: query only devices that changed, because the server does not report when image installs changed. full: read all data at every refresh.
# TYPE balena_exporter_incremental_refresh_mode gauge
balena_exporter_incremental_refresh_mode{mode=%q} 1
`, is)
	}
	const full = `
# HELP balena_exporter_last_full_refresh_timestamp_seconds When the last full refresh began.
# TYPE balena_exporter_last_full_refresh_timestamp_seconds gauge
balena_exporter_last_full_refresh_timestamp_seconds `
	counters := func(refreshes, read, changed, bytes [2]int) string {
		var b strings.Builder
		for _, c := range []struct {
			name, help string
			values     [2]int
		}{
			{"balena_exporter_refreshes_by_kind_total", "Successful refreshes by kind. A full refresh reads all data, an incremental refresh only changes since the previous refresh.", refreshes},
			{"balena_exporter_refresh_devices_read_total", "Devices read by refreshes, by kind of refresh. Incremental refreshes overlap and therefore read more devices than changed.", read},
			{"balena_exporter_refresh_devices_changed_total", "Devices that were added, removed or changed since the previous refresh, by kind of refresh. The first refresh counts all devices.", changed},
			{"balena_exporter_refresh_response_bytes_total", "Size of all API responses of successful refreshes, as transferred, by kind of refresh.", bytes},
		} {
			fmt.Fprintf(&b, "# HELP %s %s\n# TYPE %s counter\n%s{kind=\"full\"} %d\n%s{kind=\"incremental\"} %d\n", c.name, c.help, c.name, c.name, c.values[0], c.name, c.values[1])
		}
		return b.String()
	}

	compare("before the first refresh", counters([2]int{}, [2]int{}, [2]int{}, [2]int{})+disabled(""))
	observe(1000, balena.Reading{Kind: balena.Full, Devices: 2004, Changed: 2004, Bytes: 500_000, Mode: balena.DevicesAndInstalls})
	observe(1060, balena.Reading{Kind: balena.Incremental, Devices: 30, Changed: 20, Bytes: 4_000, Mode: balena.DevicesAndInstalls})
	observe(1120, balena.Reading{Kind: balena.Incremental, Devices: 12, Changed: 2, Bytes: 2_000, Mode: balena.DevicesOnly})
	now := counters([2]int{1, 2}, [2]int{2004, 42}, [2]int{2004, 22}, [2]int{500_000, 6_000})
	compare("after changes", now+full+"1000\n"+mode("devices")+disabled(""))
	observe(1180, balena.Reading{Kind: balena.Full, Devices: 2000, Changed: 14, Bytes: 400_000, Mode: balena.Everything, Disabled: balena.Inconsistent})
	now = counters([2]int{2, 2}, [2]int{4004, 42}, [2]int{2018, 22}, [2]int{900_000, 6_000})
	compare("disabled", now+full+"1180\n"+mode("full")+disabled("inconsistent"))
	m.ObserveRefresh(nil, errors.New("unavailable"), time.Second)
	compare("after a failure", now+full+"1180\n"+mode("full")+disabled("inconsistent"))
	observe(1240, balena.Reading{Kind: balena.Incremental, Mode: balena.DevicesAndInstalls})
	compare("enabled again", counters([2]int{2, 3}, [2]int{4004, 42}, [2]int{2018, 22}, [2]int{900_000, 6_000})+full+"1180\n"+mode("devices_and_installs")+disabled(""))
}

// TestMetricOfTheNumberOfFleets checks that the metric has the value 0 without fleets, and no sample before the first refresh
// and after a failed refresh.
func TestMetricOfTheNumberOfFleets(t *testing.T) {
	m := collector.NewMetrics(func() time.Time { return time.Time{} }, time.Hour)
	compare := func(when, want string) {
		t.Helper()
		if want != "" {
			want = `
# HELP balena_fleets Fleets read by the last successful refresh. 0 if the token has access to no fleets, or if the filters and --balena.shard select none.
# TYPE balena_fleets gauge
balena_fleets ` + want + "\n"
		}
		if err := testutil.CollectAndCompare(m, strings.NewReader(want), "balena_fleets"); err != nil {
			t.Errorf("%s: %v", when, err)
		}
	}
	observe := func(fleets int) {
		m.ObserveRefresh(&balena.Snapshot{Time: time.Now(), Fleets: make([]balena.Fleet, fleets)}, nil, time.Second)
	}
	compare("before the first refresh", "")
	m.ObserveRefresh(nil, errors.New("unavailable"), time.Second)
	compare("after a first refresh that failed", "")
	observe(2)
	compare("with two fleets", "2")
	observe(0)
	compare("without fleets", "0")
	m.ObserveRefresh(nil, errors.New("unavailable"), time.Second)
	compare("after a failure", "0")
}

func TestExporterCountsRequests(t *testing.T) {
	expiry := time.Unix(1900000000, 0)
	m := collector.NewMetrics(func() time.Time { return expiry }, time.Hour)
	m.ObserveExchange(balenaapi.Exchange{Resource: "device", Status: 200, Duration: 30 * time.Millisecond, Bytes: 1000})
	m.ObserveExchange(balenaapi.Exchange{Resource: "device", Status: 200, Duration: 3 * time.Second, Bytes: 500})
	m.ObserveExchange(balenaapi.Exchange{Resource: "device", Status: 429})
	m.ObserveExchange(balenaapi.Exchange{Resource: "application"})
	if err := testutil.CollectAndCompare(m, strings.NewReader(`
# HELP balena_api_rate_limited_total Responses of the balena API with the status 429 (too many requests).
# TYPE balena_api_rate_limited_total counter
balena_api_rate_limited_total 1
# HELP balena_api_requests_total Requests to the balena API by resource and HTTP status code. The code is error if there was no complete response.
# TYPE balena_api_requests_total counter
balena_api_requests_total{code="200",resource="device"} 2
balena_api_requests_total{code="429",resource="device"} 1
balena_api_requests_total{code="error",resource="application"} 1
# HELP balena_api_response_bytes_total Size of responses of the balena API, as transferred, usually compressed.
# TYPE balena_api_response_bytes_total counter
balena_api_response_bytes_total{resource="application"} 0
balena_api_response_bytes_total{resource="device"} 1500
# HELP balena_api_token_expiry_timestamp_seconds When the session token in use expires. An API key does not contain its expiry date; see balena_api_key_expiry_timestamp_seconds.
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

// TestGoldenExporter compares the metrics of the exporter itself with a file.
func TestGoldenExporter(t *testing.T) {
	m := collector.NewMetrics(func() time.Time { return now.Add(time.Hour) }, math.MaxInt64)
	m.ObserveExchange(balenaapi.Exchange{Resource: "device", Status: 200, Bytes: 4000, Duration: 125 * time.Millisecond})
	m.ObserveExchange(balenaapi.Exchange{Resource: "device", Status: 429, Bytes: 20, Duration: 250 * time.Millisecond})
	m.ObserveRefresh(&balena.Snapshot{
		Time: now, APIVersion: balena.V7, Reading: balena.Reading{Kind: balena.Full, Devices: 3, Changed: 3, Bytes: 4020, Mode: balena.DevicesAndInstalls},
		Parts: []balena.Part{{Name: balena.PartReleases, Duration: time.Second}},
	}, nil, 1500*time.Millisecond)
	m.ObserveImplausible("device.cpu_usage", 2)
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(m)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, f := range families {
		if _, err := expfmt.MetricFamilyToText(&b, f); err != nil {
			t.Fatal(err)
		}
	}
	golden(t, filepath.Join("testdata", "exporter.txt"), b.String())
}
