// SPDX-License-Identifier: Apache-2.0

package chart

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	monitoringv1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	monitoringv1alpha1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1alpha1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestServiceDiscovery(t *testing.T) {
	m := render(t, ci(t, "service-discovery"))
	wantArgs(t, m, "--web.enable-sd", "--sd.template={uuid}.tailnet.example", "--sd.port=9100", "--sd.port=8080", "--sd.path=/metrics", "--sd.scheme=https")
	want := `
apiVersion: monitoring.coreos.com/v1alpha1
kind: ScrapeConfig
metadata:
  name: metrics-balena-exporter-devices
  namespace: iot
  labels:
    app.kubernetes.io/name: balena-exporter
    app.kubernetes.io/instance: metrics
    app.kubernetes.io/part-of: balena-exporter
    app.kubernetes.io/managed-by: Helm
    app.kubernetes.io/version: ` + chartVersion(t) + `
    helm.sh/chart: balena-exporter-` + chartVersion(t) + `
    release: kube-prometheus-stack
  annotations: {example.com/owner: fleet-team}
spec:
  jobName: balena-devices
  httpSDConfigs:
    - url: https://metrics-balena-exporter.iot.svc:8000/sd/devices?connected=true&fleet=acme%2Fkiosks&fleet=acme%2Fa%26b&tag=site&tag=env%3Dprod
      refreshInterval: 60s
      tlsConfig:
        serverName: metrics-balena-exporter.iot.svc
        ca: {secret: {name: exporter-tls, key: ca.crt}}
      basicAuth:
        username: {name: exporter-password, key: username}
        password: {name: exporter-password, key: password}
  scrapeInterval: 5m
  scrapeTimeout: 30s
  sampleLimit: 5000
  tlsConfig:
    serverName: device.example.com
    ca: {secret: {name: device-ca, key: ca.crt}}
    cert: {secret: {name: prometheus-client, key: tls.crt}}
    keySecret: {name: prometheus-client, key: tls.key}
  basicAuth:
    username: {name: device-password, key: username}
    password: {name: device-password, key: password}
  relabelings:
    - {action: replace, sourceLabels: [__meta_balena_device_uuid], targetLabel: uuid}
    - {action: replace, sourceLabels: [__meta_balena_fleet], targetLabel: fleet}
    - {action: replace, sourceLabels: [__meta_balena_device_tag_site], targetLabel: site}
  metricRelabelings: [{action: drop, sourceLabels: [__name__], regex: go_.*}]
`
	objects, err := decode(want)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(objects[0], metav1.Object(get[*monitoringv1alpha1.ScrapeConfig](t, m))); diff != "" {
		t.Error(diff)
	}
}

// By default, the ScrapeConfig has no credentials and no timeout, and reads the list over plain HTTP.
func TestServiceDiscoveryAsItComes(t *testing.T) {
	m := render(t, minimal+"serviceDiscovery: {enabled: true, address: local, ports: [9100], scrapeConfig: {enabled: true}}\nserviceMonitor: {enabled: true, namespace: monitoring}\nnetworkPolicy: {enabled: true}")
	config := get[*monitoringv1alpha1.ScrapeConfig](t, m)
	discovery := config.Spec.HTTPSDConfigs[0]
	if got := string(discovery.URL); got != "http://metrics-balena-exporter.iot.svc:8000/sd/devices?connected=true" {
		t.Errorf("the list is at %s", got)
	}
	if discovery.TLSConfig != nil || discovery.BasicAuth != nil || config.Spec.TLSConfig != nil || config.Spec.BasicAuth != nil {
		t.Errorf("there are credentials: %+v", config.Spec)
	}
	if monitor := get[*monitoringv1.ServiceMonitor](t, m); config.Namespace != monitor.Namespace {
		t.Errorf("the namespace is %s, and the Secrets are in %s", config.Namespace, monitor.Namespace)
	}
	// The list is served on the port of the metrics, which Prometheus can already reach.
	if policy := get[*networkingv1.NetworkPolicy](t, m); policy.Spec.Ingress[0].Ports[0].Port.StrVal != "metrics" {
		t.Errorf("the port of metrics is closed: %v", policy.Spec.Ingress)
	}
	if len(all[*monitoringv1alpha1.ScrapeConfig](render(t, minimal+"serviceDiscovery: {enabled: true}"))) > 0 {
		t.Error("a ScrapeConfig is rendered that nobody asked for")
	}
}
