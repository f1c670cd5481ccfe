package chart

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

func TestNotes(t *testing.T) {
	for _, test := range []struct {
		name       string
		says, omit []string
	}{
		{"default", []string{"reads https://api.balena-cloud.com every 60s.", "key token of the Secret balena-token", "Nothing scrapes it yet", "http://metrics-balena-exporter.iot.svc:8000/metrics", "helm test -n iot metrics"}, []string{"WARNING", "Clients need", "--user"}},
		{"token", nil, []string{"which you keep"}},
		{"secret-key", []string{"key api-key of the Secret balena,"}, nil},
		{"openbalena", []string{"reads https://api.balena.example.com every 120 s."}, nil},
		{"service-monitor", []string{"finds it by the ServiceMonitor metrics-balena-exporter in monitoring."}, []string{"Nothing scrapes it", "serviceMonitor.labels"}},
		{"tls", []string{"curl --insecure https://localhost:8000/metrics", "set serviceMonitor.labels"}, []string{"WARNING"}},
		{"basic-auth", []string{"Clients need a name and password.", "curl --insecure --user NAME https://"}, []string{"WARNING"}},
		{"mutual-tls", []string{"Clients need a certificate of your CA.", "--cert tls.crt --key tls.key"}, nil},
		{"other-namespace", []string{"Clients need a certificate of your CA and a name and password."}, nil},
		{"untestable", []string{"WARNING: without webConfig.tls.enabled, passwords travel in the clear.", "helm test has nothing to run: it would need a password (test.basicAuthSecret)."}, []string{"helm test -n"}},
		{"insecure", []string{"WARNING: the token may travel in the clear", "WARNING: Prometheus doesn't verify"}, nil},
		{"shards", []string{"3 pods each a part of the fleets"}, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			notes := render(t, ci(t, test.name)).notes
			for _, want := range test.says {
				if !strings.Contains(notes, want) {
					t.Errorf("the notes don't say %q:\n%s", want, notes)
				}
			}
			for _, lie := range test.omit {
				if strings.Contains(notes, lie) {
					t.Errorf("the notes say %q:\n%s", lie, notes)
				}
			}
		})
	}
}

// helm test asks as Prometheus does, with the same Secrets where it can reach them.
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
			for _, odd := range test.omit {
				if strings.Contains(script, odd) {
					t.Errorf("%q in\n%s", odd, script)
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
			t.Errorf("a test that can't pass, or isn't wanted, is rendered for %s", values)
		}
	}
}
