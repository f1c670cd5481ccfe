// SPDX-License-Identifier: Apache-2.0

package chart

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	monitoringv1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	"helm.sh/helm/v4/pkg/strvals"
	"sigs.k8s.io/yaml"
)

// Contradictory values fail before the installation, with an error that names a solution.
func TestContradictions(t *testing.T) {
	const (
		tls       = minimal + "webConfig: {tls: {enabled: true, existingSecret: exporter-tls}}\n"
		users     = `users: {prometheus: "$2a$10$E.HTU.aVyMWrnCp6f7PhU.2wacwioK0v14wxhsbLnLtk5a3o70QOm"}`
		basicAuth = minimal + "webConfig: {basicAuth: {enabled: true, " + users + "}}\n"
		mutualTLS = minimal + "webConfig: {tls: {enabled: true, existingSecret: exporter-tls}, clientCA: {enabled: true, existingSecret: ca}}\n"
	)
	for _, test := range []struct{ name, values, message string }{
		{"no token", "", `The exporter needs a token: set balena.existingSecret to the name of a Secret that holds it under the key "token", or balena.token to the token itself.`},
		{"a key and no Secret", "balena: {existingSecret: {key: token}}", `The exporter needs a token: set balena.existingSecret`},
		{"a token and a Secret", "balena: {token: t, existingSecret: s}", "balena.token and balena.existingSecret are both set: keep one of them."},
		{"a token and a Secret with its key", "balena: {token: t, existingSecret: {name: s}}", "balena.token and balena.existingSecret are both set: keep one of them."},
		{"two CAs", "balena: {token: t, caSecret: {name: a}, caConfigMap: {name: b}}", "balena.caSecret.name and balena.caConfigMap.name are both set: keep one of them."},
		{"an address without a scheme", "balena: {token: t, apiUrl: api.balena.corp}", "balena.apiUrl is api.balena.corp, without a scheme: set https://api.balena.corp."},
		{"an address with a port and without a scheme", "balena: {token: t, apiUrl: 'api.balena.corp:8443'}", "balena.apiUrl is api.balena.corp:8443, without a scheme: set https://api.balena.corp:8443."},
		{"an address of another scheme", "balena: {token: t, apiUrl: ftp://api.balena.corp}", "balena.apiUrl is not a valid API URL: set a URL that begins with https://, without user, query or fragment, such as https://api.balena.example.com."},
		{"an address with a password", "balena: {token: t, apiUrl: https://me:hunter2@api.balena.corp}", "balena.apiUrl is not a valid API URL"},
		{"a token over plain HTTP", "balena: {token: t, apiUrl: http://api.example.com}", "balena.apiUrl is plain HTTP, which sends the token unencrypted: use https://, or set balena.allowHttp to true."},

		{"replicas", minimal + "replicas: 2", "The chart has no value for replicas: one pod serves any number of Prometheus servers, and a second pod would send the same requests to the API again. To divide the fleets among several pods, set shards."},
		{"replicas by another name", minimal + "replicaCount: 2", "The chart has no value for replicas"},

		{"an interval of a second on balenaCloud", "balena: {token: t, refreshInterval: 1s}", "balena.refreshInterval is 1s, but balenaCloud limits the rate of requests, and devices report only every few minutes: set 15s or more."},
		{"an interval below a second", "balena: {token: t, apiUrl: https://api.example.com, refreshInterval: 500ms}", "balena.refreshInterval is 500ms: set a duration from 1s to 24h, such as 60s."},
		{"an interval of more than a day", "balena: {token: t, refreshInterval: 86401}", "balena.refreshInterval is 86401s: set a duration from 1s to 24h, such as 60s."},
		{
			"data that become stale between refreshes", "balena: {token: t, refreshInterval: 20m, maxStaleness: 10m}",
			"balena.maxStaleness (10m) is shorter than balena.refreshInterval (20m), so data would become stale between refreshes: set 20m or more, or leave it empty.",
		},
		{"a timeout of zero", "balena: {token: t, timeout: 0}", "balena.timeout is 0, so every request would fail: set a duration such as 30s, or leave it empty."},
		{
			"a staleness threshold below two intervals", "balena: {token: t, refreshInterval: 20m}\n" + rules("dataStaleSeconds: 900"),
			"prometheusRule.thresholds.dataStaleSeconds (900) is less than twice balena.refreshInterval (20m), so BalenaDataStale would fire without a problem: set 2400 or more, or leave it empty.",
		},
		{
			"an alert after a single failed refresh", "balena: {token: t, refreshInterval: 20m}\n" + rules("apiFailingFor: 10m"),
			"prometheusRule.thresholds.apiFailingFor (10m) is shorter than balena.refreshInterval (20m), so BalenaAPIFailing would fire after a single failed refresh: set 20m or more, with a unit, or leave it empty.",
		},
		{
			"a time without a unit that was meant in minutes", minimal + rules("apiFailingFor: 5"),
			"prometheusRule.thresholds.apiFailingFor (5s) is shorter than balena.refreshInterval (60s)",
		},
		{
			"devices that are lost before they are offline", minimal + rules("deviceLostSeconds: 3600"),
			"prometheusRule.thresholds.deviceOfflineSeconds (3600) is not less than deviceLostSeconds (3600), so BalenaDeviceOffline could never fire: set it to a smaller value.",
		},
		{"a ratio in percent", minimal + rules("storageRatio: 90"), "prometheusRule.thresholds.storageRatio is 90: set a ratio from 0 to 1, such as 0.2 for 20 %."},
		{"a ratio in percent, as a string", minimal + rules(`storageRatio: "90"`), "prometheusRule.thresholds.storageRatio is 90: set a ratio from 0 to 1, such as 0.2 for 20 %."},
		{"a ratio of zero", minimal + rules("fleetOfflineRatio: 0"), "prometheusRule.thresholds.fleetOfflineRatio is 0: set a ratio from 0 to 1"},
		{
			"an expression in a rule that does not compile", minimal + rules("developmentFleets: 'acme/['"),
			`prometheusRule.thresholds.developmentFleets is "acme/[", which is not a regular expression: close every bracket and parenthesis, or escape it with two backslashes.`,
		},
		{
			"an interval longer than the lookback of Prometheus", minimal + rules("") + "serviceMonitor: {enabled: true, interval: 10m}",
			"serviceMonitor.interval is 10m, but Prometheus drops series after 5 minutes without a sample, so alerts would have gaps: set 4m or less. Scrapes do not cause requests to the API.",
		},

		{
			"an alert without its metric", minimal + rules("") + "collectors: {metricDenylist: ['balena_device_undervolted']}",
			"BalenaDeviceUndervolted would never fire without balena_device_undervolted, which collectors.metricDenylist excludes: remove it from the list, or set prometheusRule.overrides.BalenaDeviceUndervolted.enabled to false.",
		},
		{
			"alerts without the metrics of fleets", minimal + rules("") + "collectors: {metricAllowlist: ['balena_device_.*']}",
			"BalenaDeviceOffline and other alerts would never fire without balena_fleet_devices, which is not in collectors.metricAllowlist: add it, or set prometheusRule.enabled to false.",
		},
		{
			"a tag on alerts that is not exported", minimal + "collectors: {deviceTags: [site], fleetTags: [customer, 'region-*']}\nprometheusRule: {tagLabels: [site, customer, region-eu, team]}",
			`prometheusRule.tagLabels has "team", but the exporter does not export this tag: add it to collectors.deviceTags or collectors.fleetTags.`,
		},
		{
			"two tags of one label", minimal + "collectors: {deviceTags: [site.name, site-name]}\nprometheusRule: {tagLabels: [site.name, site-name]}",
			`prometheusRule.tagLabels has "site.name" and "site-name", which both become the label tag_site_name: keep one of them.`,
		},

		{"fleets that do not compile", minimal + "fleets: {include: 'acme/['}", `fleets.include is "acme/[", which is not a regular expression: close every bracket and parenthesis, or escape it with a backslash.`},
		{"a parenthesis that the anchors would close", minimal + "fleets: {exclude: 'a)/(b'}", `fleets.exclude is "a)/(b", which is not a regular expression`},
		{"an organization instead of slugs", minimal + "fleets: {include: acme}", `fleets.include is "acme" and matches no fleet: a slug is ORGANIZATION/NAME. Set acme/.* for all fleets of an organization, or acme/NAME for one.`},
		{"organizations instead of slugs", minimal + "fleets: {exclude: (acme|initech)+}", `fleets.exclude is "(acme|initech)+" and matches no fleet: a slug is ORGANIZATION/NAME. Set ORGANIZATION/.*`},
		{"the same pattern for include and exclude", minimal + "fleets: {include: acme/.*, exclude: acme/.*}", "fleets.include and fleets.exclude are the same, so they exclude all fleets: keep one of them."},

		{"a token among the arguments", minimal + "extraArgs: [--balena.token=hunter2]", "extraArgs has --balena.token, which the chart sets: use balena.existingSecret."},
		{"a token in the environment", minimal + "extraEnv: [{name: BALENA_TOKEN, value: hunter2}]", "extraEnv has a variable for --balena.token, which the chart sets: use balena.existingSecret."},
		{"shards among the arguments", minimal + "extraArgs: [--balena.shard, 0/2]", "extraArgs has --balena.shard, which the chart sets: use shards."},
		{"another port of the pod", minimal + "extraArgs: ['--web.listen-address=:9999']", "extraArgs has --web.listen-address, which the chart sets: use service.port, for the port of the Service; that of the pod stays 8000."},
		{"a switch that is turned off", minimal + "extraArgs: [--no-collector.device]", "extraArgs has --no-collector.device, which the chart sets: use collectors.device."},
		{"another telemetry path", minimal + "extraArgs: [--web.telemetry-path=/m]", "extraArgs has --web.telemetry-path, which the chart sets: use the default /metrics, which the ServiceMonitor and helm test use."},
		{"an interval in the environment", minimal + "extraEnv: [{name: CRAWL_INTERVAL, value: '5'}]", "extraEnv has a variable for --balena.refresh-interval, which the chart sets: use balena.refreshInterval."},
		{"a flag in the environment", minimal + "extraEnv: [{name: BALENA_EXPORTER_COLLECTOR_DEVICE_NAME, value: 'false'}]", "extraEnv has a variable for --collector.device.name, which the chart sets: use collectors.deviceName."},

		{
			"an API with a blocked port", "balena: {token: t, apiUrl: 'https://api.balena.corp:8443'}\nnetworkPolicy: {enabled: true, egress: {ports: [443]}}",
			"networkPolicy.egress.ports is [443], and balena.apiUrl (https://api.balena.corp:8443) has port 8443, which the policy would block: add it, or leave networkPolicy.egress.ports empty.",
		},
		{
			"a proxy with a blocked port", minimal + "networkPolicy: {enabled: true, egress: {ports: [443]}}\nextraEnv: [{name: HTTPS_PROXY, value: 'http://proxy:3128'}]",
			"networkPolicy.egress.ports is [443], and HTTPS_PROXY in extraEnv has port 3128, which the policy would block",
		},
		{
			"a proxy at a port that nobody sees", minimal + "networkPolicy: {enabled: true}\nextraEnv: [{name: HTTPS_PROXY, valueFrom: {secretKeyRef: {name: proxy, key: url}}}]",
			"networkPolicy.egress.ports is empty, and the chart cannot determine the port of HTTPS_PROXY in extraEnv: set the port.",
		},

		{
			"devices that are scraped and not listed", minimal + "serviceDiscovery: {scrapeConfig: {enabled: true}}",
			"serviceDiscovery.scrapeConfig.enabled needs the list of devices: set serviceDiscovery.enabled to true.",
		},
		{
			"devices of shards behind one Service", minimal + "shards: 2\nserviceDiscovery: {enabled: true, scrapeConfig: {enabled: true}}",
			"serviceDiscovery.scrapeConfig.enabled needs shards to be 1: the Service sends each request to any shard, which lists only its part of the devices. Install one release for each part of the fleets, with fleets.include.",
		},
		{
			"a domain of public device URLs for other addresses", minimal + "serviceDiscovery: {enabled: true, deviceUrlsBase: example.com}",
			"serviceDiscovery.deviceUrlsBase needs serviceDiscovery.address public, but that is none: set it to public, or remove the domain.",
		},
		{
			"a template for other addresses", minimal + "serviceDiscovery: {enabled: true, address: local, template: '{uuid}.example'}",
			"serviceDiscovery.template needs serviceDiscovery.address none, but that is local: set it to none, or remove the template.",
		},
		{
			"ports of public device URLs", minimal + "serviceDiscovery: {enabled: true, address: public, ports: [9100]}",
			"serviceDiscovery.ports cannot be combined with serviceDiscovery.address public, because public device URLs lead to port 80 of the device: remove the ports.",
		},
		{
			"a template with a port, and ports", minimal + "serviceDiscovery: {enabled: true, template: '{uuid}.example:9100', ports: [9100]}",
			"serviceDiscovery.template contains a port, and serviceDiscovery.ports is set: keep one of them.",
		},
		{
			"a template with names that are hidden", minimal + "collectors: {deviceName: false}\nserviceDiscovery: {enabled: true, template: '{name}.example'}",
			"serviceDiscovery.template contains {name}, but collectors.deviceName is false: use {uuid}, or set collectors.deviceName to true.",
		},
		{
			"a tag that is not exported", minimal + "collectors: {deviceTags: [site]}\nserviceDiscovery: {enabled: true, scrapeConfig: {enabled: true, tags: [sites]}}",
			`serviceDiscovery.scrapeConfig.tags has "sites", whose key is not in collectors.deviceTags: add it there.`,
		},
		{
			"a scrape of a device that is longer than its interval", minimal + "serviceDiscovery: {enabled: true, scrapeConfig: {enabled: true, scrapeInterval: 30s, scrapeTimeout: 1m}}",
			"serviceDiscovery.scrapeConfig.scrapeTimeout (1m) is longer than scrapeInterval (30s), which Prometheus rejects: decrease it, or increase the interval.",
		},
		{
			"a list that Prometheus is kept out of", basicAuth + "serviceDiscovery: {enabled: true, scrapeConfig: {enabled: true}}",
			"webConfig.basicAuth.enabled requires credentials for Prometheus: set serviceMonitor.basicAuth.existingSecret",
		},
		{"service discovery among the arguments", minimal + "extraArgs: [--web.enable-sd]", "extraArgs has --web.enable-sd, which the chart sets: use serviceDiscovery.enabled."},
		{
			"TLS without a certificate", minimal + "webConfig: {tls: {enabled: true}}",
			"webConfig.tls.enabled needs a certificate: set webConfig.tls.existingSecret to the name of a Secret with tls.crt and tls.key, or webConfig.tls.certManager.enabled to true.",
		},
		{
			"TLS with two certificates", minimal + "webConfig: {tls: {enabled: true, existingSecret: s, certManager: {enabled: true, issuerRef: {name: i}}}}",
			"webConfig.tls.existingSecret and webConfig.tls.certManager.enabled are both set: keep one of them.",
		},
		{
			"cert-manager without an issuer", minimal + "webConfig: {tls: {enabled: true, certManager: {enabled: true}}}",
			"webConfig.tls.certManager.enabled needs an issuer: set webConfig.tls.certManager.issuerRef.name.",
		},
		{
			"a certificate without TLS", minimal + "webConfig: {tls: {existingSecret: s}}",
			"webConfig.tls has a certificate, but is not enabled: set webConfig.tls.enabled to true, or remove",
		},
		{
			"cert-manager without TLS", minimal + "webConfig: {tls: {certManager: {enabled: true, issuerRef: {name: i}}}}",
			"webConfig.tls has a certificate, but is not enabled: set webConfig.tls.enabled to true, or remove",
		},
		{
			"client certificates without TLS", minimal + "webConfig: {clientCA: {enabled: true, existingSecret: ca}}",
			"webConfig.clientCA.enabled requires client certificates, which need TLS: set webConfig.tls.enabled to true.",
		},
		{
			"client certificates without a CA", minimal + "webConfig: {tls: {enabled: true, existingSecret: s}, clientCA: {enabled: true}}",
			"webConfig.clientCA.enabled needs the CA of the clients' certificates: set webConfig.clientCA.existingSecret to the name of a Secret that holds it.",
		},
		{
			"a client CA that is off", minimal + "webConfig: {clientCA: {existingSecret: ca}}",
			"webConfig.clientCA.existingSecret is set, but webConfig.clientCA.enabled is not: set it to true, or remove the Secret.",
		},
		{
			"basic auth without users", minimal + "webConfig: {basicAuth: {enabled: true}}",
			"webConfig.basicAuth.enabled needs users: set webConfig.basicAuth.users to user names and bcrypt hashes, as printed by htpasswd -nBC 10 NAME.",
		},
		{
			"users without basic auth", minimal + "webConfig: {basicAuth: {" + users + "}}",
			"webConfig.basicAuth.users is set, but webConfig.basicAuth.enabled is not: set it to true, or remove the users.",
		},
		{
			"users and a web configuration file", minimal + "webConfig: {existingSecret: {name: w}, basicAuth: {enabled: true, " + users + "}}",
			"webConfig.basicAuth.users and webConfig.existingSecret.name are both set: add the users to the file in that Secret.",
		},

		{
			"a scrape longer than its interval", minimal + "serviceMonitor: {interval: 1m, scrapeTimeout: 1m1s}",
			"serviceMonitor.scrapeTimeout (1m1s) is longer than serviceMonitor.interval (1m), which Prometheus rejects: decrease it, or increase the interval.",
		},
		{
			"a scrape longer than its interval in other units", minimal + "serviceMonitor: {interval: 1500ms, scrapeTimeout: 2s}",
			"serviceMonitor.scrapeTimeout (2s) is longer than serviceMonitor.interval (1500ms)",
		},
		{
			"basic auth that keeps Prometheus out", basicAuth + "serviceMonitor: {enabled: true}",
			"webConfig.basicAuth.enabled requires credentials for Prometheus: set serviceMonitor.basicAuth.existingSecret to the name of a Secret, in the ServiceMonitor's namespace, with the user name and the plain-text password.",
		},
		{
			"a password that is not required", minimal + "serviceMonitor: {enabled: true, basicAuth: {existingSecret: s}}",
			"serviceMonitor.basicAuth.existingSecret is set, but the exporter does not require a password: set webConfig.basicAuth.enabled to true, or remove the Secret.",
		},
		{
			"mutual TLS that keeps Prometheus out", mutualTLS + "serviceMonitor: {enabled: true}",
			"webConfig.clientCA.enabled requires a client certificate for Prometheus: set serviceMonitor.tls.clientCertSecret.name to the name of a Secret, in the ServiceMonitor's namespace, with tls.crt and tls.key.",
		},
		{
			"a client certificate that is not required", tls + "serviceMonitor: {enabled: true, tls: {clientCertSecret: {name: s}}}",
			"serviceMonitor.tls.clientCertSecret.name is set, but the exporter does not require client certificates: set webConfig.clientCA.enabled to true, or remove the Secret.",
		},
		{
			"a CA in another namespace", tls + "serviceMonitor: {enabled: true, namespace: monitoring}",
			"The ServiceMonitor is in another namespace and cannot use the exporter's TLS Secret: set serviceMonitor.tls.caSecret.name to a Secret in that namespace with the CA, or serviceMonitor.tls.systemCAs to true for a certificate of a public CA.",
		},

		{
			"a disruption budget for one pod", minimal + "podDisruptionBudget: {enabled: true}",
			"podDisruptionBudget.enabled needs more than one shard: for a single pod it would have no effect or block node drains.",
		},
		{
			"an alert that isn't there", minimal + "prometheusRule: {enabled: true, overrides: {BalenaApiFailing: {enabled: false}}}",
			"prometheusRule.overrides names BalenaApiFailing, and there is no such alert: the alerts are BalenaExporterDown",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := renderFiles(loadChart(t), test.values, releaseOptions)
			if err == nil || !strings.Contains(err.Error(), test.message) {
				t.Errorf("got  %v\nwant %s", err, test.message)
			}
			if err != nil && strings.Contains(err.Error(), "hunter2") {
				t.Errorf("the error contains a secret: %v", err)
			}
		})
	}
}

