{{/*
Checks for contradictions between values, with errors that state how to resolve them. The schema checks single values.
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
{{- if regexMatch "^[A-Za-z0-9.-]+(:[0-9]+)?(/[^ ?#@]*)?$" .apiUrl }}
{{- fail (printf "balena.apiUrl is %s, without a scheme: set https://%s." .apiUrl .apiUrl) }}
{{- end }}
{{- if not (regexMatch "^https?://[^ /?#@]+(/[^ ?#@]*)?$" .apiUrl) }}
{{- fail "balena.apiUrl is not a valid API URL: set a URL that begins with https://, without user, query or fragment, such as https://api.balena.example.com." }}
{{- end }}
{{- if and (hasPrefix "http://" .apiUrl) (not .allowHttp) }}
{{- fail "balena.apiUrl is plain HTTP, which sends the token unencrypted: use https://, or set balena.allowHttp to true." }}
{{- end }}
{{- end }}

{{- if or (hasKey .Values "replicas") (hasKey .Values "replicaCount") }}
{{- fail "The chart has no value for replicas: one pod serves any number of Prometheus servers, and a second pod would send the same requests to the API again. To divide the fleets among several pods, set shards." }}
{{- end }}
{{- include "balena-exporter.validateTimes" . }}
{{- include "balena-exporter.validateFleets" . }}
{{- include "balena-exporter.validateTagLabels" . }}
{{- include "balena-exporter.validateArguments" . }}
{{- include "balena-exporter.validateEgress" . }}
{{- include "balena-exporter.validateDiscovery" . }}

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
{{- fail "webConfig.tls has a certificate, but is not enabled: set webConfig.tls.enabled to true, or remove webConfig.tls.existingSecret and webConfig.tls.certManager.enabled." }}
{{- end }}
{{- if .clientCA.enabled }}
{{- fail "webConfig.clientCA.enabled requires client certificates, which need TLS: set webConfig.tls.enabled to true." }}
{{- end }}
{{- end }}
{{- if and .clientCA.enabled (not .clientCA.existingSecret) (not .existingSecret.name) }}
{{- fail "webConfig.clientCA.enabled needs the CA of the clients' certificates: set webConfig.clientCA.existingSecret to the name of a Secret that holds it." }}
{{- end }}
{{- if and .clientCA.existingSecret (not .clientCA.enabled) }}
{{- fail "webConfig.clientCA.existingSecret is set, but webConfig.clientCA.enabled is not: set it to true, or remove the Secret." }}
{{- end }}
{{- if and .basicAuth.users (not .basicAuth.enabled) }}
{{- fail "webConfig.basicAuth.users is set, but webConfig.basicAuth.enabled is not: set it to true, or remove the users." }}
{{- end }}
{{- if and .basicAuth.users .existingSecret.name }}
{{- fail "webConfig.basicAuth.users and webConfig.existingSecret.name are both set: add the users to the file in that Secret." }}
{{- end }}
{{- if and .basicAuth.enabled (not .basicAuth.users) (not .existingSecret.name) }}
{{- fail "webConfig.basicAuth.enabled needs users: set webConfig.basicAuth.users to user names and bcrypt hashes, as printed by htpasswd -nBC 10 NAME." }}
{{- end }}
{{- end }}

{{- with .Values.serviceMonitor }}
{{- if and .interval .scrapeTimeout (gt (include "balena-exporter.milliseconds" .scrapeTimeout | int64) (include "balena-exporter.milliseconds" .interval | int64)) }}
{{- fail (printf "serviceMonitor.scrapeTimeout (%s) is longer than serviceMonitor.interval (%s), which Prometheus rejects: decrease it, or increase the interval." (include "balena-exporter.duration" .scrapeTimeout) (include "balena-exporter.duration" .interval)) }}
{{- end }}
{{- if or .enabled $.Values.serviceDiscovery.scrapeConfig.enabled }}
{{- if and $.Values.webConfig.basicAuth.enabled (not .basicAuth.existingSecret) }}
{{- fail "webConfig.basicAuth.enabled requires credentials for Prometheus: set serviceMonitor.basicAuth.existingSecret to the name of a Secret, in the ServiceMonitor's namespace, with the user name and the plain-text password." }}
{{- end }}
{{- if and .basicAuth.existingSecret (not $.Values.webConfig.basicAuth.enabled) }}
{{- fail "serviceMonitor.basicAuth.existingSecret is set, but the exporter does not require a password: set webConfig.basicAuth.enabled to true, or remove the Secret." }}
{{- end }}
{{- if and $.Values.webConfig.clientCA.enabled (not .tls.clientCertSecret.name) }}
{{- fail "webConfig.clientCA.enabled requires a client certificate for Prometheus: set serviceMonitor.tls.clientCertSecret.name to the name of a Secret, in the ServiceMonitor's namespace, with tls.crt and tls.key." }}
{{- end }}
{{- if and .tls.clientCertSecret.name (not $.Values.webConfig.clientCA.enabled) }}
{{- fail "serviceMonitor.tls.clientCertSecret.name is set, but the exporter does not require client certificates: set webConfig.clientCA.enabled to true, or remove the Secret." }}
{{- end }}
{{- if and $.Values.webConfig.tls.enabled (ne (include "balena-exporter.serviceMonitorNamespace" $) $.Release.Namespace) (not (or .tls.caSecret.name .tls.systemCAs .tls.insecureSkipVerify)) }}
{{- fail "The ServiceMonitor is in another namespace and cannot use the exporter's TLS Secret: set serviceMonitor.tls.caSecret.name to a Secret in that namespace with the CA, or serviceMonitor.tls.systemCAs to true for a certificate of a public CA." }}
{{- end }}
{{- end }}
{{- end }}

{{- if and .Values.podDisruptionBudget.enabled (lt (int .Values.shards) 2) }}
{{- fail "podDisruptionBudget.enabled needs more than one shard: for a single pod it would have no effect or block node drains." }}
{{- end }}
{{- end }}

{{/* Checks of intervals, and of alert durations that depend on them. */}}
{{- define "balena-exporter.validateTimes" -}}
{{- $balena := .Values.balena }}
{{- $thresholds := .Values.prometheusRule.thresholds }}
{{- $interval := include "balena-exporter.refreshMilliseconds" . | int64 }}
{{- $staleness := include "balena-exporter.stalenessMilliseconds" . | int64 }}
{{- $refreshInterval := include "balena-exporter.duration" $balena.refreshInterval }}
{{- if or (lt $interval 1000) (gt $interval 86400000) }}
{{- fail (printf "balena.refreshInterval is %s: set a duration from 1s to 24h, such as 60s." $refreshInterval) }}
{{- end }}
{{- if and (lt $interval 15000) (hasPrefix "https://api.balena-cloud.com" $balena.apiUrl) }}
{{- fail (printf "balena.refreshInterval is %s, but balenaCloud limits the rate of requests, and devices report only every few minutes: set 15s or more." $refreshInterval) }}
{{- end }}
{{- if lt $staleness $interval }}
{{- fail (printf "balena.maxStaleness (%s) is shorter than balena.refreshInterval (%s), so data would become stale between refreshes: set %s or more, or leave it empty." (include "balena-exporter.duration" $balena.maxStaleness) $refreshInterval $refreshInterval) }}
{{- end }}
{{- if and (ne (toString $balena.timeout) "") (eq (include "balena-exporter.milliseconds" $balena.timeout | int64) 0) }}
{{- fail "balena.timeout is 0, so every request would fail: set a duration such as 30s, or leave it empty." }}
{{- end }}
{{- if .Values.prometheusRule.enabled }}
{{- $variables := include "balena-exporter.ruleVariables" . | fromJson }}
{{- if lt (mul 1000 (int64 $variables.dataStaleSeconds)) (mul 2 $interval) }}
{{- fail (printf "prometheusRule.thresholds.dataStaleSeconds (%s) is less than twice balena.refreshInterval (%s), so BalenaDataStale would fire without a problem: set %d or more, or leave it empty." $variables.dataStaleSeconds $refreshInterval (div (mul 2 $interval) 1000)) }}
{{- end }}
{{- if lt (include "balena-exporter.milliseconds" $variables.apiFailingFor | int64) $interval }}
{{- fail (printf "prometheusRule.thresholds.apiFailingFor (%s) is shorter than balena.refreshInterval (%s), so BalenaAPIFailing would fire after a single failed refresh: set %s or more, with a unit, or leave it empty." $variables.apiFailingFor $refreshInterval $refreshInterval) }}
{{- end }}
{{- if not (lt (int64 $thresholds.deviceOfflineSeconds) (int64 $thresholds.deviceLostSeconds)) }}
{{- fail (printf "prometheusRule.thresholds.deviceOfflineSeconds (%d) is not less than deviceLostSeconds (%d), so BalenaDeviceOffline could never fire: set it to a smaller value." (int64 $thresholds.deviceOfflineSeconds) (int64 $thresholds.deviceLostSeconds)) }}
{{- end }}
{{- range $name, $value := $thresholds }}
{{- if and (hasSuffix "Ratio" $name) (or (le (float64 $value) 0.0) (gt (float64 $value) 1.0)) }}
{{- fail (printf "prometheusRule.thresholds.%s is %v: set a ratio from 0 to 1, such as 0.2 for 20 %%." $name $value) }}
{{- end }}
{{- /* All other strings are durations or regular expressions, and durations are valid regular expressions. */}}
{{- if and (kindIs "string" $value) (not (include "balena-exporter.compiles" ($value | replace "\\\\" "\\"))) }}
{{- fail (printf "prometheusRule.thresholds.%s is %q, which is not a regular expression: close every bracket and parenthesis, or escape it with two backslashes." $name $value) }}
{{- end }}
{{- end }}
{{- range $i, $entry := .Values.prometheusRule.fleetThresholds }}
{{- range $name, $value := omit $entry "fleets" }}
{{- if or (le (float64 $value) 0.0) (gt (float64 $value) 1.0) }}
{{- fail (printf "prometheusRule.fleetThresholds[%d].%s is %v: set a ratio from 0 to 1, such as 0.2 for 20 %%." $i $name $value) }}
{{- end }}
{{- end }}
{{- end }}
{{- with .Values.serviceMonitor }}
{{- if and .enabled .interval (gt (include "balena-exporter.milliseconds" .interval | int64) 240000) }}
{{- fail (printf "serviceMonitor.interval is %s, but Prometheus drops series after 5 minutes without a sample, so alerts would have gaps: set 4m or less. Scrapes do not cause requests to the API." (include "balena-exporter.duration" .interval)) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{/* "true" if a text is a valid regular expression, otherwise empty. The empty alternative always matches. */}}
{{- define "balena-exporter.compiles" -}}
{{- if regexMatch (printf "|%s" .) "" }}true{{ end }}
{{- end }}

{{- define "balena-exporter.validateFleets" -}}
{{- $fleets := .Values.fleets }}
{{- range $name := list "include" "exclude" }}
{{- with get $fleets $name }}
{{- if not (include "balena-exporter.compiles" .) }}
{{- fail (printf "fleets.%s is %q, which is not a regular expression: close every bracket and parenthesis, or escape it with a backslash." $name .) }}
{{- end }}
{{- /* Without any of these characters, an expression matches no slash. */}}
{{- if not (regexMatch "[/.\\[\\\\]" .) }}
{{- $all := regexMatch "^[A-Za-z0-9_-]+$" . | ternary . "ORGANIZATION" }}
{{- fail (printf "fleets.%s is %q and matches no fleet: a slug is ORGANIZATION/NAME. Set %s/.* for all fleets of an organization, or %s/NAME for one." $name . $all $all) }}
{{- end }}
{{- end }}
{{- end }}
{{- if and $fleets.include (eq $fleets.include $fleets.exclude) }}
{{- fail "fleets.include and fleets.exclude are the same, so they exclude all fleets: keep one of them." }}
{{- end }}
{{- end }}

{{/* A tag that is not exported would be an empty label on every alert. A key that ends in * is a pattern. */}}
{{- define "balena-exporter.validateTagLabels" -}}
{{- $taken := dict }}
{{- range $key := .Values.prometheusRule.tagLabels }}
{{- $label := printf "tag_%s" (regexReplaceAll "[^a-zA-Z0-9]" $key "_") }}
{{- with get $taken $label }}
{{- fail (printf "prometheusRule.tagLabels has %q and %q, which both become the label %s: keep one of them." . $key $label) }}
{{- end }}
{{- $_ := set $taken $label $key }}
{{- $exported := false }}
{{- range concat $.Values.collectors.deviceTags $.Values.collectors.fleetTags }}
{{- if or (eq . $key) (and (hasSuffix "*" .) (hasPrefix (trimSuffix "*" .) $key)) }}
{{- $exported = true }}
{{- end }}
{{- end }}
{{- if not $exported }}
{{- fail (printf "prometheusRule.tagLabels has %q, but the exporter does not export this tag: add it to collectors.deviceTags or collectors.fleetTags." $key) }}
{{- end }}
{{- end }}
{{- end }}

{{- define "balena-exporter.validateDiscovery" -}}
{{- with .Values.serviceDiscovery }}
{{- if and .scrapeConfig.enabled (not .enabled) }}
{{- fail "serviceDiscovery.scrapeConfig.enabled needs the list of devices: set serviceDiscovery.enabled to true." }}
{{- end }}
{{- if and .scrapeConfig.enabled (gt (int $.Values.shards) 1) }}
{{- fail "serviceDiscovery.scrapeConfig.enabled needs shards to be 1: the Service sends each request to any shard, which lists only its part of the devices. Install one release for each part of the fleets, with fleets.include." }}
{{- end }}
{{- if and .deviceUrlsBase (ne .address "public") }}
{{- fail (printf "serviceDiscovery.deviceUrlsBase needs serviceDiscovery.address public, but that is %s: set it to public, or remove the domain." .address) }}
{{- end }}
{{- if and .template (ne .address "none") }}
{{- fail (printf "serviceDiscovery.template needs serviceDiscovery.address none, but that is %s: set it to none, or remove the template." .address) }}
{{- end }}
{{- if and .ports (eq .address "public") }}
{{- fail "serviceDiscovery.ports cannot be combined with serviceDiscovery.address public, because public device URLs lead to port 80 of the device: remove the ports." }}
{{- end }}
{{- if and .ports (contains ":" .template) }}
{{- fail "serviceDiscovery.template contains a port, and serviceDiscovery.ports is set: keep one of them." }}
{{- end }}
{{- if and (contains "{name}" .template) (not $.Values.collectors.deviceName) }}
{{- fail "serviceDiscovery.template contains {name}, but collectors.deviceName is false: use {uuid}, or set collectors.deviceName to true." }}
{{- end }}
{{- range .scrapeConfig.tags }}
{{- $tag := . }}
{{- $known := false }}
{{- range $.Values.collectors.deviceTags }}
{{- if or (eq $tag .) (hasPrefix (printf "%s=" .) $tag) }}
{{- $known = true }}
{{- end }}
{{- end }}
{{- if not $known }}
{{- fail (printf "serviceDiscovery.scrapeConfig.tags has %q, whose key is not in collectors.deviceTags: add it there." $tag) }}
{{- end }}
{{- end }}
{{- with .scrapeConfig }}
{{- if and .enabled .scrapeInterval .scrapeTimeout (gt (include "balena-exporter.milliseconds" .scrapeTimeout | int64) (include "balena-exporter.milliseconds" .scrapeInterval | int64)) }}
{{- fail (printf "serviceDiscovery.scrapeConfig.scrapeTimeout (%s) is longer than scrapeInterval (%s), which Prometheus rejects: decrease it, or increase the interval." .scrapeTimeout .scrapeInterval) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{/* Flags of the exporter that the chart sets or depends on, with the value to use instead. */}}
{{- define "balena-exporter.flags" -}}
balena.token: balena.existingSecret
balena.token-file: balena.existingSecret
balena.api-url: balena.apiUrl
balena.api-version: balena.apiVersion
balena.allow-http: balena.allowHttp
balena.ca-file: balena.caSecret or balena.caConfigMap
balena.refresh-interval: balena.refreshInterval
balena.full-refresh-interval: balena.fullRefreshInterval
balena.max-staleness: balena.maxStaleness
balena.timeout: balena.timeout
balena.fleet-include: fleets.include
balena.fleet-exclude: fleets.exclude
balena.archived-fleets: fleets.archived
collector.device: collectors.device
collector.device.name: collectors.deviceName
collector.device.location: collectors.deviceLocation
collector.release: collectors.release
collector.service: collectors.service
collector.service-summary: collectors.serviceSummary
collector.maintenance-tag: prometheusRule.maintenanceTag
collector.os: collectors.os
collector.api-key: collectors.apiKey
collector.device.tags: collectors.deviceTags
collector.fleet.tags: collectors.fleetTags
collector.fleet.disconnected-thresholds: collectors.disconnectedThresholds
collector.metric-allowlist: collectors.metricAllowlist
collector.metric-denylist: collectors.metricDenylist
balena.shard: shards
web.parts: serviceMonitor.parts
web.grafana-url: prometheusRule.grafanaUrl
web.problem-thresholds: prometheusRule.thresholds
web.listen-address: service.port, for the port of the Service; that of the pod stays 8000
web.health-listen-address: livenessProbe and readinessProbe; their port stays 8001
web.config.file: webConfig
web.telemetry-path: the default /metrics, which the ServiceMonitor and helm test use
web.enable-sd: serviceDiscovery.enabled
sd.address: serviceDiscovery.address
sd.device-urls-base: serviceDiscovery.deviceUrlsBase
sd.template: serviceDiscovery.template
sd.port: serviceDiscovery.ports
sd.path: serviceDiscovery.path
sd.scheme: serviceDiscovery.scheme
log.level: log.level
log.format: log.format
{{- end }}

{{/* The errors contain the names of arguments and variables, but not their values, which may be the token. */}}
{{- define "balena-exporter.validateArguments" -}}
{{- $flags := include "balena-exporter.flags" . | fromYaml }}
{{- range .Values.extraArgs }}
{{- $given := regexFind "^--?[A-Za-z0-9.-]+" . }}
{{- $flag := $given | trimPrefix "--" | trimPrefix "no-" }}
{{- with get $flags $flag }}
{{- fail (printf "extraArgs has %s, which the chart sets: use %s." $given .) }}
{{- end }}
{{- end }}
{{- $variables := dict "BALENA_TOKEN" "balena.token" "BALENA_TOKEN_FILE" "balena.token-file" "BALENA_API_URL" "balena.api-url" "CRAWL_INTERVAL" "balena.refresh-interval" }}
{{- range $flag, $_ := $flags }}
{{- $_ := set $variables (printf "BALENA_EXPORTER_%s" (regexReplaceAll "[.-]" $flag "_" | upper)) $flag }}
{{- end }}
{{- range .Values.extraEnv }}
{{- with get $variables (.name | default "") }}
{{- fail (printf "extraEnv has a variable for --%s, which the chart sets: use %s." . (get $flags .)) }}
{{- end }}
{{- end }}
{{- end }}

{{/* With extraEgress, the ports are not checked, because these rules may allow the traffic. */}}
{{- define "balena-exporter.validateEgress" -}}
{{- with .Values.networkPolicy }}
{{- if and .enabled (not .extraEgress) }}
{{- $endpoint := include "balena-exporter.apiEndpoint" $ | fromJson }}
{{- $port := int $endpoint.port }}
{{- if and (eq $port 0) (not .egress.ports) (not $.Values.extraEnvFrom) }}
{{- fail (printf "networkPolicy.egress.ports is empty, and the chart cannot determine the port of %s: set the port." $endpoint.what) }}
{{- end }}
{{- $ports := list }}
{{- range .egress.ports }}
{{- $ports = append $ports (int .) }}
{{- end }}
{{- if and $port $ports (not (has $port $ports)) }}
{{- fail (printf "networkPolicy.egress.ports is [%s], and %s has port %d, which the policy would block: add it, or leave networkPolicy.egress.ports empty." (join ", " $ports) $endpoint.what $port) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{/* Checks that all metrics of a rule are exported. {rule, collectors}. The metrics of the exporter itself always are. */}}
{{- define "balena-exporter.validateExported" -}}
{{- $name := .rule.alert | default (dig "labels" "problem" "" .rule) }}
{{- $way := ternary (printf "set prometheusRule.overrides.%s.enabled to false" $name) "set prometheusRule.enabled to false" (ne $name "") }}
{{- $name = $name | default "BalenaDeviceOffline and other alerts" }}
{{- $collectors := .collectors }}
{{- range $metric := regexFindAll "balena_[a-z0-9_]+" (toString .rule.expr) -1 | uniq }}
{{- if not (regexMatch "^balena_(up|fleets|exporter_.*|api_(version|requests?|response|rate|token)_.*)$" $metric) }}
{{- $allowed := not $collectors.metricAllowlist }}
{{- range $collectors.metricAllowlist }}
{{- $allowed = or $allowed (regexMatch (printf "^(?:%s)$" .) $metric) }}
{{- end }}
{{- if not $allowed }}
{{- fail (printf "%s would never fire without %s, which is not in collectors.metricAllowlist: add it, or %s." $name $metric $way) }}
{{- end }}
{{- range $collectors.metricDenylist }}
{{- if regexMatch (printf "^(?:%s)$" .) $metric }}
{{- fail (printf "%s would never fire without %s, which collectors.metricDenylist excludes: remove it from the list, or %s." $name $metric $way) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
