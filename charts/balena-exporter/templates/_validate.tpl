{{/*
Contradictions between values, each with a sentence that names the way out. The schema has seen to single values.
*/}}
{{- define "balena-exporter.validate" -}}
{{- $existing := (include "balena-exporter.existingSecret" . | fromJson).name }}
{{- with .Values.balena }}
{{- if and .token $existing }}
{{- fail "balena.token and balena.existingSecret are both set: keep one of them." }}
{{- end }}
{{- if not (or .token $existing) }}
{{- fail "The exporter needs a token: set balena.existingSecret to the name of a Secret that holds it under the key \"token\", or balena.token to the token itself." }}
{{- end }}
{{- if and .caSecret.name .caConfigMap.name }}
{{- fail "balena.caSecret.name and balena.caConfigMap.name are both set: keep one of them." }}
{{- end }}
{{- if and (hasPrefix "http://" .apiUrl) (not .allowHttp) }}
{{- fail "balena.apiUrl is plain HTTP, over which anybody can read the token: use https://, or set balena.allowHttp to true." }}
{{- end }}
{{- end }}

{{- with .Values.webConfig }}
{{- if .tls.enabled }}
{{- if and .tls.existingSecret .tls.certManager.enabled }}
{{- fail "webConfig.tls.existingSecret and webConfig.tls.certManager.enabled are both set: keep one of them." }}
{{- end }}
{{- if not (or .tls.existingSecret .tls.certManager.enabled) }}
{{- fail "webConfig.tls.enabled needs a certificate: set webConfig.tls.existingSecret to the name of a Secret with tls.crt and tls.key, or webConfig.tls.certManager.enabled to true." }}
{{- end }}
{{- if and .tls.certManager.enabled (not .tls.certManager.issuerRef.name) }}
{{- fail "webConfig.tls.certManager.enabled needs an issuer: set webConfig.tls.certManager.issuerRef.name." }}
{{- end }}
{{- else }}
{{- if or .tls.existingSecret .tls.certManager.enabled }}
{{- fail "webConfig.tls has a certificate and is off: set webConfig.tls.enabled to true, or take webConfig.tls.existingSecret and webConfig.tls.certManager.enabled away." }}
{{- end }}
{{- if .clientCA.enabled }}
{{- fail "webConfig.clientCA.enabled asks clients for certificates, which only TLS can do: set webConfig.tls.enabled to true." }}
{{- end }}
{{- end }}
{{- if and .clientCA.enabled (not .clientCA.existingSecret) (not .existingSecret.name) }}
{{- fail "webConfig.clientCA.enabled needs the CA of the clients' certificates: set webConfig.clientCA.existingSecret to the name of a Secret that holds it." }}
{{- end }}
{{- if and .clientCA.existingSecret (not .clientCA.enabled) }}
{{- fail "webConfig.clientCA.existingSecret is set and webConfig.clientCA.enabled is not: set it to true, or take the Secret away." }}
{{- end }}
{{- if and .basicAuth.users (not .basicAuth.enabled) }}
{{- fail "webConfig.basicAuth.users are set and webConfig.basicAuth.enabled is not: set it to true, or take the users away." }}
{{- end }}
{{- if and .basicAuth.users .existingSecret.name }}
{{- fail "webConfig.basicAuth.users and webConfig.existingSecret.name are both set: the users belong into the file in that Secret." }}
{{- end }}
{{- if and .basicAuth.enabled (not .basicAuth.users) (not .existingSecret.name) }}
{{- fail "webConfig.basicAuth.enabled needs users: set webConfig.basicAuth.users to names and bcrypt hashes, as htpasswd -nBC 10 NAME prints them." }}
{{- end }}
{{- end }}

{{- with .Values.serviceMonitor }}
{{- if and .interval .scrapeTimeout (gt (include "balena-exporter.milliseconds" .scrapeTimeout | int64) (include "balena-exporter.milliseconds" .interval | int64)) }}
{{- fail (printf "serviceMonitor.scrapeTimeout (%s) is longer than serviceMonitor.interval (%s), which Prometheus refuses: shorten it, or lengthen the interval." .scrapeTimeout .interval) }}
{{- end }}
{{- if .enabled }}
{{- if and $.Values.webConfig.basicAuth.enabled (not .basicAuth.existingSecret) }}
{{- fail "webConfig.basicAuth.enabled keeps Prometheus out: set serviceMonitor.basicAuth.existingSecret to the name of a Secret, in the ServiceMonitor's namespace, with the username and the plain password that Prometheus sends." }}
{{- end }}
{{- if and .basicAuth.existingSecret (not $.Values.webConfig.basicAuth.enabled) }}
{{- fail "serviceMonitor.basicAuth.existingSecret is set, but the exporter asks nobody for a password: set webConfig.basicAuth.enabled to true, or take the Secret away." }}
{{- end }}
{{- if and $.Values.webConfig.clientCA.enabled (not .tls.clientCertSecret.name) }}
{{- fail "webConfig.clientCA.enabled keeps Prometheus out: set serviceMonitor.tls.clientCertSecret.name to the name of a Secret, in the ServiceMonitor's namespace, with the certificate (tls.crt, tls.key) that Prometheus shows." }}
{{- end }}
{{- if and .tls.clientCertSecret.name (not $.Values.webConfig.clientCA.enabled) }}
{{- fail "serviceMonitor.tls.clientCertSecret.name is set, but the exporter asks nobody for a certificate: set webConfig.clientCA.enabled to true, or take the Secret away." }}
{{- end }}
{{- if and $.Values.webConfig.tls.enabled (ne (include "balena-exporter.serviceMonitorNamespace" $) $.Release.Namespace) (not (or .tls.caSecret.name .tls.systemCAs .tls.insecureSkipVerify)) }}
{{- fail "The ServiceMonitor has a namespace of its own and can't reach the exporter's TLS Secret: set serviceMonitor.tls.caSecret.name to a Secret in that namespace with the CA, or serviceMonitor.tls.systemCAs to true for a certificate of a public CA." }}
{{- end }}
{{- end }}
{{- end }}

{{- if and .Values.podDisruptionBudget.enabled (lt (int .Values.shards) 2) }}
{{- fail "podDisruptionBudget.enabled needs shards over 1: for a single pod it would do nothing, or forbid to drain its node." }}
{{- end }}
{{- end }}
