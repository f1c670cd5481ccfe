package chart

import (
	"strings"
	"testing"
)

// A value that contradicts another fails before anything is installed, with a sentence that names the way out.
func TestContradictions(t *testing.T) {
	const (
		tls       = minimal + "webConfig: {tls: {enabled: true, existingSecret: exporter-tls}}\n"
		users     = `users: {prometheus: "$2a$10$E.HTU.aVyMWrnCp6f7PhU.2wacwioK0v14wxhsbLnLtk5a3o70QOm"}`
		basicAuth = minimal + "webConfig: {basicAuth: {enabled: true, " + users + "}}\n"
		mutualTLS = minimal + "webConfig: {tls: {enabled: true, existingSecret: exporter-tls}, clientCA: {enabled: true, existingSecret: ca}}\n"
	)
	for _, test := range []struct{ name, values, sentence string }{
		{"no token", "", `The exporter needs a token: set balena.existingSecret to the name of a Secret that holds it under the key "token", or balena.token to the token itself.`},
		{"a key and no Secret", "balena: {existingSecret: {key: token}}", `The exporter needs a token: set balena.existingSecret`},
		{"a token and a Secret", "balena: {token: t, existingSecret: s}", "balena.token and balena.existingSecret are both set: keep one of them."},
		{"a token and a Secret with its key", "balena: {token: t, existingSecret: {name: s}}", "balena.token and balena.existingSecret are both set: keep one of them."},
		{"two CAs", "balena: {token: t, caSecret: {name: a}, caConfigMap: {name: b}}", "balena.caSecret.name and balena.caConfigMap.name are both set: keep one of them."},
		{"a token over plain HTTP", "balena: {token: t, apiUrl: http://api.example.com}", "balena.apiUrl is plain HTTP, over which anybody can read the token: use https://, or set balena.allowHttp to true."},

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
			"webConfig.tls has a certificate and is off: set webConfig.tls.enabled to true, or take",
		},
		{
			"cert-manager without TLS", minimal + "webConfig: {tls: {certManager: {enabled: true, issuerRef: {name: i}}}}",
			"webConfig.tls has a certificate and is off: set webConfig.tls.enabled to true, or take",
		},
		{
			"client certificates without TLS", minimal + "webConfig: {clientCA: {enabled: true, existingSecret: ca}}",
			"webConfig.clientCA.enabled asks clients for certificates, which only TLS can do: set webConfig.tls.enabled to true.",
		},
		{
			"client certificates without a CA", minimal + "webConfig: {tls: {enabled: true, existingSecret: s}, clientCA: {enabled: true}}",
			"webConfig.clientCA.enabled needs the CA of the clients' certificates: set webConfig.clientCA.existingSecret to the name of a Secret that holds it.",
		},
		{
			"a client CA that is off", minimal + "webConfig: {clientCA: {existingSecret: ca}}",
			"webConfig.clientCA.existingSecret is set and webConfig.clientCA.enabled is not: set it to true, or take the Secret away.",
		},
		{
			"basic auth without users", minimal + "webConfig: {basicAuth: {enabled: true}}",
			"webConfig.basicAuth.enabled needs users: set webConfig.basicAuth.users to names and bcrypt hashes, as htpasswd -nBC 10 NAME prints them.",
		},
		{
			"users without basic auth", minimal + "webConfig: {basicAuth: {" + users + "}}",
			"webConfig.basicAuth.users are set and webConfig.basicAuth.enabled is not: set it to true, or take the users away.",
		},
		{
			"users beside a web configuration file", minimal + "webConfig: {existingSecret: {name: w}, basicAuth: {enabled: true, " + users + "}}",
			"webConfig.basicAuth.users and webConfig.existingSecret.name are both set: the users belong into the file in that Secret.",
		},

		{
			"a scrape longer than its interval", minimal + "serviceMonitor: {interval: 1m, scrapeTimeout: 1m1s}",
			"serviceMonitor.scrapeTimeout (1m1s) is longer than serviceMonitor.interval (1m), which Prometheus refuses: shorten it, or lengthen the interval.",
		},
		{
			"a scrape longer than its interval in other units", minimal + "serviceMonitor: {interval: 1500ms, scrapeTimeout: 2s}",
			"serviceMonitor.scrapeTimeout (2s) is longer than serviceMonitor.interval (1500ms)",
		},
		{
			"basic auth that keeps Prometheus out", basicAuth + "serviceMonitor: {enabled: true}",
			"webConfig.basicAuth.enabled keeps Prometheus out: set serviceMonitor.basicAuth.existingSecret to the name of a Secret, in the ServiceMonitor's namespace, with the username and the plain password that Prometheus sends.",
		},
		{
			"a password nobody asks for", minimal + "serviceMonitor: {enabled: true, basicAuth: {existingSecret: s}}",
			"serviceMonitor.basicAuth.existingSecret is set, but the exporter asks nobody for a password: set webConfig.basicAuth.enabled to true, or take the Secret away.",
		},
		{
			"mutual TLS that keeps Prometheus out", mutualTLS + "serviceMonitor: {enabled: true}",
			"webConfig.clientCA.enabled keeps Prometheus out: set serviceMonitor.tls.clientCertSecret.name to the name of a Secret, in the ServiceMonitor's namespace, with the certificate (tls.crt, tls.key) that Prometheus shows.",
		},
		{
			"a certificate nobody asks for", tls + "serviceMonitor: {enabled: true, tls: {clientCertSecret: {name: s}}}",
			"serviceMonitor.tls.clientCertSecret.name is set, but the exporter asks nobody for a certificate: set webConfig.clientCA.enabled to true, or take the Secret away.",
		},
		{
			"a CA out of Prometheus' reach", tls + "serviceMonitor: {enabled: true, namespace: monitoring}",
			"The ServiceMonitor has a namespace of its own and can't reach the exporter's TLS Secret: set serviceMonitor.tls.caSecret.name to a Secret in that namespace with the CA, or serviceMonitor.tls.systemCAs to true for a certificate of a public CA.",
		},

		{
			"a disruption budget for one pod", minimal + "podDisruptionBudget: {enabled: true}",
			"podDisruptionBudget.enabled needs shards over 1: for a single pod it would do nothing, or forbid to drain its node.",
		},
		{
			"an alert that isn't there", minimal + "prometheusRule: {enabled: true, overrides: {BalenaApiFailing: {enabled: false}}}",
			"prometheusRule.overrides names BalenaApiFailing, and there is no such alert: the alerts are BalenaExporterDown",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := renderFiles(loadChart(t), test.values, releaseOptions)
			if err == nil || !strings.Contains(err.Error(), test.sentence) {
				t.Errorf("got  %v\nwant %s", err, test.sentence)
			}
		})
	}
}

