// SPDX-License-Identifier: Apache-2.0

package chart

import (
	"crypto/md5" // the hash that Prometheus uses for sharding
	"encoding/binary"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	monitoringv1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
)

// Each part is a separate endpoint, with the parameter, a label that distinguishes its target, and a hash that distributes the
// parts among the shards of the Prometheus Operator.
func TestServiceMonitorParts(t *testing.T) {
	monitor := func(more string) string {
		return minimal + "serviceMonitor: {enabled: true, interval: 30s, relabelings: [{action: labeldrop, regex: pod}]" + more + "}\n"
	}
	whole := get[*monitoringv1.ServiceMonitor](t, render(t, monitor(""))).Spec.Endpoints
	if len(whole) != 1 || whole[0].Params != nil {
		t.Fatalf("without parts there are the endpoints %+v", whole)
	}
	for _, parts := range []int{1, 2, 8, 64} {
		m := render(t, monitor(fmt.Sprintf(", parts: %d", parts)))
		endpoints := get[*monitoringv1.ServiceMonitor](t, m).Spec.Endpoints
		if len(endpoints) != parts {
			t.Fatalf("%d endpoints for %d parts", len(endpoints), parts)
		}
		if parts == 1 {
			if diff := cmp.Diff(whole, endpoints); diff != "" {
				t.Errorf("one part is not the whole:\n%s", diff)
			}
			continue
		}
		wantArgs(t, m, fmt.Sprintf("--web.parts=%d", parts))
		for part, endpoint := range endpoints {
			name := fmt.Sprintf("%d/%d", part, parts)
			if diff := cmp.Diff(map[string][]string{"part": {name}}, endpoint.Params); diff != "" {
				t.Error(diff)
			}
			labels := map[string]string{}
			for _, r := range endpoint.RelabelConfigs {
				if r.Replacement != nil {
					labels[r.TargetLabel] = *r.Replacement
				}
			}
			if labels["metrics_part"] != name || labels["account"] == "" {
				t.Errorf("part %s has the labels %v", name, labels)
			}
			for shards := uint64(1); shards <= 8; shards++ {
				hash := md5.Sum([]byte(labels["__tmp_hash"]))
				if shard := binary.BigEndian.Uint64(hash[8:]) % shards; shard != uint64(part)%shards {
					t.Errorf("of %d shards, part %s goes to shard %d", shards, name, shard)
				}
			}
			endpoint.Params, endpoint.RelabelConfigs = nil, whole[0].RelabelConfigs
			if diff := cmp.Diff(whole[0], endpoint); diff != "" {
				t.Errorf("part %s has another endpoint:\n%s", name, diff)
			}
			if last := endpoints[part].RelabelConfigs[len(endpoints[part].RelabelConfigs)-1]; !strings.EqualFold(last.Action, "labeldrop") {
				t.Errorf("the relabelings of part %s are not the last ones", name)
			}
		}
	}
}
