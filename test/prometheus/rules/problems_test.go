// SPDX-License-Identifier: Apache-2.0

package rules

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"

	"github.com/balena-exporter/balena-exporter/collector"
	model "github.com/balena-exporter/balena-exporter/internal/balena"
	"github.com/balena-exporter/balena-exporter/internal/problem"
)

// evaluated is the time at which the rules are evaluated.
const evaluated = 10 * 60 * 1000

// randomDevices returns devices near the thresholds of all conditions, each in a separate fleet, so that no fleet is partly
// offline, and fleets near the thresholds of ratios.
func randomDevices() *model.Snapshot {
	random := rand.New(rand.NewPCG(3, 4))
	limits := problem.DefaultThresholds()
	s := &model.Snapshot{Time: time.UnixMilli(evaluated), CloudFields: true, Releases: map[int64]model.Release{}, Organizations: []model.Organization{
		{ID: 1, Handle: "acme"}, {ID: 2, Handle: "frozen", Frozen: true},
	}}
	// about returns a time near a threshold: before, at or after it.
	about := func(seconds float64) model.Instant {
		return evaluated - model.Instant(seconds*1000) + model.Instant(random.IntN(5)-2)*1000
	}
	pick := func(texts ...string) string { return texts[random.IntN(len(texts))] }
	near := func(limit float64) float64 { return limit + float64(random.IntN(5)-2)/100 }
	var devices []model.Device
	add := func(d model.Device) {
		d.ID = int64(len(devices) + 1)
		d.UUID = fmt.Sprintf("%032x", d.ID)
		devices = append(devices, d)
	}
	fleet := func() int64 {
		id := int64(len(s.Fleets) + 1)
		f := model.Fleet{ID: id, Slug: fmt.Sprint("acme/fleet-", id), Name: fmt.Sprint("fleet-", id), Archived: random.IntN(10) == 0, Organization: "acme"}
		switch random.IntN(15) {
		case 0:
			f.Organization = "frozen"
		case 1:
			f.Maintenance = about(0)
		}
		if random.IntN(2) == 0 {
			f.LatestRelease = model.Release{ID: 9, Status: pick("success", "failed", "error", "running"), Created: about(limits.BuildFailed)}
		}
		s.Fleets = append(s.Fleets, f)
		return id
	}
	const alone = 400
	for range alone {
		d := model.Device{
			FleetID: fleet(), Status: pick("operational", "reduced-functionality", "updating", "disconnected", "inactive", "configuring"),
			Frozen: random.IntN(20) == 0, Deactivated: random.IntN(20) == 0, SupervisorVersion: pick("", "9.15.7", "15.3.1", "16.6.9", "16.7.0", "17.0.3"),
			ProvisioningState: pick("", "", "", "OS update failed", "Running OS update"),
			Online:            random.IntN(3) == 0, HeartbeatState: pick("online", "timeout", "offline", "unknown"), Undervolted: random.IntN(4) == 0,
			UpdateStatus: pick("", "done", "rejected", "aborted", "downloading", "downloaded", "applying changes"), UpdateChanged: about(limits.UpdateStuck),
			RunningRelease: int64(random.IntN(3)), TargetRelease: int64(random.IntN(3)), OSVariant: pick("", "prod", "dev"),
			Created: about(limits.NeverConnected), Modified: evaluated, UpdateProgress: model.Null, CPUUsage: model.Null,
			CPUTemperature: model.Number([]float64{0, 79, 80, 80.5, 81, 251, 10}[random.IntN(7)]),
			MemoryUsed:     model.Number(near(limits.Memory) * 1000), MemorySize: 1000,
			StorageUsed: model.Number(near(limits.Storage) * 1000), StorageSize: 1000,
		}
		if random.IntN(4) > 0 {
			d.LastConnectivity = about([]float64{limits.DeviceOffline, limits.DeviceLost}[random.IntN(2)])
			d.HeartbeatChanged = d.LastConnectivity
		}
		if random.IntN(10) == 0 {
			d.Maintenance = about(0)
		}
		if random.IntN(5) == 0 {
			d.MemorySize, d.StorageSize = model.Null, 0
		}
		if random.IntN(2) == 0 {
			var services []model.Service
			for release := range int64(3) {
				for range random.IntN(4) {
					services = append(services, model.Service{Release: release, Status: pick("Running", "Running", "exited", "Dead", "Downloading", "Starting")})
				}
			}
			d.Installs = model.NewInstalls(services)
		}
		if random.IntN(2) == 0 {
			d.Attachments = &model.Attachments{Services: []model.Service{
				{ID: 1, Name: "main", Status: pick("Running", "restarting", "exited", "Dead", "Downloading"), Progress: model.Null},
				{ID: 2, Name: "other", Status: pick("Running", "exited"), Progress: model.Null},
			}}
		}
		add(d)
	}
	// Fleets of each size: a fifth offline, half offline, and a random number offline.
	for i := range 24 {
		size := 5 * (i/3 + 1)
		id, away := fleet(), []int{size / 5, size / 2, random.IntN(size)}[i%3]
		for j := range size {
			d := model.Device{
				FleetID: id, Status: "operational", Online: j >= away, HeartbeatState: "unknown", LastConnectivity: evaluated - 1000,
				UpdateProgress: model.Null, CPUUsage: model.Null, MemoryUsed: model.Null, MemorySize: model.Null, StorageUsed: model.Null, StorageSize: model.Null,
			}
			if i%3 == 2 && random.IntN(8) == 0 {
				d.Online, d.LastConnectivity = false, 0 // never connected
			}
			add(d)
		}
	}
	s.Devices = model.NewDevices(devices...)
	return s
}

