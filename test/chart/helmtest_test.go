// SPDX-License-Identifier: Apache-2.0

package chart

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/prometheus/exporter-toolkit/web"
	corev1 "k8s.io/api/core/v1"
)

func TestNotes(t *testing.T) {
	for _, test := range []struct {
		name          string
		contain, omit []string
	}{
		{"default", []string{"reads https://api.balena-cloud.com every 60s.", "key token of the Secret balena-token", "It is not scraped yet", "http://metrics-balena-exporter.iot.svc:8000/metrics", "helm test -n iot metrics", "The test uses the image docker.io/curlimages/curl:8.17.0. If the cluster cannot pull it, set a mirror in\ntest.image.repository, or test.enabled=false."}, []string{"WARNING", "Clients need", "--user"}},
		{"token", nil, []string{"which you create"}},
		{"secret-key", []string{"key api-key of the Secret balena,"}, nil},
		{"openbalena", []string{"reads https://api.balena.example.com every 120s."}, nil},
		{"service-monitor", []string{"scrapes it through the ServiceMonitor metrics-balena-exporter in monitoring."}, []string{"Nothing scrapes it", "serviceMonitor.labels"}},
		{"tls", []string{"curl --insecure https://localhost:8000/metrics", "set serviceMonitor.labels"}, []string{"WARNING"}},
		{"basic-auth", []string{"Clients need a user name and password.", "curl --insecure --user NAME https://"}, []string{"WARNING"}},
		{"mutual-tls", []string{"Clients need a certificate of your CA.", "--cert tls.crt --key tls.key"}, nil},
		{"other-namespace", []string{"Clients need a certificate of your CA and a user name and password."}, nil},
		{"untestable", []string{"WARNING: without webConfig.tls.enabled, passwords are sent unencrypted.", "No test for helm test is installed. It needs a password (test.basicAuthSecret)."}, []string{"helm test -n"}},
		{"insecure", []string{"WARNING: the token may be sent unencrypted", "WARNING: Prometheus does not verify"}, nil},
		{"shards", []string{"each of 3 pods reads a part of the fleets"}, nil},
		{"service-discovery", []string{"through the ScrapeConfig metrics-balena-exporter-devices in iot."}, []string{"WARNING", "scrapeConfig.labels"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			notes := render(t, ci(t, test.name)).notes
			for _, want := range test.contain {
				if !strings.Contains(notes, want) {
					t.Errorf("the notes do not contain %q:\n%s", want, notes)
				}
			}
			for _, text := range test.omit {
				if strings.Contains(notes, text) {
					t.Errorf("the notes contain %q:\n%s", text, notes)
				}
			}
		})
	}
}

// helm test scrapes like Prometheus, and uses the same Secrets if they are in its namespace.
func TestHelmTest(t *testing.T) {
	for _, test := range []struct {
		name    string
		script  []string
		omit    []string
		secrets map[string]string // volume or variable → Secret
	}{
		{"default", []string{"url=http://metrics-balena-exporter.iot.svc:8000/metrics"}, []string{"--cacert", "--cert ", "--config", "--insecure", "401"}, nil},
		{"tls", []string{"--cacert /etc/test/ca/ca.crt"}, []string{"--cert ", "--insecure"}, map[string]string{"ca": "exporter-tls"}},
		{"cert-manager", []string{"url=https://balena-metrics.example.com:8000/metrics"}, nil, map[string]string{"ca": "metrics-balena-exporter-tls"}},
		{"insecure", []string{"--insecure"}, []string{"--cacert"}, nil},
		{"basic-auth", []string{"--config -", "not 401"}, nil, map[string]string{"ca": "exporter-tls", "USERNAME": "prometheus-credentials", "PASSWORD": "prometheus-credentials"}},
		{"mutual-tls", []string{"--cert /etc/test/client/tls.crt --key /etc/test/client/tls.key"}, nil, map[string]string{"ca": "exporter-tls", "client": "prometheus-client"}},
		{"other-namespace", nil, nil, map[string]string{"ca": "exporter-tls", "client": "test-client", "USERNAME": "test-credentials", "PASSWORD": "test-credentials"}},
		{"web-config-secret", []string{"--config -"}, []string{"--cacert"}, map[string]string{"USERNAME": "prometheus-credentials", "PASSWORD": "prometheus-credentials"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			pod := get[*corev1.Pod](t, render(t, ci(t, test.name)))
			if pod.Annotations["helm.sh/hook"] != "test" || !strings.Contains(pod.Annotations["helm.sh/hook-delete-policy"], "hook-succeeded") {
				t.Errorf("annotations %v", pod.Annotations)
			}
			script := strings.Join(pod.Spec.Containers[0].Command, "\n")
			for _, want := range test.script {
				if !strings.Contains(script, want) {
					t.Errorf("no %q in\n%s", want, script)
				}
			}
			for _, unwanted := range test.omit {
				if strings.Contains(script, unwanted) {
					t.Errorf("%q in\n%s", unwanted, script)
				}
			}
			secrets := map[string]string{}
			for _, v := range pod.Spec.Volumes {
				secrets[v.Name] = v.Secret.SecretName
			}
			for _, env := range pod.Spec.Containers[0].Env {
				if env.ValueFrom != nil {
					secrets[env.Name] = env.ValueFrom.SecretKeyRef.Name
				}
			}
			for name, want := range test.secrets {
				if secrets[name] != want {
					t.Errorf("%s comes from %q, want %s", name, secrets[name], want)
				}
			}
			if len(secrets) != len(test.secrets) {
				t.Errorf("reads %v, want %v", secrets, test.secrets)
			}
		})
	}
	for _, values := range []string{ci(t, "untestable"), minimal + "test: {enabled: false}"} {
		if pods := all[*corev1.Pod](render(t, values)); len(pods) != 0 {
			t.Errorf("a test without credentials, or a disabled test, is rendered for %s", values)
		}
	}
}

