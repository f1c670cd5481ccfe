// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509/pkix"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"text/template"
	"time"

	"github.com/prometheus/common/model"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/kubectl/pkg/util/podutils"
)

const (
	// project is the root of the repository, chart the path of the chart.
	project = "../.."
	chart   = project + "/charts/balena-exporter"

	// apiHost is the name of the simulated API. It is not in DNS; pods have it in their hosts file.
	apiHost = "api.balena.test"
	// token is the token that the API accepts at first.
	token = "token-of-the-test"

	// soon is the deadline of operations that take seconds on an idle machine. It is not a wait.
	soon = 90 * time.Second
)

// A story is a test with its own namespace, in which Pod Security "restricted" is enforced, and its own balena API.
type story struct {
	*testing.T
	namespace string
	authority *Authority // of all certificates in the story
	api       *http.Client
	apiURL    string
	apiIP     string
	token     string // accepted by the API
}

// An account is the size of the account of the simulated API.
type account struct{ Devices, Fleets int }

// small is enough for stories in which the size does not matter.
var small = account{Devices: 60, Fleets: 4}

// begin creates the namespace of a story with the API in it. Both are deleted at the end of the story. If the story fails, their
// state is saved as files.
func begin(t *testing.T, namespace string, has account) *story {
	t.Helper()
	s := &story{T: t, namespace: namespace, token: token}
	start := time.Now()
	t.Cleanup(func() {
		if t.Failed() {
			s.keep()
		}
		s.kubectl("delete", "namespace", namespace, "--wait=false")
		t.Logf("the story took %.1f s", time.Since(start).Seconds())
	})

	var err error
	if s.authority, err = NewAuthority("company CA"); err != nil {
		t.Fatal(err)
	}
	s.apply(`
apiVersion: v1
kind: Namespace
metadata: {name: {{.}}, labels: {pod-security.kubernetes.io/enforce: restricted}}
`, namespace)
	pair := s.issue(apiHost)
	s.apply(apiManifests, map[string]any{
		"Image": "localhost/balena-simulator:" + version(t), "Token": token, "Account": has,
		"Certificate": string(pair.Certificate), "Key": string(pair.Key), "CA": string(s.authority.PEM()),
	})
	var service corev1.Service
	s.get("/api/v1/namespaces/"+namespace+"/services/api", &service)
	s.apiIP = service.Spec.ClusterIP
	s.apiURL = "https://" + apiHost
	s.api = s.client(&tls.Config{RootCAs: s.authority.Pool()}, s.apiIP+":443")
	s.eventually("the API answers", func() error {
		_, err := s.request(s.api, http.MethodGet, s.apiURL+"/ping", "")
		return err
	})
	return s
}

// part runs a part of the story. If it fails, later parts are skipped, because they depend on it.
func (s *story) part(name string, run func(s *story)) {
	s.Helper()
	if !s.Run(name, func(t *testing.T) {
		part := *s
		part.T = t
		run(&part)
	}) {
		s.FailNow()
	}
}

// apiManifests deploy the simulator in place of an openBalena server, with a certificate of a private CA. Its devices do not
// change.
const apiManifests = `
apiVersion: v1
kind: ConfigMap
metadata: {name: company-ca}
data: {ca.crt: {{printf "%q" .CA}}}
---
apiVersion: v1
kind: Secret
metadata: {name: api-tls}
stringData: {tls.crt: {{printf "%q" .Certificate}}, tls.key: {{printf "%q" .Key}}}
---
apiVersion: v1
kind: Service
metadata: {name: api}
spec:
  selector: {app: api}
  ports: [{port: 443, targetPort: 8443}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: api}
spec:
  selector: {matchLabels: {app: api}}
  strategy: {type: Recreate}
  template:
    metadata: {labels: {app: api}}
    spec:
      automountServiceAccountToken: false
      terminationGracePeriodSeconds: 2
      securityContext: {runAsNonRoot: true, fsGroup: 65532, seccompProfile: {type: RuntimeDefault}}
      containers:
      - name: api
        image: {{.Image}}
        args:
        - --listen-address=:8443
        - --tls-cert-file=/tls/tls.crt
        - --tls-key-file=/tls/tls.key
        - --token={{.Token}}
        - --tick-interval=0
        - --devices={{.Account.Devices}}
        - --fleets={{.Account.Fleets}}
        readinessProbe: {tcpSocket: {port: 8443}, periodSeconds: 1}
        securityContext: {allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {drop: [ALL]}}
        volumeMounts: [{name: tls, mountPath: /tls, readOnly: true}]
      volumes: [{name: tls, secret: {secretName: api-tls, defaultMode: 0440}}]
`

