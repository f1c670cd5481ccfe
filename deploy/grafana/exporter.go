// SPDX-License-Identifier: Apache-2.0

package grafana

// running matches the exporters that the variables select.
const running = `{job=~"$job",instance=~"$instance"}`

// runningWith adds a matcher to running.
func runningWith(matcher string) string { return `{job=~"$job",instance=~"$instance",` + matcher + `}` }

func exporterDashboard() *Dashboard {
	const interval = "[$__rate_interval]"
	rate := func(metric string) string { return "rate(" + metric + running + interval + ")" }
	quantile := func(q, metric, by string) string {
		return "histogram_quantile(" + q + ", sum by (" + by + ") (" + rate(metric+"_bucket") + "))"
	}
	job := fromMetrics("job", "Job", "label_values(balena_up, job)", "").several(".+")
	instance := fromMetrics("instance", "Instance", `label_values(balena_up{job=~"$job"}, instance)`, "").several(".+")
	return newDashboard(
		"balena-exporter", "balena / Exporter", "The exporter itself: the age of its data, requests to the balena API, and resource usage.",
		[]*Variable{datasourceVariable, job, instance},
		row{height: 4, panels: []*Panel{
			stat("Last scrape", "Whether the last scrape of each exporter succeeded.", "min(up"+running+")", "none").words("failed", "red", "succeeded", "green"),
			stat("Last refresh", "Whether the last refresh of each exporter succeeded.", "min(balena_up"+running+")", "none").words("failed", "red", "succeeded", "green"),
			stat("Age of the oldest data", "Age of the data of the exporter with the oldest data. Normally it is less than twice the refresh interval, which is 60 s by default.",
				"time() - min(balena_exporter_last_refresh_success_timestamp_seconds"+running+")", "s").thresholds(dataAge),
			stat("Fleets", "Fleets that the exporters read, including archived fleets.", "count(max by (fleet) (balena_fleet_devices"+running+"))", "short"),
			stat("Devices", "Devices of these fleets.", "sum(max by (fleet) (balena_fleet_devices"+running+"))", "short"),
			stat("Rate-limited requests", "Requests in the last hour with the response status 429.", "sum(increase(balena_api_rate_limited_total"+running+"[1h]))", "short").thresholds(noneIsGood),
			stat("Session token expires", "When the session token expires. A table below lists API keys.", "1000 * min(balena_api_token_expiry_timestamp_seconds"+running+")", "dateTimeFromNow"),
			name("Version", "Version of the exporter.", "max by (version) (balena_exporter_build_info"+running+")", "version"),
		}},
		row{title: "Refreshes", height: 8, panels: []*Panel{
			lines("Refreshes by result", "Refreshes per minute by result.", "opm", over("60 * sum by (result) ("+rate("balena_exporter_refreshes_total")+")", "{{result}}")).
				colors([]seriesColor{{"success", "green"}, {"error", "red"}}).fromZero(),
			lines("Refresh duration", "Duration of a refresh, including requests, decoding, rendering and compression.", "s",
				over(quantile("0.5", "balena_exporter_refresh_duration_seconds", "le"), "median"), over(quantile("0.95", "balena_exporter_refresh_duration_seconds", "le"), "95 %")).fromZero(),
			lines("Age of the data", "Time since the last successful refresh, for each exporter.", "s",
				over("time() - max by (instance) (balena_exporter_last_refresh_success_timestamp_seconds"+running+")", "{{instance}}")).fromZero(),
			table("Parts of the refresh", "Whether each part of the last refresh succeeded, and its duration. While a part fails, the exporter serves its last data until they are stale.", "Part", false,
				column{title: "Part", label: "part"},
				column{title: "Success", query: "min by (part) (balena_exporter_refresh_part_success" + running + ")", colors: steps("red", step{"green", 1}), width: 90},
				column{title: "Duration", query: "max by (part) (balena_exporter_refresh_part_duration_seconds" + running + ")", unit: "s", width: 110},
			),
		}},
		row{height: 8, panels: []*Panel{
			lines("Refreshes by kind", "Refreshes per minute by kind. A full refresh reads all data, an incremental refresh only changes since the previous refresh.", "opm",
				over("60 * sum by (kind) ("+rate("balena_exporter_refreshes_by_kind_total")+")", "{{kind}}")).fromZero(),
			lines("Devices read", "Devices per minute that were read, and devices that were added, removed or changed.", "short",
				over("60 * sum("+rate("balena_exporter_refresh_devices_read_total")+")", "read"), over("60 * sum("+rate("balena_exporter_refresh_devices_changed_total")+")", "changed")).fromZero(),
			lines("Age of the last full refresh", "Time since the last full refresh, for each exporter. Normally it does not exceed --balena.full-refresh-interval, 15 minutes by default.", "s",
				over("time() - max by (instance) (balena_exporter_last_full_refresh_timestamp_seconds"+running+")", "{{instance}}")).fromZero(),
			stat("Incremental refreshes", "Whether incremental refreshes are enabled. They are disabled if the API does not report changes reliably. The log has the reason.",
				"max(balena_exporter_incremental_refresh_disabled"+running+")", "none").words("enabled", "green", "disabled", "orange"),
		}},
		row{title: "balena API", height: 8, panels: []*Panel{
			lines("Requests by status code", "Requests per minute by HTTP status code. The code is error if there was no complete response.", "reqpm",
				over("60 * sum by (code) ("+rate("balena_api_requests_total")+")", "{{code}}")).fromZero(),
			lines("Requests by resource", "Requests per minute by resource of the API.", "reqpm", over("60 * sum by (resource) ("+rate("balena_api_requests_total")+")", "{{resource}}")).fromZero(),
			lines("Request duration (95th percentile)", "95th percentile of the duration of requests, including reading the response.", "s",
				over(quantile("0.95", "balena_api_request_duration_seconds", "resource, le"), "{{resource}}")).fromZero(),
			lines("Received bytes", "Size of responses per second, as transferred.", "Bps", over("sum by (resource) ("+rate("balena_api_response_bytes_total")+")", "{{resource}}")).fromZero(),
		}},
		row{height: 8, panels: []*Panel{
			lines("Failed requests", "Requests per minute without a successful response, by resource and HTTP status code.", "reqpm",
				over(`60 * sum by (resource, code) (rate(balena_api_requests_total`+runningWith(`code!~"2..|304"`)+interval+`))`, "{{resource}} {{code}}")).fromZero(),
			table("API keys", "Named API keys of the account that expire. The API does not report which key is in use.", "Expires", false,
				column{title: "Key", label: "key_name"},
				column{title: "Expires", query: "1000 * min by (key_name) (balena_api_key_expiry_timestamp_seconds" + running + ")", unit: "dateTimeFromNow", width: 160},
				column{title: "Days left", query: "floor((min by (key_name) (balena_api_key_expiry_timestamp_seconds" + running + ") - time()) / 86400)", unit: "short", colors: steps("red", step{"orange", 7}, step{"green", 30}), width: 110},
			),
		}},
		row{title: "Process", height: 8, panels: []*Panel{
			lines("CPU usage", "CPU usage in cores.", "short", over("sum by (instance) ("+rate("process_cpu_seconds_total")+")", "{{instance}}")).fromZero(),
			lines("Memory usage", "Resident memory. It is not exported with --web.disable-exporter-metrics.", "bytes", over("max by (instance) (process_resident_memory_bytes"+running+")", "{{instance}}")).fromZero(),
			lines("Goroutines", "Number of goroutines.", "short", over("max by (instance) (go_goroutines"+running+")", "{{instance}}")).fromZero(),
			lines("Scrape duration", "Duration of scrapes by Prometheus.", "s",
				over("max by (instance) (scrape_duration_seconds"+running+")", "{{instance}}")).fromZero(),
			lines("Samples per scrape", "Number of samples in a scrape.", "short", over("max by (instance) (scrape_samples_scraped"+running+")", "{{instance}}")).fromZero(),
		}},
	).annotate(firing(`fleet="",job=~"$job|"`, "job", "{{job}}"))
}
