// SPDX-License-Identifier: Apache-2.0

package chart

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	monitoringv1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	"helm.sh/helm/v4/pkg/chart/v2/lint"
	"helm.sh/helm/v4/pkg/chart/v2/lint/support"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"
	"sigs.k8s.io/yaml"
)

// Properties of all values files.
func TestEveryFeature(t *testing.T) {
	for name, values := range valuesFiles(t) {
		t.Run(name, func(t *testing.T) {
			t.Run("lints", func(t *testing.T) { lints(t, values) })
			t.Run("renders the same bytes again", func(t *testing.T) { rendersTheSameAgain(t, values) })
			m := render(t, values)
			t.Run("passes Pod Security restricted", func(t *testing.T) { passesRestricted(t, m) })
			t.Run("has a home and labels for every object", func(t *testing.T) { hasHomeAndLabels(t, m) })
			t.Run("probes the health port", func(t *testing.T) { probesHealthPort(t, m) })
			t.Run("mounts whole directories", func(t *testing.T) { mountsDirectories(t, m) })
			t.Run("leads scrapes to the exporter alone", func(t *testing.T) { leadsToExporterAlone(t, m) })
			t.Run("tells Prometheus the scheme it serves", func(t *testing.T) { agreesOnScheme(t, m) })
			t.Run("has no floating tag", func(t *testing.T) { hasNoFloatingTag(t, m) })
			t.Run("keeps secrets out of sight", func(t *testing.T) { keepsSecrets(t, values, m) })
		})
	}
}

func lints(t *testing.T, values string) {
	var given map[string]any
	if err := yaml.Unmarshal([]byte(values), &given); err != nil {
		t.Fatal(err)
	}
	for _, message := range lint.RunAll(chartDir, given, namespace).Messages {
		if message.Severity > support.InfoSev {
			t.Error(message)
		}
	}
}

// Rendering is deterministic. Otherwise every upgrade would change objects.
func rendersTheSameAgain(t *testing.T, values string) {
	first := mustRenderFiles(t, values)
	upgrade := releaseOptions
	upgrade.IsInstall, upgrade.IsUpgrade, upgrade.Revision = false, true, 2
	second, err := renderFiles(loadChart(t), values, upgrade)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(first, second); diff != "" {
		t.Error(diff)
	}
}

func passesRestricted(t *testing.T, m manifests) {
	evaluator, err := policy.NewEvaluator(policy.DefaultChecks(), nil)
	if err != nil {
		t.Fatal(err)
	}
	restricted := api.LevelVersion{Level: api.LevelRestricted, Version: api.LatestVersion()}
	for id, pod := range m.pods() {
		for _, result := range evaluator.EvaluatePod(restricted, &pod.ObjectMeta, &pod.Spec) {
			if !result.Allowed {
				t.Errorf("%s: %s: %s", id, result.ForbiddenReason, result.ForbiddenDetail)
			}
		}
		// "restricted" does not require these.
		if mounted := pod.Spec.AutomountServiceAccountToken; mounted == nil || *mounted {
			t.Errorf("%s mounts the token of its service account", id)
		}
		if container := pod.Spec.Containers[0]; container.SecurityContext.ReadOnlyRootFilesystem == nil || !*container.SecurityContext.ReadOnlyRootFilesystem {
			t.Errorf("%s has a root file system that can be written", id)
		}
	}
	for _, account := range all[*corev1.ServiceAccount](m) {
		if mounted := account.AutomountServiceAccountToken; mounted == nil || *mounted {
			t.Error("the service account mounts its token")
		}
	}
}

func hasHomeAndLabels(t *testing.T, m manifests) {
	for id, object := range m.objects {
		if strings.HasPrefix(object.GetName(), release+"-object") || strings.HasPrefix(object.GetName(), release+"-text") {
			continue // extraManifests are defined by the user
		}
		if object.GetNamespace() == "" {
			t.Errorf("%s has no namespace", id)
		}
		if len(object.GetName()) > 63 {
			t.Errorf("%s has a name too long to be a label", id)
		}
		for _, label := range []string{"app.kubernetes.io/name", "app.kubernetes.io/instance", "app.kubernetes.io/version", "app.kubernetes.io/managed-by", "helm.sh/chart"} {
			if object.GetLabels()[label] == "" {
				t.Errorf("%s has no label %s", id, label)
			}
		}
	}
}