// values returns values for a release: those of every release in the story, merged with those given. The former set the URL of
// the API, and intervals of a second or two instead of a minute. A scrape may take as long as the interval. Alerts have the label
// story, because the rules of each story apply to the exporters of all stories.
func (s *story) values(own ...map[string]any) string {
	s.Helper()
	all := map[string]any{
		"balena":         map[string]any{"apiUrl": s.apiURL, "caConfigMap": map[string]any{"name": "company-ca"}, "refreshInterval": "1s"},
		"hostAliases":    []any{map[string]any{"ip": s.apiIP, "hostnames": []string{apiHost}}},
		"serviceMonitor": map[string]any{"interval": "2s", "labels": map[string]any{"release": release}},
		"prometheusRule": map[string]any{"labels": map[string]any{"release": release}, "alertLabels": map[string]any{"story": s.namespace}},
		"livenessProbe":  map[string]any{"periodSeconds": 2},
		"readinessProbe": map[string]any{"periodSeconds": 1},
	}
	for _, values := range own {
		merge(all, values)
	}
	return s.file("values.yaml", must(s, json.Marshal)(all))
}

func merge(into, from map[string]any) {
	for key, value := range from {
		if inner, ok := value.(map[string]any); ok {
			if outer, ok := into[key].(map[string]any); ok {
				merge(outer, inner)
				continue
			}
		}
		into[key] = value
	}
}

// must wraps a function of one argument so that it fails the story instead of returning an error.
func must[A, B any](s *story, f func(A) (B, error)) func(A) B {
	return func(a A) B {
		s.Helper()
		b, err := f(a)
		if err != nil {
			s.Fatal(err)
		}
		return b
	}
}

// file writes a file of the story and returns its path.
func (s *story) file(name string, content []byte) string {
	s.Helper()
	path := filepath.Join(s.TempDir(), name)
	if err := os.WriteFile(path, content, 0o600); err != nil {
		s.Fatal(err)
	}
	return path
}

// issue issues a certificate for a name.
func (s *story) issue(name string) Pair {
	s.Helper()
	pair, err := s.authority.Issue(pkix.Name{CommonName: name}, name)
	if err != nil {
		s.Fatal(err)
	}
	return pair
}

// tlsSecret creates or replaces a Secret in the format of cert-manager.
func (s *story) tlsSecret(name string, pair Pair) {
	s.Helper()
	s.secret(name, map[string]string{"tls.crt": string(pair.Certificate), "tls.key": string(pair.Key), "ca.crt": string(s.authority.PEM())})
}

// secret creates or replaces a Secret.
func (s *story) secret(name string, data map[string]string) {
	s.Helper()
	s.apply(`
apiVersion: v1
kind: Secret
metadata: {name: {{.Name}}}
data: {{.Data}}
`, map[string]any{"Name": name, "Data": string(must(s, json.Marshal)(func() any {
		bytes := make(map[string][]byte)
		for key, value := range data {
			bytes[key] = []byte(value)
		}
		return bytes
	}()))})
}

// apply applies a template with its data with kubectl.
func (s *story) apply(manifests string, data any) {
	s.Helper()
	var b bytes.Buffer
	if err := template.Must(template.New("").Parse(manifests)).Execute(&b, data); err != nil {
		s.Fatal(err)
	}
	if output, err := s.try(b.String(), "kubectl", "apply", "-f", "-"); err != nil {
		s.Fatalf("kubectl apply: %v\n%s", err, output)
	}
}

