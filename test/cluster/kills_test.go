// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// The exporter ends in every possible way, and is restarted automatically. No alert fires, although the alerts are enabled
// with their defaults.
func TestKills(t *testing.T) {
	t.Parallel() // it mostly waits
	s := begin(t, "kills", account{Devices: 8000, Fleets: 10})
	s.tokenSecret("balena-token", token)
	const name, job = "killed", "killed"
	values := map[string]any{
		"balena":         map[string]any{"refreshInterval": "5s"},
		"serviceMonitor": map[string]any{"jobLabel": "app.kubernetes.io/instance", "interval": "5s"},
		"prometheusRule": map[string]any{"enabled": true},
	}
	s.install(name, values)
	s.scraped(name, 1)
	s.eventually("the alerts are loaded", func() error { return s.rule("BalenaExporterDown", s.namespace+"-") })

	s.part("its pod is deleted", func(s *story) {
		before := s.pod(name)
		s.kubectl("delete", "pod", before.Name)
		s.scraped(name, 1)
		if after := s.pod(name); after.UID == before.UID || restarts(after) != 0 {
			s.Errorf("it is the pod %s still, or was restarted (%d)", after.Name, restarts(after))
		}
	})
	for _, kill := range []struct {
		signal syscall.Signal
		code   int
	}{{syscall.SIGTERM, 0}, {syscall.SIGKILL, 128 + int(syscall.SIGKILL)}} {
		s.part(kill.signal.String(), func(s *story) {
			before := s.pod(name)
			if err := syscall.Kill(s.process(before), kill.signal); err != nil {
				s.Fatal(err)
			}
			s.eventually("the container is restarted", func() error {
				after := s.pod(name)
				if restarts(after) != restarts(before)+1 || after.Status.ContainerStatuses[0].LastTerminationState.Terminated == nil {
					return fmt.Errorf("%d restarts, not %d", restarts(after), restarts(before)+1)
				}
				if code := int(after.Status.ContainerStatuses[0].LastTerminationState.Terminated.ExitCode); code != kill.code {
					s.Errorf("it ended with %d, not %d", code, kill.code)
				}
				return nil
			})
			s.scraped(name, 1)
		})
	}
	s.part("out of memory", func(s *story) {
		limit := func(memory string) {
			output, err := s.try("", "kubectl", "set", "resources", "deployment/"+name+"-balena-exporter", "--requests=memory="+memory, "--limits=memory="+memory)
			if err != nil {
				s.Fatalf("kubectl set resources: %v\n%s", err, output)
			}
		}
		limit("12Mi") // the data alone need this much
		s.eventually("the kernel ends it", func() error {
			pods, err := s.pods(name)
			if err != nil {
				return err
			}
			for _, pod := range pods {
				for _, status := range pod.Status.ContainerStatuses {
					if last := status.LastTerminationState.Terminated; last != nil && last.Reason == "OOMKilled" {
						return nil
					}
				}
			}
			return fmt.Errorf("it has not: %+v", pods)
		})
		limit("256Mi")
		s.scraped(name, 1)
	})
	fired := fmt.Sprintf(`count by (alertname) (count_over_time(ALERTS{alertstate="firing", story=%q, job=%q}[1d]))`, s.namespace, job)
	if err := s.are("alertname", fired, nil); err != nil {
		t.Errorf("alerts fired: %v", err)
	}
}

// process returns the process id of the exporter in a pod, in the process namespace of the cluster.
func (s *story) process(pod corev1.Pod) int {
	s.Helper()
	found := 0
	s.eventually("the process is there", func() error {
		groups, err := filepath.Glob("/proc/[0-9]*/cgroup")
		if err != nil {
			return err
		}
		for _, group := range groups {
			directory := filepath.Dir(group)
			in, err := os.ReadFile(group)
			if err != nil || !bytes.Contains(in, []byte(pod.UID)) {
				continue // it has ended meanwhile, or belongs to another pod
			}
			if line, err := os.ReadFile(filepath.Join(directory, "cmdline")); err == nil && strings.HasPrefix(string(line), "/bin/balena-exporter\x00") {
				found, err = strconv.Atoi(filepath.Base(directory))
				return err
			}
		}
		return fmt.Errorf("none of the pod %s", pod.Name)
	})
	return found
}
