// SPDX-License-Identifier: Apache-2.0

package live

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/common/model"

	"github.com/balena-exporter/balena-exporter/internal/simulator"
	"github.com/balena-exporter/balena-exporter/test/dashboards"
)

// insideDashboard shows metrics of exporters on devices, and ofDevices matches the queries of rules for them.
const insideDashboard = "balena-device-inside"

var ofDevices = regexp.MustCompile(`\bnode_|up\{fleet!=""|balena:device_uptime_seconds`)

// The exporters on devices have a certificate of a private CA, and a password (bcrypt, cost 4).
const (
	deviceServer   = "device.example.com"
	deviceUser     = "alice"
	devicePassword = "s3cret-of-alice"
	deviceHash     = "$2a$04$UeurUvIs60eiGeaarGOwlOieBjzrUW4quzBC9ZLdPinR8ITJRr7rm"
)

// nodeExporter is the name of node_exporter in Debian.
const nodeExporter = "prometheus-node-exporter"

// startNodeExporter runs Debian's node_exporter with TLS and a password. It listens on all addresses of this machine, so
// each address in 127.0.0.0/8 represents a device.
func startNodeExporter(t *testing.T) (port, caFile string, stop func()) {
	t.Helper()
	program, err := exec.LookPath(nodeExporter)
	if err != nil {
		t.Skipf("%s is missing: install it (Debian: apt-get install %s)", nodeExporter, nodeExporter)
	}
	dir := t.TempDir()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	certificate := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: deviceServer}, DNSNames: []string{deviceServer},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, certificate, certificate, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	caFile = filepath.Join(dir, "tls.crt")
	for name, content := range map[string][]byte{
		"tls.crt": pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		"tls.key": pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: keyDER}),
		"web.yml": []byte("tls_server_config: {cert_file: tls.crt, key_file: tls.key}\nbasic_auth_users: {" + deviceUser + ": " + deviceHash + "}\n"),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	address, stop := start(t, program, "--collector.disable-defaults", "--collector.cpu", "--collector.diskstats", "--collector.filesystem",
		"--collector.loadavg", "--collector.meminfo", "--collector.netdev", "--collector.stat", "--collector.time", // as in docs/service-discovery.md
		"--web.listen-address=0.0.0.0:0", "--web.config.file="+filepath.Join(dir, "web.yml"))
	if _, port, err = net.SplitHostPort(address); err != nil {
		t.Fatal(err)
	}
	return port, caFile, stop
}

// devicesJob returns a scrape job for the connected devices with the tag "monitored", which it reads from the exporter.
// Relabeling derives the address of device n, 127.0.1.n, from its name.
func devicesJob(exporter, port, caFile string) object {
	return object{
		"job_name": "devices", "scheme": "https", "scrape_interval": "5s",
		"tls_config":      object{"ca_file": caFile, "server_name": deviceServer},
		"basic_auth":      object{"username": deviceUser, "password": devicePassword},
		"http_sd_configs": []object{{"url": "http://" + exporter + "/sd/devices?connected=true&tag=monitored", "refresh_interval": "1s"}},
		"relabel_configs": []object{
			{"source_labels": []string{"__meta_balena_device_name"}, "regex": `node-(\d+)`, "target_label": "__address__", "replacement": "127.0.1.$1:" + port},
			{"source_labels": []string{"__meta_balena_device_uuid"}, "target_label": "uuid"},
			{"source_labels": []string{"__meta_balena_fleet"}, "target_label": "fleet"},
		},
	}
}

