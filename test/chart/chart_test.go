// SPDX-License-Identifier: Apache-2.0

// Package chart tests the Helm chart with the engine of Helm. It decodes the rendered manifests with the types of Kubernetes,
// the Prometheus Operator and cert-manager.
package chart

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	certmanagerv1 "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	monitoringv1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	monitoringv1alpha1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1alpha1"
	"helm.sh/helm/v4/pkg/chart/common"
	commonutil "helm.sh/helm/v4/pkg/chart/common/util"
	chartv2 "helm.sh/helm/v4/pkg/chart/v2"
	"helm.sh/helm/v4/pkg/chart/v2/loader"
	"helm.sh/helm/v4/pkg/engine"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"
)

var update = flag.Bool("update", false, "update the files that are generated from the chart")

const (
	root      = "../.."
	chartDir  = root + "/charts/balena-exporter"
	release   = "metrics" // differs from the name of the chart
	namespace = "iot"
)

// minimal has only the required values.
const minimal = "balena: {existingSecret: balena-token}\n"

func loadChart(t *testing.T) *chartv2.Chart {
	t.Helper()
	chart, err := loader.LoadDir(chartDir)
	if err != nil {
		t.Fatal(err)
	}
	return chart
}

// releaseOptions are the options of a first installation.
var releaseOptions = common.ReleaseOptions{Name: release, Namespace: namespace, Revision: 1, IsInstall: true}

// renderFiles returns the rendered templates by path.
func renderFiles(chart *chartv2.Chart, values string, options common.ReleaseOptions) (map[string]string, error) {
	var given map[string]any
	if err := yaml.UnmarshalStrict([]byte(values), &given); err != nil {
		return nil, fmt.Errorf("values of the test: %w", err)
	}
	renderValues, err := commonutil.ToRenderValues(chart, given, options, nil)
	if err != nil {
		return nil, err
	}
	texts, err := engine.Render(chart, renderValues)
	if err != nil {
		return nil, err
	}
	files := map[string]string{}
	for path, text := range texts {
		if strings.TrimSpace(text) != "" && filepath.Ext(path) != ".tpl" {
			files[strings.TrimPrefix(path, chart.Name()+"/templates/")] = text
		}
	}
	return files, nil
}