func probesHealthPort(t *testing.T, m manifests) {
	container := m.exporter(t).Spec.Containers[0]
	want := map[string]int32{"metrics": 8000, "health": 8001}
	got := map[string]int32{}
	for _, port := range container.Ports {
		got[port.Name] = port.ContainerPort
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	for path, probe := range map[string]*corev1.Probe{"/-/healthy": container.LivenessProbe, "/-/ready": container.ReadinessProbe} {
		if probe == nil || probe.HTTPGet == nil || probe.HTTPGet.Path != path || probe.HTTPGet.Port.StrVal != "health" || probe.HTTPGet.Scheme == corev1.URISchemeHTTPS {
			t.Errorf("the probe of %s is %v, want plain HTTP on the health port", path, probe)
		}
	}
}

func mountsDirectories(t *testing.T, m manifests) {
	for id, pod := range m.pods() {
		for _, container := range pod.Spec.Containers {
			for _, mount := range container.VolumeMounts {
				if mount.SubPath != "" || mount.SubPathExpr != "" {
					t.Errorf("%s mounts %s by subPath, which never changes when its Secret does", id, mount.MountPath)
				}
				if !slices.ContainsFunc(pod.Spec.Volumes, func(v corev1.Volume) bool { return v.Name == mount.Name }) {
					t.Errorf("%s mounts %s, which is no volume", id, mount.Name)
				}
			}
		}
	}
}

func leadsToExporterAlone(t *testing.T, m manifests) {
	service := get[*corev1.Service](t, m)
	selector := labels.SelectorFromSet(service.Spec.Selector)
	for id, pod := range m.pods() {
		isExporter := !strings.HasPrefix(id, "Pod/")
		if selector.Matches(labels.Set(pod.Labels)) != isExporter {
			t.Errorf("the Service selects %s: %v, want %v", id, !isExporter, isExporter)
		}
	}
	var workload *metav1.LabelSelector
	if sets := all[*appsv1.StatefulSet](m); len(sets) > 0 {
		workload = sets[0].Spec.Selector
	} else {
		workload = get[*appsv1.Deployment](t, m).Spec.Selector
	}
	if diff := cmp.Diff(service.Spec.Selector, workload.MatchLabels); diff != "" {
		t.Error(diff)
	}
	for _, monitor := range all[*monitoringv1.ServiceMonitor](m) {
		selector, err := metav1.LabelSelectorAsSelector(&monitor.Spec.Selector)
		if err != nil {
			t.Fatal(err)
		}
		if !selector.Matches(labels.Set(service.Labels)) {
			t.Error("the ServiceMonitor doesn't select the Service")
		}
		if !slices.Contains(monitor.Spec.NamespaceSelector.MatchNames, service.Namespace) {
			t.Error("the ServiceMonitor doesn't look in the Service's namespace")
		}
		if monitor.Spec.Endpoints[0].Port != service.Spec.Ports[0].Name {
			t.Error("the ServiceMonitor names a port that the Service doesn't have")
		}
		if job := monitor.Spec.JobLabel; job != "" && service.Labels[job] == "" {
			t.Errorf("the Service has no label %s to name the job", job)
		}
	}
}

func agreesOnScheme(t *testing.T, m manifests) {
	servesTLS := slices.ContainsFunc(m.exporter(t).Spec.Volumes, func(v corev1.Volume) bool { return v.Name == "tls" })
	scheme := map[bool]string{false: "http", true: "https"}[servesTLS]
	for _, monitor := range all[*monitoringv1.ServiceMonitor](m) {
		endpoint := monitor.Spec.Endpoints[0]
		if endpoint.Scheme == nil || string(*endpoint.Scheme) != scheme {
			t.Errorf("the ServiceMonitor's scheme is %v, want %s", endpoint.Scheme, scheme)
		}
		if (endpoint.TLSConfig != nil) != servesTLS {
			t.Error("the ServiceMonitor has a tlsConfig where there is no TLS, or none where there is")
		}
	}
	for _, pod := range all[*corev1.Pod](m) {
		if !strings.Contains(strings.Join(pod.Spec.Containers[0].Command, "\n"), "url="+scheme+"://") {
			t.Errorf("helm test doesn't ask by %s", scheme)
		}
	}
	if !strings.Contains(m.notes, scheme+"://localhost:8000/metrics") {
		t.Errorf("the notes don't say %s:\n%s", scheme, m.notes)
	}
}

func hasNoFloatingTag(t *testing.T, m manifests) {
	for id, pod := range m.pods() {
		for _, container := range pod.Spec.Containers {
			_, tag, tagged := strings.Cut(container.Image[strings.LastIndex(container.Image, "/")+1:], ":")
			if !tagged || tag == "" || tag == "latest" {
				t.Errorf("%s runs %s", id, container.Image)
			}
		}
	}
}

func keepsSecrets(t *testing.T, values string, m manifests) {
	for id, object := range m.objects {
		if _, secret := object.(*corev1.Secret); secret {
			continue
		}
		text, err := yaml.Marshal(object)
		if err != nil {
			t.Fatal(err)
		}
		for _, secret := range []string{"not-a-real-token", "$2a$10$"} {
			if strings.Contains(string(text), secret) {
				t.Errorf("%s shows %s", id, secret)
			}
			if strings.Contains(m.notes, secret) {
				t.Errorf("the notes show %s", secret)
			}
		}
	}
}