// TestHelmTestScript runs the script of helm test against a server with a web configuration of the chart. The script passes if
// the server matches its values, and fails otherwise.
func TestHelmTestScript(t *testing.T) {
	if _, err := exec.LookPath("curl"); err != nil {
		t.Skip("curl is not installed")
	}
	const (
		plain     = "plain"
		tls       = "tls"
		basicAuth = "basic-auth"
		mutualTLS = "mutual-tls"
	)
	values := map[string]string{plain: minimal, tls: ci(t, "tls"), basicAuth: ci(t, "basic-auth"), mutualTLS: ci(t, "mutual-tls")}
	for _, test := range []struct {
		server, script, password, metrics string
		passes                            bool
		output                            string
	}{
		{plain, plain, "", "balena_up 0", true, "serves metrics"},
		{tls, tls, "", "balena_up 1", true, "serves metrics"},
		{basicAuth, basicAuth, password, "balena_up 1", true, "serves metrics"},
		{mutualTLS, mutualTLS, "", "balena_up 1", true, "serves metrics"},

		{plain, plain, "", "go_goroutines 1", false, "does not return balena_up"},
		{plain, tls, "", "balena_up 1", false, "curl"},
		{tls, plain, "", "balena_up 1", false, "400"},
		{tls, basicAuth, password, "balena_up 1", false, "returns 200 without a password, not 401"},
		{basicAuth, tls, "", "balena_up 1", false, "401"},
		{basicAuth, basicAuth, "wrong", "balena_up 1", false, "401"},
		{mutualTLS, tls, "", "balena_up 1", false, "curl"},
	} {
		t.Run(fmt.Sprintf("server %s, script %s %s, metrics %s", test.server, test.script, test.password, test.metrics), func(t *testing.T) {
			certificates := t.TempDir()
			writeCertificate(t, certificates, "metrics-balena-exporter.iot.svc")
			port := serveMetrics(t, values[test.server], certificates, test.metrics)
			output, err := runHelmTest(t, fmt.Sprintf("%s\nservice: {port: %d}\n", values[test.script], port), certificates, test.password)
			if (err == nil) != test.passes || !strings.Contains(output, test.output) {
				t.Errorf("error %v, output:\n%s", err, output)
			}
			if test.password != "" && strings.Contains(output, test.password) {
				t.Errorf("the output contains the password:\n%s", output)
			}
		})
	}
}

// password is the password whose hash is in the values files.
const password = `an "odd" one\`

// serveMetrics serves metrics with the web configuration of the values. It returns the port.
func serveMetrics(t *testing.T, values, certificates, metrics string) int {
	t.Helper()
	config := filepath.Join(t.TempDir(), "web-config.yml")
	var text string
	for _, secret := range all[*corev1.Secret](render(t, values)) {
		text = string(secret.Data["web-config.yml"])
	}
	for _, mounted := range []string{"/etc/balena-exporter/tls", "/etc/balena-exporter/client-ca"} {
		text = strings.ReplaceAll(text, mounted, certificates)
	}
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintln(w, metrics)
	}), ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)}
	served := make(chan error, 1)
	go func() {
		served <- web.Serve(listener, server, &web.FlagConfig{WebConfigFile: &config}, slog.New(slog.DiscardHandler))
	}()
	t.Cleanup(func() {
		if err := server.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
		if err := <-served; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
	return listener.Addr().(*net.TCPAddr).Port
}

func runHelmTest(t *testing.T, values, certificates, password string) (output string, err error) {
	t.Helper()
	container := get[*corev1.Pod](t, render(t, values)).Spec.Containers[0]
	script := container.Command[len(container.Command)-1]
	for _, mounted := range []string{"/etc/test/ca", "/etc/test/client"} {
		script = strings.ReplaceAll(script, mounted, certificates)
	}
	// The script retries refused connections while a pod starts, which is not needed here.
	script = strings.ReplaceAll(script, "--retry 5", "--retry 0")
	command := exec.Command(container.Command[0], append(container.Command[1:len(container.Command)-1], script)...)
	command.Env = append(os.Environ(), "SERVICE_HOST=127.0.0.1", "USERNAME=prometheus", "PASSWORD="+password)
	text, err := command.CombinedOutput()
	return string(text), err
}
