// SPDX-License-Identifier: Apache-2.0

package chart

import (
	"encoding/json"
	"fmt"
	"maps"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	monitoringv1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	"helm.sh/helm/v4/pkg/chart/common"
	chartutil "helm.sh/helm/v4/pkg/chart/v2/util"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"
)

// schemaNode is as much of a JSON schema as tells which values there are.
type schemaNode struct {
	Properties           map[string]schemaNode `json:"properties"`
	AdditionalProperties any                   `json:"additionalProperties"`
}

// Each value has its entry in the schema, and the reverse.
func TestSchemaMatchesValues(t *testing.T) {
	chart := loadChart(t)
	var schema schemaNode
	if err := json.Unmarshal(chart.Schema, &schema); err != nil {
		t.Fatal(err)
	}
	deleteNoValues(schema)
	compareWithSchema(t, "", chart.Values, schema)
}

// deleteNoValues takes away what the schema lets through and is no value: what Helm gives to every chart below another, and
// what the chart refuses with a sentence of its own.
func deleteNoValues(schema schemaNode) {
	for _, name := range []string{"global", "replicas", "replicaCount"} {
		delete(schema.Properties, name)
	}
}

func compareWithSchema(t *testing.T, path string, values map[string]any, schema schemaNode) {
	if schema.AdditionalProperties != false {
		t.Errorf("the schema lets unknown values of %s through", path)
	}
	inValues, inSchema := slices.Sorted(maps.Keys(values)), slices.Sorted(maps.Keys(schema.Properties))
	if diff := cmp.Diff(inValues, inSchema); diff != "" {
		t.Errorf("values.yaml (-) and values.schema.json (+) differ in %s:\n%s", path, diff)
	}
	for name, node := range schema.Properties {
		if below, isMap := values[name].(map[string]any); isMap && node.Properties != nil {
			compareWithSchema(t, path+"/"+name, below, node)
		}
	}
}

func TestREADMEIsGenerated(t *testing.T) {
	charts, err := filepath.Abs(filepath.Dir(chartDir))
	if err != nil {
		t.Fatal(err)
	}
	// Built first: what go tool says of modules that it downloads would be taken for complaints.
	if output, err := exec.Command("make", "-C", root, "bin/tools/helm-docs").CombinedOutput(); err != nil {
		t.Fatalf("building helm-docs: %v\n%s", err, output)
	}
	helmDocs := exec.Command(root+"/bin/tools/helm-docs", "--dry-run", "--log-level=warning", "--chart-search-root="+charts, "--sort-values-order=file")
	var complaints strings.Builder
	helmDocs.Stderr = &complaints
	readme, err := helmDocs.Output()
	// A chart it can't read it skips, and ends well.
	if err != nil || complaints.Len() > 0 {
		t.Fatalf("helm-docs: %v\n%s", err, complaints.String())
	}
	checkGenerated(t, chartDir+"/README.md", append([]byte(strings.TrimSpace(string(readme))), '\n'))
}

// A value without a comment in values.yaml has a row without a description.
func TestREADMEDescribesEveryValue(t *testing.T) {
	var schema schemaNode
	if err := json.Unmarshal(loadChart(t).Schema, &schema); err != nil {
		t.Fatal(err)
	}
	deleteNoValues(schema)
	readme := readFile(t, chartDir+"/README.md")
	var check func(prefix string, node schemaNode)
	check = func(prefix string, node schemaNode) {
		for name, below := range node.Properties {
			path := prefix + name
			if below.Properties != nil {
				check(path+".", below)
			} else if row := regexp.MustCompile(`(?m)^\| ` + regexp.QuoteMeta(path) + ` \| .* \| \S.* \|$`); !row.MatchString(readme) {
				t.Errorf("README.md doesn't describe %s", path)
			}
		}
	}
	check("", schema)
}

