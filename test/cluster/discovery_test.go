// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"fmt"
	"testing"

	"golang.org/x/crypto/bcrypt"
)

// The exporter lists the devices behind TLS and a password, and the operator turns the ScrapeConfig into targets that are up. No
// device is in the cluster: relabeling leads all targets to the exporter itself, with other credentials than those of the list.
func TestServiceDiscovery(t *testing.T) {
	s := begin(t, "discovery", small)
	const (
		user, password = "prometheus", "of-the-list"
		device         = "of-the-devices"
		host           = discoveredHost
	)
	users := map[string]string{}
	for name, of := range map[string]string{user: password, "devices": device} {
		hash, err := bcrypt.GenerateFromPassword([]byte(of), bcrypt.MinCost)
		if err != nil {
			t.Fatal(err)
		}
		users[name] = string(hash)
	}
	// The cluster has no DNS. Prometheus knows the name in the ScrapeConfig by its hosts file, and so needs an address for it
	// that is known before.
	s.apply(`
apiVersion: v1
kind: Service
metadata: {name: by-hosts-file}
spec:
  clusterIP: {{.}}
  selector: {app.kubernetes.io/name: balena-exporter}
  ports: [{port: 8000, targetPort: metrics}]
`, discoveredIP)
	certificate := s.issue(host)
	s.tlsSecret("exporter-tls", certificate)
	s.secret("prometheus-credentials", map[string]string{"username": user, "password": password})
	s.secret("device-credentials", map[string]string{"username": "devices", "password": device})
	s.secret("device-ca", map[string]string{"ca.crt": string(s.authority.PEM())})
	s.tokenSecret("balena-token", token)

	values := map[string]any{
		"webConfig": map[string]any{
			"tls":       map[string]any{"enabled": true, "existingSecret": "exporter-tls"},
			"basicAuth": map[string]any{"enabled": true, "users": users},
		},
		"serviceMonitor": map[string]any{"basicAuth": map[string]any{"existingSecret": "prometheus-credentials"}},
		"serviceDiscovery": map[string]any{
			"enabled": true, "scheme": "https",
			"scrapeConfig": map[string]any{
				"enabled": true, "labels": map[string]any{"release": release}, "refreshInterval": "1s", "scrapeInterval": "2s", "sampleLimit": 100000,
				"tls":       map[string]any{"serverName": host, "caSecret": map[string]any{"name": "device-ca"}},
				"basicAuth": map[string]any{"existingSecret": "device-credentials"},
				"relabelings": []any{
					map[string]any{"action": "replace", "targetLabel": "__address__", "replacement": host + ":8000"},
					map[string]any{"action": "replace", "sourceLabels": []string{"__meta_balena_device_uuid"}, "targetLabel": "instance"},
				},
				"metricRelabelings": []any{map[string]any{"action": "keep", "sourceLabels": []string{"__name__"}, "regex": "balena_up"}},
			},
		},
	}
	s.install("balena-exporter", values)
	pod := s.pod("balena-exporter")
	s.scraped("balena-exporter", 1)

	s.eventually("a target is up for each connected device", func() error {
		connected, err := s.query("fleet", `sum by (fleet) (balena_device_connected{$namespace}) > 0`)
		if err != nil {
			return err
		}
		if len(connected) == 0 {
			return fmt.Errorf("no device is connected")
		}
		return s.are("fleet", `sum by (fleet) (up{job="balena-devices"})`, connected)
	})
	s.eventually("what a device tells joins with what balena tells", func() error {
		devices, err := s.query("", `count(up{job="balena-devices"})`)
		if err != nil {
			return err
		}
		return s.is(`count(up{job="balena-devices"} * on (uuid, fleet) group_left (device_name) balena_device_info{$namespace})`, devices[""])
	})
	s.undisturbed("balena-exporter", pod)
}
