module github.com/balena-exporter/balena-exporter/test/tools/sbom

go 1.26.0

tool github.com/balena-exporter/balena-exporter/test/tools/sbom

require github.com/spdx/tools-golang v0.5.7

require github.com/anchore/go-struct-converter v0.1.0 // indirect
