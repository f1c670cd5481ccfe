// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/balena-exporter/balena-exporter/internal/simulator"
)

// readTargets returns the addresses of the targets in a response.
func readTargets(t *testing.T, a response) (addresses []string) {
	t.Helper()
	if a.status != http.StatusOK {
		t.Fatalf("the list of targets has the status %d: %s", a.status, a.body)
	}
	var groups []struct{ Targets []string }
	if err := json.Unmarshal([]byte(a.body), &groups); err != nil {
		t.Fatal(err)
	}
	for _, g := range groups {
		addresses = append(addresses, g.Targets...)
	}
	return addresses
}

func TestTargetsAreServedOnlyIfEnabled(t *testing.T) {
	t.Parallel()
	url := serveAPI(t, smallAccount()).url
	e := start(t, url)
	if a := e.get(e.url(targetsPath)); a.status != http.StatusNotFound {
		t.Errorf("without --web.enable-sd: %d", a.status)
	}
	e = start(t, url, "--web.enable-sd", "--sd.port=9100")
	e.waitForUp(1)
	if n := len(readTargets(t, e.get(e.url(targetsPath)))); n != smallAccount().Devices {
		t.Errorf("there are %d targets, want %d", n, smallAccount().Devices)
	}
	if a := e.get(e.url(targetsPath + "?online=true")); a.status != http.StatusBadRequest || !strings.Contains(a.body, "connected=true") {
		t.Errorf("an unknown parameter: %d %s", a.status, a.body)
	}
	if a := e.get(e.url("/")); !strings.Contains(a.body, `<a href=".`+targetsPath+`">`) {
		t.Error("the landing page has no link to the targets")
	}
	if a := e.get(e.health + targetsPath); a.status != http.StatusNotFound {
		t.Errorf("the health listener returned %d", a.status)
	}
}

// TestTargetsNeedAuthentication checks that the list of targets needs the same password as the metrics.
func TestTargetsNeedAuthentication(t *testing.T) {
	t.Parallel()
	e := start(t, serveAPI(t, smallAccount()).url, "--web.enable-sd", "--web.config.file="+write(t, t.TempDir(), "web.yml", alice))
	eventually(t, "there are data", func() bool {
		a, err := get(e.client, e.url(targetsPath), withUser("alice"))
		return err == nil && a.status == http.StatusOK
	})
	if a, err := get(e.client, e.url(targetsPath), nil); err != nil || a.status != http.StatusUnauthorized || strings.Contains(a.body, "targets") {
		t.Errorf("without a password: %d %v", a.status, err)
	}
}

// TestTargetsWithoutData checks that there is no list without data. With an empty list Prometheus would drop its targets.
func TestTargetsWithoutData(t *testing.T) {
	t.Parallel()
	api := serveAPI(t, smallAccount())
	api.down.Store(true)
	e := start(t, api.url, "--web.enable-sd", "--balena.refresh-interval=1s", "--balena.max-staleness=2s")
	if a := e.get(e.url(targetsPath)); a.status != http.StatusServiceUnavailable {
		t.Errorf("before there are data: %d %s", a.status, a.body)
	}
	api.down.Store(false)
	eventually(t, "there are targets", func() bool { return e.get(e.url(targetsPath)).status == http.StatusOK })
	api.down.Store(true)
	eventually(t, "stale data are not served", func() bool { return e.get(e.url(targetsPath)).status == http.StatusServiceUnavailable })
	if a := e.get(e.url(targetsPath)); a.status == http.StatusOK {
		t.Errorf("stale targets are served: %s", a.body)
	}
}

// TestPublicTargets checks that the domain of public device URLs is that of balenaCloud, or must be configured for openBalena.
func TestPublicTargets(t *testing.T) {
	t.Parallel()
	config := smallAccount()
	config.Devices = 300
	config.Edition = simulator.Cloud
	e := start(t, serveAPI(t, config).url, "--web.enable-sd", "--sd.address=public")
	e.waitForUp(1)
	cloud := readTargets(t, e.get(e.url(targetsPath)))
	for _, address := range cloud {
		if !strings.HasSuffix(address, ".balena-devices.com:443") {
			t.Errorf("the address %s is not a public device URL", address)
		}
	}
	if len(cloud) == 0 || len(cloud) == config.Devices {
		t.Errorf("%d of %d devices have a public URL", len(cloud), config.Devices)
	}
	config.Edition = simulator.OpenBalena
	url := serveAPI(t, config).url
	e = start(t, url, "--web.enable-sd", "--sd.address=public")
	e.waitForUp(1)
	if a := e.get(e.url(targetsPath)); a.status != http.StatusServiceUnavailable || !strings.Contains(a.body, "--sd.device-urls-base") {
		t.Errorf("without a domain: %d %s", a.status, a.body)
	}
	e = start(t, url, "--web.enable-sd", "--sd.address=public", "--sd.device-urls-base=devices.example.com")
	e.waitForUp(1)
	if n := len(readTargets(t, e.get(e.url(targetsPath)))); n == 0 {
		t.Error("there are no targets with a domain")
	}
}

// TestTargetsWithoutMetricsOfDevices checks that targets have addresses and names if metrics of devices are disabled.
func TestTargetsWithoutMetricsOfDevices(t *testing.T) {
	t.Parallel()
	e := start(t, serveAPI(t, smallAccount()).url, "--web.enable-sd", "--no-collector.device", "--sd.address=local", "--sd.port=9100")
	e.waitForUp(1)
	a := e.get(e.url(targetsPath))
	if !strings.Contains(a.body, `"192.168.`) || !strings.Contains(a.body, `"__meta_balena_device_name":"`) {
		t.Errorf("no address or no name: %.500s", a.body)
	}
}
