// SPDX-License-Identifier: Apache-2.0

package chart

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	certmanagerv1 "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	"github.com/google/go-cmp/cmp"
	monitoringv1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	"github.com/prometheus/exporter-toolkit/web"
	"helm.sh/helm/v4/pkg/chart/common"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"
)

// ci returns one of the values files in ci/.
func ci(t *testing.T, name string) string {
	t.Helper()
	values, found := valuesFiles(t)[name]
	if !found {
		t.Fatalf("no ci/%s-values.yaml", name)
	}
	return values
}

func TestDefaultInstallIsFourObjectsAndATest(t *testing.T) {
	want := []string{"Deployment/metrics-balena-exporter", "Pod/metrics-balena-exporter-test", "Service/metrics-balena-exporter", "ServiceAccount/metrics-balena-exporter"}
	if diff := cmp.Diff(want, render(t, minimal).ids()); diff != "" {
		t.Error(diff)
	}
}

func TestNames(t *testing.T) {
	for _, test := range []struct{ release, values, want string }{
		{"metrics", minimal, "metrics-balena-exporter"},
		{"balena-exporter", minimal, "balena-exporter"},
		{"my-balena-exporter", minimal, "my-balena-exporter"},
		{"metrics", minimal + "nameOverride: devices", "metrics-devices"},
		{"metrics", minimal + "fullnameOverride: devices", "devices"},
		{"balena", minimal, "balena-exporter"},
		{"balena-acme", minimal, "balena-acme-exporter"},
		{"balenas", minimal, "balenas-balena-exporter"},
		{"balena-acme", minimal + "nameOverride: devices", "balena-acme-devices"},
		{"balena-" + strings.Repeat("x", 46), minimal, "balena-" + strings.Repeat("x", 24) + "-exporter"},
		// Derived names, with "-web-config" or the revision of a StatefulSet, must not exceed 63 characters either.
		{strings.Repeat("x", 53), minimal, strings.Repeat("x", 40)},
	} {
		options := releaseOptions
		options.Name = test.release
		files, err := renderFiles(loadChart(t), test.values, options)
		if err != nil {
			t.Fatal(err)
		}
		if got := get[*corev1.Service](t, decodeFiles(t, files)).Name; got != test.want {
			t.Errorf("release %s with %q is named %s, want %s", test.release, test.values, got, test.want)
		}
	}
}

func TestToken(t *testing.T) {
	for _, test := range []struct{ name, values, secret, key string }{
		{"by value", "balena: {token: not-a-real-token}", "metrics-balena-exporter-token", "token"},
		{"by the name of a Secret", "balena: {existingSecret: mine}", "mine", "token"},
		{"by the name of a Secret in an object", "balena: {existingSecret: {name: mine}}", "mine", "token"},
		{"by name and key of a Secret", "balena: {existingSecret: {name: mine, key: api-key}}", "mine", "api-key"},
	} {
		t.Run(test.name, func(t *testing.T) {
			m := render(t, test.values)
			source := volume(t, m.exporter(t), "token").Secret
			if source.SecretName != test.secret || source.Items[0].Key != test.key {
				t.Errorf("mounts %s of %s, want %s of %s", source.Items[0].Key, source.SecretName, test.key, test.secret)
			}
			wantArgs(t, m, "--balena.token-file=/etc/balena-exporter/token/"+test.key)
			for _, env := range m.exporter(t).Spec.Containers[0].Env {
				t.Errorf("the environment has %s", env.Name)
			}
		})
	}
	secret := get[*corev1.Secret](t, render(t, "balena: {token: not-a-real-token}"))
	if got := string(secret.Data["token"]); got != "not-a-real-token" {
		t.Errorf("the Secret holds %q", got)
	}
}

func volume(t *testing.T, pod *corev1.PodTemplateSpec, name string) corev1.Volume {
	t.Helper()
	i := slices.IndexFunc(pod.Spec.Volumes, func(v corev1.Volume) bool { return v.Name == name })
	if i < 0 {
		t.Fatalf("no volume %s", name)
	}
	return pod.Spec.Volumes[i]
}

func wantArgs(t *testing.T, m manifests, want ...string) {
	t.Helper()
	for _, arg := range want {
		if !slices.Contains(m.args(t), arg) {
			t.Errorf("no argument %s in %q", arg, m.args(t))
		}
	}
}