// TestPagesMatchTheRules compares the problems on the status pages with those that the rules record, for devices and fleets
// near the thresholds of all conditions.
func TestPagesMatchTheRules(t *testing.T) {
	t.Parallel()
	s := randomDevices()
	options := collector.DefaultOptions()
	options.Services, options.Maintenance = true, true
	families, err := collector.New(func() *model.Snapshot { return s }, options).Gather()
	if err != nil {
		t.Fatal(err)
	}
	test := unitTest{Name: "problems", Interval: "1m"}
	for _, f := range families {
		for _, m := range f.Metric {
			test.Series = append(test.Series, series{seriesOf(f, m), strconv.FormatFloat(m.Gauge.GetValue(), 'f', -1, 64) + "x12"})
		}
	}

	limits := problem.DefaultThresholds()
	wanted := map[[2]string]bool{}
	sums := map[int64]*problem.FleetDevices{}
	view := limits.Of(s, evaluated)
	for d := range s.Devices.All() {
		f := s.Fleet(d.FleetID)
		if sums[f.ID] == nil {
			sums[f.ID] = &problem.FleetDevices{}
		}
		for _, c := range view.Add(sums[f.ID], d).All() {
			wanted[[2]string{f.Slug, c.Alert}] = true
		}
	}
	for id, n := range sums {
		f := s.Fleet(id)
		for _, c := range view.Fleet(f, *n) {
			wanted[[2]string{f.Slug, c.Alert}] = true
			if c.Alert == problem.LargelyOffline.Alert {
				wanted[[2]string{f.Slug, problem.PartlyOffline.Alert}] = true // the rules record both
			}
		}
	}
	counted := map[string]int{}
	var want []expectedSample
	for _, key := range slices.SortedFunc(maps.Keys(wanted), func(a, b [2]string) int { return slices.Compare(a[:], b[:]) }) {
		want = append(want, expectedSample{fmt.Sprintf(`{fleet=%q,problem=%q}`, key[0], key[1]), 1})
		counted[key[1]]++
	}
	for _, alert := range allAlerts() {
		if counted[alert] < 3 {
			t.Errorf("only %d devices or fleets have the problem %s, which is too few for the test", counted[alert], alert)
		}
	}
	// The pages do not show problems that need history.
	test.Expressions = []exprTest{{`group by (fleet, problem) (balena:problem{problem!~"BalenaRolloutNotConverging|BalenaFleetShrank|BalenaDeviceConfiguringTooLong|BalenaDeviceFlapping"})`, at(10), want}}
	run(t, []unitTest{test})
}

func seriesOf(f *dto.MetricFamily, m *dto.Metric) string {
	text := f.GetName() + "{"
	for i, l := range m.Label {
		if i > 0 {
			text += ","
		}
		text += fmt.Sprintf("%s=%q", l.GetName(), l.GetValue())
	}
	return text + "}"
}

// allAlerts returns the alerts whose problems the pages show.
func allAlerts() []string {
	alerts := []string{problem.DevicesFrozen.Alert, problem.LargelyOffline.Alert, problem.PartlyOffline.Alert, problem.BuildFailed.Alert}
	for _, c := range problem.Causes {
		alerts = append(alerts, c.Alert)
	}
	return alerts
}

func TestSeveritiesMatchTheRules(t *testing.T) {
	severities := map[string]problem.Severity{
		problem.LargelyOffline.Alert: problem.LargelyOffline.Severity, problem.PartlyOffline.Alert: problem.PartlyOffline.Severity,
		problem.BuildFailed.Alert: problem.BuildFailed.Severity, problem.DevicesFrozen.Alert: problem.DevicesFrozen.Severity,
	}
	for _, c := range problem.Causes {
		severities[c.Alert] = c.Severity
	}
	files, err := filepath.Glob(rulesGlob)
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile(`(?s)- alert: (\w+)\n.*?severity: (\w+)`)
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range found.FindAllSubmatch(text, -1) {
			alert, severity := string(m[1]), problem.Severity(m[2])
			if want, known := severities[alert]; known && severity != want {
				t.Errorf("the severity of %s is %s on the pages, and %s in the rules", alert, want, severity)
			}
			delete(severities, alert)
		}
	}
	if len(severities) > 0 {
		t.Errorf("no rules have the alerts %v", severities)
	}
}

// TestThresholdsOfTheChart compares the default thresholds of the pages with those of the chart.
func TestThresholdsOfTheChart(t *testing.T) {
	values, err := os.ReadFile(root + "/charts/balena-exporter/values.yaml")
	if err != nil {
		t.Fatal(err)
	}
	limits := problem.DefaultThresholds()
	for _, name := range problem.Names() {
		m := regexp.MustCompile(`(?m)^    ` + name + `: (\S+)$`).FindSubmatch(values)
		if m == nil {
			t.Errorf("the chart has no threshold %s", name)
			continue
		}
		ofChart := problem.DefaultThresholds()
		if err := ofChart.Set(name + "=" + string(m[1])); err != nil || ofChart != limits {
			t.Errorf("%s is %s in the chart, and not on the pages: %v", name, m[1], err)
		}
	}
}