// try runs a program in the namespace of the story and returns its output. The program must end within patience.
func (s *story) try(input, program string, arguments ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience) // in Cleanup, the context of the story is done
	defer cancel()
	command, err := kubernetes.Command(ctx, s.namespace, program, arguments...)
	if err != nil {
		return "", err
	}
	command.Stdin = strings.NewReader(input)
	command.WaitDelay = time.Second
	output, err := command.CombinedOutput()
	return string(output), err
}

func (s *story) kubectl(arguments ...string) string {
	s.Helper()
	output, err := s.try("", "kubectl", arguments...)
	if err != nil {
		s.Fatalf("kubectl %s: %v\n%s", strings.Join(arguments, " "), err, output)
	}
	return output
}

func (s *story) helm(arguments ...string) string {
	s.Helper()
	output, err := s.try("", "helm", arguments...)
	if err != nil {
		s.Fatalf("helm %s: %v\n%s", strings.Join(arguments, " "), err, output)
	}
	return output
}

// install installs or upgrades a release with a ServiceMonitor, and waits until it is ready.
func (s *story) install(name string, own ...map[string]any) {
	s.Helper()
	own = append([]map[string]any{{
		"balena":         map[string]any{"existingSecret": "balena-token"},
		"serviceMonitor": map[string]any{"enabled": true},
	}}, own...)
	s.helm("upgrade", "--install", name, chart, "--values", s.values(own...), "--wait", "--timeout=90s")
}

// eventually waits until a condition holds.
func (s *story) eventually(what string, condition func() error) {
	s.Helper()
	s.within(soon, what, condition)
}

// within waits until a condition holds, and fails the story at the deadline.
func (s *story) within(limit time.Duration, what string, condition func() error) {
	s.Helper()
	deadline := time.NewTimer(limit)
	defer deadline.Stop()
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		err := condition()
		if err == nil {
			return
		}
		select {
		case <-deadline.C:
			s.Fatalf("%s: not within %s: %v", what, limit, err)
		case <-ticker.C:
		}
	}
}

// get decodes an object or list of the cluster.
func (s *story) get(path string, into any) {
	s.Helper()
	if err := kubernetes.Get(s.Context(), path, into); err != nil {
		s.Fatal(err)
	}
}

// pods returns the pods of a release, including those that are being stopped.
func (s *story) pods(name string) ([]corev1.Pod, error) {
	var list struct{ Items []corev1.Pod }
	selector := url.QueryEscape("app.kubernetes.io/instance=" + name + ",app.kubernetes.io/name=balena-exporter")
	err := kubernetes.Get(s.Context(), "/api/v1/namespaces/"+s.namespace+"/pods?labelSelector="+selector, &list)
	return list.Items, err
}

// pod returns the only pod of a release, once it is ready.
func (s *story) pod(name string) corev1.Pod {
	s.Helper()
	var pod corev1.Pod
	s.eventually("the pod of "+name+" is ready", func() error {
		pods, err := s.pods(name)
		switch {
		case err != nil:
			return err
		case len(pods) != 1:
			return fmt.Errorf("%d pods instead of 1", len(pods))
		case !podutils.IsPodReady(&pods[0]):
			return fmt.Errorf("it is not: %+v", pods[0].Status)
		}
		pod = pods[0]
		return nil
	})
	return pod
}

// undisturbed fails the story if the pod was replaced, was restarted or is not ready.
func (s *story) undisturbed(name string, before corev1.Pod) {
	s.Helper()
	after := s.pod(name)
	if after.UID != before.UID || restarts(after) != restarts(before) {
		s.Fatalf("the pod %s was restarted: it is %s now, with %d restarts", before.Name, after.Name, restarts(after))
	}
}

// client returns a client that connects to an address, whatever the host in the URL is.
func (s *story) client(config *tls.Config, address string) *http.Client {
	dialer := new(net.Dialer)
	transport := &http.Transport{
		TLSClientConfig: config,
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, network, address)
		},
		DisableKeepAlives: true, // so that each request gets the current certificate
	}
	return &http.Client{Transport: transport, Timeout: 30 * time.Second}
}

