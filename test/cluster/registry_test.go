// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// What make release built is published to a registry on this machine, and installed from there by the README's commands. For
// the node, the registry takes the place of the one that the chart names. The node pulls the image by its digest; it has no
// other copy of it.
func TestInstallFromRegistry(t *testing.T) {
	s := begin(t, "from-registry", small)
	s.registry()
	published := s.publish()
	image, chart := published["balena-exporter"], published["charts/balena-exporter"]
	t.Logf("published %s and %s", image, chart)

	const readme = "charts/balena-exporter/README.md"
	adapted := strings.NewReplacer(
		"YOUR_API_KEY", token,
		"kubectl create namespace balena-exporter\n", "", " --namespace balena-exporter", "", // the story has a namespace of its own
		"oci://"+registryHost, "--plain-http --wait --values "+s.values()+" --set image.digest="+image+
			" --set serviceMonitor.enabled=true --set serviceMonitor.labels.release="+release+" oci://"+registryAddress,
	)
	run := func(commands string) string {
		t.Helper()
		output, err := s.try("", "bash", "-euo", "pipefail", "-c", adapted.Replace(commands))
		if err != nil {
			t.Fatalf("%v\n%s\n%s", err, commands, output)
		}
		return output
	}
	run(block(s, readme, "## Install", 0))
	pod := s.pod("balena-exporter")
	want := registryHost + "/balena-exporter/balena-exporter@" + image
	if got := pod.Spec.Containers[0].Image; got != want {
		t.Errorf("the pod asks for the image %s, want %s", got, want)
	}
	if got := pod.Status.ContainerStatuses[0].ImageID; got != want {
		t.Errorf("the pod runs the image %s, want %s", got, want)
	}
	if output := s.kubectl("get", "events", "--field-selector", "reason=Pulled,involvedObject.name="+pod.Name, "--output=jsonpath={.items[*].message}"); !strings.Contains(output, "Successfully pulled image") {
		t.Errorf("the node did not pull the image: %s", output)
	}
	s.scraped("balena-exporter", 1)
	if output, want := run(block(s, readme, "## Install", 2)), "ok       API: "+s.apiURL+" answers with version v7, and the token has access to 4 fleets\n"; !strings.Contains(output, want) {
		t.Errorf("the command to check the configuration does not print %q:\n%s", want, output)
	}

	s.part("another digest is not run", func(s *story) {
		other := "sha256:" + strings.Repeat("0", 64)
		s.helm("upgrade", "balena-exporter", "--plain-http", "oci://"+registryAddress+"/balena-exporter/charts/balena-exporter", "--reuse-values", "--set=image.digest="+other)
		s.eventually("the node finds no such image", func() error {
			output, err := s.try("", "kubectl", "get", "events", "--field-selector=reason=Failed", "--output=jsonpath={.items[*].message}")
			if err != nil || !strings.Contains(output, other) || !strings.Contains(output, "not found") {
				return fmt.Errorf("there is no such event: %s", output)
			}
			return nil
		})
	})
}

// registry runs an empty registry to the end of the story.
func (s *story) registry() {
	s.Helper()
	command := exec.Command(filepath.Join(kubernetes.programs, "registry"), "-listen="+registryAddress, "-storage="+s.TempDir())
	command.Stderr = os.Stderr
	stdout, err := command.StdoutPipe()
	if err != nil {
		s.Fatal(err)
	}
	if err := command.Start(); err != nil {
		s.Fatal(err)
	}
	s.Cleanup(func() {
		_ = command.Process.Kill()
		_ = command.Wait()
	})
	var address string
	if _, err := fmt.Fscanln(stdout, &address); err != nil {
		s.Fatalf("the registry does not listen: %v", err)
	}
}

var publishedLine = regexp.MustCompile(`(?m)^published ` + registryAddress + `/balena-exporter/(.*):.*@(sha256:[0-9a-f]{64})$`)

// publish publishes the release, signed with a key of the story, and returns the digests by the names in the registry.
func (s *story) publish() map[string]string {
	s.Helper()
	root, err := filepath.Abs(project)
	if err != nil {
		s.Fatal(err)
	}
	key, cosign := filepath.Join(s.TempDir(), "cosign"), filepath.Join(root, "bin", "tools", "cosign")
	script := fmt.Sprintf("export COSIGN_PASSWORD=; %s generate-key-pair --output-key-prefix=%s; COSIGN_KEY=%s.key publish -release=%s -registry=%s/balena-exporter -cosign=%s",
		cosign, key, key, filepath.Join(root, ".release"), registryAddress, cosign)
	output, err := s.try("", "bash", "-euo", "pipefail", "-c", script)
	if err != nil {
		s.Fatalf("publish: %v\n%s", err, output)
	}
	digests := map[string]string{}
	for _, line := range publishedLine.FindAllStringSubmatch(output, -1) {
		digests[line[1]] = line[2]
	}
	if len(digests) != 2 {
		s.Fatalf("not both image and chart are published: %s", output)
	}
	return digests
}