func mustRenderFiles(t *testing.T, values string) map[string]string {
	t.Helper()
	files, err := renderFiles(loadChart(t), values, releaseOptions)
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// manifests are the objects of a release. Unknown and duplicate fields are errors.
type manifests struct {
	objects map[string]metav1.Object // by "Kind/name"
	notes   string
}

// kinds are all kinds that the chart may render. There are no RBAC kinds, because the exporter needs no permissions.
var kinds = map[metav1.TypeMeta]func() metav1.Object{
	{APIVersion: "v1", Kind: "ConfigMap"}:                                func() metav1.Object { return &corev1.ConfigMap{} },
	{APIVersion: "v1", Kind: "Namespace"}:                                func() metav1.Object { return &corev1.Namespace{} },
	{APIVersion: "v1", Kind: "Pod"}:                                      func() metav1.Object { return &corev1.Pod{} },
	{APIVersion: "v1", Kind: "Secret"}:                                   func() metav1.Object { return &corev1.Secret{} },
	{APIVersion: "v1", Kind: "Service"}:                                  func() metav1.Object { return &corev1.Service{} },
	{APIVersion: "v1", Kind: "ServiceAccount"}:                           func() metav1.Object { return &corev1.ServiceAccount{} },
	{APIVersion: "apps/v1", Kind: "Deployment"}:                          func() metav1.Object { return &appsv1.Deployment{} },
	{APIVersion: "apps/v1", Kind: "StatefulSet"}:                         func() metav1.Object { return &appsv1.StatefulSet{} },
	{APIVersion: "policy/v1", Kind: "PodDisruptionBudget"}:               func() metav1.Object { return &policyv1.PodDisruptionBudget{} },
	{APIVersion: "networking.k8s.io/v1", Kind: "NetworkPolicy"}:          func() metav1.Object { return &networkingv1.NetworkPolicy{} },
	{APIVersion: "monitoring.coreos.com/v1", Kind: "ServiceMonitor"}:     func() metav1.Object { return &monitoringv1.ServiceMonitor{} },
	{APIVersion: "monitoring.coreos.com/v1", Kind: "PrometheusRule"}:     func() metav1.Object { return &monitoringv1.PrometheusRule{} },
	{APIVersion: "monitoring.coreos.com/v1alpha1", Kind: "ScrapeConfig"}: func() metav1.Object { return &monitoringv1alpha1.ScrapeConfig{} },
	{APIVersion: "cert-manager.io/v1", Kind: "Certificate"}:              func() metav1.Object { return &certmanagerv1.Certificate{} },
}

// decode reads the YAML documents of a file.
func decode(text string) ([]metav1.Object, error) {
	var objects []metav1.Object
	for document := range strings.SplitSeq("\n"+text, "\n---") {
		var meta metav1.TypeMeta
		if err := yaml.Unmarshal([]byte(document), &meta); err != nil {
			return nil, err
		}
		if meta == (metav1.TypeMeta{}) {
			continue
		}
		create, known := kinds[meta]
		if !known {
			return nil, fmt.Errorf("%s %s is not a kind that the chart may render", meta.APIVersion, meta.Kind)
		}
		object := create()
		if err := yaml.UnmarshalStrict([]byte(document), object); err != nil {
			return nil, fmt.Errorf("%s: %w", meta.Kind, err)
		}
		objects = append(objects, object)
	}
	return objects, nil
}

func kindOf(object metav1.Object) string {
	return fmt.Sprintf("%T", object)[strings.LastIndex(fmt.Sprintf("%T", object), ".")+1:]
}

func render(t *testing.T, values string) manifests {
	t.Helper()
	return decodeFiles(t, mustRenderFiles(t, values))
}

func decodeFiles(t *testing.T, files map[string]string) manifests {
	t.Helper()
	m := manifests{objects: map[string]metav1.Object{}}
	for path, text := range files {
		if path == "NOTES.txt" {
			m.notes = text
			continue
		}
		objects, err := decode(text)
		if err != nil {
			t.Fatalf("%s: %v\n%s", path, err, text)
		}
		for _, object := range objects {
			id := kindOf(object) + "/" + object.GetName()
			if m.objects[id] != nil {
				t.Errorf("%s is rendered twice", id)
			}
			m.objects[id] = object
		}
	}
	return m
}

// get returns the only object of a type.
func get[T metav1.Object](t *testing.T, m manifests) T {
	t.Helper()
	found := all[T](m)
	if len(found) != 1 {
		t.Fatalf("%d objects of type %T among %v, want 1", len(found), *new(T), m.ids())
	}
	return found[0]
}

func all[T metav1.Object](m manifests) []T {
	var found []T
	for _, id := range m.ids() {
		if object, ok := m.objects[id].(T); ok {
			found = append(found, object)
		}
	}
	return found
}

func (m manifests) ids() []string {
	var ids []string
	for id := range m.objects {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}

// pods returns the pod templates of workloads, and the pods of tests.
func (m manifests) pods() map[string]*corev1.PodTemplateSpec {
	pods := map[string]*corev1.PodTemplateSpec{}
	for id, object := range m.objects {
		switch object := object.(type) {
		case *appsv1.Deployment:
			pods[id] = &object.Spec.Template
		case *appsv1.StatefulSet:
			pods[id] = &object.Spec.Template
		case *corev1.Pod:
			pods[id] = &corev1.PodTemplateSpec{ObjectMeta: object.ObjectMeta, Spec: object.Spec}
		}
	}
	return pods
}

// exporter returns the pod template of the Deployment or StatefulSet.
func (m manifests) exporter(t *testing.T) *corev1.PodTemplateSpec {
	t.Helper()
	if len(all[*appsv1.StatefulSet](m)) > 0 {
		return &get[*appsv1.StatefulSet](t, m).Spec.Template
	}
	return &get[*appsv1.Deployment](t, m).Spec.Template
}

func (m manifests) args(t *testing.T) []string {
	t.Helper()
	return m.exporter(t).Spec.Containers[0].Args
}

// valuesFiles returns the files in ci/, which have the values of one feature each, by name.
func valuesFiles(t *testing.T) map[string]string {
	t.Helper()
	paths, err := filepath.Glob(chartDir + "/ci/*-values.yaml")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no values in ci/: %v", err)
	}
	files := map[string]string{}
	for _, path := range paths {
		files[strings.TrimSuffix(filepath.Base(path), "-values.yaml")] = readFile(t, path)
	}
	return files
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// checkGenerated compares a file with its expected content, or updates it with -update.
func checkGenerated(t *testing.T, path string, want []byte) {
	t.Helper()
	if *update {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, want, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("%v: run make -C charts generate", err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s is not up to date: run make -C charts generate", path)
	}
}
