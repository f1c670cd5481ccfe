{{/*
The text of a file of rules with the values put in, which stand as ${name} there. {path, root}. The plain files in
deploy/prometheus/rules are this text as well, with the default values.
*/}}
{{- define "balena-exporter.rules" -}}
{{- $rule := .root.Values.prometheusRule }}
{{- $text := .root.Files.Get .path }}
{{- range $name, $value := include "balena-exporter.ruleVariables" .root | fromJson }}
{{- $text = $text | replace (printf "${%s}" $name) $value }}
{{- end }}

{{- /* What goes before a threshold that is not the same for all fleets: the first entry that has it and matches, counts. */}}
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
{{- fail (printf "prometheusRule.offHours has an entry from %s to %s, which is no time at all: for fleets that never matter, use prometheusRule.excludeFleets." .from .to) }}
{{- end }}
{{- $is := ternary (printf "hour() * 60 + minute() >= %d < %d" $from $to) (printf "(hour() * 60 + minute() >= %d or hour() * 60 + minute() < %d)" $from $to) (lt $from $to) }}
{{- $off = append $off (printf "group by (fleet) (balena:fleet_watched{fleet=~\"%s\"}) and on () %s" .fleets $is) }}
{{- end }}
{{- $text = $text | replace "${offHours}" (join "\n          or\n          " $off) }}

{{- $text = $text | replace "${excludeFleets}" $rule.excludeFleets }}
{{- $runbooks := $rule.runbookBaseUrl | default (printf "https://github.com/balena-exporter/balena-exporter/blob/v%s/docs/runbooks" .root.Chart.AppVersion) }}
{{- $text = $text | replace "${runbookBaseUrl}" $runbooks }}

{{- /* A page that is nowhere has no annotation. */}}
{{- range $name, $url := dict "grafanaUrl" (trimSuffix "/" $rule.grafanaUrl) "balenaDashboardUrl" (include "balena-exporter.dashboardUrl" .root) }}
{{- if not $url }}
{{- $text = regexReplaceAll (printf `(?m)^ *\w+: '?\$\{%s\}.*\n` $name) $text "" }}
{{- end }}
{{- $text = $text | replace (printf "${%s}" $name) $url }}
{{- end }}

{{- with regexFind "\\$\\{[a-zA-Z]+\\}" $text }}
{{- fail (printf "%s uses %s, and prometheusRule.thresholds has no such name." $.path .) }}
{{- end }}
{{- $text }}
{{- end }}

{{/* A threshold as it is written: toString makes 1.2096e+06 of two weeks. */}}
{{- define "balena-exporter.number" -}}
{{- kindIs "string" . | ternary . (toJson .) }}
{{- end }}

{{/* Minutes since midnight of a time as "22:30"; the schema has checked its form. */}}
{{- define "balena-exporter.minutes" -}}
{{- $parts := splitList ":" . }}
{{- add (mul 60 (trimPrefix "0" (index $parts 0) | int)) (trimPrefix "0" (index $parts 1) | int) }}
{{- end }}
