module github.com/balena-exporter/balena-exporter/test/grafana

go 1.26.0

replace github.com/balena-exporter/balena-exporter => ../..

require (
	github.com/balena-exporter/balena-exporter v0.0.0-00010101000000-000000000000
	github.com/grafana/grafana-foundation-sdk/go v0.0.22
)
