// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"fmt"
	"testing"
	"time"

	"github.com/prometheus/common/model"
)

// The API is stopped, slowed down, rate-limited and restarted. The exporter keeps running and reports the failures, and the
// alerts fire and resolve.
func TestAPIFailures(t *testing.T) {
	t.Parallel() // it mostly waits
	s := begin(t, "failures", small)
	s.tokenSecret("balena-token", token)
	// The alerts are evaluated per job, so this exporter needs a job of its own.
	const name, job = "failing", "failing"
	s.install(name, map[string]any{
		"balena":         map[string]any{"timeout": "1s"},
		"serviceMonitor": map[string]any{"jobLabel": "app.kubernetes.io/instance"},
		"prometheusRule": map[string]any{"enabled": true, "thresholds": map[string]any{
			"apiFailingFor": "3s", "dataStaleSeconds": 10, "rateLimitedAnswers": 1,
		}},
	})
	pod := s.pod(name)
	s.scraped(name, 1)
	start := time.Now()
	s.eventually("the alerts are loaded", func() error { return s.rule("BalenaAPIFailing", s.namespace+"-") })

	failing := func(s *story, what string) {
		s.Helper()
		s.eventually(what+": balena_up is 0", func() error { return s.is(`sum(balena_up{$namespace})`, 0) })
	}
	recovered := func(s *story) {
		s.Helper()
		s.scraped(name, 1)
		for _, alert := range []string{"BalenaAPIFailing", "BalenaDataStale"} {
			s.eventually(alert+" resolves", func() error { return s.alert(alert, job, "") })
		}
		s.allScrapesSince(start, pod)
		s.undisturbed(name, pod)
	}

	s.part("stopped", func(s *story) {
		s.kubectl("scale", "deployment/api", "--replicas=0")
		failing(s, "stopped")
		s.eventually("an alert fires", func() error { return s.alert("BalenaAPIFailing", job, "firing") })
		s.eventually("old data go away", func() error {
			return s.is(`count(balena_fleet_devices_online{$namespace}) or vector(0)`, 0)
		})
		s.within(2*soon, "a second alert fires", func() error { return s.alert("BalenaDataStale", job, "firing") })
		s.undisturbed(name, pod)
		s.kubectl("scale", "deployment/api", "--replicas=1")
		s.kubectl("rollout", "status", "deployment/api", "--timeout=90s")
		recovered(s)
	})
	s.part("slowed", func(s *story) {
		s.control("faults", `[{"latency": "5s"}]`)
		failing(s, "slowed")
		s.eventually("an alert fires", func() error { return s.alert("BalenaAPIFailing", job, "firing") })
		s.control("faults", `[]`)
		recovered(s)
	})
	s.part("rate-limited", func(s *story) {
		s.control("faults", `[{"status": 429, "retry_after": "2s"}]`)
		failing(s, "rate-limited")
		// It fires after five minutes, whatever the values of the chart are.
		s.eventually("an alert is pending", func() error { return s.alert("BalenaAPIRateLimited", job, "pending") })
		s.control("faults", `[]`)
		recovered(s)
	})
	s.part("restarted", func(s *story) {
		s.kubectl("rollout", "restart", "deployment/api")
		s.kubectl("rollout", "status", "deployment/api", "--timeout=90s")
		recovered(s)
	})
}

// alert returns an error unless the alert of a job, by the rules of the story, is in a state; the state "" means that there is
// no alert.
func (s *story) alert(name, job, state string) error {
	answer, err := prometheus.Alerts(s.Context())
	if err != nil {
		return err
	}
	got := ""
	for _, alert := range answer.Alerts {
		if alert.Labels["alertname"] == model.LabelValue(name) && alert.Labels["job"] == model.LabelValue(job) && alert.Labels["story"] == model.LabelValue(s.namespace) {
			got = string(alert.State)
		}
	}
	if got != state {
		return fmt.Errorf("%s of %s is %q, not %q", name, job, got, state)
	}
	return nil
}
