{{/*
The content of a rule file, in which each ${name} is replaced by a value. {path, root}. The files in
deploy/prometheus/rules are generated from it with the default values.
*/}}
{{- define "balena-exporter.rules" -}}
{{- $rule := .root.Values.prometheusRule }}
{{- $text := .root.Files.Get .path }}
{{- range $name, $value := include "balena-exporter.ruleVariables" .root | fromJson }}
{{- $text = $text | replace (printf "${%s}" $name) $value }}
{{- end }}

{{- /* Thresholds for particular fleets. They precede the general threshold: the first matching entry applies. */}}
{{- range $name := list "fleetOfflineRatio" "fleetLargelyOfflineRatio" "fleetShrankRatio" }}
{{- $byFleet := "" }}
{{- range $rule.fleetThresholds }}
{{- if hasKey . $name }}
{{- $byFleet = printf "%s%s * group by (fleet) (balena:fleet_watched{fleet=~\"%s\"}) or " $byFleet (include "balena-exporter.number" (get . $name)) .fleets }}
{{- end }}
{{- end }}
{{- $text = $text | replace (printf "${%sByFleet}" $name) $byFleet }}
{{- end }}

{{- $off := list }}
{{- range $rule.offHours | default (list (dict "fleets" "" "from" "22:00" "to" "06:00")) }}
{{- $from := include "balena-exporter.minutes" .from | int }}
{{- $to := include "balena-exporter.minutes" .to | int }}
{{- if eq $from $to }}
{{- fail (printf "prometheusRule.offHours has an entry from %s to %s, which is an empty time range: to exclude fleets at all times, use prometheusRule.excludeFleets." .from .to) }}
{{- end }}
{{- $condition := ternary (printf "hour() * 60 + minute() >= %d < %d" $from $to) (printf "(hour() * 60 + minute() >= %d or hour() * 60 + minute() < %d)" $from $to) (lt $from $to) }}
{{- $off = append $off (printf "group by (fleet) (balena:fleet_watched{fleet=~\"%s\"}) and on () %s" .fleets $condition) }}
{{- end }}
{{- $text = $text | replace "${offHours}" (join "\n          or\n          " $off) }}

{{- /* Tags are added to balena:problem, not to the alerts, so that they remain while there are no data. */}}
{{- $tags := include "balena-exporter.tagLabels" .root | fromJsonArray | join ", " }}
{{- $problems := "${inService}" }}
{{- $records := "" }}
{{- $ofFleet := "${1}" }}
{{- if $tags }}
{{- $problems = printf "(\n${inService}\n          )\n          * on (fleet, uuid) group_left (%s) balena:tags\n          or on (fleet, uuid, service_name, problem)\n          (\n${inService}\n          )" $tags | replace "${inService}" "            ${inService}" }}
{{- $records = include "balena-exporter.tagRecords" $tags }}
{{- $ofFleet = printf "(${1} * on (fleet) group_left (%s) balena:tags{uuid=\"\"} or on (fleet, problem) ${1})" $tags }}
{{- end }}
{{- $text = $text | replace "      ${tagRecords}\n" $records | replace "${problems}" $problems }}
{{- $text = regexReplaceAll `\$\{ofFleet ([a-z_:]+)\}` $text $ofFleet }}
{{- $inService := include "balena-exporter.inService" . | trim }}
{{- $text = $text | replace "            ${inService}" (printf "            %s" ($inService | replace "\n" "\n            ")) }}
{{- $text = $text | replace "${inService}" ($inService | replace "\n" "\n          ") }}

{{- $text = $text | replace "${excludeFleets}" $rule.excludeFleets }}
{{- $runbooks := $rule.runbookBaseUrl | default (printf "https://github.com/balena-exporter/balena-exporter/blob/v%s/docs/runbooks" .root.Chart.AppVersion) }}
{{- $text = $text | replace "${runbookBaseUrl}" $runbooks }}

{{- /* Without the URL of a dashboard there is no annotation. */}}
{{- range $name, $url := dict "grafanaUrl" (trimSuffix "/" $rule.grafanaUrl) "balenaDashboardUrl" (include "balena-exporter.dashboardUrl" .root) }}
{{- if not $url }}
{{- $text = regexReplaceAll (printf `(?m)^ *\w+: '?\$\{%s\}.*\n` $name) $text "" }}
{{- end }}
{{- $text = $text | replace (printf "${%s}" $name) $url }}
{{- end }}

{{- with regexFind "\\$\\{[a-zA-Z]+\\}" $text }}
{{- fail (printf "%s uses %s, which prometheusRule.thresholds does not define." $.path .) }}
{{- end }}
{{- $text }}
{{- end }}

{{/* A number as text. toString formats 1209600 as 1.2096e+06. */}}
{{- define "balena-exporter.number" -}}
{{- kindIs "string" . | ternary . (toJson .) }}
{{- end }}

{{/* Minutes since midnight of a time such as "22:30". The schema checks the format. */}}
{{- define "balena-exporter.minutes" -}}
{{- $parts := splitList ":" . }}
{{- add (mul 60 (trimPrefix "0" (index $parts 0) | int)) (trimPrefix "0" (index $parts 1) | int) }}
{{- end }}

{{/* Conditions of devices and fleets in service. */}}
{{- define "balena-exporter.inService" -}}
balena:condition
and on (fleet) balena:fleet_watched
unless on (fleet, uuid) balena:device_out_of_service
unless on (fleet) balena:fleet_out_of_service
or
balena:condition{problem="BalenaDevicesFrozen"} and on (fleet) balena:fleet_watched
{{- end }}

{{/* The rule that records the tags for alerts: those of fleets, and of devices with a condition. */}}
{{- define "balena-exporter.tagRecords" -}}
{{- "      " }}# If several exporters export the same device, the tags of one of them are used. While there are no data of a fleet, its last tags remain.
      - record: balena:tags
        expr: |
          topk by (fleet, uuid) (1, max by (fleet, uuid, {{ . }}) (balena_device_tags and on (fleet, uuid) balena:condition))
          or
          topk by (fleet) (1, max by (fleet, {{ . }}) (balena_fleet_tags))
          or on (fleet, uuid)
          balena:tags and on (fleet) last_over_time(balena:fleet_watched[1d]) unless on (fleet) balena_fleet_devices
{{ "\n" }}
{{- end }}

{{/* Label names for prometheusRule.tagLabels, which are those of the exporter, as JSON. */}}
{{- define "balena-exporter.tagLabels" -}}
{{- $labels := list }}
{{- range .Values.prometheusRule.tagLabels }}
{{- $labels = append $labels (printf "tag_%s" (regexReplaceAll "[^a-zA-Z0-9]" . "_")) }}
{{- end }}
{{- toJson $labels }}
{{- end }}
