{{- define "balena-exporter.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* Cut well below 63 characters: names derived from it have suffixes, pods of a StatefulSet a revision as a label. */}}
{{- define "balena-exporter.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" }}
{{- else if contains (include "balena-exporter.name" .) .Release.Name }}
{{- .Release.Name | trunc 40 | trimSuffix "-" }}
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

{{/* Milliseconds of a duration as Prometheus writes it (1h30m, 500ms); the schema has checked its form. */}}
{{- define "balena-exporter.milliseconds" -}}
{{- $total := 0 }}
{{- range regexFindAll "[0-9]+[a-z]+" . -1 }}
{{- $number := regexFind "^[0-9]+" . | int64 }}
{{- $unit := regexFind "[a-z]+$" . }}
{{- $total = add $total (mul $number (get (dict "ms" 1 "s" 1000 "m" 60000 "h" 3600000 "d" 86400000 "w" 604800000 "y" 31536000000) $unit)) }}
{{- end }}
{{- $total }}
{{- end }}
