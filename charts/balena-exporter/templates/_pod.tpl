{{/*
The pod template of the Deployment, and of the StatefulSet of shards. Its labels do not include the version of the chart, so
that a new chart version restarts pods only if the template changes.
*/}}
{{- define "balena-exporter.podTemplate" -}}
{{- $token := include "balena-exporter.tokenSecret" . | fromJson -}}
metadata:
  labels:
    {{- include "balena-exporter.selectorLabels" . | nindent 4 }}
    {{- with .Values.commonLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
    {{- with .Values.podLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- with .Values.podAnnotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  serviceAccountName: {{ include "balena-exporter.serviceAccountName" . }}
  automountServiceAccountToken: false
  enableServiceLinks: false
  terminationGracePeriodSeconds: {{ .Values.terminationGracePeriodSeconds }}
  {{- with .Values.imagePullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  securityContext:
    {{- toYaml .Values.podSecurityContext | nindent 4 }}
  {{- with .Values.initContainers }}
  initContainers:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  containers:
    - name: balena-exporter
      image: {{ include "balena-exporter.image" (dict "image" .Values.image "tag" .Chart.AppVersion) | quote }}
      imagePullPolicy: {{ .Values.image.pullPolicy }}
      args:
        - --balena.token-file=/etc/balena-exporter/token/{{ $token.key }}
        - --balena.api-url={{ .Values.balena.apiUrl }}
        {{- if ne .Values.balena.apiVersion "auto" }}
        - --balena.api-version={{ .Values.balena.apiVersion }}
        {{- end }}
        {{- if .Values.balena.allowHttp }}
        - --balena.allow-http
        {{- end }}
        {{- with .Values.balena.caSecret }}
        {{- if .name }}
        - --balena.ca-file=/etc/balena-exporter/ca/{{ .key }}
        {{- end }}
        {{- end }}
        {{- with .Values.balena.caConfigMap }}
        {{- if .name }}
        - --balena.ca-file=/etc/balena-exporter/ca/{{ .key }}
        {{- end }}
        {{- end }}
        - --balena.refresh-interval={{ include "balena-exporter.duration" .Values.balena.refreshInterval }}
        {{- if ne (toString .Values.balena.fullRefreshInterval) "" }}
        - --balena.full-refresh-interval={{ include "balena-exporter.duration" .Values.balena.fullRefreshInterval }}
        {{- end }}
        {{- if ne (toString .Values.balena.maxStaleness) "" }}
        - --balena.max-staleness={{ include "balena-exporter.duration" .Values.balena.maxStaleness }}
        {{- end }}
        {{- if ne (toString .Values.balena.timeout) "" }}
        - --balena.timeout={{ include "balena-exporter.duration" .Values.balena.timeout }}
        {{- end }}
        {{- with .Values.fleets.include }}
        - {{ printf "--balena.fleet-include=%s" . | quote }}
        {{- end }}
        {{- with .Values.fleets.exclude }}
        - {{ printf "--balena.fleet-exclude=%s" . | quote }}
        {{- end }}
        {{- if not .Values.fleets.archived }}
        - --no-balena.archived-fleets
        {{- end }}
        {{- with .Values.collectors }}
        {{- if not .device }}
        - --no-collector.device
        {{- end }}
        {{- if not .deviceName }}
        - --no-collector.device.name
        {{- end }}
        {{- if .deviceLocation }}
        - --collector.device.location
        {{- end }}
        {{- if not .release }}
        - --no-collector.release
        {{- end }}
        {{- if .service }}
        - --collector.service
        {{- end }}
        {{- if not .serviceSummary }}
        - --no-collector.service-summary
        {{- end }}
        {{- if not .os }}
        - --no-collector.os
        {{- end }}
        {{- if not .apiKey }}
        - --no-collector.api-key
        {{- end }}
        {{- range .metricAllowlist }}
        - {{ printf "--collector.metric-allowlist=%s" . | quote }}
        {{- end }}
        {{- range .metricDenylist }}
        - {{ printf "--collector.metric-denylist=%s" . | quote }}
        {{- end }}
        {{- with .deviceTags }}
        - {{ printf "--collector.device.tags=%s" (join "," .) | quote }}
        {{- end }}
        {{- with .fleetTags }}
        - {{ printf "--collector.fleet.tags=%s" (join "," .) | quote }}
        {{- end }}
        {{- end }}
        {{- with .Values.prometheusRule.maintenanceTag }}
        - {{ printf "--collector.maintenance-tag=%s" . | quote }}
        {{- end }}
        {{- with include "balena-exporter.disconnectedThresholds" . }}
        {{- if ne . "3600,86400,604800,2592000" }}
        - --collector.fleet.disconnected-thresholds={{ . }}
        {{- end }}
        {{- end }}
        {{- if gt (int .Values.shards) 1 }}
        - --balena.shard=$(POD_INDEX)/{{ .Values.shards }}
        {{- end }}
        - --web.listen-address=:8000
        - --web.health-listen-address=:8001
        {{- if gt (int .Values.serviceMonitor.parts) 1 }}
        - --web.parts={{ .Values.serviceMonitor.parts }}
        {{- end }}
        {{- with .Values.prometheusRule.grafanaUrl }}
        - {{ printf "--web.grafana-url=%s" . | quote }}
        {{- end }}
        {{- with include "balena-exporter.problemThresholds" . }}
        - --web.problem-thresholds={{ . }}
        {{- end }}
        {{- if include "balena-exporter.webConfigured" . }}
        - --web.config.file=/etc/balena-exporter/web/{{ ternary .Values.webConfig.existingSecret.key "web-config.yml" (ne .Values.webConfig.existingSecret.name "") }}
        {{- end }}
        {{- with .Values.serviceDiscovery }}
        {{- if .enabled }}
        - --web.enable-sd
        {{- if ne .address "none" }}
        - --sd.address={{ .address }}
        {{- end }}
        {{- with .deviceUrlsBase }}
        - {{ printf "--sd.device-urls-base=%s" . | quote }}
        {{- end }}
        {{- with .template }}
        - {{ printf "--sd.template=%s" . | quote }}
        {{- end }}
        {{- range .ports }}
        - --sd.port={{ . }}
        {{- end }}
        {{- with .path }}
        - {{ printf "--sd.path=%s" . | quote }}
        {{- end }}
        {{- with .scheme }}
        - --sd.scheme={{ . }}
        {{- end }}
        {{- end }}
        {{- end }}
        - --log.level={{ .Values.log.level }}
        - --log.format={{ .Values.log.format }}
        {{- range .Values.extraArgs }}
        - {{ . | quote }}
        {{- end }}
      {{- if or (gt (int .Values.shards) 1) .Values.extraEnv }}
      env:
        {{- if gt (int .Values.shards) 1 }}
        - name: POD_INDEX
          valueFrom:
            fieldRef:
              fieldPath: metadata.labels['apps.kubernetes.io/pod-index']
        {{- end }}
        {{- with .Values.extraEnv }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      {{- end }}
      {{- with .Values.extraEnvFrom }}
      envFrom:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      ports:
        - name: metrics
          containerPort: 8000
          protocol: TCP
        - name: health
          containerPort: 8001
          protocol: TCP
      livenessProbe:
        httpGet:
          path: /-/healthy
          port: health
        {{- toYaml .Values.livenessProbe | nindent 8 }}
      readinessProbe:
        httpGet:
          path: /-/ready
          port: health
        {{- toYaml .Values.readinessProbe | nindent 8 }}
      {{- with .Values.resources }}
      resources:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      securityContext:
        {{- toYaml .Values.securityContext | nindent 8 }}
      # Directories are mounted, because files mounted by subPath are not updated when the Secret changes.
      volumeMounts:
        - name: token
          mountPath: /etc/balena-exporter/token
          readOnly: true
        {{- if or .Values.balena.caSecret.name .Values.balena.caConfigMap.name }}
        - name: ca
          mountPath: /etc/balena-exporter/ca
          readOnly: true
        {{- end }}
        {{- if include "balena-exporter.webConfigured" . }}
        - name: web
          mountPath: /etc/balena-exporter/web
          readOnly: true
        {{- end }}
        {{- if .Values.webConfig.tls.enabled }}
        - name: tls
          mountPath: /etc/balena-exporter/tls
          readOnly: true
        {{- end }}
        {{- if .Values.webConfig.clientCA.existingSecret }}
        - name: client-ca
          mountPath: /etc/balena-exporter/client-ca
          readOnly: true
        {{- end }}
        {{- with .Values.extraVolumeMounts }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
    {{- with .Values.extraContainers }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  volumes:
    - name: token
      secret:
        secretName: {{ $token.name }}
        defaultMode: 0440
        items:
          - key: {{ $token.key }}
            path: {{ $token.key }}
    {{- with .Values.balena.caSecret }}
    {{- if .name }}
    - name: ca
      secret:
        secretName: {{ .name }}
        defaultMode: 0440
        items:
          - key: {{ .key }}
            path: {{ .key }}
    {{- end }}
    {{- end }}
    {{- with .Values.balena.caConfigMap }}
    {{- if .name }}
    - name: ca
      configMap:
        name: {{ .name }}
        items:
          - key: {{ .key }}
            path: {{ .key }}
    {{- end }}
    {{- end }}
    {{- if include "balena-exporter.webConfigured" . }}
    - name: web
      secret:
        secretName: {{ .Values.webConfig.existingSecret.name | default (printf "%s-web-config" (include "balena-exporter.fullname" .)) }}
        defaultMode: 0440
    {{- end }}
    {{- if .Values.webConfig.tls.enabled }}
    - name: tls
      secret:
        secretName: {{ include "balena-exporter.tlsSecretName" . }}
        defaultMode: 0440
        items:
          - key: tls.crt
            path: tls.crt
          - key: tls.key
            path: tls.key
    {{- end }}
    {{- with .Values.webConfig.clientCA }}
    {{- if .existingSecret }}
    - name: client-ca
      secret:
        secretName: {{ .existingSecret }}
        defaultMode: 0440
        items:
          - key: {{ .key }}
            path: {{ .key }}
    {{- end }}
    {{- end }}
    {{- with .Values.extraVolumes }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- with .Values.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
  {{- with .Values.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.affinity }}
  affinity:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.topologySpreadConstraints }}
  topologySpreadConstraints:
    {{- range . }}
    {{- $own := dict "labelSelector" (dict "matchLabels" (include "balena-exporter.selectorLabels" $ | fromYaml)) }}
    - {{- merge (deepCopy .) $own | toYaml | nindent 6 }}
    {{- end }}
  {{- end }}
  {{- with .Values.dnsPolicy }}
  dnsPolicy: {{ . }}
  {{- end }}
  {{- with .Values.dnsConfig }}
  dnsConfig:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.hostAliases }}
  hostAliases:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}