// rules returns values that enable the alerts, with thresholds.
func rules(thresholds string) string {
	return "prometheusRule: {enabled: true, thresholds: {" + thresholds + "}}\n"
}

// Valid values that are similar to contradictions.
func TestNoContradiction(t *testing.T) {
	for _, test := range []struct{ name, values string }{
		{"a scrape as long as its interval", minimal + "serviceMonitor: {interval: 90s, scrapeTimeout: 1m30s}"},
		{"an interval with several units", minimal + "serviceMonitor: {interval: 1d2h3m4s5ms, scrapeTimeout: 26h}"},
		{"a timeout with the default interval of Prometheus", minimal + `serviceMonitor: {interval: "", scrapeTimeout: 2m}`},
		{"Prometheus' credentials while the ServiceMonitor is off", minimal + "serviceMonitor: {basicAuth: {existingSecret: s}}"},
		{"an empty name of a Secret beside a token", `balena: {token: t, existingSecret: ""}`},
		{"a parent chart's globals", minimal + "global: {imageRegistry: r}"},
		{"an interval of a second on openBalena", "balena: {token: t, apiUrl: https://api.example.com, refreshInterval: 1s}"},
		{"a long interval and nothing else", "balena: {token: t, refreshInterval: 24h}\n" + rules("")},
		{"data that are served for one interval", "balena: {token: t, refreshInterval: 1.5m, maxStaleness: 90s}"},
		{"alerts as early as they may be", minimal + rules("dataStaleSeconds: 120, apiFailingFor: 60s")},
		{"alerts of another Prometheus", "balena: {token: t, refreshInterval: 20m}\nprometheusRule: {thresholds: {dataStaleSeconds: 900}}"},
		{"an alert without its metric that is switched off", minimal + "collectors: {metricDenylist: ['balena_device_undervolted']}\nprometheusRule: {enabled: true, overrides: {BalenaDeviceUndervolted: {enabled: false}}}"},
		{"metrics that no alert needs", minimal + rules("") + "collectors: {metricDenylist: ['balena_device_web_accessible', 'balena_fleet_created_.*']}"},
		{"a list of metrics, without alerts", minimal + "collectors: {metricAllowlist: ['balena_fleet_devices']}"},
		{"a scrape every four minutes", minimal + rules("") + "serviceMonitor: {enabled: true, interval: 4m}"},
		{"fleets of an organization", minimal + "fleets: {include: acme/.*, exclude: .*-test}"},
		{"fleets by a class that has the slash", minimal + `fleets: {include: '\w+\Wgate', exclude: 'acme[/]x'}`},
		{"arguments that the chart does not set", minimal + "extraArgs: [--web.max-requests=10, --collector.release.limit, '5', --no-web.enable-pprof]"},
		{"an API with an allowed port", "balena: {token: t, apiUrl: 'https://api.balena.corp:8443'}\nnetworkPolicy: {enabled: true, egress: {ports: [8443]}}"},
		{"a proxy with an allowed port", minimal + "networkPolicy: {enabled: true, egress: {ports: [3128]}}\nextraEnv: [{name: HTTPS_PROXY, value: 'proxy:3128'}]"},
		{"a port that extraEgress opens", "balena: {token: t, apiUrl: 'https://api.balena.corp:8443'}\nnetworkPolicy: {enabled: true, egress: {ports: [443]}, extraEgress: [{}]}"},
		{"a proxy that may be in a Secret", minimal + "networkPolicy: {enabled: true, egress: {ports: [3128]}}\nextraEnvFrom: [{secretRef: {name: proxy}}]"},
		{"other ports without a policy", "balena: {token: t, apiUrl: 'https://api.balena.corp:8443'}\nnetworkPolicy: {egress: {ports: [443]}}"},
	} {
		t.Run(test.name, func(t *testing.T) { render(t, test.values) })
	}
}

