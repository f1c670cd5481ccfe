// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"strings"
	"testing"
)

// The chart with its defaults runs under strict policies, with monitors in another namespace, and without any permissions.
func TestRestrictedNamespace(t *testing.T) {
	s := begin(t, "restricted", small)
	if output, err := s.try(`
apiVersion: v1
kind: Pod
metadata: {name: bold}
spec: {hostNetwork: true, containers: [{name: bold, image: "localhost/pause:1"}]}
`, "kubectl", "apply", "-f", "-"); err == nil || !strings.Contains(output, "violates PodSecurity") {
		t.Fatalf("the namespace is not restricted, so this story would prove nothing: %v\n%s", err, output)
	}

	s.tokenSecret("balena-token", token)
	s.kubectl("create", "namespace", "monitors")
	t.Cleanup(func() { s.kubectl("delete", "namespace", "monitors", "--wait=false") })
	s.install("balena-exporter", map[string]any{"serviceMonitor": map[string]any{"namespace": "monitors"}})
	s.scraped("balena-exporter", 1)
	if monitors := s.kubectl("get", "servicemonitors", "--namespace=monitors", "--output=name"); monitors != "servicemonitor.monitoring.coreos.com/balena-exporter\n" {
		t.Errorf("monitors in the namespace for them: %q", monitors)
	}

	s.part("the service account has no rights", func(s *story) {
		account := "system:serviceaccount:" + s.namespace
		if output, err := s.try("", "kubectl", "auth", "can-i", "*", "*", "--as="+account+":balena-exporter"); err == nil || strings.TrimSpace(output) != "no" {
			s.Errorf("may it do everything? %s", output)
		}
		// Every identity may read about itself and about the API server. The permissions must equal those of an unknown service
		// account.
		rights := s.kubectl("auth", "can-i", "--list", "--as="+account+":balena-exporter")
		none := s.kubectl("auth", "can-i", "--list", "--as="+account+":nobody")
		if rights != none || !strings.Contains(rights, "selfsubjectaccessreviews") {
			s.Errorf("it has the rights\n%sand one without any has\n%s", rights, none)
		}
	})
	s.part("the pod has no token of it", func(s *story) {
		manifest := s.kubectl("get", "pod", s.pod("balena-exporter").Name, "--output=yaml")
		if !strings.Contains(manifest, "serviceAccountName: balena-exporter\n") {
			s.Errorf("the pod does not run as the chart's service account:\n%s", manifest)
		}
		if strings.Contains(manifest, "serviceAccountToken") || strings.Contains(manifest, "/var/run/secrets") {
			s.Errorf("a token is mounted:\n%s", manifest)
		}
	})
}
