// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"time"

	"github.com/prometheus/client_golang/api"
	promv1 "github.com/prometheus/client_golang/api/prometheus/v1"
	"github.com/prometheus/common/model"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/kubectl/pkg/util/podutils"
)

// release is the value of the label release by which Prometheus selects monitors and rules, as in kube-prometheus-stack.
const release = "monitoring"

// A ScrapeConfig has Prometheus read the list of devices from this host in the story of service discovery. There is no DNS in the
// cluster: Prometheus has the host name and the address in its hosts file.
const (
	discoveredHost = "balena-exporter.discovery.svc"
	discoveredIP   = "10.96.0.9"
)

// monitoring makes the Prometheus Operator create a Prometheus server. The short probe interval saves ten seconds, evaluating
// rules every second saves minutes. The operator requires the version, which is that in go.mod.
const monitoring = `
apiVersion: v1
kind: Namespace
metadata: {name: monitoring}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: prometheus, namespace: monitoring}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: prometheus}
rules:
- {apiGroups: [""], resources: [nodes, services, endpoints, pods], verbs: [get, list, watch]}
- {apiGroups: [discovery.k8s.io], resources: [endpointslices], verbs: [get, list, watch]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: prometheus}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: prometheus}
subjects: [{kind: ServiceAccount, name: prometheus, namespace: monitoring}]
---
apiVersion: monitoring.coreos.com/v1
kind: Prometheus
metadata: {name: e2e, namespace: monitoring}
spec:
  replicas: 1
  serviceAccountName: prometheus
  serviceDiscoveryRole: EndpointSlice
  serviceMonitorSelector: {matchLabels: {release: ` + release + `}}
  serviceMonitorNamespaceSelector: {}
  scrapeConfigSelector: {matchLabels: {release: ` + release + `}}
  scrapeConfigNamespaceSelector: {}
  ruleSelector: {matchLabels: {release: ` + release + `}}
  ruleNamespaceSelector: {}
  evaluationInterval: 1s
  hostAliases: [{ip: ` + discoveredIP + `, hostnames: [` + discoveredHost + `]}]
  image: localhost/prometheus:1
  version: v3.15.0
  containers:
  - name: prometheus
    startupProbe: {periodSeconds: 1, failureThreshold: 120}
    readinessProbe: {periodSeconds: 1, failureThreshold: 10}
`

// A Prometheus is a Prometheus server in the cluster.
type Prometheus struct {
	promv1.API
	address string
}

// newPrometheus returns the Prometheus server in a pod.
func newPrometheus(pod *corev1.Pod) (*Prometheus, error) {
	address := "http://" + pod.Status.PodIP + ":9090"
	client, err := api.NewClient(api.Config{Address: address, Client: &http.Client{Timeout: 30 * time.Second}})
	return &Prometheus{promv1.NewAPI(client), address}, err
}

// Monitor installs the Prometheus Operator with its original manifests, and makes it create a Prometheus server.
func (c *Cluster) Monitor(ctx context.Context) (*Prometheus, error) {
	bundle := filepath.Join(c.programs, "bundle.yaml")
	if err := c.kubectl(ctx, "", "apply", "--server-side", "-f", bundle); err != nil {
		return nil, err
	}
	if err := c.kubectl(ctx, "", "wait", "--for=condition=Established", "--timeout=60s", "crd/prometheuses.monitoring.coreos.com",
		"crd/servicemonitors.monitoring.coreos.com", "crd/prometheusrules.monitoring.coreos.com", "crd/scrapeconfigs.monitoring.coreos.com"); err != nil {
		return nil, err
	}
	if err := c.kubectl(ctx, monitoring, "apply", "-f", "-"); err != nil {
		return nil, err
	}
	var p *Prometheus
	err := until(ctx, "Prometheus", nil, func() error {
		var pod corev1.Pod
		if err := c.Get(ctx, "/api/v1/namespaces/monitoring/pods/prometheus-e2e-0", &pod); err != nil {
			return err
		}
		if !podutils.IsPodReady(&pod) {
			return fmt.Errorf("its pod is not ready: %+v", pod.Status)
		}
		var err error
		if p, err = newPrometheus(&pod); err == nil {
			_, err = p.Query(ctx, "vector(1)")
		}
		return err
	})
	return p, err
}

func (c *Cluster) kubectl(ctx context.Context, input string, arguments ...string) error {
	command, err := c.Command(ctx, "default", "kubectl", arguments...)
	if err != nil {
		return err
	}
	command.Stdin = strings.NewReader(input)
	if output, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("kubectl %s: %w: %s", strings.Join(arguments, " "), err, output)
	}
	return nil
}

// Query evaluates an expression at the current time.
func (p *Prometheus) Query(ctx context.Context, expression string) (model.Vector, error) {
	value, _, err := p.API.Query(ctx, expression, time.Now())
	if err != nil {
		return nil, fmt.Errorf("%s: %w", expression, err)
	}
	vector, ok := value.(model.Vector)
	if !ok {
		return nil, fmt.Errorf("%s is a %s", expression, value.Type())
	}
	return vector, nil
}

// restarts returns how often the containers of a pod were restarted.
func restarts(pod corev1.Pod) int {
	n := 0
	for _, status := range pod.Status.ContainerStatuses {
		n += int(status.RestartCount)
	}
	return n
}