// Prometheus discovers the devices, scrapes the node_exporter on each of them, and joins their metrics with those of
// balena-exporter. The targets follow changes of the devices, and remain while the exporter has no data.
func TestDevices(t *testing.T) {
	t.Parallel()
	const devices, fleets = 50, 5
	port, caFile, stopNodes := startNodeExporter(t)

	sim, err := simulator.New(simulator.Config{Devices: devices, Fleets: fleets, Seed: 1})
	if err != nil {
		t.Fatal(err)
	}
	change := func(i int, change func(*simulator.State, *simulator.Device)) {
		t.Helper()
		sim.Update(func(st *simulator.State) { change(st, st.Devices.All()[i]) })
	}
	connect := func(connected bool) func(*simulator.State, *simulator.Device) {
		return func(st *simulator.State, d *simulator.Device) {
			if d.Connect(st.Now()); !connected {
				d.Disconnect(st.Now())
			}
		}
	}
	sim.Update(func(st *simulator.State) {
		st.DeviceTags.DeleteFunc(func(*simulator.DeviceTag) bool { return true })
		for i, f := range st.Fleets.All() {
			f.IsArchived, f.Slug = false, fmt.Sprint("acme/fleet-", i)
		}
		for i, d := range st.Devices.All() {
			d.Name = fmt.Sprint("node-", i+1)
			connect(true)(st, d)
			st.DeviceTags.Add(simulator.DeviceTag{DeviceID: d.ID, Key: "monitored", Value: "yes"})
		}
	})
	var down atomic.Bool
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if down.Load() {
			panic(http.ErrAbortHandler)
		}
		sim.ServeHTTP(w, r)
	}))
	t.Cleanup(api.Close)
	tokenFile := filepath.Join(t.TempDir(), "token")
	writeToken(t, tokenFile, 90*day)
	program := buildExporter(t)
	startAt := func(listen string) (string, func()) {
		return start(t, program, "--balena.api-url="+api.URL, "--balena.token-file="+tokenFile, "--balena.refresh-interval=1s", "--balena.slow-interval=1s",
			"--collector.device.tags=monitored", "--web.enable-sd", "--web.listen-address="+listen, "--web.health-listen-address=")
	}
	exporter, stopExporter := startAt("127.0.0.1:0")
	p := startPair(t, map[string]string{job: exporter}, devicesJob(exporter, port, caFile))

	const joined = `node_load1 * on (uuid, fleet) group_left (device_name) balena_device_info`
	await(t, p.firing, `up{job="devices"} == 1`, devices)
	await(t, p.firing, joined, devices)
	await(t, p.firing, `count by (device_name) (`+joined+`)`, devices)

	// A device goes offline and reconnects, and another device loses its tag.
	change(3, connect(false))
	await(t, p.firing, `up{job="devices"}`, devices-1)
	await(t, p.firing, `up{job="devices",instance=~"127.0.1.4:.+"}`, 0)
	change(3, connect(true))
	await(t, p.firing, joined, devices)
	change(7, func(st *simulator.State, d *simulator.Device) {
		st.DeviceTags.DeleteFunc(func(tag *simulator.DeviceTag) bool { return tag.DeviceID == d.ID })
	})
	await(t, p.firing, `up{job="devices"}`, devices-1)
	change(7, func(st *simulator.State, d *simulator.Device) {
		st.DeviceTags.Add(simulator.DeviceTag{DeviceID: d.ID, Key: "monitored", Value: "again"})
	})
	await(t, p.firing, joined, devices)

	// A device moves to another fleet, and so do its series.
	var uuid, from, to string
	change(11, func(st *simulator.State, d *simulator.Device) {
		uuid, from = d.UUID, st.Fleet(d.FleetID).Slug
		d.FleetID = 1 + d.FleetID%fleets
		to = st.Fleet(d.FleetID).Slug
	})
	await(t, p.firing, fmt.Sprintf(`%s and on () count(up{uuid=%q}) == 1`, fmt.Sprintf(`up{uuid=%q,fleet=%q}`, uuid, to), uuid), 1)
	await(t, p.firing, fmt.Sprintf(`up{uuid=%q,fleet=%q}`, uuid, from), 0)
	await(t, p.firing, joined, devices)

	checkInside(t, p.firing)

	// The API fails until the data are stale, and the exporter restarts. Prometheus keeps its targets.
	down.Store(true)
	status := func() int {
		response, err := http.Get("http://" + exporter + "/sd/devices")
		if err != nil {
			return 0
		}
		_ = response.Body.Close()
		return response.StatusCode
	}
	eventually(t, func() error {
		if got := status(); got != http.StatusServiceUnavailable {
			return fmt.Errorf("the list has the status %d", got)
		}
		return nil
	})
	p.keepsTargets(t, devices)
	stopExporter()
	p.keepsTargets(t, devices)
	_, _ = startAt(exporter)
	p.keepsTargets(t, devices)
	down.Store(false)
	await(t, p.firing, joined, devices)

	// All exporters on devices stop. There are alerts on connected devices, but not on disconnected ones.
	change(3, connect(false))
	await(t, p.firing, `up{job="devices"} == 1`, devices-1)
	stopNodes()
	await(t, p.firing, `ALERTS{alertname="BalenaDeviceExporterDown",alertstate="firing"}`, devices-1)
	await(t, p.firing, `ALERTS{alertname="BalenaDeviceRebooting"}`, 0)
}