// The schema rejects invalid and unknown values. The errors contain their path.
func TestSchemaErrors(t *testing.T) {
	for _, test := range []struct{ name, values, message string }{
		{"an unknown value", minimal + "serviceMonitors: {}", "additional properties 'serviceMonitors' not allowed"},
		{"an unknown value further down", minimal + "serviceMonitor: {enable: true}", "at '/serviceMonitor': additional properties 'enable' not allowed"},
		{
			"a plain password", minimal + "webConfig: {basicAuth: {enabled: true, users: {prometheus: hunter2}}}",
			"at '/webConfig/basicAuth/users/prometheus': value must be 'a bcrypt hash, as printed by htpasswd -nBC 10 NAME, not the password'",
		},
		{"another kind of hash", minimal + "webConfig: {basicAuth: {enabled: true, users: {prometheus: $apr1$hunter2$hunter2}}}", "value must be 'a bcrypt hash"},
		{"a job in place of a label's name", minimal + "serviceMonitor: {jobLabel: my job}", "at '/serviceMonitor/jobLabel': value must be 'the name of a label of the Service, such as app.kubernetes.io/name, not the name of a job'"},
		{"a duration without a unit", minimal + "serviceMonitor: {interval: 60}", "at '/serviceMonitor/interval': value must be 'a duration with a unit, such as 60s or 2m, or empty'"},
		{"an invalid duration", "balena: {token: t, timeout: soon}", "at '/balena/timeout': value must be 'a duration such as 90s, 2m or 1h'"},
		{"no shards", minimal + "shards: 0", "at '/shards'"},
		{"a floating tag", minimal + "image: {tag: latest}", "at '/image/tag': value must be 'a tag of a specific version, such as 1.2.3, not latest'"},
		{"a key that would leave its directory", "balena: {existingSecret: {name: s, key: ../key}}", "at '/balena/existingSecret/key': value must be 'a key of a Secret or ConfigMap, of letters, digits, ., _ and -'"},
		{"a name with capitals", "balena: {existingSecret: My_Secret}", "at '/balena/existingSecret': value must be 'a Kubernetes name of lower-case letters, digits, - and .'"},
		{"a ratio that is not a number", minimal + rules("fleetOfflineRatio: a third"), "value must be 'a ratio from 0 to 1, such as 0.2'"},
		{"an unknown threshold", minimal + "prometheusRule: {thresholds: {apiFailing: 1m}}", "additional properties 'apiFailing' not allowed"},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := renderFiles(loadChart(t), test.values, releaseOptions)
			if err == nil || !strings.Contains(err.Error(), test.message) {
				t.Errorf("got  %v\nwant %s", err, test.message)
			}
			if err != nil && strings.Contains(err.Error(), "hunter2") {
				t.Errorf("the error contains the password: %v", err)
			}
		})
	}
}

