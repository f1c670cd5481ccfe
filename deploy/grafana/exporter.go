package grafana

// running selects the exporters that are chosen.
const running = `{job=~"$job",instance=~"$instance"}`

// runningWith selects those of their series that have a certain label, too.
func runningWith(matcher string) string { return `{job=~"$job",instance=~"$instance",` + matcher + `}` }

func exporterDashboard() *Dashboard {
	const interval = "[$__rate_interval]"
	rate := func(metric string) string { return "rate(" + metric + running + interval + ")" }
	quantile := func(q, metric, by string) string {
		return "histogram_quantile(" + q + ", sum by (" + by + ") (" + rate(metric+"_bucket") + "))"
	}
	instance := fromMetrics("instance", "Instance", `label_values(balena_up{job=~"$job"}, instance)`).several()
	return newDashboard(
		"balena-exporter", "balena / Exporter", "The exporter itself: whether its data are fresh, how the balena API answers it, and what it uses.",
		[]*Variable{datasourceVariable(), fromMetrics("job", "Job", "label_values(balena_up, job)").several(), instance},
		row{height: 4, panels: []*Panel{
			stat("Scraped", "Whether Prometheus can scrape the exporter.", "min(up"+running+")", "none").words("fails", "red", "works", "green"),
			stat("Last refresh", "Whether the last refresh of the data succeeded.", "min(balena_up"+running+")", "none").words("failed", "red", "succeeded", "green"),
			stat("Age of the data", "Time since the data were fetched from the API. It should stay below two minutes with the default interval of 60 s.",
				"time() - min(balena_exporter_last_refresh_success_timestamp_seconds"+running+")", "s").thresholds("green", step{"orange", 120}, step{"red", 300}),
			stat("Fleets", "Fleets that the token may see.", "count(max by (fleet) (balena_fleet_devices"+running+"))", "short"),
			stat("Devices", "Devices of these fleets.", "sum(max by (fleet) (balena_fleet_devices"+running+"))", "short"),
			stat("Rate limited", "How often the API said 429 in the last hour.", "sum(increase(balena_api_rate_limited_total"+running+"[1h]))", "short").thresholds("green", step{"orange", 1}),
			stat("Session token expires", "Only for session tokens; API keys are listed below.", "1000 * min(balena_api_token_expiry_timestamp_seconds"+running+")", "dateTimeFromNow"),
			name("Version", "Version of the exporter.", "max by (version) (balena_exporter_build_info"+running+")", "version"),
		}},
		row{title: "Refreshes", height: 8, panels: []*Panel{
			lines("Refreshes", "Refreshes per minute by result.", "opm", over("60 * sum by (result) ("+rate("balena_exporter_refreshes_total")+")", "{{result}}")).
				colors([]seriesColor{{"success", "green"}, {"error", "red"}}).fromZero(),
			lines("Duration of refreshes", "The whole of it: asking the API, decoding, rendering and compressing.", "s",
				over(quantile("0.5", "balena_exporter_refresh_duration_seconds", "le"), "median"), over(quantile("0.95", "balena_exporter_refresh_duration_seconds", "le"), "95 %")).fromZero(),
			lines("Age of the data", "It rises from refresh to refresh and falls back with each that succeeds.", "s",
				over("time() - max by (instance) (balena_exporter_last_refresh_success_timestamp_seconds"+running+")", "{{instance}}")).fromZero(),
			table("Optional collectors", "Whether each read its data in the last refresh, and how long it took. The last data stand in until they are too old.", "Collector", false, []column{
				{field: "collector", title: "Collector"},
				{field: value("A"), title: "Success", colors: []step{{color: "red"}, {"green", 1}}, width: 90},
				{field: value("B"), title: "Duration", unit: "s", width: 110},
			},
				rowsOf("min by (collector) (balena_exporter_collector_success"+running+")"),
				rowsOf("max by (collector) (balena_exporter_collector_duration_seconds"+running+")")),
		}},
		row{height: 8, panels: []*Panel{
			lines("Kinds of refreshes", "Refreshes per minute: full ones read everything, the others only what had changed since the one before.", "opm",
				over("60 * sum by (kind) ("+rate("balena_exporter_refreshes_by_kind_total")+")", "{{kind}}")).fromZero(),
			lines("Devices read", "Devices read per minute, and how many devices came, went or had changed.", "short",
				over("60 * sum("+rate("balena_exporter_refresh_devices_read_total")+")", "read"), over("60 * sum("+rate("balena_exporter_refresh_devices_changed_total")+")", "changed")).fromZero(),
			lines("Age of the last full sweep", "Time since everything was read. It should grow little beyond --balena.full-sweep-interval, 15 minutes by default.", "s",
				over("time() - max by (instance) (balena_exporter_last_full_sweep_timestamp_seconds"+running+")", "{{instance}}")).fromZero(),
			stat("Asking for changes", "Whether the API can be trusted with what changed. If not, everything is read each time; the log says why.",
				"max(balena_exporter_changes_distrusted"+running+")", "none").words("trusted", "green", "distrusted", "orange"),
		}},
		row{title: "balena API", height: 8, panels: []*Panel{
			lines("Requests", "Requests per minute by HTTP status; error stands for no complete answer.", "reqpm",
				over("60 * sum by (code) ("+rate("balena_api_requests_total")+")", "{{code}}")).fromZero(),
			lines("Requests by resource", "What is asked for.", "reqpm", over("60 * sum by (resource) ("+rate("balena_api_requests_total")+")", "{{resource}}")).fromZero(),
			lines("Duration of requests", "95 % of the requests take no longer, the reading of the answer included.", "s",
				over(quantile("0.95", "balena_api_request_duration_seconds", "resource, le"), "{{resource}}")).fromZero(),
			lines("Traffic", "Bytes of answers as they were transferred, compressed mostly.", "Bps", over("sum by (resource) ("+rate("balena_api_response_bytes_total")+")", "{{resource}}")).fromZero(),
		}},
		row{height: 8, panels: []*Panel{
			lines("Failed requests", "Requests per minute that the API refused, failed or did not answer.", "reqpm",
				over(`60 * sum by (resource, code) (rate(balena_api_requests_total`+runningWith(`code!~"2..|304"`)+interval+`))`, "{{resource}} {{code}}")).fromZero(),
			table("API keys", "The caller's named keys that expire. The API does not tell which of them is in use.", "Expires", false, []column{
				{field: "key_name", title: "Key"},
				{field: value("A"), title: "Expires", unit: "dateTimeFromNow", width: 160},
				{field: value("B"), title: "Days left", unit: "short", colors: []step{{color: "red"}, {"orange", 7}, {"green", 30}}, width: 110},
			},
				rowsOf("1000 * min by (key_name) (balena_api_key_expiry_timestamp_seconds"+running+")"),
				rowsOf("floor((min by (key_name) (balena_api_key_expiry_timestamp_seconds"+running+") - time()) / 86400)")),
		}},
		row{title: "Process", height: 8, panels: []*Panel{
			lines("CPU", "Cores in use.", "short", over("sum by (instance) ("+rate("process_cpu_seconds_total")+")", "{{instance}}")).fromZero(),
			lines("Memory", "Resident memory. Missing, like the other panels of this row, with --web.disable-exporter-metrics.", "bytes", over("max by (instance) (process_resident_memory_bytes"+running+")", "{{instance}}")).fromZero(),
			lines("Goroutines", "A number that keeps rising is a leak.", "short", over("max by (instance) (go_goroutines"+running+")", "{{instance}}")).fromZero(),
			lines("Scrapes", "How long scrapes by Prometheus take.", "s",
				over("max by (instance) (scrape_duration_seconds"+running+")", "{{instance}}")).fromZero(),
			lines("Samples", "Samples in a scrape.", "short", over("max by (instance) (scrape_samples_scraped"+running+")", "{{instance}}")).fromZero(),
		}},
	)
}
