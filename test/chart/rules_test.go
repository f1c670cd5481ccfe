package chart

import (
	"strings"
	"testing"
)

// An alert that is left out takes its condition along, which others count, too.
func TestDisabledAlertLeavesNothing(t *testing.T) {
	const alert = "BalenaDeviceOverheating"
	rules := func(values string) string { return mustRenderFiles(t, minimal+values)["prometheusrule.yaml"] }
	if text := rules("prometheusRule: {enabled: true}"); !strings.Contains(text, alert) {
		t.Errorf("there is no %s at all", alert)
	}
	if text := rules("prometheusRule: {enabled: true, disabled: [" + alert + "]}"); strings.Contains(text, alert) {
		t.Errorf("%s is disabled and still there:\n%s", alert, text)
	}
}

func TestThresholdsInRules(t *testing.T) {
	text := mustRenderFiles(t, minimal+`
prometheusRule:
  enabled: true
  thresholds: {deviceLostSeconds: 2592000, rolloutSeconds: 1209600, storageRatio: 0.85, developmentFleets: acme/(lab|.*-dev)}
`)["prometheusrule.yaml"]
	// As they are given: 2.592e+06 is no value of a label, and 1.2096e+06s no duration.
	for _, want := range []string{`{seconds="2592000"}`, `[1209600s]`, `> 0.85`, `fleet!~"acme/(lab|.*-dev)"`} {
		if !strings.Contains(text, want) {
			t.Errorf("no rule has %s", want)
		}
	}
}

func TestThresholdsThatCannotBe(t *testing.T) {
	for _, threshold := range []string{`developmentFleets: 'a"b'`, `developmentFleets: 'a\.b'`, `deviceLostSeconds: 1.5`, `storageRatio: 90`, `apiFailingFor: soon`} {
		if _, err := renderFiles(loadChart(t), minimal+"prometheusRule: {enabled: true, thresholds: {"+threshold+"}}", releaseOptions); err == nil {
			t.Errorf("%s is let through", threshold)
		}
	}
}
