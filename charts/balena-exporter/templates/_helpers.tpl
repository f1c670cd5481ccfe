{{- define "balena-exporter.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* Cut well below 63 characters: names derived from it have suffixes, pods of a StatefulSet a revision as a label. */}}
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

{{/* Not the exporter's own selector labels, or the Service would send scrapes to the test. */}}
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

{{/* Name and key of the Secret the token is mounted from, as JSON. */}}
{{- define "balena-exporter.tokenSecret" -}}
{{- if .Values.balena.token }}
{{- dict "name" (printf "%s-token" (include "balena-exporter.fullname" .)) "key" "token" | toJson }}
{{- else }}
{{- include "balena-exporter.existingSecret" . }}
{{- end }}
{{- end }}

{{/* Whether there is a web configuration file at all: "true" or nothing. */}}
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

{{/* The name clients verify the certificate against: Prometheus and the test go to addresses, not names. */}}
{{- define "balena-exporter.serverName" -}}
{{- .Values.serviceMonitor.tls.serverName | default (printf "%s.%s.svc" (include "balena-exporter.fullname" .) .Release.Namespace) }}
{{- end }}

{{- define "balena-exporter.serviceMonitorNamespace" -}}
{{- .Values.serviceMonitor.namespace | default .Release.Namespace }}
{{- end }}

{{/*
What `helm test` needs to be let in, as JSON: {ca, clientCert, basicAuth}, names of Secrets in the release's
namespace. Prometheus' own serve where the ServiceMonitor shares that namespace.
*/}}
{{- define "balena-exporter.testSecrets" -}}
{{- $sm := .Values.serviceMonitor }}
{{- $shared := eq (include "balena-exporter.serviceMonitorNamespace" .) .Release.Namespace }}
{{- $ca := .Values.test.caSecret | default (and $shared $sm.tls.caSecret.name) | default (include "balena-exporter.tlsSecretName" .) }}
{{- $clientCert := .Values.test.clientCertSecret | default (and $shared $sm.tls.clientCertSecret.name) | default "" }}
{{- $basicAuth := .Values.test.basicAuthSecret | default (and $shared $sm.basicAuth.existingSecret) | default "" }}
{{- dict "ca" $ca "clientCert" $clientCert "basicAuth" $basicAuth | toJson }}
{{- end }}

{{/* Whether the test would be let in: "true" or nothing. Without it there is no test, and the notes say so. */}}
{{- define "balena-exporter.testable" -}}
{{- $secrets := include "balena-exporter.testSecrets" . | fromJson }}
{{- if and .Values.test.enabled
    (or (not .Values.webConfig.clientCA.enabled) $secrets.clientCert)
    (or (not .Values.webConfig.basicAuth.enabled) $secrets.basicAuth) }}true{{ end }}
{{- end }}

{{/*
Durations. A number without a unit is seconds. Numbers are written as JSON has them, for toString makes 1.2096e+06 of
two weeks.
*/}}
{{- define "balena-exporter.duration" -}}
{{- $text := kindIs "string" . | ternary . (toJson .) }}
{{- $text }}{{ if regexMatch "^[0-9]+$" $text }}s{{ end }}
{{- end }}

{{/* Milliseconds of a duration as Go or Prometheus writes it (1h30m, 1.5h, 500ms), or of plain seconds. */}}
{{- define "balena-exporter.milliseconds" -}}
{{- $total := 0.0 }}
{{- range regexFindAll "[0-9.]+[a-zµ]+" (include "balena-exporter.duration" .) -1 }}
{{- $number := regexFind "^[0-9.]+" . | float64 }}
{{- $unit := regexFind "[a-zµ]+$" . }}
{{- $total = addf $total (mulf $number (get (dict "ns" 0.000001 "us" 0.001 "µs" 0.001 "ms" 1 "s" 1000 "m" 60000 "h" 3600000 "d" 86400000 "w" 604800000 "y" 31536000000) $unit)) }}
{{- end }}
{{- int64 (ceil $total) }}
{{- end }}

{{/* A duration of milliseconds as Prometheus writes it, in the largest unit that it is a multiple of. */}}
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

{{/* How long the exporter serves its last data; like the exporter, five intervals unless given. */}}
{{- define "balena-exporter.stalenessMilliseconds" -}}
{{- $given := include "balena-exporter.milliseconds" .Values.balena.maxStaleness | int64 }}
{{- $given | default (mul 5 (include "balena-exporter.refreshMilliseconds" .)) }}
{{- end }}

{{/*
Values for the names in files/rules/, as JSON: prometheusRule.thresholds, those that are empty derived from balena.refreshInterval
and balena.maxStaleness, and more that follow from these.
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
{{- /* A service that was seen restarting once counts for one interval, the window of 10 minutes, and a gap of 8. */}}
{{- $_ := set $variables "serviceRestartingFor" (include "balena-exporter.fromMilliseconds" (max 1200000 (add 1140000 $interval))) }}
{{- /* A device that dies has reduced functionality until its heartbeat is missed, 1.5 polls later. One that comes back asks for its target at its next poll. */}}
{{- $poll := include "balena-exporter.milliseconds" .Values.prometheusRule.pollInterval | int64 }}
{{- $_ := set $variables "reducedFunctionalityFor" (include "balena-exporter.fromMilliseconds" (max 1800000 (add (div (mul 3 $poll) 2) 450000))) }}
{{- $_ := set $variables "rolloutFor" (include "balena-exporter.fromMilliseconds" (max 1800000 (mul 2 $poll))) }}
{{- $_ := set $variables "rolloutSeconds" (max (int64 $variables.rolloutSeconds) (div (mul 2 $poll) 1000) | toString) }}
{{- toJson $variables }}
{{- end }}

{{/*
Times of balena_fleet_devices_disconnected_longer_than, separated by commas: those of the value, and the one that the
alerts take for lost, which they could not count otherwise.
*/}}
{{- define "balena-exporter.disconnectedThresholds" -}}
{{- $times := list }}
{{- range append .Values.collectors.disconnectedThresholds .Values.prometheusRule.thresholds.deviceLostSeconds }}
{{- $times = append $times (int64 .) }}
{{- end }}
{{- $times | uniq | join "," }}
{{- end }}

{{/*
Thresholds of the page /problems that differ from the exporter's own: those of the alerts of the same names.
*/}}
{{- define "balena-exporter.problemThresholds" -}}
{{- $thresholds := list }}
{{- range $name, $own := dict "deviceOfflineSeconds" "3600" "deviceLostSeconds" "604800" "neverConnectedSeconds" "86400" "updateStuckSeconds" "7200"
  "buildFailedSeconds" "604800" "storageRatio" "0.9" "memoryRatio" "0.95" "temperatureCelsius" "80"
  "fleetPartDevices" "3" "fleetOfflineRatio" "0.2" "fleetLargelyOfflineRatio" "0.5" }}
{{- $value := include "balena-exporter.number" (get $.Values.prometheusRule.thresholds $name) }}
{{- if ne $value $own }}
{{- $thresholds = append $thresholds (printf "%s=%s" $name $value) }}
{{- end }}
{{- end }}
{{- join "," $thresholds }}
{{- end }}

{{/* Address of balena's dashboard, or nothing: an openBalena server has none. */}}
{{- define "balena-exporter.dashboardUrl" -}}
{{- $own := regexMatch "^https://api\\.balena-cloud\\.com(:443)?/?$" .Values.balena.apiUrl | ternary "https://dashboard.balena-cloud.com" "" }}
{{- .Values.balena.dashboardUrl | default $own | trimSuffix "/" }}
{{- end }}

{{/*
Port of an address, its scheme's unless it names one; 0 for what is no such address, as a proxy's may be.
*/}}
{{- define "balena-exporter.portOf" -}}
{{- if not (regexMatch "^https?://[^ /?#]+" .) }}0
{{- else }}
{{- $host := regexFind "^https?://[^ /?#]+" . }}
{{- regexFind ":[0-9]+$" $host | trimPrefix ":" | default (hasPrefix "https:" $host | ternary "443" "80") }}
{{- end }}
{{- end }}

{{/*
Where the exporter's requests go, as JSON {port, what}: to the proxy that extraEnv names, or to the API. The port is 0
where the chart cannot know it.
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

{{/* TCP ports that the NetworkPolicy opens toward the API, as a JSON array: those given, or the one there is. */}}
{{- define "balena-exporter.apiPorts" -}}
{{- $endpoint := include "balena-exporter.apiEndpoint" . | fromJson }}
{{- $ports := .Values.networkPolicy.egress.ports }}
{{- if not $ports }}
{{- $ports = list (int $endpoint.port | default (include "balena-exporter.portOf" .Values.balena.apiUrl | int)) }}
{{- end }}
{{- toJson $ports }}
{{- end }}

{{/*
What to hash for each part of the exposition, as JSON. The Prometheus Operator's shard of a target is the MD5 of __tmp_hash
modulo the number of shards: of these texts it is the number of the part modulo that number, for up to 8 shards, and for
others that divide 6720. So the parts are spread evenly, as digits would not be.
*/}}
{{- define "balena-exporter.partHashes" -}}
["pmia", "dmka", "xnba", "yjea", "qsda", "wsda", "sjmb", "gvda", "oiia", "kqcb", "apga", "ctda", "xoba", "vkla", "uzia", "tyfa",
 "jnfa", "pzda", "eroa", "jysa", "ogga", "xrca", "hlga", "kuaa", "yoga", "upma", "rila", "bkcc", "mmqa", "svdb", "tgba", "lsda",
 "fiua", "gcfa", "eyga", "ryka", "mqka", "gkha", "wkba", "sffa", "fbra", "xaza", "shpa", "dvhb", "yoha", "tyba", "grca", "hffa",
 "fgha", "esea", "frrb", "nhna", "fbca", "umka", "swia", "dqia", "hfjb", "oala", "rmwa", "mmaa", "cgsa", "usra", "frca", "yhwa"]
{{- end }}

{{/* How Prometheus is let in to the exporter: tlsConfig and basicAuth, of Secrets in the ServiceMonitor's namespace. */}}
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

{{/* Where the exporter lists devices as targets, with the query that chooses those to scrape. */}}
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