// request returns the body of the answer, which must be a success.
func (s *story) request(client *http.Client, method, url, body string) (string, error) {
	request, err := http.NewRequestWithContext(s.Context(), method, url, strings.NewReader(body))
	if err != nil {
		return "", err
	}
	request.Header.Set("Authorization", "Bearer "+s.token)
	response, err := client.Do(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode >= 300 {
		err = fmt.Errorf("%s %s: %s: %s", method, url, response.Status, answer)
	}
	return string(answer), err
}

// tokenSecret creates or replaces the Secret with the token for releases.
func (s *story) tokenSecret(name, token string) {
	s.Helper()
	s.secret(name, map[string]string{"token": token})
}

// control sets the faults or tokens of the API.
func (s *story) control(what, body string) {
	s.Helper()
	if _, err := s.request(s.api, http.MethodPut, s.apiURL+"/simulator/"+what, body); err != nil {
		s.Fatal(err)
	}
}

// online returns the number of online devices of each fleet, read directly from the API.
func (s *story) online() (map[string]float64, error) {
	answer, err := s.request(s.api, http.MethodGet, s.apiURL+"/v7/application?$select=slug&$expand=owns__device($select=is_online)", "")
	if err != nil {
		return nil, err
	}
	var fleets struct {
		D []struct {
			Slug    string
			Devices []struct {
				IsOnline bool `json:"is_online"`
			} `json:"owns__device"`
		}
	}
	if err := json.Unmarshal([]byte(answer), &fleets); err != nil {
		return nil, err
	}
	online := make(map[string]float64)
	for _, fleet := range fleets.D {
		online[fleet.Slug] = 0
		for _, device := range fleet.Devices {
			if device.IsOnline {
				online[fleet.Slug]++
			}
		}
	}
	if len(online) < 2 {
		return nil, fmt.Errorf("the API has too few fleets for this test: %v", online)
	}
	return online, nil
}

// query evaluates an expression, in which $namespace is replaced by that of the story, and returns its values by the label.
func (s *story) query(label, expression string) (map[string]float64, error) {
	samples, err := prometheus.Query(s.Context(), s.expand(expression))
	if err != nil {
		return nil, err
	}
	values := make(map[string]float64)
	for _, sample := range samples {
		of := string(sample.Metric[model.LabelName(label)])
		if _, twice := values[of]; twice {
			return nil, fmt.Errorf("%s: several series with %s=%q", expression, label, of)
		}
		values[of] = float64(sample.Value)
	}
	return values, nil
}

func (s *story) expand(expression string) string {
	return strings.ReplaceAll(expression, "$namespace", fmt.Sprintf("namespace=%q", s.namespace))
}

// are returns an error unless the expression has these values by the label.
func (s *story) are(label, expression string, want map[string]float64) error {
	values, err := s.query(label, expression)
	if err == nil && !maps.Equal(values, want) {
		err = fmt.Errorf("%s is %v, not %v", expression, values, want)
	}
	return err
}

// is returns an error unless the expression has exactly one series, with this value.
func (s *story) is(expression string, want float64) error {
	samples, err := prometheus.Query(s.Context(), s.expand(expression))
	switch {
	case err != nil:
		return err
	case len(samples) == 0:
		return fmt.Errorf("%s is nothing, not %v", expression, want)
	case len(samples) > 1 || float64(samples[0].Value) != want:
		return fmt.Errorf("%s is %v, not %v", expression, samples, want)
	}
	return nil
}

// scraped waits until Prometheus has the same number of online devices for each fleet as the API, from new scrapes of the current
// pods: one pod, or the given number of shards.
func (s *story) scraped(name string, shards int) {
	s.Helper()
	var want map[string]float64
	s.eventually("the API answers", func() (err error) {
		want, err = s.online() // the devices do not change
		return err
	})
	now := float64(time.Now().UnixMilli()) / 1000
	s.eventually("Prometheus has the truth of the pods of "+name, func() error {
		pods, err := s.pods(name)
		if err != nil {
			return err
		}
		if len(pods) != shards {
			return fmt.Errorf("there are %d pods, not %d", len(pods), shards)
		}
		of := fmt.Sprintf("{$namespace, pod=~%q}", strings.Join(names(pods), "|"))
		since := fmt.Sprintf(" and on (pod) timestamp(up%s) > %f", of, now)
		if err := s.is(`sum(up`+of+since+`) + sum(balena_up`+of+since+`)`, 2*float64(shards)); err != nil {
			return err
		}
		got, err := s.query("fleet", `sum by (fleet) (balena_fleet_devices_online`+of+`)`)
		if err == nil && !maps.Equal(got, want) {
			err = fmt.Errorf("devices online are %v, not %v", got, want)
		}
		return err
	})
}

// allScrapesSince waits for another scrape of the pod, and fails the story if a scrape has failed since the given time.
func (s *story) allScrapesSince(start time.Time, pod corev1.Pod) {
	s.Helper()
	of := fmt.Sprintf("up{$namespace, pod=%q}", pod.Name)
	now := float64(time.Now().UnixMilli()) / 1000
	s.eventually("one more scrape", func() error { return s.is(fmt.Sprintf(`timestamp(%s) > bool %f`, of, now), 1) })
	if err := s.is(fmt.Sprintf(`min_over_time(%s[%ds])`, of, int(time.Since(start).Seconds())+1), 1); err != nil {
		s.Fatalf("a scrape has failed: %v", err)
	}
}

// version returns the version of the project.
func version(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(project, "VERSION"))
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(b))
}

