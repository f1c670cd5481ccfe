// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"
	"time"
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
	cluster *Cluster
	address string
	client  http.Client
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
	p := &Prometheus{cluster: c, client: http.Client{Timeout: 30 * time.Second}}
	return p, until(ctx, "Prometheus", nil, func() error {
		var pod Pod
		if err := c.Get(ctx, "/api/v1/namespaces/monitoring/pods/prometheus-e2e-0", &pod); err != nil {
			return err
		}
		if !pod.Ready() {
			return fmt.Errorf("its pod is not ready: %+v", pod.Status)
		}
		p.address = "http://" + pod.Status.PodIP + ":9090"
		_, err := p.Query(ctx, "vector(1)")
		return err
	})
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

// A Sample is a series and its value at the time of a query.
type Sample struct {
	Labels map[string]string
	Value  float64
}

// Query evaluates an expression at the current time.
func (p *Prometheus) Query(ctx context.Context, expression string) ([]Sample, error) {
	var data struct {
		Result []struct {
			Metric map[string]string
			Value  [2]any
		}
	}
	if err := p.Get(ctx, "/api/v1/query?query="+url.QueryEscape(expression), &data); err != nil {
		return nil, fmt.Errorf("%s: %w", expression, err)
	}
	samples := make([]Sample, 0, len(data.Result))
	for _, result := range data.Result {
		value, err := strconv.ParseFloat(fmt.Sprint(result.Value[1]), 64)
		if err != nil {
			return nil, err
		}
		samples = append(samples, Sample{result.Metric, value})
	}
	return samples, nil
}

// An Alert is a pending or firing alert.
type Alert struct {
	Labels map[string]string
	State  string
}

// Alerts returns all alerts.
func (p *Prometheus) Alerts(ctx context.Context) ([]Alert, error) {
	var data struct{ Alerts []Alert }
	err := p.Get(ctx, "/api/v1/alerts", &data)
	return data.Alerts, err
}

// Get decodes the data in the answer of Prometheus at a path.
func (p *Prometheus) Get(ctx context.Context, path string, into any) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, p.address+path, nil)
	if err != nil {
		return err
	}
	response, err := p.client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	answer := struct {
		Status, Error string
		Data          any
	}{Data: into}
	if err := json.NewDecoder(response.Body).Decode(&answer); err != nil {
		return fmt.Errorf("%s: %w", response.Status, err)
	}
	if answer.Status != "success" {
		return fmt.Errorf("%s: %s", response.Status, answer.Error)
	}
	return nil
}

// A Pod holds the fields of a pod that the tests use.
type Pod struct {
	Metadata struct{ Name, UID string }
	Spec     struct {
		Volumes    []struct{ Name string }
		Containers []struct{ Name, Image string }
	}
	Status struct {
		Phase, PodIP string
		Conditions   []struct{ Type, Status, Message string }
		// Sorted by name. The tests use pods with one container only.
		ContainerStatuses []struct {
			RestartCount int
			ImageID      string
			LastState    struct {
				Terminated *struct {
					Reason   string
					ExitCode int
				}
			}
		}
	}
}

// Ready reports whether the pod receives traffic of its Service.
func (p Pod) Ready() bool {
	for _, condition := range p.Status.Conditions {
		if condition.Type == "Ready" {
			return condition.Status == "True"
		}
	}
	return false
}

// Restarts returns how often the containers of the pod were restarted.
func (p Pod) Restarts() int {
	n := 0
	for _, status := range p.Status.ContainerStatuses {
		n += status.RestartCount
	}
	return n
}