// Errors of the schema describe the expected value instead of quoting a pattern.
func TestSchemaErrorsAreDescriptive(t *testing.T) {
	var schema any
	if err := json.Unmarshal(loadChart(t).Schema, &schema); err != nil {
		t.Fatal(err)
	}
	var check func(path string, node any, condition bool)
	check = func(path string, node any, condition bool) {
		switch node := node.(type) {
		case map[string]any:
			if node["pattern"] != nil && !condition {
				t.Errorf("%s has a pattern outside of a condition", path)
			}
			if _, conditional := node["if"].(map[string]any); conditional && node["then"] == nil {
				t.Errorf("%s has an if without a then", path)
			}
			for name, below := range node {
				check(path+"/"+name, below, condition || name == "if")
			}
		case []any:
			for _, below := range node {
				check(path, below, condition)
			}
		}
	}
	check("", schema, false)
}

// extraArgs must not contain flags that the chart sets: the exporter would reject them, or use the last one.
func TestExtraArgsConflicts(t *testing.T) {
	seen := map[string]bool{}
	for name, values := range valuesFiles(t) {
		if name == "collectors" {
			values, _, _ = strings.Cut(values, "extraArgs:")
		}
		for _, arg := range render(t, values).args(t) {
			if flag, _, _ := strings.Cut(arg, "="); !seen[flag] {
				seen[flag] = true
				_, err := renderFiles(loadChart(t), minimal+fmt.Sprintf("extraArgs: [%q]", arg), releaseOptions)
				if want := "extraArgs has " + flag + ", which the chart sets: use "; err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("got  %v\nwant %s", err, want)
				}
			}
		}
	}
	if len(seen) < 20 {
		t.Errorf("only %d arguments were tried", len(seen))
	}
}

