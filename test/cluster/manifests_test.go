// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	promv1 "github.com/prometheus/client_golang/api/prometheus/v1"
)

// The plain manifests work like the chart. The test changes only the URL of the API and the intervals.
func TestPlainManifests(t *testing.T) {
	s := begin(t, "balena-exporter", small) // the namespace in the manifests
	path := s.file("kustomization.yaml", nil)
	manifests, err := filepath.Abs(project + "/deploy/prometheus-operator")
	if err != nil {
		t.Fatal(err)
	}
	relative, err := filepath.Rel(filepath.Dir(path), manifests)
	if err != nil {
		t.Fatal(err)
	}
	overlay := fmt.Sprintf(`
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
resources: [%s]
labels: [{pairs: {release: %s}}]
patches:
- target: {kind: ServiceMonitor}
  patch: '[{"op": "replace", "path": "/spec/endpoints/0/interval", "value": "2s"}]'
- target: {kind: Deployment}
  patch: |
    - {op: test, path: /spec/template/spec/containers/0/args/1, value: "--balena.api-url=https://api.balena-cloud.com"}
    - {op: replace, path: /spec/template/spec/containers/0/args/1, value: "--balena.api-url=%s"}
    - {op: test, path: /spec/template/spec/containers/0/args/2, value: --balena.refresh-interval=60s}
    - {op: replace, path: /spec/template/spec/containers/0/args/2, value: --balena.refresh-interval=1s}
    - {op: add, path: /spec/template/spec/containers/0/args/-, value: --balena.ca-file=/etc/balena-exporter/ca/ca.crt}
    - {op: add, path: /spec/template/spec/containers/0/volumeMounts/-, value: {name: ca, mountPath: /etc/balena-exporter/ca}}
    - {op: add, path: /spec/template/spec/volumes/-, value: {name: ca, configMap: {name: company-ca}}}
    - {op: add, path: /spec/template/spec/hostAliases, value: [{ip: %s, hostnames: [%s]}]}
`, relative, release, s.apiURL, s.apiIP, apiHost)
	if err := os.WriteFile(path, []byte(overlay), 0o600); err != nil {
		t.Fatal(err)
	}
	s.kubectl("apply", "-k", filepath.Dir(path))
	s.kubectl("create", "secret", "generic", "balena-token", "--from-literal=token="+token)
	s.kubectl("rollout", "status", "deployment/balena-exporter", "--timeout=90s")
	s.scraped("balena-exporter", 1)
	s.eventually("the alerts are loaded", func() error {
		return s.rule("BalenaAPIFailing", "balena-exporter-balena-exporter-")
	})
}

// rule returns an error unless Prometheus has the rule, from a file whose name contains a text.
func (s *story) rule(name, file string) error {
	answer, err := prometheus.Rules(s.Context(), nil)
	if err != nil {
		return err
	}
	err = fmt.Errorf("there is no healthy %s of %s", name, file)
	for _, group := range answer.Groups {
		for _, rule := range group.Rules {
			rule, ok := rule.(promv1.AlertingRule)
			switch {
			case !ok || rule.Name != name:
			case strings.Contains(group.File, file) && rule.Health == promv1.RuleHealthGood:
				return nil
			default:
				err = errors.Join(err, fmt.Errorf("%s: health %s, error %q", group.File, rule.Health, rule.LastError))
			}
		}
	}
	return err
}

// Two accounts are two releases, distinguished by the label account. An alert names the account whose token is refused.
func TestTwoReleases(t *testing.T) {
	s := begin(t, "accounts", small)
	const acme, other = "token-of-acme", "token-of-another"
	s.token = acme
	s.control("tokens", fmt.Sprintf("[%q, %q]", acme, other))
	for name, token := range map[string]string{"balena-acme": acme, "balena-other": other} {
		s.tokenSecret(name, token)
		s.install(name, map[string]any{
			"balena":           map[string]any{"existingSecret": name},
			"prometheusRule":   map[string]any{"enabled": name == "balena-acme", "thresholds": map[string]any{"apiFailingFor": "5s"}},
			"fullnameOverride": name,
		})
	}
	s.scraped("balena-acme", 1)
	s.scraped("balena-other", 1)

	s.control("tokens", fmt.Sprintf("[%q]", acme))
	s.eventually("the other one is refused", func() error {
		return s.are("account", `balena_up{$namespace}`, map[string]float64{"accounts/balena-acme": 1, "accounts/balena-other": 0})
	})
	s.eventually("an alert names it, and not the other", func() error {
		return errors.Join(
			s.is(`count(ALERTS{alertname="BalenaAPIFailing", account="accounts/balena-other", alertstate=~"pending|firing"}) > bool 0`, 1),
			s.is(`count(ALERTS{alertname=~"BalenaAPIFailing|BalenaDataStale|BalenaExporterDown|BalenaNoFleets", account="accounts/balena-acme"}) or vector(0)`, 0),
		)
	})
	s.scraped("balena-acme", 1)
}

// Three pods divide the devices. The sum of their metrics equals the metrics of a single pod.
func TestShards(t *testing.T) {
	s := begin(t, "shards", account{Devices: 300, Fleets: 5})
	s.tokenSecret("balena-token", token)
	s.install("balena-exporter", map[string]any{"shards": 3, "podDisruptionBudget": map[string]any{"enabled": true}})
	s.scraped("balena-exporter", 3)
	s.eventually("each device is in one shard, and each shard has some", func() error {
		return errors.Join(
			s.is(`count(balena_device_info{$namespace})`, 300),
			s.is(`count(count by (uuid) (balena_device_info{$namespace}))`, 300),
			s.is(`count(count by (shard) (balena_device_info{$namespace}) > 50)`, 3),
			s.is(`count(balena_up{$namespace, account="shards/balena-exporter", shard=~"[012]"})`, 3),
		)
	})
}
