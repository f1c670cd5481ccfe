// SPDX-License-Identifier: Apache-2.0

package chart

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/types"
)

const composeDir = root + "/deploy/docker-compose"

// composeProject reads files like docker compose: it validates and merges them.
func composeProject(t *testing.T, files ...string) *types.Project {
	t.Helper()
	var paths []string
	for _, file := range files {
		paths = append(paths, filepath.Join(composeDir, file))
	}
	options, err := cli.NewProjectOptions(paths)
	if err != nil {
		t.Fatal(err)
	}
	project, err := options.LoadProject(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return project
}

func TestCompose(t *testing.T) {
	account := composeProject(t, "docker-compose.yml")
	simulated := composeProject(t, "docker-compose.yml", "simulator.yml")
	version := strings.TrimSpace(readFile(t, root+"/VERSION"))

	for _, project := range []*types.Project{account, simulated} {
		for name, service := range project.Services {
			_, tag, _ := strings.Cut(service.Image, ":")
			if ours := strings.Contains(service.Image, "balena-exporter/"); tag == "" || tag == "latest" || ours && tag != version {
				t.Errorf("%s runs %s", name, service.Image)
			}
			for _, port := range service.Ports {
				if port.HostIP != "127.0.0.1" {
					t.Errorf("%s is open to the network at port %s", name, port.Published)
				}
			}
			for _, mount := range service.Volumes {
				// The user creates the token.
				if mount.Type != types.VolumeTypeBind || filepath.Base(mount.Source) == "secrets" {
					continue
				}
				if _, err := os.Stat(mount.Source); err != nil {
					t.Errorf("%s mounts what isn't there: %v", name, err)
				}
			}
		}
	}

	env := func(project *types.Project, name string) string {
		value := project.Services["exporter"].Environment[name]
		if value == nil {
			return ""
		}
		return *value
	}
	if got, mounted := env(account, "BALENA_TOKEN_FILE"), account.Services["exporter"].Volumes[0].Target; filepath.Dir(got) != mounted {
		t.Errorf("the token is at %s, mounted is %s", got, mounted)
	}
	if got := env(account, "BALENA_TOKEN"); got != "" {
		t.Errorf("the environment has the token %s", got)
	}
	if got := env(simulated, "BALENA_API_URL"); got != "http://simulator:8085" || env(simulated, "BALENA_TOKEN_FILE") != "" {
		t.Errorf("on simulated devices the exporter reads %s with the token in %s", got, env(simulated, "BALENA_TOKEN_FILE"))
	}
	if _, found := simulated.Services["simulator"]; !found {
		t.Error("no simulator")
	}
}

// The unit reads the token from the credential, and uses only flags and variables of the exporter.
func TestSystemdUnit(t *testing.T) {
	unit := readFile(t, root+"/deploy/systemd/balena-exporter.service")
	_, credential, found := strings.Cut(unit, "\nLoadCredential=")
	if !found {
		t.Fatal("the unit loads no credential")
	}
	name, _, _ := strings.Cut(credential, ":")
	if want := "ExecStart=balena-exporter --balena.token-file=${CREDENTIALS_DIRECTORY}/" + name + "\n"; !strings.Contains(unit, want) {
		t.Errorf("the unit doesn't start with %s", want)
	}

	help, err := exec.Command(buildExporter(t), "--help").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, help)
	}
	for line := range strings.SplitSeq(readFile(t, root+"/deploy/systemd/balena-exporter.env"), "\n") {
		variable, _, assigned := strings.Cut(strings.TrimPrefix(line, "#"), "=")
		if !assigned || strings.Contains(variable, " ") || variable == "HTTPS_PROXY" {
			continue
		}
		if !strings.Contains(string(help), "($"+variable+")") {
			t.Errorf("the exporter doesn't know %s", variable)
		}
	}
}
