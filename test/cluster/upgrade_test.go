// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"k8s.io/kubectl/pkg/util/podutils"
)

// A release is upgraded with the same values and with other values, rolled back, and uninstalled.
func TestUpgradeAndRollback(t *testing.T) {
	s := begin(t, "upgrades", small)
	s.tokenSecret("balena-token", token)
	before := s.objects()
	everything := map[string]any{
		"prometheusRule": map[string]any{"enabled": true},
		"dashboards":     map[string]any{"enabled": true},
		"webConfig":      map[string]any{"basicAuth": map[string]any{"enabled": true, "users": map[string]string{"prometheus": "$2a$04$" + strings.Repeat("a", 53)}}},
		"serviceMonitor": map[string]any{"basicAuth": map[string]any{"existingSecret": "prometheus-credentials"}},
	}
	s.secret("prometheus-credentials", map[string]string{"username": "prometheus", "password": "unknown"})
	before["Secret/prometheus-credentials"] = ""
	s.install("balena-exporter", everything)
	pod := s.pod("balena-exporter")

	s.part("with the same values nothing changes", func(s *story) {
		installed := s.objects()
		if _, ok := installed["PrometheusRule/balena-exporter"]; !ok || len(installed) < len(before)+6 {
			s.Fatalf("too few objects are installed for this test: %v", slices.Sorted(maps.Keys(installed)))
		}
		s.install("balena-exporter", everything)
		if diff := difference(installed, s.objects()); diff != "" {
			s.Errorf("objects are not what they were: %s", diff)
		}
		s.undisturbed("balena-exporter", pod)
	})
	s.part("a change that does not concern the pod does not restart it", func(s *story) {
		s.install("balena-exporter", everything, map[string]any{
			"serviceMonitor": map[string]any{"interval": "2s"},
			"prometheusRule": map[string]any{"thresholds": map[string]any{"apiFailingFor": "1m"}},
			"dashboards":     map[string]any{"enabled": false},
		})
		s.undisturbed("balena-exporter", pod)
	})

	first := s.arguments()
	s.part("with other values it does what they say", func(s *story) {
		s.install("balena-exporter", map[string]any{"collectors": map[string]any{"device": false}})
		s.scraped("balena-exporter", 1)
		if now := s.arguments(); slices.Equal(now, first) || !slices.Contains(now, "--no-collector.device") {
			s.Errorf("the exporter runs with %q", now)
		}
		if err := s.is(fmt.Sprintf(`count(balena_device_online{$namespace, pod=%q}) or vector(0)`, s.pod("balena-exporter").Name), 0); err != nil {
			s.Error(err)
		}
	})
	s.part("rolled back, it works as before", func(s *story) {
		s.helm("rollback", "balena-exporter", "--wait", "--timeout=90s")
		s.eventually("the pod is as it was", func() error {
			pods, err := s.pods("balena-exporter")
			if err != nil || len(pods) != 1 || !podutils.IsPodReady(&pods[0]) {
				return fmt.Errorf("there is not yet one pod ready: %w", err)
			}
			if now := s.arguments(); !slices.Equal(now, first) {
				return fmt.Errorf("it runs with %q, not %q", now, first)
			}
			return nil
		})
	})
	s.part("uninstalled, it leaves nothing behind", func(s *story) {
		s.helm("uninstall", "balena-exporter", "--wait")
		s.eventually("all is as before", func() error {
			for name := range s.objects() {
				if _, ok := before[name]; !ok {
					return fmt.Errorf("%s is left", name)
				}
			}
			return nil
		})
		if history, err := s.try("", "helm", "history", "balena-exporter"); err == nil {
			s.Errorf("Helm still knows it:\n%s", history)
		}
	})
}

// objects returns all objects of the namespace with their versions, except Helm's records and short-lived objects.
func (s *story) objects() map[string]string {
	s.Helper()
	kinds := strings.Fields(s.kubectl("api-resources", "--namespaced", "--verbs=list", "--output=name"))
	kinds = slices.DeleteFunc(kinds, func(kind string) bool {
		return strings.HasPrefix(kind, "events") || strings.HasSuffix(kind, "metrics.k8s.io") || kind == "endpoints"
	})
	var list struct {
		Items []struct {
			Kind     string
			Type     string
			Metadata struct {
				Name, ResourceVersion string
			}
		}
	}
	// Skip warnings about deprecated kinds, which kubectl prints too.
	output := s.kubectl("get", strings.Join(kinds, ","), "--output=json")
	if err := json.Unmarshal([]byte(output[max(strings.Index(output, "{"), 0):]), &list); err != nil {
		s.Fatal(errors.Join(err, errors.New(output)))
	}
	versions := make(map[string]string)
	for _, item := range list.Items {
		if item.Type != "helm.sh/release.v1" {
			name := item.Kind + "/" + item.Metadata.Name
			versions[name] = item.Metadata.ResourceVersion
			if strings.HasPrefix(name, "Pod/api-") {
				// The simulated API exists before the release. The kubelet may update the status of its pod at any time, so
				// compare only the identity of the pod.
				versions[name] = ""
			}
		}
	}
	return versions
}

// difference names the objects that differ.
func difference(a, b map[string]string) string {
	var names []string
	for name := range a {
		if a[name] != b[name] {
			names = append(names, name)
		}
	}
	for name := range b {
		if _, ok := a[name]; !ok {
			names = append(names, name)
		}
	}
	return strings.Join(names, ", ")
}

// arguments returns the arguments of the exporter in the release balena-exporter.
func (s *story) arguments() []string {
	s.Helper()
	var deployment struct {
		Spec struct {
			Template struct {
				Spec struct{ Containers []struct{ Args []string } }
			}
		}
	}
	s.get("/apis/apps/v1/namespaces/"+s.namespace+"/deployments/balena-exporter", &deployment)
	return deployment.Spec.Template.Spec.Containers[0].Args
}
