// SPDX-License-Identifier: Apache-2.0

package live

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/common/model"

	"github.com/balena-exporter/balena-exporter/internal/simulator"
)

var root = filepath.Join("..", "..")

// patience is the time limit for operations that take seconds on an idle machine.
const patience = 8 * time.Minute

// eventually waits until check returns nil.
func eventually(t *testing.T, check func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for retry := time.NewTicker(200 * time.Millisecond); ; {
		err := check()
		if err == nil {
			return
		}
		select {
		case <-retry.C:
		case <-ctx.Done():
			t.Fatalf("after %s: %v", patience, err)
		}
	}
}

// buildExporter builds the exporter with a version, which a panel shows.
func buildExporter(t *testing.T) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "balena-exporter")
	build := exec.CommandContext(t.Context(), "go", "build", "-ldflags", "-X github.com/prometheus/common/version.Version=0.0.0", "-o", program, "./cmd/balena-exporter")
	build.Dir = root
	if output, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building the exporter: %v\n%s", err, output)
	}
	return program
}

// buildPrometheus builds Prometheus once.
var buildPrometheus = sync.OnceValue(func() error {
	if output, err := exec.Command("make", "-C", root, "bin/tools/prometheus").CombinedOutput(); err != nil {
		return fmt.Errorf("building Prometheus: %w\n%s", err, output)
	}
	return nil
})

// listening matches the log line with the address, which is the same for the exporter and Prometheus.
var listening = regexp.MustCompile(`msg="Listening on".* address=(\S+)`)

// start runs a program until the end of the test, or until stop, and returns the address that it listens on.
func start(t *testing.T, program string, arguments ...string) (address string, stop func()) {
	t.Helper()
	run := exec.Command(program, arguments...)
	log, err := run.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := run.Start(); err != nil {
		t.Fatal(err)
	}
	addresses := make(chan string, 1)
	read := make(chan struct{})
	go func() {
		defer close(read)
		for lines := bufio.NewScanner(log); lines.Scan(); {
			if !strings.Contains(lines.Text(), "level=INFO") { // Prometheus logs many of these lines at start and end
				t.Log(lines.Text())
			}
			if match := listening.FindStringSubmatch(lines.Text()); match != nil && len(addresses) == 0 {
				addresses <- match[1]
			}
		}
	}()
	stop = sync.OnceFunc(func() {
		if err := run.Process.Signal(syscall.SIGTERM); err != nil {
			t.Error(err)
		}
		<-read                                                                       // before Wait, which closes the pipe
		if err := run.Wait(); err != nil && filepath.Base(program) != nodeExporter { // node_exporter does not handle the signal
			t.Errorf("%s ended with %v", filepath.Base(program), err)
		}
	})
	t.Cleanup(stop)
	select {
	case address = <-addresses:
	case <-read:
		t.Fatalf("%s ended", program)
	case <-time.After(patience):
		t.Fatalf("%s does not listen", program)
	}
	return address, stop
}

// startExporter runs an exporter that reads the API every second, with additional flags.
func startExporter(t *testing.T, api, tokenFile string, more ...string) (address string, stop func()) {
	t.Helper()
	return start(t, buildExporter(t), append([]string{
		"--balena.api-url=" + api, "--balena.token-file=" + tokenFile, "--balena.refresh-interval=1s", "--balena.slow-interval=1s",
		"--collector.service", "--collector.maintenance-tag=" + simulator.MaintenanceTag, "--collector.device.tags=site", "--collector.fleet.tags=env",
		"--web.listen-address=127.0.0.1:0", "--web.health-listen-address=",
	}, more...)...)
}

// A server is a running Prometheus.
type server struct{ url string }

// object is an object in a configuration.
type object map[string]any