// What looks much like the above and is right.
func TestNoContradiction(t *testing.T) {
	for _, test := range []struct{ name, values string }{
		{"a scrape as long as its interval", minimal + "serviceMonitor: {interval: 90s, scrapeTimeout: 1m30s}"},
		{"an interval of many units", minimal + "serviceMonitor: {interval: 1d2h3m4s5ms, scrapeTimeout: 26h}"},
		{"a timeout where the interval is Prometheus' own", minimal + `serviceMonitor: {interval: "", scrapeTimeout: 2m}`},
		{"Prometheus' credentials while the ServiceMonitor is off", minimal + "serviceMonitor: {basicAuth: {existingSecret: s}}"},
		{"an empty name of a Secret beside a token", `balena: {token: t, existingSecret: ""}`},
		{"a parent chart's globals", minimal + "global: {imageRegistry: r}"},
	} {
		t.Run(test.name, func(t *testing.T) { render(t, test.values) })
	}
}

// The schema sees to single values, and an unknown one is an error with its place.
func TestSchemaRefuses(t *testing.T) {
	for _, test := range []struct{ name, values, message string }{
		{"an unknown value", minimal + "serviceMonitors: {}", "additional properties 'serviceMonitors' not allowed"},
		{"an unknown value further down", minimal + "serviceMonitor: {enable: true}", "at '/serviceMonitor': additional properties 'enable' not allowed"},
		{
			"a plain password", minimal + "webConfig: {basicAuth: {enabled: true, users: {prometheus: hunter2}}}",
			"at '/webConfig/basicAuth/users/prometheus': value must be 'a bcrypt hash, as htpasswd -nBC 10 NAME prints it, never the password'",
		},
		{"another kind of hash", minimal + "webConfig: {basicAuth: {enabled: true, users: {prometheus: $apr1$hunter2$hunter2}}}", "value must be 'a bcrypt hash"},
		{"a job in place of a label's name", minimal + "serviceMonitor: {jobLabel: my job}", "at '/serviceMonitor/jobLabel'"},
		{"a duration of no unit", minimal + `serviceMonitor: {interval: "60"}`, "at '/serviceMonitor/interval'"},
		{"no shards", minimal + "shards: 0", "at '/shards'"},
		{"a floating tag", minimal + "image: {tag: latest}", "at '/image/tag'"},
		{"a key that would leave its directory", "balena: {existingSecret: {name: s, key: ../key}}", "at '/balena/existingSecret'"},
		{"an address that is none", "balena: {token: t, apiUrl: api.example.com}", "at '/balena/apiUrl'"},
		{"a threshold that isn't there", minimal + "prometheusRule: {thresholds: {apiFailing: 1m}}", "additional properties 'apiFailing' not allowed"},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := renderFiles(loadChart(t), test.values, releaseOptions)
			if err == nil || !strings.Contains(err.Error(), test.message) {
				t.Errorf("got  %v\nwant %s", err, test.message)
			}
			if err != nil && strings.Contains(err.Error(), "hunter2") {
				t.Errorf("the error repeats the password: %v", err)
			}
		})
	}
}