// The durations of alerts and the durations in their descriptions depend on the interval.
func TestAlertsFollowTheInterval(t *testing.T) {
	for _, test := range []struct{ name, balena, failingFor, staleSeconds, restartingFor, served string }{
		{"by default", "", "10m", "900", "20m", "5m"},
		{"a long interval", "refreshInterval: 20m", "40m", "6000", "39m", "100m"},
		{"a long interval in seconds", "refreshInterval: 1200", "40m", "6000", "39m", "100m"},
		{"a long staleness", "maxStaleness: 30m", "10m", "1800", "20m", "30m"},
		{"a short interval", "refreshInterval: 15s", "10m", "900", "20m", "75s"},
		{"a fraction", "refreshInterval: 1.5h", "3h", "27000", "109m", "450m"},
	} {
		t.Run(test.name, func(t *testing.T) {
			spec := get[*monitoringv1.PrometheusRule](t, render(t, "balena: {token: t, "+test.balena+"}\n"+rules(""))).Spec
			alerts := map[string]monitoringv1.Rule{}
			for _, group := range spec.Groups {
				for _, rule := range group.Rules {
					alerts[rule.Alert] = rule
				}
			}
			if got := string(*alerts["BalenaAPIFailing"].For); got != test.failingFor {
				t.Errorf("BalenaAPIFailing waits %s, want %s", got, test.failingFor)
			}
			if got := string(*alerts["BalenaServiceRestarting"].For); got != test.restartingFor {
				t.Errorf("BalenaServiceRestarting waits %s, want %s", got, test.restartingFor)
			}
			if expr := alerts["BalenaDataStale"].Expr.StrVal; !strings.Contains(expr, "> "+test.staleSeconds+"\n") {
				t.Errorf("BalenaDataStale is %s, want %s seconds", expr, test.staleSeconds)
			}
			for _, alert := range []string{"BalenaAPIFailing", "BalenaDataStale", "BalenaRefreshPartFailing"} {
				if description := alerts[alert].Annotations["description"]; !strings.Contains(description, "for "+test.served+" after") && !strings.Contains(description, "for "+test.served+",") {
					t.Errorf("%s doesn't say that data are served for %s: %s", alert, test.served, description)
				}
			}
		})
	}
}

