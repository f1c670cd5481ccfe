// SPDX-License-Identifier: Apache-2.0

package collector_test

import (
	"context"
	"flag"
	"fmt"
	"maps"
	"math"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/balena-exporter/balena-exporter/collector"
	"github.com/balena-exporter/balena-exporter/internal/balena"
	"github.com/balena-exporter/balena-exporter/internal/balena/account"
	balenaapi "github.com/balena-exporter/balena-exporter/internal/balena/api"
	"github.com/balena-exporter/balena-exporter/internal/simulator"
)

var update = flag.Bool("update", false, "write golden files and documentation")

// now is the time of all snapshots: an hour after the recording of the data.
var now = time.Date(2026, 11, 22, 15, 0, 0, 0, time.UTC)

// allGroups returns options with all groups enabled.
func allGroups() collector.Options {
	o := collector.DefaultOptions()
	o.Services = true
	o.DeviceTags, o.FleetTags, o.Maintenance = true, true, true
	o.Location, o.LocationDecimals = true, 2
	return o
}

// requestTags sets the tags for families that the options enable.
func requestTags(a *account.Options, o collector.Options) {
	a.TagLimit = 20
	if o.DeviceTags {
		a.DeviceTags = []string{"site", "own*"}
	}
	if o.FleetTags {
		a.FleetTags = []string{"env", "note"}
	}
	if o.Maintenance {
		a.MaintenanceTag = "maintenance"
	}
}

// api is a simulated server and a client of it.
type api struct {
	*simulator.Simulator
	client *account.Reader
}

// newAPI starts a server, and a client that reads what the options need.
func newAPI(t testing.TB, config simulator.Config, o collector.Options, change ...func(*account.Config)) *api {
	t.Helper()
	config.Now = func() time.Time { return now }
	sim, err := simulator.New(config)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(sim)
	t.Cleanup(server.Close)
	address, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	c := account.Config{
		Config: balenaapi.Config{
			URL: address, Token: balenaapi.StaticToken("t0ken"), Timeout: time.Minute, UserAgent: "test", Now: func() time.Time { return now },
		},
		PageSize: 1000,
		Options: account.Options{
			Devices: o.Devices, Releases: o.Releases, Services: o.Services, Keys: o.Keys, OS: o.OS,
			ServiceSummary: o.ServiceSummary, Location: o.Location, ArchivedFleets: true, SlowInterval: time.Nanosecond, Keep: time.Minute,
		},
	}
	requestTags(&c.Options, o)
	for _, f := range change {
		f(&c)
	}
	client, err := account.New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return &api{sim, client}
}