// keep writes the state of the namespace to files, to find out why the story failed.
func (s *story) keep() {
	directory := filepath.Join(artifacts, s.namespace)
	if err := os.MkdirAll(directory, 0o755); err != nil {
		s.Log(err)
		return
	}
	write := func(name string, content string) {
		if err := os.WriteFile(filepath.Join(directory, name), []byte(content), 0o600); err != nil {
			s.Log(err)
		}
	}
	for name, arguments := range map[string]string{
		"events.txt":     "get events --sort-by=.lastTimestamp",
		"pods.txt":       "describe pods",
		"manifests.yaml": "get all,endpointslices,configmaps,serviceaccounts,servicemonitors,prometheusrules -o yaml", // no Secrets
	} {
		output, err := s.try("", "kubectl", strings.Fields(arguments)...)
		write(name, output+explain(err))
	}
	var pods struct{ Items []corev1.Pod }
	if err := kubernetes.Get(context.Background(), "/api/v1/namespaces/"+s.namespace+"/pods", &pods); err != nil {
		s.Log(err)
	}
	for _, pod := range pods.Items {
		for _, previous := range []string{"false", "true"} {
			if output, err := s.try("", "kubectl", "logs", pod.Name, "--all-containers", "--previous="+previous); err == nil {
				write(fmt.Sprintf("%s.previous=%s.log", pod.Name, previous), output)
			}
		}
	}
	for _, what := range []string{"targets", "rules", "alerts"} {
		answer, err := s.try("", "curl", "--silent", "--show-error", prometheus.address+"/api/v1/"+what)
		write("prometheus-"+what+".json", answer+explain(err))
	}
	s.Logf("logs, events and manifests are in %s", directory)
}

func explain(err error) string {
	if err == nil {
		return ""
	}
	return "\n" + err.Error() + "\n"
}

// block returns the commands of the n-th block of type sh below a heading of a Markdown file.
func block(s *story, file, heading string, n int) string {
	s.Helper()
	b, err := os.ReadFile(filepath.Join(project, file))
	if err != nil {
		s.Fatal(err)
	}
	_, below, ok := strings.Cut(string(b), "\n"+heading+"\n")
	blocks := strings.Split(below, "```sh\n")[1:]
	if !ok || n >= len(blocks) {
		s.Fatalf("%s: no %d blocks of commands below %q", file, n+1, heading)
	}
	commands, _, _ := strings.Cut(blocks[n], "```")
	return commands
}

// names returns the sorted names of objects.
func names(pods []corev1.Pod) []string {
	var all []string
	for _, pod := range pods {
		all = append(all, pod.Name)
	}
	slices.Sort(all)
	return all
}
