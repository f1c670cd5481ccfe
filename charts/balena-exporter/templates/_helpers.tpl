{{- define "balena-exporter.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* Truncated well below 63 characters: derived names have suffixes, and pods of a StatefulSet have a label with a revision. */}}
{{- define "balena-exporter.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" }}
{{- else if contains (include "balena-exporter.name" .) .Release.Name }}
{{- .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else if and (eq (include "balena-exporter.name" .) "balena-exporter") (regexMatch "^balena(-|$)" .Release.Name) }}
{{- /* The release balena-acme becomes balena-acme-exporter, not balena-acme-balena-exporter. */}}
{{- printf "%s-exporter" (.Release.Name | trunc 31 | trimSuffix "-") }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "balena-exporter.name" .) | trunc 40 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "balena-exporter.commonLabels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: {{ .Chart.Name }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "balena-exporter.selectorLabels" -}}
app.kubernetes.io/name: {{ include "balena-exporter.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "balena-exporter.labels" -}}
{{ include "balena-exporter.selectorLabels" . }}
{{ include "balena-exporter.commonLabels" . }}
{{- end }}

{{/* These differ from the selector labels of the exporter, so that the Service does not send scrapes to the test. */}}
{{- define "balena-exporter.testSelectorLabels" -}}
app.kubernetes.io/name: {{ include "balena-exporter.name" . }}-test
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{/* image: {repository, tag, digest}, tag: the default */}}
{{- define "balena-exporter.image" -}}
{{- if .image.digest -}}
{{ .image.repository }}@{{ .image.digest }}
{{- else -}}
{{ .image.repository }}:{{ .image.tag | default .tag }}
{{- end }}
{{- end }}

{{- define "balena-exporter.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- .Values.serviceAccount.name | default (include "balena-exporter.fullname" .) }}
{{- else }}
{{- .Values.serviceAccount.name | default "default" }}
{{- end }}
{{- end }}

{{/* Name and key of the user's Secret with the token, as JSON; the value is a name or an object. */}}
{{- define "balena-exporter.existingSecret" -}}
{{- $given := .Values.balena.existingSecret -}}
{{- if kindIs "map" $given }}
{{- dict "name" ($given.name | default "") "key" ($given.key | default "token") | toJson }}
{{- else }}
{{- dict "name" ($given | default "") "key" "token" | toJson }}
{{- end }}
{{- end }}

{{/* Name and key of the Secret from which the token is mounted, as JSON. */}}
{{- define "balena-exporter.tokenSecret" -}}
{{- if .Values.balena.token }}
{{- dict "name" (printf "%s-token" (include "balena-exporter.fullname" .)) "key" "token" | toJson }}
{{- else }}
{{- include "balena-exporter.existingSecret" . }}
{{- end }}
{{- end }}

{{/* "true" if there is a web configuration file, otherwise empty. */}}
{{- define "balena-exporter.webConfigured" -}}
{{- with .Values.webConfig }}
{{- if or .tls.enabled .clientCA.enabled .basicAuth.enabled .existingSecret.name }}true{{ end }}
{{- end }}
{{- end }}

{{- define "balena-exporter.tlsSecretName" -}}
{{- .Values.webConfig.tls.existingSecret | default (printf "%s-tls" (include "balena-exporter.fullname" .)) }}
{{- end }}

{{- define "balena-exporter.scheme" -}}
{{- ternary "https" "http" .Values.webConfig.tls.enabled }}
{{- end }}

{{/* The server name that clients verify, because Prometheus and the test connect to IP addresses. */}}
{{- define "balena-exporter.serverName" -}}
{{- .Values.serviceMonitor.tls.serverName | default (printf "%s.%s.svc" (include "balena-exporter.fullname" .) .Release.Namespace) }}
{{- end }}

{{- define "balena-exporter.serviceMonitorNamespace" -}}
{{- .Values.serviceMonitor.namespace | default .Release.Namespace }}
{{- end }}

{{/*
Secrets of `helm test` in the namespace of the release, as JSON: {ca, clientCert, basicAuth}. The Secrets of Prometheus are
used if the ServiceMonitor is in the same namespace.
*/}}
{{- define "balena-exporter.testSecrets" -}}
{{- $sm := .Values.serviceMonitor }}
{{- $shared := eq (include "balena-exporter.serviceMonitorNamespace" .) .Release.Namespace }}
{{- $ca := .Values.test.caSecret | default (and $shared $sm.tls.caSecret.name) | default (include "balena-exporter.tlsSecretName" .) }}
{{- $clientCert := .Values.test.clientCertSecret | default (and $shared $sm.tls.clientCertSecret.name) | default "" }}
{{- $basicAuth := .Values.test.basicAuthSecret | default (and $shared $sm.basicAuth.existingSecret) | default "" }}
{{- dict "ca" $ca "clientCert" $clientCert "basicAuth" $basicAuth | toJson }}
{{- end }}

{{/* "true" if the test has all required credentials, otherwise empty. Without them, no test is installed. */}}
{{- define "balena-exporter.testable" -}}
{{- $secrets := include "balena-exporter.testSecrets" . | fromJson }}
{{- if and .Values.test.enabled
    (or (not .Values.webConfig.clientCA.enabled) $secrets.clientCert)
    (or (not .Values.webConfig.basicAuth.enabled) $secrets.basicAuth) }}true{{ end }}
{{- end }}

{{/*
Durations. A number without a unit is in seconds. Numbers are formatted by toJson, because toString formats 1209600 as
1.2096e+06.
*/}}
{{- define "balena-exporter.duration" -}}
{{- $text := kindIs "string" . | ternary . (toJson .) }}
{{- $text }}{{ if regexMatch "^[0-9]+$" $text }}s{{ end }}
{{- end }}

{{/* A duration in the format of Go or Prometheus (1h30m, 1.5h, 500ms), or in seconds, as milliseconds. */}}
{{- define "balena-exporter.milliseconds" -}}
{{- $total := 0.0 }}
{{- range regexFindAll "[0-9.]+[a-zµ]+" (include "balena-exporter.duration" .) -1 }}
{{- $number := regexFind "^[0-9.]+" . | float64 }}
{{- $unit := regexFind "[a-zµ]+$" . }}
{{- $total = addf $total (mulf $number (get (dict "ns" 0.000001 "us" 0.001 "µs" 0.001 "ms" 1 "s" 1000 "m" 60000 "h" 3600000 "d" 86400000 "w" 604800000 "y" 31536000000) $unit)) }}
{{- end }}
{{- int64 (ceil $total) }}
{{- end }}

{{/* Milliseconds as a duration in the format of Prometheus, in the largest unit of which it is a multiple. */}}
{{- define "balena-exporter.fromMilliseconds" -}}
{{- $milliseconds := int64 . }}
{{- $text := printf "%dms" $milliseconds }}
{{- range $unit := list (list 1000 "s") (list 60000 "m") (list 3600000 "h") (list 86400000 "d") }}
{{- if eq (mod $milliseconds (first $unit)) 0 }}
{{- $text = printf "%d%s" (div $milliseconds (first $unit)) (last $unit) }}
{{- end }}
{{- end }}
{{- $text }}
{{- end }}

{{- define "balena-exporter.refreshMilliseconds" -}}
{{- include "balena-exporter.milliseconds" .Values.balena.refreshInterval }}
{{- end }}

{{/* The maximum staleness of the exporter. The default is five intervals, as in the exporter. */}}
{{- define "balena-exporter.stalenessMilliseconds" -}}
{{- $given := include "balena-exporter.milliseconds" .Values.balena.maxStaleness | int64 }}
{{- $given | default (mul 5 (include "balena-exporter.refreshMilliseconds" .)) }}
{{- end }}

{{/*
Values of the variables in files/rules/, as JSON: prometheusRule.thresholds, and values that are derived from intervals.
Empty thresholds are derived from balena.refreshInterval and balena.maxStaleness.
*/}}
{{- define "balena-exporter.ruleVariables" -}}
{{- $interval := include "balena-exporter.refreshMilliseconds" . | int64 }}
{{- $staleness := include "balena-exporter.stalenessMilliseconds" . | int64 }}
{{- $variables := dict }}
{{- range $name, $value := .Values.prometheusRule.thresholds }}
{{- $_ := set $variables $name (kindIs "string" $value | ternary $value (toJson $value)) }}
{{- end }}
{{- if $variables.apiFailingFor }}
{{- $_ := set $variables "apiFailingFor" (include "balena-exporter.duration" $variables.apiFailingFor) }}
{{- else }}
{{- $_ := set $variables "apiFailingFor" (include "balena-exporter.fromMilliseconds" (max 600000 (mul 2 $interval))) }}
{{- end }}
{{- if not $variables.dataStaleSeconds }}
{{- $_ := set $variables "dataStaleSeconds" (div (add (max 900000 $staleness) 999) 1000 | toString) }}
{{- end }}
{{- $_ := set $variables "refreshInterval" (include "balena-exporter.fromMilliseconds" $interval) }}
{{- $_ := set $variables "maxStaleness" (include "balena-exporter.fromMilliseconds" $staleness) }}
{{- /* A single observed restart counts for one interval, the window of 10 minutes, and a gap of 8 minutes. */}}
{{- $_ := set $variables "serviceRestartingFor" (include "balena-exporter.fromMilliseconds" (max 1200000 (add 1140000 $interval))) }}
{{- /* A device that fails has reduced functionality until its heartbeat times out, after 1.5 poll intervals. A device that reconnects requests its target release at its next poll. */}}
{{- $poll := include "balena-exporter.milliseconds" .Values.prometheusRule.pollInterval | int64 }}
{{- $_ := set $variables "reducedFunctionalityFor" (include "balena-exporter.fromMilliseconds" (max 1800000 (add (div (mul 3 $poll) 2) 450000))) }}
{{- $_ := set $variables "rolloutFor" (include "balena-exporter.fromMilliseconds" (max 1800000 (mul 2 $poll))) }}
{{- $_ := set $variables "rolloutSeconds" (max (int64 $variables.rolloutSeconds) (div (mul 2 $poll) 1000) | toString) }}
{{- toJson $variables }}
{{- end }}

{{/*
Thresholds of balena_fleet_devices_disconnected_longer_than, separated by commas: those of the value, and
deviceLostSeconds, which the alerts use.
*/}}
{{- define "balena-exporter.disconnectedThresholds" -}}
{{- $times := list }}
{{- range append .Values.collectors.disconnectedThresholds .Values.prometheusRule.thresholds.deviceLostSeconds }}
{{- $times = append $times (int64 .) }}
{{- end }}
{{- $times | uniq | join "," }}
{{- end }}

{{/*
Thresholds for the page /problems that differ from the exporter's defaults. They are the thresholds of the alerts.
*/}}
{{- define "balena-exporter.problemThresholds" -}}
{{- $thresholds := list }}
{{- range $name, $default := dict "deviceOfflineSeconds" "3600" "deviceLostSeconds" "604800" "neverConnectedSeconds" "86400" "updateStuckSeconds" "7200"
  "buildFailedSeconds" "604800" "storageRatio" "0.9" "memoryRatio" "0.95" "temperatureCelsius" "80"
  "fleetPartDevices" "3" "fleetOfflineRatio" "0.2" "fleetLargelyOfflineRatio" "0.5" }}
{{- $value := include "balena-exporter.number" (get $.Values.prometheusRule.thresholds $name) }}
{{- if ne $value $default }}
{{- $thresholds = append $thresholds (printf "%s=%s" $name $value) }}
{{- end }}
{{- end }}
{{- join "," $thresholds }}
{{- end }}

{{/* URL of the balena dashboard; empty for openBalena, which has none. */}}
{{- define "balena-exporter.dashboardUrl" -}}
{{- $default := regexMatch "^https://api\\.balena-cloud\\.com(:443)?/?$" .Values.balena.apiUrl | ternary "https://dashboard.balena-cloud.com" "" }}
{{- .Values.balena.dashboardUrl | default $default | trimSuffix "/" }}
{{- end }}

{{/*
Port of a URL, otherwise the default port of its scheme; 0 if it is not an HTTP URL, which may be the case for a proxy.
*/}}
{{- define "balena-exporter.portOf" -}}
{{- if not (regexMatch "^https?://[^ /?#]+" .) }}0
{{- else }}
{{- $host := regexFind "^https?://[^ /?#]+" . }}
{{- regexFind ":[0-9]+$" $host | trimPrefix ":" | default (hasPrefix "https:" $host | ternary "443" "80") }}
{{- end }}
{{- end }}

{{/*
Destination of the exporter's requests, as JSON {port, what}: the proxy in extraEnv, or the API. The port is 0 if the chart
cannot determine it.
*/}}
{{- define "balena-exporter.apiEndpoint" -}}
{{- $variable := hasPrefix "http://" .Values.balena.apiUrl | ternary "HTTP_PROXY" "HTTPS_PROXY" }}
{{- $port := include "balena-exporter.portOf" .Values.balena.apiUrl | int }}
{{- $what := printf "balena.apiUrl (%s)" .Values.balena.apiUrl }}
{{- if .Values.extraEnvFrom }}
{{- $what = "extraEnvFrom" }}
{{- $port = 0 }}
{{- end }}
{{- range .Values.extraEnv }}
{{- if eq (upper (.name | default "")) $variable }}
{{- $what = printf "%s in extraEnv" .name }}
{{- $proxy := .value | default "" | toString }}
{{- $port = include "balena-exporter.portOf" (contains "://" $proxy | ternary $proxy (printf "http://%s" $proxy)) | int }}
{{- end }}
{{- end }}
{{- dict "port" $port "what" $what | toJson }}
{{- end }}

{{/* TCP ports that the NetworkPolicy opens for the API, as a JSON array. */}}
{{- define "balena-exporter.apiPorts" -}}
{{- $endpoint := include "balena-exporter.apiEndpoint" . | fromJson }}
{{- $ports := .Values.networkPolicy.egress.ports }}
{{- if not $ports }}
{{- $ports = list (int $endpoint.port | default (include "balena-exporter.portOf" .Values.balena.apiUrl | int)) }}
{{- end }}
{{- toJson $ports }}
{{- end }}

{{/*
Values of __tmp_hash for the parts of the exposition, as JSON. The Prometheus Operator assigns a target to the shard MD5 of
__tmp_hash modulo the number of shards. For these texts, the result is the index of the part modulo the number of shards, if
that is at most 8 or divides 6720. The parts are therefore distributed evenly.
*/}}
{{- define "balena-exporter.partHashes" -}}
["pmia", "dmka", "xnba", "yjea", "qsda", "wsda", "sjmb", "gvda", "oiia", "kqcb", "apga", "ctda", "xoba", "vkla", "uzia", "tyfa",
 "jnfa", "pzda", "eroa", "jysa", "ogga", "xrca", "hlga", "kuaa", "yoga", "upma", "rila", "bkcc", "mmqa", "svdb", "tgba", "lsda",
 "fiua", "gcfa", "eyga", "ryka", "mqka", "gkha", "wkba", "sffa", "fbra", "xaza", "shpa", "dvhb", "yoha", "tyba", "grca", "hffa",
 "fgha", "esea", "frrb", "nhna", "fbca", "umka", "swia", "dqia", "hfjb", "oala", "rmwa", "mmaa", "cgsa", "usra", "frca", "yhwa"]
{{- end }}

{{/* tlsConfig and basicAuth of Prometheus for the exporter, from Secrets in the ServiceMonitor's namespace. */}}
{{- define "balena-exporter.client" -}}
{{- $tls := .Values.serviceMonitor.tls }}
{{- if .Values.webConfig.tls.enabled }}
tlsConfig:
  {{- if $tls.insecureSkipVerify }}
  insecureSkipVerify: true
  {{- else }}
  serverName: {{ include "balena-exporter.serverName" . }}
  {{- if not $tls.systemCAs }}
  ca:
    secret:
      name: {{ $tls.caSecret.name | default (include "balena-exporter.tlsSecretName" .) }}
      key: {{ $tls.caSecret.key }}
  {{- end }}
  {{- end }}
  {{- with $tls.clientCertSecret.name }}
  cert:
    secret:
      name: {{ . }}
      key: tls.crt
  keySecret:
    name: {{ . }}
    key: tls.key
  {{- end }}
{{- end }}
{{- if .Values.webConfig.basicAuth.enabled }}
{{- with .Values.serviceMonitor.basicAuth }}
basicAuth:
  username:
    name: {{ .existingSecret }}
    key: {{ .usernameKey }}
  password:
    name: {{ .existingSecret }}
    key: {{ .passwordKey }}
{{- end }}
{{- end }}
{{- end }}

{{/* URL of the list of devices, with the query that selects the devices to scrape. */}}
{{- define "balena-exporter.targetsUrl" -}}
{{- $query := list }}
{{- with .Values.serviceDiscovery.scrapeConfig }}
{{- if .connected }}
{{- $query = append $query "connected=true" }}
{{- end }}
{{- range .fleets }}
{{- $query = append $query (printf "fleet=%s" (urlquery .)) }}
{{- end }}
{{- range .tags }}
{{- $query = append $query (printf "tag=%s" (urlquery .)) }}
{{- end }}
{{- end }}
{{- printf "%s://%s.%s.svc:%d/sd/devices" (include "balena-exporter.scheme" .) (include "balena-exporter.fullname" .) .Release.Namespace (int .Values.service.port) }}
{{- with $query }}?{{ join "&" . }}{{ end }}
{{- end }}
