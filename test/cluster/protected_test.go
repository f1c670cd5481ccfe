// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"crypto/tls"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"
	corev1 "k8s.io/api/core/v1"
)

// Metrics are served over TLS with a password, then with a client certificate too, then with a new certificate. In each case
// Prometheus can scrape, other clients cannot, and the probes succeed.
func TestProtectedMetrics(t *testing.T) {
	s := begin(t, "protected", small)
	const (
		user, password = "prometheus", `pass"word\ with every trouble`
		host           = "balena-exporter.protected.svc"
	)
	hash, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	certificate := s.issue(host)
	s.tlsSecret("exporter-tls", certificate)
	s.secret("prometheus-credentials", map[string]string{"username": user, "password": password})
	s.tokenSecret("balena-token", token)

	// get sends a request with a TLS configuration and credentials.
	get := func(s *story, scheme string, config *tls.Config, credentials ...string) (status int, body string, err error) {
		pod := s.pod("balena-exporter")
		request, err := http.NewRequestWithContext(s.Context(), http.MethodGet, scheme+"://"+host+"/metrics", nil)
		if err != nil {
			s.Fatal(err)
		}
		if len(credentials) == 2 {
			request.SetBasicAuth(credentials[0], credentials[1])
		}
		response, err := s.client(config, pod.Status.PodIP+":8000").Do(request)
		if err != nil {
			return 0, "", err
		}
		defer response.Body.Close()
		b, err := io.ReadAll(response.Body)
		return response.StatusCode, string(b), err
	}
	anonymous := &tls.Config{RootCAs: s.authority.Pool()}

	protection := map[string]any{
		"webConfig": map[string]any{
			"tls":       map[string]any{"enabled": true, "existingSecret": "exporter-tls"},
			"basicAuth": map[string]any{"enabled": true, "users": map[string]string{user: string(hash)}},
		},
		"serviceMonitor": map[string]any{"basicAuth": map[string]any{"existingSecret": "prometheus-credentials"}},
	}

	s.part("TLS and a password", func(s *story) {
		s.install("balena-exporter", protection)
		pod := s.pod("balena-exporter")
		s.scraped("balena-exporter", 1)
		if status, body, err := get(s, "https", anonymous); err != nil || status != http.StatusUnauthorized || strings.Contains(body, "balena_") {
			s.Errorf("without a password it answers %d, %v: %s", status, err, body)
		}
		if status, _, err := get(s, "https", anonymous, user, "wrong"); err != nil || status != http.StatusUnauthorized {
			s.Errorf("with a wrong password it answers %d, %v", status, err)
		}
		if status, body, err := get(s, "https", anonymous, user, password); err != nil || status != http.StatusOK || !strings.Contains(body, "\nbalena_up 1\n") {
			s.Errorf("with the password it answers %d, %v: %.200s", status, err, body)
		}
		if status, body, err := get(s, "http", nil, user, password); err == nil && (status == http.StatusOK || strings.Contains(body, "balena_")) {
			s.Errorf("over plain HTTP it answers %d: %.200s", status, body)
		}
		s.helm("test", "balena-exporter")
		s.undisturbed("balena-exporter", pod)
	})

	client := s.issue("prometheus")
	s.secret("clients-ca", map[string]string{"ca.crt": string(s.authority.PEM())})
	s.tlsSecret("prometheus-client", client)
	merge(protection, map[string]any{
		"webConfig":      map[string]any{"clientCA": map[string]any{"enabled": true, "existingSecret": "clients-ca"}},
		"serviceMonitor": map[string]any{"tls": map[string]any{"clientCertSecret": map[string]any{"name": "prometheus-client"}}},
	})

	s.part("a client certificate", func(s *story) {
		s.install("balena-exporter", protection)
		pod := s.pod("balena-exporter")
		s.scraped("balena-exporter", 1)
		if status, _, err := get(s, "https", anonymous, user, password); err == nil {
			s.Errorf("without a certificate it answers %d", status)
		}
		pair, err := tls.X509KeyPair(client.Certificate, client.Key)
		if err != nil {
			s.Fatal(err)
		}
		known := &tls.Config{RootCAs: s.authority.Pool(), Certificates: []tls.Certificate{pair}}
		if status, _, err := get(s, "https", known, user, password); err != nil || status != http.StatusOK {
			s.Errorf("with certificate and password it answers %d, %v", status, err)
		}
		s.helm("test", "balena-exporter")
		s.undisturbed("balena-exporter", pod)
	})

	s.part("a new certificate", func(s *story) {
		pod := s.pod("balena-exporter")
		s.scraped("balena-exporter", 1)
		start := time.Now()
		renewed := s.issue(host)
		s.tlsSecret("exporter-tls", renewed)
		pair, err := tls.X509KeyPair(renewed.Certificate, renewed.Key)
		if err != nil {
			s.Fatal(err)
		}
		s.eventually("the new certificate is served", func() error {
			var served *big.Int
			config := anonymous.Clone()
			config.VerifyConnection = func(state tls.ConnectionState) error {
				served = state.PeerCertificates[0].SerialNumber
				return nil
			}
			_, _, err := get(s, "https", config) // refused, but the server has presented its certificate
			if served == nil || served.Cmp(pair.Leaf.SerialNumber) != 0 {
				return fmt.Errorf("it is number %d: %w", served, err)
			}
			return nil
		})
		s.allScrapesSince(start, pod)
		s.undisturbed("balena-exporter", pod)
	})

	s.part("parts for two Prometheus servers", func(s *story) {
		merge(protection, map[string]any{"serviceMonitor": map[string]any{"parts": 4}})
		s.install("balena-exporter", protection)
		s.apply(shardedPrometheus, nil)
		defer func() { s.kubectl("delete", "--namespace=monitoring", "--wait=false", "prometheus/sharded") }()
		var devices [2]map[string]bool // of each server, by uuid
		s.within(3*time.Minute, "each server has its parts", func() error {
			fleets := 0.0
			for i, name := range []string{"prometheus-sharded-0", "prometheus-sharded-shard-1-0"} {
				var pod corev1.Pod
				if err := kubernetes.Get(s.Context(), "/api/v1/namespaces/monitoring/pods/"+name, &pod); err != nil {
					return err
				}
				server, err := newPrometheus(&pod)
				if err != nil {
					return err
				}
				samples, err := server.Query(s.Context(), `balena_device_info{namespace="protected"}`)
				if err != nil {
					return err
				}
				devices[i] = map[string]bool{}
				for _, sample := range samples {
					if uuid := string(sample.Metric["uuid"]); devices[0][uuid] || devices[1][uuid] {
						return fmt.Errorf("device %s is there twice", uuid)
					} else {
						devices[i][uuid] = true
					}
				}
				counted, err := server.Query(s.Context(), `sum(balena_fleet_devices{namespace="protected"})`)
				if err != nil {
					return err
				}
				for _, sample := range counted {
					fleets += float64(sample.Value)
				}
			}
			if len(devices[0])+len(devices[1]) != small.Devices || fleets != float64(small.Devices) {
				return fmt.Errorf("%d and %d devices, %v in the fleets, want %d", len(devices[0]), len(devices[1]), fleets, small.Devices)
			}
			return nil
		})
		if n := len(devices[0]); n < small.Devices/4 || n > small.Devices*3/4 {
			s.Errorf("one server has %d devices of %d", n, small.Devices)
		}
	})
}

// shardedPrometheus are two servers that divide the targets of the monitors.
const shardedPrometheus = `
apiVersion: monitoring.coreos.com/v1
kind: Prometheus
metadata: {name: sharded, namespace: monitoring}
spec:
  shards: 2
  replicas: 1
  serviceAccountName: prometheus
  serviceDiscoveryRole: EndpointSlice
  serviceMonitorSelector: {matchLabels: {release: ` + release + `}}
  serviceMonitorNamespaceSelector: {matchLabels: {kubernetes.io/metadata.name: protected}}
  image: localhost/prometheus:1
  version: v3.15.0
  containers:
  - name: prometheus
    startupProbe: {periodSeconds: 1, failureThreshold: 120}
    readinessProbe: {periodSeconds: 1, failureThreshold: 10}
`