// Each value is one argument of the exporter. Defaults of the exporter are not passed.
func TestArguments(t *testing.T) {
	always := []string{
		"--balena.token-file=/etc/balena-exporter/token/token",
		"--balena.api-url=https://api.balena-cloud.com",
		"--balena.refresh-interval=60s",
		"--web.listen-address=:8000",
		"--web.health-listen-address=:8001",
		"--log.level=info",
		"--log.format=logfmt",
	}
	if diff := cmp.Diff(always, render(t, minimal).args(t)); diff != "" {
		t.Error(diff)
	}
	for _, test := range []struct{ values, want string }{
		{"balena: {token: t, apiUrl: https://api.example.com}", "--balena.api-url=https://api.example.com"},
		{"balena: {token: t, apiVersion: v6}", "--balena.api-version=v6"},
		{"balena: {token: t, allowHttp: true}", "--balena.allow-http"},
		{"balena: {token: t, refreshInterval: 120}", "--balena.refresh-interval=120s"},
		{"balena: {token: t, refreshInterval: 2m}", "--balena.refresh-interval=2m"},
		{"balena: {token: t, fullRefreshInterval: 1h}", "--balena.full-refresh-interval=1h"},
		{"balena: {token: t, fullRefreshInterval: 0s}", "--balena.full-refresh-interval=0s"},
		{"balena: {token: t, fullRefreshInterval: 0}", "--balena.full-refresh-interval=0s"},
		{"balena: {token: t, maxStaleness: 10m}", "--balena.max-staleness=10m"},
		{"balena: {token: t, timeout: 20s}", "--balena.timeout=20s"},
		{`balena: {token: t, timeout: "20"}`, "--balena.timeout=20s"},
		{"balena: {token: t, caSecret: {name: ca, key: ca.pem}}", "--balena.ca-file=/etc/balena-exporter/ca/ca.pem"},
		{"balena: {token: t, caConfigMap: {name: ca}}", "--balena.ca-file=/etc/balena-exporter/ca/ca.crt"},
		{minimal + `fleets: {include: 'a/"b"\d'}`, `--balena.fleet-include=a/"b"\d`},
		{minimal + "fleets: {exclude: '#x: y/z'}", "--balena.fleet-exclude=#x: y/z"},
		{minimal + "fleets: {archived: false}", "--no-balena.archived-fleets"},
		{minimal + "collectors: {device: false}", "--no-collector.device"},
		{minimal + "collectors: {deviceName: false}", "--no-collector.device.name"},
		{minimal + "collectors: {deviceLocation: true}", "--collector.device.location"},
		{minimal + "collectors: {release: false}", "--no-collector.release"},
		{minimal + "collectors: {service: true}", "--collector.service"},
		{minimal + "collectors: {serviceSummary: false}", "--no-collector.service-summary"},
		{minimal + "prometheusRule: {maintenanceTag: in repair}", "--collector.maintenance-tag=in repair"},
		{minimal + "collectors: {os: false}", "--no-collector.os"},
		{minimal + "collectors: {apiKey: false}", "--no-collector.api-key"},
		{minimal + "collectors: {deviceTags: [site, customer]}", "--collector.device.tags=site,customer"},
		{minimal + "collectors: {fleetTags: [team]}", "--collector.fleet.tags=team"},
		{minimal + "collectors: {metricAllowlist: ['balena_fleet_.*']}", "--collector.metric-allowlist=balena_fleet_.*"},
		{minimal + "collectors: {metricDenylist: ['balena_device_memory_.*']}", "--collector.metric-denylist=balena_device_memory_.*"},
		{minimal + "serviceMonitor: {parts: 8}", "--web.parts=8"},
		{minimal + "collectors: {disconnectedThresholds: [86400]}", "--collector.fleet.disconnected-thresholds=86400,604800"},
		{minimal + "collectors: {disconnectedThresholds: [3600, 86400, 604800, 2592000, 259200]}", "--collector.fleet.disconnected-thresholds=3600,86400,604800,2592000,259200"},
		{minimal + rules(`deviceLostSeconds: "604800"`), "--log.format=logfmt"},
		{minimal + "prometheusRule: {grafanaUrl: https://grafana.example.com}", "--web.grafana-url=https://grafana.example.com"},
		{minimal + rules("storageRatio: 0.8, deviceOfflineSeconds: 1209"), "--web.problem-thresholds=deviceOfflineSeconds=1209,storageRatio=0.8"},
		{minimal + "log: {level: debug}", "--log.level=debug"},
		{minimal + "log: {format: json}", "--log.format=json"},
		{minimal + "extraArgs: ['--web.max-requests=10']", "--web.max-requests=10"},
		{minimal + "webConfig: {existingSecret: {name: w, key: c.yml}}", "--web.config.file=/etc/balena-exporter/web/c.yml"},
		{minimal + "serviceDiscovery: {enabled: true}", "--web.enable-sd"},
		{minimal + "serviceDiscovery: {enabled: false, ports: [9100]}", "--log.format=logfmt"},
		{minimal + "shards: 3", "--balena.shard=$(POD_INDEX)/3"},
	} {
		m := render(t, test.values)
		wantArgs(t, m, test.want)
		if added := len(m.args(t)) - len(always); added < 0 || added > 1 {
			t.Errorf("%s: %d additional arguments: %q", test.values, added, m.args(t))
		}
	}
}

// buildExporter builds the exporter.
func buildExporter(t *testing.T) string {
	t.Helper()
	exporter := filepath.Join(t.TempDir(), "balena-exporter")
	build := exec.Command("go", "build", "-o", exporter, "./cmd/balena-exporter")
	build.Dir = root
	if output, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, output)
	}
	return exporter
}