// keepsTargets checks the number of devices that are targets of Prometheus, after several attempts to read the list. It does
// not check whether the scrapes succeed, because that depends on the load of this machine.
func (p *pair) keepsTargets(t *testing.T, devices int) {
	t.Helper()
	failures := func() (n int) {
		response, err := http.Get(p.firing.url + "/metrics")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = response.Body.Close() }()
		text, err := io.ReadAll(response.Body)
		if err != nil {
			t.Fatal(err)
		}
		match := regexp.MustCompile(`(?m)^prometheus_sd_http_failures_total (\d+)$`).FindSubmatch(text)
		if match == nil {
			t.Fatal("Prometheus does not count failures")
		}
		n, _ = strconv.Atoi(string(match[1]))
		return n
	}
	begin := failures()
	eventually(t, func() error {
		if n := failures() - begin; n < 3 {
			return fmt.Errorf("%d attempts failed", n)
		}
		return nil
	})
	var data struct {
		ActiveTargets []struct{ Labels model.LabelSet }
	}
	if err := p.firing.get(t, "/api/v1/targets?state=active", nil, &data); err != nil {
		t.Fatal(err)
	}
	kept := 0
	for _, target := range data.ActiveTargets {
		if target.Labels["job"] == "devices" {
			kept++
		}
	}
	if kept != devices {
		t.Errorf("%d devices are targets, want %d", kept, devices)
	}
}

// checkInside checks that the dashboard shows data of node_exporter, and the names in its queries and in the rules.
func checkInside(t *testing.T, p *server) {
	t.Helper()
	found, err := p.instant(t, `node_load1`)
	if err != nil || len(found) == 0 {
		t.Fatalf("no data of devices: %v", err)
	}
	variables := map[string]string{
		"organization": ".+", "fleet": string(found[0]["fleet"]), "device": string(found[0]["uuid"]), "__rate_interval": "1m",
		"tag": "tag_site", "tag_value": ".*",
	}
	panels := dashboards.Panels()
	queries := 0
	for _, panel := range panels {
		for _, q := range panel.Queries {
			// There is no cAdvisor here, and this machine may have no disks.
			if panel.Dashboard != insideDashboard || strings.Contains(q.Expr, "container_") || strings.Contains(q.Expr, "node_disk_") {
				continue
			}
			queries++
			eventually(t, func() error {
				query := p.instant
				if q.Range {
					query = p.lately
				}
				result, err := query(t, q.Fill(variables))
				if err == nil && len(result) == 0 {
					err = fmt.Errorf("%s, %s: no result", panel.Title, q.Fill(variables))
				}
				return err
			})
		}
	}
	if queries < 15 {
		t.Errorf("only %d queries were tested", queries)
	}
	known := readNames(t, p, time.Now().Add(-time.Minute))
	rules, err := p.rules(t)
	if err != nil {
		t.Fatal(err)
	}
	checked := 0
	for _, r := range rules {
		if ofDevices.MatchString(r.Query) {
			checked++
			for _, mistake := range known.check(r.Query) {
				t.Errorf("rule %s: %s", &r, mistake)
			}
		}
	}
	if checked != 3 {
		t.Errorf("%d rules use metrics of devices, want 3", checked)
	}
}