func (a *api) fetch(t testing.TB) *balena.Snapshot {
	t.Helper()
	s, err := a.client.Fetch(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range s.Parts {
		if p.Err != nil {
			t.Fatalf("%s: %v", p.Name, p.Err)
		}
	}
	return s
}

func dataset(t testing.TB) *simulator.Dataset {
	t.Helper()
	d, err := simulator.LoadDataset(os.DirFS("../internal/simulator/testdata/dataset"))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func pin(v balena.Version) func(*account.Config) {
	return func(c *account.Config) { c.Version = v }
}

func of(s *balena.Snapshot, o collector.Options) *collector.Collector {
	return collector.New(func() *balena.Snapshot { return s }, o)
}

// text returns the exposition of a snapshot, rendered from scratch.
func text(s *balena.Snapshot, o collector.Options) string { return serve(of(s, o).Render(s)) }

// parse reads an exposition.
func parse(t testing.TB, exposition string) []*dto.MetricFamily {
	t.Helper()
	parser := expfmt.NewTextParser(model.UTF8Validation)
	byName, err := parser.TextToMetricFamilies(strings.NewReader(exposition))
	if err != nil {
		t.Fatalf("not a valid exposition: %v", err)
	}
	families := make([]*dto.MetricFamily, 0, len(byName))
	for _, f := range byName {
		families = append(families, f)
	}
	return families
}

func gather(t testing.TB, s *balena.Snapshot, o collector.Options) []*dto.MetricFamily {
	t.Helper()
	families, err := of(s, o).Gather()
	if err != nil {
		t.Fatal(err)
	}
	return families
}

// samples lists the samples of families by series, with labels in alphabetical order.
func samples(families []*dto.MetricFamily) map[string]float64 {
	found := map[string]float64{}
	for _, f := range families {
		for _, m := range f.Metric {
			labels := make([]string, len(m.Label))
			for i, l := range m.Label {
				labels[i] = fmt.Sprintf("%s=%q", l.GetName(), l.GetValue())
			}
			slices.Sort(labels)
			found[f.GetName()+"{"+strings.Join(labels, ",")+"}"] = m.GetGauge().GetValue()
		}
	}
	return found
}

// sampleDiff compares lists of samples. It calls cmp.Diff only if they differ: cmp.Diff takes seconds for 100,000 samples.
func sampleDiff(want, got map[string]float64) string {
	if maps.Equal(want, got) {
		return ""
	}
	return cmp.Diff(want, got)
}

// series returns a series in the notation of samples.
func series(name string, labels ...string) string {
	pairs := make([]string, 0, len(labels)/2)
	for i := 0; i < len(labels); i += 2 {
		pairs = append(pairs, fmt.Sprintf("%s=%q", labels[i], labels[i+1]))
	}
	slices.Sort(pairs)
	return name + "{" + strings.Join(pairs, ",") + "}"
}

// hostile are texts with special characters that must be escaped.
var hostile = []string{
	`quote " backslash \ brace {x}`, "line\nfeed", "tab\tand\rreturn", "emoji 🚀 ☃", "", " ", `\n`, `"}`, "# HELP x y",
	"\x00", "not\xffutf8", strings.Repeat("long ", 2048),
}

// hostileSnapshot returns a snapshot with hostile text in all fields with text of the account.
func hostileSnapshot() *balena.Snapshot {
	s := &balena.Snapshot{
		Time: now, CloudFields: true, Releases: map[int64]balena.Release{},
		DeviceTagKeys: []string{hostile[0], "site-é"}, FleetTagKeys: []string{"site-è", ""},
	}
	var devices []balena.Device
	for i, h := range hostile {
		id := int64(i + 1)
		s.Releases[id] = balena.Release{ID: id, Commit: h, Version: h, Status: h, Created: 1}
		s.Fleets = append(s.Fleets, balena.Fleet{
			ID: id, Slug: fmt.Sprint("org/", i, h), Name: h, Organization: h, DeviceType: h, CPUArchitecture: h, UUID: h,
			TargetRelease: id, LatestRelease: s.Releases[id], Tags: []string{h, h},
		})
		devices = append(devices, balena.Device{
			ID: id, UUID: fmt.Sprint("uuid", i, h), Name: h, FleetID: id, Status: h, HeartbeatState: h, UpdateStatus: h, ProvisioningState: h, Type: h,
			OSVersion: h, OSVariant: h, SupervisorVersion: h, RunningRelease: id, TargetRelease: id, OSTarget: id, SupervisorTarget: id,
			Installs: balena.Installs(h), Maintenance: balena.Instant(i) * balena.Forever / 12,
			CPUUsage: balena.Number(math.Inf(1)), CPUTemperature: -12.5, MemoryUsed: 1e300,
			Attachments: &balena.Attachments{
				Tags: []balena.Tag{{ID: 1, Value: h}, {ID: 2, Value: h}}, Services: []balena.Service{{Name: h, Status: h, Progress: 33}},
			},
		})
		s.Keys = append(s.Keys, balena.Key{ID: id, Name: h, Expiry: 5})
		s.Organizations = append(s.Organizations, balena.Organization{ID: id, Handle: fmt.Sprint(i, h), Name: h, Frozen: true, PastDue: 5000})
	}
	s.Devices = balena.NewDevices(devices...)
	return s
}

func TestRenderAndGatherGiveTheSameSamples(t *testing.T) {
	for name, s := range map[string]*balena.Snapshot{
		"recorded v7":       newAPI(t, simulator.Config{Dataset: dataset(t)}, allGroups()).fetch(t),
		"recorded v6":       newAPI(t, simulator.Config{Dataset: dataset(t)}, allGroups(), pin(balena.V6)).fetch(t),
		"hostile text":      hostileSnapshot(),
		"nothing":           {Time: now},
		"a device":          newAPI(t, simulator.Config{Devices: 1, Fleets: 1}, allGroups()).fetch(t),
		"a run and a bit":   newAPI(t, simulator.Config{Devices: 3001, Fleets: 7, CloudFields: true}, allGroups()).fetch(t),
		"a full run":        newAPI(t, simulator.Config{Devices: 2000, Fleets: 2}, allGroups()).fetch(t),
		"fleets, no device": newAPI(t, simulator.Config{Fleets: 5}, allGroups()).fetch(t),
	} {
		t.Run(name, func(t *testing.T) {
			rendered := samples(parse(t, text(s, allGroups())))
			gathered := samples(gather(t, s, allGroups()))
			if diff := sampleDiff(gathered, rendered); diff != "" {
				t.Errorf("gathered (-) and rendered (+) differ:\n%.2000s", diff)
			}
			if name != "nothing" && len(rendered) == 0 {
				t.Error("there are no samples")
			}
		})
	}
}

func TestNoSnapshotNoSamples(t *testing.T) {
	if families := gather(t, nil, allGroups()); len(families) != 0 {
		t.Errorf("got %d families without a snapshot", len(families))
	}
}

func TestMetricNamesFollowTheConventions(t *testing.T) {
	s := newAPI(t, simulator.Config{Devices: 50, Fleets: 3, CloudFields: true}, allGroups()).fetch(t)
	problems, err := promlint.NewWithMetricFamilies(gather(t, s, allGroups())).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
	reserved := []string{"service", "namespace", "pod", "container", "instance", "job", "endpoint"}
	for d := range of(s, allGroups()).Descriptions() {
		for _, label := range d.Labels {
			if slices.Contains(reserved, label) {
				t.Errorf("%s: the label %s is reserved for the scraper", d.Name, label)
			}
		}
		if d.Source == "" || d.Series == "" || d.Group == "" {
			t.Errorf("%s has no source, number of series, or group: %+v", d.Name, d)
		}
	}
}

// TestGolden compares the exposition of a few small fleets with files, one for each group and version.
func TestGolden(t *testing.T) {
	for _, version := range []balena.Version{balena.V7, balena.V6} {
		some := func(c *account.Config) { c.Include = slugs("zeta/one-dev", "admin/empty-fleet", "zeta/legacy-name") }
		s := newAPI(t, simulator.Config{Dataset: dataset(t)}, allGroups(), pin(version), some).fetch(t)
		var devices []balena.Device
		for d := range s.Devices.All() {
			if d.FleetID != s.Fleets[2].ID || d.ID%11 == 0 {
				devices = append(devices, *d)
			}
		}
		s.Devices = balena.NewDevices(devices...)
		byName := map[string]string{}
		for f := range strings.SplitSeq(text(s, allGroups()), "# HELP ") {
			name, _, _ := strings.Cut(f, " ")
			byName[name] = "# HELP " + f
		}
		groups := map[string]*strings.Builder{}
		for d := range of(s, allGroups()).Descriptions() {
			if groups[d.Group] == nil {
				groups[d.Group] = &strings.Builder{}
			}
			groups[d.Group].WriteString(byName[d.Name])
		}
		for group, got := range groups {
			file := filepath.Join("testdata", fmt.Sprintf("%s.%s.txt", strings.ToLower(group), version))
			golden(t, file, got.String())
		}
	}
}

// TestGoldenCloud compares the metrics that only balenaCloud has, and metrics of short-lived states, with a file.
func TestGoldenCloud(t *testing.T) {
	s := withDevice(balena.Device{
		ID: 1, FleetID: 1, UUID: "u", Status: "inactive", Frozen: true, Deactivated: true, Created: 1000, UpdateProgress: 12.5,
		ProvisioningState: "OS update failed", ProvisioningProgress: 100, Maintenance: balena.Forever, TargetRelease: 7, Installs: "7 2 1 1",
		CPUUsage: balena.Null, CPUTemperature: balena.Null, MemoryUsed: balena.Null, MemorySize: balena.Null, StorageUsed: balena.Null, StorageSize: balena.Null,
		Whereabouts: &balena.Whereabouts{Location: balena.Location{
			Latitude: balena.ParseCoordinate("1", 90), Longitude: balena.ParseCoordinate("13.40495", 180), CustomLatitude: balena.ParseCoordinate("-52.52437", 90),
		}},
		Attachments: &balena.Attachments{Services: []balena.Service{
			{ID: 1, Name: "main", Status: "Downloading", Progress: 25}, {ID: 2, Name: "main", Status: "Running", Progress: balena.Null, Installed: 5000},
		}},
	})
	s.CloudFields = true
	s.Organizations = []balena.Organization{{ID: 1, Handle: "acme", Name: "ACME", Frozen: true, PastDue: 7000}, {ID: 2, Handle: "zeta", Name: "Žeta"}}
	golden(t, filepath.Join("testdata", "cloud.txt"), text(s, allGroups()))
}

// golden compares a text with a file, or writes the file with the flag -update.
func golden(t *testing.T, file, got string) {
	t.Helper()
	if *update {
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(got, "\n")); diff != "" {
		t.Errorf("%s differs (if the change is intended, run go test ./collector -update):\n%.3000s", file, diff)
	}
}