// The exporter accepts all arguments that the chart passes.
func TestExporterAcceptsTheArguments(t *testing.T) {
	exporter := buildExporter(t)
	for name, values := range valuesFiles(t) {
		t.Run(name, func(t *testing.T) {
			args := render(t, values).args(t)
			for i, arg := range args {
				args[i] = strings.ReplaceAll(arg, "$(POD_INDEX)", "0") // like the kubelet
			}
			// With --version, the exporter parses the arguments and exits.
			if output, err := exec.Command(exporter, append(args, "--version")...).CombinedOutput(); err != nil {
				t.Errorf("%v\n%s", err, output)
			}
		})
	}
}

// The web configuration is valid for exporter-toolkit, which the exporter uses.
func TestWebConfigIsAcceptedByTheToolkit(t *testing.T) {
	directory := t.TempDir()
	writeCertificate(t, directory, "")
	for _, name := range []string{"tls", "cert-manager", "basic-auth", "mutual-tls", "other-namespace", "untestable"} {
		t.Run(name, func(t *testing.T) {
			m := render(t, ci(t, name))
			wantArgs(t, m, "--web.config.file=/etc/balena-exporter/web/web-config.yml")
			secret := get[*corev1.Secret](t, m)
			if got := volume(t, m.exporter(t), "web").Secret.SecretName; got != secret.Name {
				t.Errorf("mounts %s, the file is in %s", got, secret.Name)
			}
			text := string(secret.Data["web-config.yml"])
			// All files in the web configuration are mounted.
			for line := range strings.SplitSeq(text, "\n") {
				if _, path, named := strings.Cut(line, "_file: "); named && !mounts(m.exporter(t), path) {
					t.Errorf("%s is not mounted", path)
				}
			}
			for _, mounted := range []string{"/etc/balena-exporter/tls", "/etc/balena-exporter/client-ca"} {
				text = strings.ReplaceAll(text, mounted, directory)
			}
			path := filepath.Join(t.TempDir(), "web-config.yml")
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := web.Validate(path); err != nil {
				t.Errorf("%v\n%s", err, text)
			}
		})
	}
}

func TestWebConfigOfMutualTLSAndBasicAuth(t *testing.T) {
	want := `basic_auth_users:
  prometheus: $2a$10$E.HTU.aVyMWrnCp6f7PhU.2wacwioK0v14wxhsbLnLtk5a3o70QOm
tls_server_config:
  cert_file: /etc/balena-exporter/tls/tls.crt
  client_auth_type: RequireAndVerifyClientCert
  client_ca_file: /etc/balena-exporter/client-ca/bundle.pem
  key_file: /etc/balena-exporter/tls/tls.key
  min_version: TLS12
`
	got := string(get[*corev1.Secret](t, render(t, ci(t, "other-namespace"))).Data["web-config.yml"])
	if diff := cmp.Diff(strings.TrimSpace(want), strings.TrimSpace(got)); diff != "" {
		t.Error(diff)
	}
}

// mounts reports whether a path is a key of a mounted volume.
func mounts(pod *corev1.PodTemplateSpec, path string) bool {
	for _, mount := range pod.Spec.Containers[0].VolumeMounts {
		for _, v := range pod.Spec.Volumes {
			if v.Name != mount.Name || mount.MountPath != filepath.Dir(path) || v.Secret == nil {
				continue
			}
			if slices.ContainsFunc(v.Secret.Items, func(item corev1.KeyToPath) bool { return item.Path == filepath.Base(path) }) {
				return true
			}
		}
	}
	return false
}