// With --set, decimal numbers are strings.
func TestNumbersAsStrings(t *testing.T) {
	const set = "prometheusRule.thresholds.fleetOfflineRatio=0.3,balena.refreshInterval=90,prometheusRule.thresholds.apiFailingFor=600"
	given, err := strvals.Parse(set)
	if err != nil {
		t.Fatal(err)
	}
	values, err := yaml.Marshal(given)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(render(t, "balena: {token: t, refreshInterval: 90s}\n"+rules("fleetOfflineRatio: 0.3, apiFailingFor: 600s")).objects,
		render(t, strings.Replace(string(values), "balena:", "balena:\n  token: t", 1)+"  enabled: true\n").objects); diff != "" {
		t.Errorf("values (-) and --set %s (+): %s", set, diff)
	}

	numbers := render(t, minimal+rules("fleetOfflineRatio: 0.3, temperatureCelsius: 75.5, dataStaleSeconds: 1209600, deviceLostSeconds: 259200, apiFailingFor: 300"))
	texts := render(t, minimal+rules(`fleetOfflineRatio: "0.3", temperatureCelsius: "75.5", dataStaleSeconds: "1209600", deviceLostSeconds: "259200", apiFailingFor: "300"`))
	if diff := cmp.Diff(numbers.objects, texts.objects); diff != "" {
		t.Errorf("numbers (-) and the same as strings (+): %s", diff)
	}
}