// startPrometheus runs Prometheus. It scrapes the targets, by job, and the additional jobs, and evaluates the rules, all
// every second.
func startPrometheus(t *testing.T, rules string, targets map[string]string, jobs ...object) *server {
	t.Helper()
	if err := buildPrometheus(); err != nil {
		t.Fatal(err)
	}
	config := object{
		"global":     object{"scrape_interval": "1s", "evaluation_interval": "1s"},
		"rule_files": []string{rules},
	}
	for job, target := range targets {
		// Samples of the job past have their own job label.
		targets := object{"targets": []string{target}}
		if job != past {
			targets["labels"] = ofExporter
		}
		jobs = append(jobs, object{"job_name": job, "honor_labels": job == past, "static_configs": []object{targets}})
	}
	config["scrape_configs"] = jobs
	text, err := json.Marshal(config) // JSON is valid YAML
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "prometheus.yml")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	address, _ := start(t, filepath.Join(root, "bin", "tools", "prometheus"), "--config.file="+file, "--storage.tsdb.path="+filepath.Join(dir, "data"),
		"--scrape.discovery-reload-interval=100ms", "--web.listen-address=127.0.0.1:0")
	p := &server{"http://" + address}
	eventually(t, func() error { return p.get(t, "/api/v1/status/runtimeinfo", nil, &struct{}{}) })
	return p
}

// get decodes the data of a response of the Prometheus API.
func (p *server) get(t *testing.T, path string, parameters url.Values, into any) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, p.url+path, strings.NewReader(parameters.Encode()))
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if parameters == nil {
		request.Method, request.Body = http.MethodGet, nil
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	answer := struct {
		Status, Error   string
		Data            any
		Warnings, Infos []string
	}{Data: into}
	if err := json.NewDecoder(response.Body).Decode(&answer); err != nil {
		return fmt.Errorf("%s: %s: %w", path, response.Status, err)
	}
	if answer.Status != "success" || len(answer.Warnings) > 0 || len(answer.Infos) > 0 {
		return fmt.Errorf("%s %s: %s %q %q", path, parameters, answer.Error, answer.Warnings, answer.Infos)
	}
	return nil
}

// instant returns the labels of the current result of a query.
func (p *server) instant(t *testing.T, query string) ([]model.LabelSet, error) {
	t.Helper()
	return p.at(t, query, time.Now())
}

// at returns the labels of the result of a query at a time, which may be in the future.
func (p *server) at(t *testing.T, query string, at time.Time) ([]model.LabelSet, error) {
	t.Helper()
	return p.query(t, "/api/v1/query", url.Values{"query": {query}, "time": {unix(at)}})
}

// lately returns the labels of the result of a query over the last ten seconds.
func (p *server) lately(t *testing.T, query string) ([]model.LabelSet, error) {
	t.Helper()
	now := time.Now()
	return p.query(t, "/api/v1/query_range", url.Values{"query": {query}, "start": {unix(now.Add(-10 * time.Second))}, "end": {unix(now)}, "step": {"1"}})
}

func unix(t time.Time) string { return strconv.FormatFloat(float64(t.UnixMilli())/1000, 'f', 3, 64) }

func (p *server) query(t *testing.T, path string, parameters url.Values) ([]model.LabelSet, error) {
	t.Helper()
	var data struct {
		Result []struct{ Metric model.LabelSet }
	}
	if err := p.get(t, path, parameters, &data); err != nil {
		return nil, err
	}
	var all []model.LabelSet
	for _, r := range data.Result {
		all = append(all, r.Metric)
	}
	return all, nil
}

// An alert is a pending or firing alert.
type alert struct {
	Labels, Annotations model.LabelSet
	State               string
}

func (p *server) alerts(t *testing.T) ([]alert, error) {
	t.Helper()
	var data struct{ Alerts []alert }
	err := p.get(t, "/api/v1/alerts", nil, &data)
	return data.Alerts, err
}

// A rule is an alerting or recording rule.
type rule struct {
	Name, Query, Health, LastError string
	Labels                         model.LabelSet
}

// String returns the name of the rule, with the label problem if it has one.
func (r *rule) String() string {
	if problem := string(r.Labels["problem"]); problem != "" {
		return r.Name + " " + problem
	}
	return r.Name
}

func (p *server) rules(t *testing.T) ([]rule, error) {
	t.Helper()
	var data struct{ Groups []struct{ Rules []rule } }
	err := p.get(t, "/api/v1/rules", nil, &data)
	var all []rule
	for _, group := range data.Groups {
		all = append(all, group.Rules...)
	}
	return all, err
}