// Users copy the recipes: each renders, and so strictly as everything else.
func TestREADMERecipes(t *testing.T) {
	recipes := 0
	for i, block := range strings.Split(readFile(t, chartDir+"/README.md.gotmpl"), "```") {
		recipe, isYAML := strings.CutPrefix(block, "yaml\n")
		if i%2 == 0 || !isYAML {
			continue
		}
		recipes++
		files, err := renderFiles(loadChart(t), recipe, releaseOptions)
		if err != nil {
			t.Errorf("%v\n%s", err, recipe)
			continue
		}
		delete(files, "extra-manifests.yaml") // of kinds that aren't the chart's
		decodeFiles(t, files)
	}
	if recipes < 10 {
		t.Errorf("%d recipes found", recipes)
	}
}

func chartVersion(t *testing.T) string {
	t.Helper()
	return loadChart(t).Metadata.Version
}

func TestChartIsOfThisVersion(t *testing.T) {
	metadata := loadChart(t).Metadata
	version := strings.TrimSpace(readFile(t, root+"/VERSION"))
	if metadata.Version != version {
		t.Errorf("version is %s, VERSION %s", metadata.Version, version)
	}
	if metadata.AppVersion != version {
		t.Errorf("appVersion is %s, VERSION %s", metadata.AppVersion, version)
	}
	if err := metadata.Validate(); err != nil {
		t.Error(err)
	}
	for version, works := range map[string]bool{"v1.27.9": false, "v1.28.0": true, "v1.37.2": true, "v1.33.4-gke.1245000": true} {
		if chartutil.IsCompatibleRange(metadata.KubeVersion, version) != works {
			t.Errorf("kubeVersion %s lets %s in: %v, want %v", metadata.KubeVersion, version, !works, works)
		}
	}

	// Artifact Hub reads YAML inside of these.
	var images []struct{ Name, Image string }
	var links []struct{ Name, URL string }
	var changes []struct{ Kind, Description string }
	for annotation, into := range map[string]any{"artifacthub.io/images": &images, "artifacthub.io/links": &links, "artifacthub.io/changes": &changes} {
		if err := yaml.UnmarshalStrict([]byte(metadata.Annotations[annotation]), into); err != nil {
			t.Errorf("%s: %v", annotation, err)
		}
	}
	rendered := render(t, minimal).exporter(t).Spec.Containers[0].Image
	if len(images) != 1 || images[0].Image != rendered {
		t.Errorf("artifacthub.io/images is %v, the image is %s", images, rendered)
	}
	if len(links) == 0 || len(changes) == 0 || metadata.Annotations["artifacthub.io/license"] != "Apache-2.0" {
		t.Errorf("Artifact Hub's annotations lack links, changes or the licence: %v", metadata.Annotations)
	}
}

// deployHeader tells who comes to change a generated manifest where to go.
const deployHeader = "# Generated from charts/balena-exporter by make -C charts generate. Don't edit.\n"

// The plain manifests are the chart's, less what only Helm needs.
func TestPlainManifests(t *testing.T) {
	options := common.ReleaseOptions{Name: "balena-exporter", Namespace: "balena-exporter", Revision: 1, IsInstall: true}
	files, err := renderFiles(loadChart(t), minimal+"serviceMonitor: {enabled: true}\nprometheusRule: {enabled: true}\ntest: {enabled: false}\n", options)
	if err != nil {
		t.Fatal(err)
	}
	for source, path := range map[string]string{
		"serviceaccount.yaml": "kubernetes/serviceaccount.yaml",
		"service.yaml":        "kubernetes/service.yaml",
		"workload.yaml":       "kubernetes/deployment.yaml",
		"servicemonitor.yaml": "prometheus-operator/servicemonitor.yaml",
		"prometheusrule.yaml": "prometheus-operator/prometheusrule.yaml",
	} {
		objects, err := decode(files[source])
		if err != nil || len(objects) != 1 {
			t.Fatalf("%s: %d objects, %v", source, len(objects), err)
		}
		checkGenerated(t, filepath.Join(root, "deploy", path), []byte(deployHeader+plain(t, files[source])))
		delete(files, source)
	}
	delete(files, "NOTES.txt")
	if len(files) != 0 {
		t.Errorf("the chart renders more than the manifests have: %v", slices.Sorted(maps.Keys(files)))
	}
}