// writeCertificate writes a self-signed certificate, which is used as server certificate, client certificate and CA.
func writeCertificate(t *testing.T, directory, name string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotAfter: time.Now().Add(time.Hour), DNSNames: []string{name},
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	certificate, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{
		"tls.crt":    {Type: "CERTIFICATE", Bytes: certificate},
		"ca.crt":     {Type: "CERTIFICATE", Bytes: certificate},
		"bundle.pem": {Type: "CERTIFICATE", Bytes: certificate},
		"tls.key":    {Type: "PRIVATE KEY", Bytes: private},
	} {
		if err := os.WriteFile(filepath.Join(directory, name), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func TestCertificate(t *testing.T) {
	m := render(t, ci(t, "cert-manager"))
	certificate := get[*certmanagerv1.Certificate](t, m)
	if certificate.Spec.SecretName != volume(t, m.exporter(t), "tls").Secret.SecretName {
		t.Errorf("cert-manager writes %s, which the exporter does not mount", certificate.Spec.SecretName)
	}
	want := []string{
		"metrics-balena-exporter", "metrics-balena-exporter.iot", "metrics-balena-exporter.iot.svc", "metrics-balena-exporter.iot.svc.cluster.local",
		"balena-metrics.example.com",
	}
	if diff := cmp.Diff(want, certificate.Spec.DNSNames); diff != "" {
		t.Error(diff)
	}
	if got := certificate.Spec.IssuerRef; got.Name != "company" || got.Kind != "ClusterIssuer" || got.Group != "cert-manager.io" {
		t.Errorf("the issuer is %v", got)
	}
}

// The endpoint of the ServiceMonitor matches webConfig.
func TestServiceMonitorFollowsWebConfig(t *testing.T) {
	for _, test := range []struct{ name, want string }{
		{"shards", `{port: metrics, path: /metrics, scheme: http, interval: 60s}`},
		{"tls", `
port: metrics
path: /metrics
scheme: https
interval: 60s
tlsConfig:
  serverName: metrics-balena-exporter.iot.svc
  ca: {secret: {name: exporter-tls, key: ca.crt}}`},
		{"cert-manager", `
port: metrics
path: /metrics
scheme: https
interval: 60s
tlsConfig:
  serverName: balena-metrics.example.com
  ca: {secret: {name: metrics-balena-exporter-tls, key: ca.crt}}`},
		{"mutual-tls", `
port: metrics
path: /metrics
scheme: https
interval: 60s
tlsConfig:
  serverName: metrics-balena-exporter.iot.svc
  ca: {secret: {name: exporter-tls, key: ca.crt}}
  cert: {secret: {name: prometheus-client, key: tls.crt}}
  keySecret: {name: prometheus-client, key: tls.key}`},
		{"other-namespace", `
port: metrics
path: /metrics
scheme: https
interval: 60s
tlsConfig:
  serverName: metrics-balena-exporter.iot.svc
  ca: {secret: {name: balena-exporter-ca, key: ca.crt}}
  cert: {secret: {name: prometheus-client, key: tls.crt}}
  keySecret: {name: prometheus-client, key: tls.key}
basicAuth:
  username: {name: prometheus-credentials, key: username}
  password: {name: prometheus-credentials, key: password}`},
		{"web-config-secret", `
port: metrics
path: /metrics
scheme: https
interval: 60s
tlsConfig: {serverName: metrics.example.com}
basicAuth:
  username: {name: prometheus-credentials, key: user}
  password: {name: prometheus-credentials, key: pass}`},
		{"insecure", `{port: metrics, path: /metrics, scheme: https, interval: 60s, tlsConfig: {insecureSkipVerify: true}}`},
	} {
		t.Run(test.name, func(t *testing.T) {
			var want monitoringv1.Endpoint
			if err := yaml.UnmarshalStrict([]byte(test.want), &want); err != nil {
				t.Fatal(err)
			}
			got := get[*monitoringv1.ServiceMonitor](t, render(t, ci(t, test.name))).Spec.Endpoints
			want.RelabelConfigs = got[0].RelabelConfigs // tested elsewhere
			if diff := cmp.Diff([]monitoringv1.Endpoint{want}, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestServiceMonitor(t *testing.T) {
	monitor := get[*monitoringv1.ServiceMonitor](t, render(t, ci(t, "service-monitor")))
	want := `
apiVersion: monitoring.coreos.com/v1
kind: ServiceMonitor
metadata:
  name: metrics-balena-exporter
  namespace: monitoring
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
  jobLabel: app.kubernetes.io/name
  namespaceSelector: {matchNames: [iot]}
  selector: {matchLabels: {app.kubernetes.io/name: balena-exporter, app.kubernetes.io/instance: metrics}}
  targetLabels: [app.kubernetes.io/instance]
  podTargetLabels: [apps.kubernetes.io/pod-index]
  sampleLimit: 2000000
  targetLimit: 10
  labelLimit: 30
  labelNameLengthLimit: 100
  labelValueLengthLimit: 500
  endpoints:
    - port: metrics
      path: /metrics
      scheme: http
      interval: 1m
      scrapeTimeout: 60s
      honorLabels: true
      relabelings:
        - {action: replace, targetLabel: account, replacement: iot/metrics}
        - {action: labeldrop, regex: pod|container|endpoint}
      metricRelabelings: [{action: drop, sourceLabels: [__name__], regex: go_.*}]
`
	objects, err := decode(want)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(objects[0], metav1.Object(monitor)); diff != "" {
		t.Error(diff)
	}
}

// Objects of the operator are rendered even if the cluster does not have the CRDs.
func TestOperatorObjectsDoNotDependOnTheCluster(t *testing.T) {
	m := render(t, minimal+"serviceMonitor: {enabled: true}\nprometheusRule: {enabled: true}")
	get[*monitoringv1.ServiceMonitor](t, m)
	get[*monitoringv1.PrometheusRule](t, m)
}

func TestPrometheusRule(t *testing.T) {
	chart := loadChart(t)
	chart.Files = slices.DeleteFunc(chart.Files, func(f *common.File) bool { return strings.HasPrefix(f.Name, "files/rules/") })
	chart.Files = append(chart.Files, &common.File{Name: "files/rules/a.yaml", Data: []byte(`
groups:
  - name: a
    rules:
      - record: fleet:devices:sum
        expr: sum by (fleet) (balena_fleet_devices)
      - alert: First
        expr: balena_up == 0
        for: ${apiFailingFor}
        labels: {severity: warning}
        annotations:
          summary: '{{ $labels.fleet }} for ${apiFailingFor}'
          runbook_url: ${runbookBaseUrl}#first
      - alert: Second
        expr: balena_up == 0
      - alert: Fourth
        expr: balena_up == 0
        for: 5m
        labels: {severity: warning, about: all}
      - alert: Fifth
        expr: balena_up == 0
        for: 5m
        labels: {severity: warning}
`)}, &common.File{Name: "files/rules/b.yaml", Data: []byte(`{groups: [{name: b, rules: [{alert: Third, expr: up == 0}]}]}`)})
	files, err := renderFiles(chart, minimal+`
prometheusRule:
  enabled: true
  overrides: {BalenaOSOutdated: null, Second: {enabled: false}, Third: {enabled: false}, Fourth: {severity: info, for: 7m}, Fifth: {for: 8m}}
  alertLabels: {team: fleet}
  runbookBaseUrl: https://runbooks.example.com
  thresholds: {apiFailingFor: 2m}
`, releaseOptions)
	if err != nil {
		t.Fatal(err)
	}
	var want monitoringv1.PrometheusRuleSpec
	if err := yaml.UnmarshalStrict([]byte(`
groups:
  - name: a
    rules:
      - record: fleet:devices:sum
        expr: sum by (fleet) (balena_fleet_devices)
      - alert: First
        expr: balena_up == 0
        for: 2m
        labels: {severity: warning, team: fleet}
        annotations:
          summary: '{{ $labels.fleet }} for 2m'
          runbook_url: https://runbooks.example.com#first
      - alert: Fourth
        expr: balena_up == 0
        for: 7m
        labels: {severity: info, about: all, team: fleet}
      - alert: Fifth
        expr: balena_up == 0
        for: 8m
        labels: {severity: warning, team: fleet}
`), &want); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, get[*monitoringv1.PrometheusRule](t, decodeFiles(t, files)).Spec); diff != "" {
		t.Error(diff)
	}

	for rules, want := range map[string]string{
		`{groups: [{name: c, rules: [{alert: D, expr: "x > ${typo}"}]}]}`: "files/rules/c.yaml uses ${typo}, which prometheusRule.thresholds does not define",
		`groups: [`: "files/rules/c.yaml has no groups of rules: error converting YAML to JSON",
	} {
		chart := loadChart(t)
		chart.Files = append(chart.Files, &common.File{Name: "files/rules/c.yaml", Data: []byte(rules)})
		_, err := renderFiles(chart, minimal+"prometheusRule: {enabled: true}", releaseOptions)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

// Every threshold is used by a rule.
func TestEveryThresholdIsUsed(t *testing.T) {
	chart := loadChart(t)
	var rules strings.Builder
	for _, file := range chart.Files {
		if strings.HasPrefix(file.Name, "files/rules/") {
			rules.Write(file.Data)
		}
	}
	thresholds := chart.Values["prometheusRule"].(map[string]any)["thresholds"].(map[string]any)
	for name := range thresholds {
		if !strings.Contains(rules.String(), "${"+name+"}") {
			t.Errorf("no rule uses prometheusRule.thresholds.%s", name)
		}
	}
}

func TestDashboards(t *testing.T) {
	chart := loadChart(t)
	chart.Files = slices.DeleteFunc(chart.Files, func(f *common.File) bool { return strings.HasPrefix(f.Name, "files/dashboards/") })
	const dashboard = "{\n  \"title\": \"Fleets\",\n  \"legend\": \"{{fleet}}\"\n}\n"
	chart.Files = append(chart.Files, &common.File{Name: "files/dashboards/fleet_overview.json", Data: []byte(dashboard)})
	files, err := renderFiles(chart, ci(t, "rules-and-dashboards"), releaseOptions)
	if err != nil {
		t.Fatal(err)
	}
	configMap := get[*corev1.ConfigMap](t, decodeFiles(t, files))
	if configMap.Name != "metrics-balena-exporter-dashboard-fleet-overview" || configMap.Namespace != "monitoring" {
		t.Errorf("the ConfigMap is %s/%s", configMap.Namespace, configMap.Name)
	}
	if configMap.Labels["grafana_dashboard"] != "1" || configMap.Annotations["grafana_folder"] != "Balena" {
		t.Errorf("labels %v, annotations %v", configMap.Labels, configMap.Annotations)
	}
	if diff := cmp.Diff(map[string]string{"fleet_overview.json": dashboard}, configMap.Data); diff != "" {
		t.Error(diff)
	}
}

// Dashboards link to the balena dashboard if it exists. Otherwise the links are removed.
func TestDashboardsLinkToTheBalenaDashboard(t *testing.T) {
	const cloud, title = "https://dashboard.balena-cloud.com", "Open in balena's dashboard"
	for _, test := range []struct {
		name, values, address string
	}{
		{"balenaCloud", minimal, cloud},
		{"balenaCloud with port and slash", "balena: {token: t, apiUrl: 'https://api.balena-cloud.com:443/'}\n", cloud},
		{"openBalena", "balena: {token: t, apiUrl: https://api.balena.example.com}\n", ""},
		{"openBalena with a dashboard", "balena: {token: t, apiUrl: https://api.balena.example.com, dashboardUrl: https://admin.balena.example.com/}\n", "https://admin.balena.example.com"},
	} {
		t.Run(test.name, func(t *testing.T) {
			links := 0
			for _, configMap := range all[*corev1.ConfigMap](render(t, test.values+"dashboards: {enabled: true}")) {
				for file, text := range configMap.Data {
					var dashboard map[string]any
					if err := json.Unmarshal([]byte(text), &dashboard); err != nil {
						t.Fatalf("%s: %v", file, err)
					}
					links += strings.Count(text, title)
					if test.address != cloud && strings.Contains(text, cloud) && test.address != "" {
						t.Errorf("%s links to balenaCloud", file)
					}
					if strings.Contains(text, `"name": "balena"`) && test.address != "" && !strings.Contains(text, `"query": "`+test.address+`"`) {
						t.Errorf("%s does not link to %s", file, test.address)
					}
					if test.address == "" && strings.Contains(text, "${balena}") {
						t.Errorf("%s links to a dashboard that does not exist", file)
					}
					// Only the links change.
					want := strings.TrimSpace(readFile(t, chartDir+"/files/dashboards/"+file))
					if got := strings.Count(strings.TrimSpace(text), `"title"`) + strings.Count(want, title); got != strings.Count(want, `"title"`)+strings.Count(text, title) {
						t.Errorf("%s has other changes than removed links", file)
					}
					if test.address == cloud && strings.TrimSpace(text) != want {
						t.Errorf("%s has changed", file)
					}
				}
			}
			if (links > 0) != (test.address != "") {
				t.Errorf("%d links, address %q", links, test.address)
			}
		})
	}
}

// The dashboards have the tags of the alerts as variables. The first tag is the default.
func TestDashboardsOfferTags(t *testing.T) {
	for values, want := range map[string][2]string{
		"": {"tag_site", "tag_site"},
		"collectors: {deviceTags: [owner, 'region.name']}\nprometheusRule: {tagLabels: [owner, region.name]}": {"tag_owner,tag_region_name", "tag_owner"},
	} {
		found := 0
		for _, config := range all[*corev1.ConfigMap](render(t, minimal+"dashboards: {enabled: true}\n"+values)) {
			for name, text := range config.Data {
				var dashboard struct {
					Templating struct {
						List []struct {
							Name    string
							Query   any
							Current struct{ Value any }
						}
					}
				}
				if err := json.Unmarshal([]byte(text), &dashboard); err != nil {
					t.Fatalf("%s: %v", name, err)
				}
				for _, v := range dashboard.Templating.List {
					if v.Name != "tag" {
						continue
					}
					found++
					if v.Query != want[0] || v.Current.Value != want[1] {
						t.Errorf("%q: %s has the tags %v with the default %v, want %s", values, name, v.Query, v.Current.Value, want)
					}
				}
			}
		}
		if found != 4 {
			t.Errorf("%q: %d dashboards have tags", values, found)
		}
	}
}

// The color thresholds of the age of data depend on the interval.
func TestDashboardsFollowTheInterval(t *testing.T) {
	for name, want := range map[string]string{"default": "green orange:120 red:300", "slow-openbalena": "green orange:2400 red:6000"} {
		for _, configMap := range all[*corev1.ConfigMap](render(t, dashboardsOf(t, name))) {
			for file, text := range configMap.Data {
				var dashboard struct {
					Panels []struct {
						Title       string
						FieldConfig struct {
							Defaults struct {
								Thresholds struct {
									Steps []struct {
										Color string
										Value *float64
									}
								}
							}
						}
					}
				}
				if err := json.Unmarshal([]byte(text), &dashboard); err != nil {
					t.Fatalf("%s: %v", file, err)
				}
				for _, panel := range dashboard.Panels {
					var got []string
					for _, step := range panel.FieldConfig.Defaults.Thresholds.Steps {
						if step.Value == nil {
							got = append(got, step.Color)
						} else {
							got = append(got, fmt.Sprintf("%s:%v", step.Color, *step.Value))
						}
					}
					if panel.Title == "Age of the oldest data" && strings.Join(got, " ") != want {
						t.Errorf("%s: %s has the colors %q, want %q", name, file, got, want)
					}
				}
			}
		}
	}
}

func dashboardsOf(t *testing.T, name string) string {
	t.Helper()
	return strings.ReplaceAll(ci(t, name), "dashboards:\n  enabled: true\n", "") + "\ndashboards: {enabled: true}"
}

// The page /problems and the alerts have the same thresholds. The chart passes only thresholds that differ from the defaults.
func TestThresholdsOfProblems(t *testing.T) {
	m := render(t, minimal)
	for _, arg := range get[*appsv1.Deployment](t, m).Spec.Template.Spec.Containers[0].Args {
		if strings.HasPrefix(arg, "--web.problem-thresholds") {
			t.Errorf("default thresholds are passed: %s", arg)
		}
	}
	// All thresholds of the pages. A test of the rules compares their defaults.
	for _, threshold := range []string{
		"deviceOfflineSeconds=3601", "deviceLostSeconds=604801", "neverConnectedSeconds=86401", "updateStuckSeconds=7201", "buildFailedSeconds=604801",
		"storageRatio=0.91", "memoryRatio=0.96", "temperatureCelsius=81", "fleetPartDevices=4", "fleetOfflineRatio=0.21", "fleetLargelyOfflineRatio=0.51",
	} {
		wantArgs(t, render(t, minimal+rules(strings.Replace(threshold, "=", ": ", 1))), "--web.problem-thresholds="+threshold)
	}
}

// The exporter, the alerts and the dashboards use the same threshold for lost devices.
func TestThresholdOfLostDevices(t *testing.T) {
	m := render(t, ci(t, "slow-openbalena"))
	wantArgs(t, m, "--collector.fleet.disconnected-thresholds=3600,86400,604800,2592000,259200")
	rules, err := yaml.Marshal(get[*monitoringv1.PrometheusRule](t, m))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(rules), `{seconds="259200"}`) {
		t.Error("the alerts do not use the threshold")
	}
	fleet := m.objects["ConfigMap/metrics-balena-exporter-dashboard-fleet"].(*corev1.ConfigMap).Data["balena-fleet.json"]
	if !strings.Contains(fleet, `"query": "259200"`) || strings.Contains(fleet, "604800\"") {
		t.Error("the dashboard of a fleet has another threshold")
	}
}

func TestNetworkPolicy(t *testing.T) {
	want := `
podSelector: {matchLabels: {app.kubernetes.io/name: balena-exporter, app.kubernetes.io/instance: metrics}}
policyTypes: [Ingress, Egress]
ingress:
  - ports: [{port: metrics, protocol: TCP}]
    from:
      - namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: monitoring}}
        podSelector: {matchLabels: {app.kubernetes.io/name: prometheus}}
      - podSelector: {matchLabels: {app.kubernetes.io/name: balena-exporter-test, app.kubernetes.io/instance: metrics}}
  - ports: [{port: health, protocol: TCP}]
  - from: [{podSelector: {}}]
egress:
  - ports: [{port: 53, protocol: UDP}, {port: 53, protocol: TCP}, {port: 5353, protocol: UDP}, {port: 5353, protocol: TCP}]
  - ports: [{port: 443, protocol: TCP}, {port: 3128, protocol: TCP}]
    to: [{ipBlock: {cidr: 10.1.2.3/32}}]
  - to: [{ipBlock: {cidr: 10.9.9.9/32}}]
`
	var spec networkingv1.NetworkPolicySpec
	if err := yaml.UnmarshalStrict([]byte(want), &spec); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(spec, get[*networkingv1.NetworkPolicy](t, render(t, ci(t, "network-policy"))).Spec); diff != "" {
		t.Error(diff)
	}
	open := get[*networkingv1.NetworkPolicy](t, render(t, minimal+"networkPolicy: {enabled: true}")).Spec
	if open.Ingress[0].From != nil || open.Egress[1].To != nil {
		t.Errorf("without values, scrapes come from %v and the API is at %v; want no restrictions", open.Ingress[0].From, open.Egress[1].To)
	}
}

// The default port is that of the proxy or of the API.
func TestNetworkPolicyOpensThePortOfTheAPI(t *testing.T) {
	for _, test := range []struct {
		values string
		port   int32
	}{
		{minimal, 443},
		{"balena: {token: t, apiUrl: 'https://api.example.com:8443/'}\n", 8443},
		{"balena: {token: t, apiUrl: 'https://[2001:db8::1]'}\n", 443},
		{"balena: {token: t, apiUrl: 'http://api.example.com', allowHttp: true}\n", 80},
		{minimal + "extraEnv: [{name: https_proxy, value: 'http://proxy.example.com:3128'}]\n", 3128},
		{minimal + "extraEnv: [{name: HTTPS_PROXY, value: 'http://proxy.example.com'}]\n", 80},
		{minimal + "extraEnv: [{name: HTTP_PROXY, value: 'http://proxy.example.com:3128'}]\n", 443},
		{minimal + "extraEnvFrom: [{secretRef: {name: s}}]\n", 443},
	} {
		policy := get[*networkingv1.NetworkPolicy](t, render(t, test.values+"networkPolicy: {enabled: true}"))
		if ports := policy.Spec.Egress[1].Ports; len(ports) != 1 || ports[0].Port.IntVal != test.port {
			t.Errorf("with %s egress is open to %v, want %d", test.values, ports, test.port)
		}
	}
}

func TestShards(t *testing.T) {
	m := render(t, ci(t, "shards"))
	set := get[*appsv1.StatefulSet](t, m)
	if *set.Spec.Replicas != 3 || set.Spec.ServiceName != get[*corev1.Service](t, m).Name {
		t.Errorf("%d replicas, Service %s", *set.Spec.Replicas, set.Spec.ServiceName)
	}
	env := m.exporter(t).Spec.Containers[0].Env
	if env[0].Name != "POD_INDEX" || env[0].ValueFrom.FieldRef.FieldPath != "metadata.labels['apps.kubernetes.io/pod-index']" || env[1].Name != "HTTPS_PROXY" {
		t.Errorf("the environment is %v", env)
	}
	spread := set.Spec.Template.Spec.TopologySpreadConstraints[0]
	if diff := cmp.Diff(set.Spec.Selector, spread.LabelSelector); diff != "" || spread.TopologyKey != "kubernetes.io/hostname" {
		t.Errorf("spreads over %s: %s", spread.TopologyKey, diff)
	}
	budget := get[*policyv1.PodDisruptionBudget](t, m)
	if diff := cmp.Diff(set.Spec.Selector, budget.Spec.Selector); diff != "" || budget.Spec.MaxUnavailable.IntValue() != 1 {
		t.Errorf("maxUnavailable %v: %s", budget.Spec.MaxUnavailable, diff)
	}

	single := render(t, minimal)
	deployment := get[*appsv1.Deployment](t, single)
	if *deployment.Spec.Replicas != 1 || deployment.Spec.Strategy.Type != appsv1.RecreateDeploymentStrategyType {
		t.Errorf("one shard has %d replicas and strategy %s", *deployment.Spec.Replicas, deployment.Spec.Strategy.Type)
	}
}

// A new version of the chart must not restart the pod if nothing else changes.
func TestPodDoesNotDependOnTheChartVersion(t *testing.T) {
	chart := loadChart(t)
	before, err := renderFiles(chart, minimal, releaseOptions)
	if err != nil {
		t.Fatal(err)
	}
	chart.Metadata.Version = "9.9.9"
	after, err := renderFiles(chart, minimal, releaseOptions)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(decodeFiles(t, before).exporter(t), decodeFiles(t, after).exporter(t)); diff != "" {
		t.Error(diff)
	}
}

func TestEverythingElse(t *testing.T) {
	m := render(t, ci(t, "everything-else"))
	deployment := get[*appsv1.Deployment](t, m)
	pod := deployment.Spec.Template
	container := pod.Spec.Containers[0]
	service := get[*corev1.Service](t, m)
	for _, check := range []struct {
		what      string
		got, want any
	}{
		{"image", container.Image, "registry.example.com/balena-exporter@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"},
		{"imagePullPolicy", container.ImagePullPolicy, corev1.PullAlways},
		{"imagePullSecrets", pod.Spec.ImagePullSecrets, []corev1.LocalObjectReference{{Name: "registry"}}},
		{"common labels on the workload", deployment.Labels["example.com/team"], "fleet"},
		{"common labels on the pod", pod.Labels["example.com/team"], "fleet"},
		{"common labels on the Service", service.Labels["example.com/team"], "fleet"},
		{"common labels in the selector", service.Spec.Selector["example.com/team"], ""},
		{"service type", service.Spec.Type, corev1.ServiceTypeNodePort},
		{"service port", service.Spec.Ports[0].Port, int32(9000)},
		{"service target", service.Spec.Ports[0].TargetPort.String(), "metrics"},
		{"service labels", service.Labels["example.com/scrape"], "yes"},
		{"service annotations", service.Annotations["example.com/note"], "metrics"},
		{"service ipFamilyPolicy", *service.Spec.IPFamilyPolicy, corev1.IPFamilyPolicyPreferDualStack},
		{"service ipFamilies", service.Spec.IPFamilies, []corev1.IPFamily{corev1.IPv6Protocol, corev1.IPv4Protocol}},
		{"service account", pod.Spec.ServiceAccountName, "shared"},
		{"service accounts made", len(all[*corev1.ServiceAccount](m)), 0},
		{"strategy", deployment.Spec.Strategy.RollingUpdate.MaxSurge.IntValue(), 1},
		{"annotations", deployment.Annotations["example.com/a"], "b"},
		{"podAnnotations", pod.Annotations["example.com/c"], "d"},
		{"podLabels", pod.Labels["example.com/e"], "f"},
		{"memory", container.Resources.Limits.Memory().String(), "512Mi"},
		{"liveness period", container.LivenessProbe.PeriodSeconds, int32(20)},
		{"terminationGracePeriodSeconds", *pod.Spec.TerminationGracePeriodSeconds, int64(10)},
		{"priorityClassName", pod.Spec.PriorityClassName, "monitoring"},
		{"nodeSelector", pod.Spec.NodeSelector["kubernetes.io/os"], "linux"},
		{"tolerations", pod.Spec.Tolerations[0].Key, "dedicated"},
		{"affinity", pod.Spec.Affinity.NodeAffinity != nil, true},
		{"dnsPolicy", pod.Spec.DNSPolicy, corev1.DNSNone},
		{"dnsConfig", pod.Spec.DNSConfig.Nameservers, []string{"10.0.0.53"}},
		{"extraEnvFrom", container.EnvFrom[0].ConfigMapRef.Name, "proxy"},
		{"extraVolumes", volume(t, &pod, "scratch").EmptyDir != nil, true},
		{"extraVolumeMounts", container.VolumeMounts[len(container.VolumeMounts)-1].MountPath, "/scratch"},
		{"initContainers", pod.Spec.InitContainers[0].Name, "wait"},
		{"extraContainers", pod.Spec.Containers[1].Name, "beside"},
		{"extra manifest, an object", m.objects["ConfigMap/metrics-object"] != nil, true},
		{"extra manifest, a text", m.objects["ConfigMap/metrics-text"] != nil, true},
		{"image of the test", get[*corev1.Pod](t, m).Spec.Containers[0].Image, "registry.example.com/curl:1"},
	} {
		if diff := cmp.Diff(check.want, check.got); diff != "" {
			t.Errorf("%s: %s", check.what, diff)
		}
	}
}
