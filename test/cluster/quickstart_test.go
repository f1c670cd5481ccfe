// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"strings"
	"testing"
)

// The commands of the chart's README are run literally, except for what depends on the reader: the token, the namespace, the
// location of the chart, the URL of the API, and the label by which the Prometheus Operator finds the release.
func TestQuickStart(t *testing.T) {
	s := begin(t, "quick-start", small)
	const readme = "charts/balena-exporter/README.md"
	adapted := strings.NewReplacer(
		"YOUR_API_KEY", token,
		"kubectl create namespace balena-exporter\n", "", " --namespace balena-exporter", "", // the story already has a namespace
		"oci://ghcr.io/balena-exporter/charts/balena-exporter", chart+" --wait --values "+s.values()+" --set serviceMonitor.enabled=true --set serviceMonitor.labels.release="+release,
		"curl --silent", "curl --silent --retry 60 --retry-delay 1 --retry-connrefused", // a reader would wait longer
	)
	run := func(commands string) string {
		t.Helper()
		output, err := s.try("", "bash", "-euo", "pipefail", "-c", "trap 'kill $(jobs -p) 2>/dev/null || true' EXIT\n"+adapted.Replace(commands))
		if err != nil {
			t.Fatalf("%v\n%s\n%s", err, commands, output)
		}
		return output
	}

	run(block(s, readme, "## Install", 0))
	pod := s.pod("balena-exporter")
	s.scraped("balena-exporter", 1)
	if output := run(block(s, readme, "## Install", 1)); !strings.Contains(output, "\nbalena_up 1\n") {
		t.Errorf("the commands to see that it works print no balena_up 1:\n%s", output)
	}
	s.undisturbed("balena-exporter", pod)
}