// plain takes Helm's marks away.
func plain(t *testing.T, manifest string) string {
	t.Helper()
	var lines []string
	for line := range strings.SplitSeq(strings.TrimSpace(manifest), "\n") {
		trimmed := strings.TrimSpace(line)
		if strings.HasPrefix(trimmed, "helm.sh/chart:") || strings.HasPrefix(trimmed, "app.kubernetes.io/managed-by:") {
			continue
		}
		lines = append(lines, line)
	}
	return strings.Join(lines, "\n") + "\n"
}

// Prometheus without the operator takes the same alerts as files: the chart's, with the default values put in by the chart.
func TestPlainRules(t *testing.T) {
	chart := loadChart(t)
	paths := map[string]string{} // of the plain files, by the template that writes one
	for _, file := range chart.Files {
		name, isRules := strings.CutPrefix(file.Name, "files/rules/")
		if !isRules {
			continue
		}
		paths["plain-"+name] = root + "/deploy/prometheus/rules/" + strings.TrimSuffix(name, ".yaml") + ".yml"
		chart.Templates = append(chart.Templates, &common.File{
			Name: "templates/plain-" + name, Data: fmt.Appendf(nil, `{{ include "balena-exporter.rules" (dict "path" %q "root" .) }}`, file.Name),
		})
	}
	files, err := renderFiles(chart, minimal, releaseOptions)
	if err != nil {
		t.Fatal(err)
	}
	var got monitoringv1.PrometheusRuleSpec
	for _, template := range slices.Sorted(maps.Keys(paths)) {
		var spec monitoringv1.PrometheusRuleSpec
		if err := yaml.UnmarshalStrict([]byte(files[template]), &spec); err != nil {
			t.Fatalf("%s: %v", template, err)
		}
		got.Groups = append(got.Groups, spec.Groups...)
		checkGenerated(t, paths[template], []byte(deployHeader+"\n"+files[template]))
	}
	want := get[*monitoringv1.PrometheusRule](t, render(t, minimal+"prometheusRule: {enabled: true}")).Spec
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the PrometheusRule (-) and the plain files (+) differ:\n%s", diff)
	}
}

// Whoever copies an address of these manifests gets those of this version.
func TestAddressesAreOfThisVersion(t *testing.T) {
	want := "?ref=v" + strings.TrimSpace(readFile(t, root+"/VERSION"))
	for _, path := range []string{"/deploy/README.md", "/deploy/prometheus-operator/kustomization.yaml"} {
		refs := regexp.MustCompile(`\?ref=v[0-9.]+\d`).FindAllString(readFile(t, root+path), -1)
		if len(refs) == 0 || slices.ContainsFunc(refs, func(ref string) bool { return ref != want }) {
			t.Errorf("%s has addresses with %q, want %s", path, refs, want)
		}
	}
}

// kubectl apply -k needs every file it names, and has to name every file.
func TestKustomizations(t *testing.T) {
	for directory, elsewhere := range map[string][]string{"kubernetes": nil, "prometheus-operator": {"../kubernetes"}} {
		var kustomization struct {
			metav1.TypeMeta `json:",inline"`
			Namespace       string   `json:"namespace"`
			Resources       []string `json:"resources"`
		}
		path := filepath.Join(root, "deploy", directory)
		if err := yaml.UnmarshalStrict([]byte(readFile(t, path+"/kustomization.yaml")), &kustomization); err != nil {
			t.Fatal(err)
		}
		want := elsewhere
		paths, err := filepath.Glob(path + "/*.yaml")
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range paths {
			if name := filepath.Base(file); name != "kustomization.yaml" {
				want = append(want, name)
				if _, err := decode(readFile(t, file)); err != nil {
					t.Errorf("%s: %v", file, err)
				}
			}
		}
		slices.Sort(kustomization.Resources)
		slices.Sort(want)
		if diff := cmp.Diff(want, kustomization.Resources); diff != "" {
			t.Errorf("%s (-) and its kustomization.yaml (+): %s", directory, diff)
		}
	}
}
