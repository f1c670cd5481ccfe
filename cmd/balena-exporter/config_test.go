// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/balena-exporter/balena-exporter/collector"
	"github.com/balena-exporter/balena-exporter/internal/balena"
)

func TestBadConfigurationIsToldInOneSentence(t *testing.T) {
	dir := t.TempDir()
	file := func(name, content string) string { return write(t, dir, name, content) }
	good := file("good", token)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }()
	busy := taken.Addr().String()
	missing := filepath.Join(dir, "missing")

	const noToken = "none"
	for _, test := range []struct {
		name  string
		args  string   // separated by blanks
		env   []string // names and values
		token string   // in the environment; a valid one by default
		want  []string // what the sentence must contain: the cause and the remedy
	}{
		{"no token", "", nil, noToken, []string{"BALENA_TOKEN", "--balena.token-file", "BALENA_TOKEN_FILE", "there is no token"}},
		{"a blank token", "", nil, " \n", []string{"BALENA_TOKEN", "--balena.token-file", "there is no token"}},
		{"both kinds of token", "--balena.token-file=" + good, nil, "", []string{"BALENA_TOKEN", "--balena.token-file", "keep one"}},
		{"both kinds of token by variables", "", []string{"BALENA_TOKEN_FILE", good}, "", []string{"BALENA_TOKEN", "BALENA_TOKEN_FILE", "keep one"}},
		{"a token with blanks", "", nil, secret + " " + secret, []string{"BALENA_TOKEN", "contains blanks"}},
		{"no token file", "--balena.token-file=" + missing, nil, noToken, []string{"--balena.token-file", "BALENA_TOKEN_FILE", missing, "no such file"}},
		{"a token file that cannot be read", "--balena.token-file=" + dir, nil, noToken, []string{"--balena.token-file", dir, "cannot read"}},
		{"an empty token file", "--balena.token-file=" + file("empty", "\n"), nil, noToken, []string{"--balena.token-file", "the token is empty"}},
		{"a token file with two lines", "--balena.token-file=" + file("two", token+"\n"+token), nil, noToken, []string{"--balena.token-file", "line breaks"}},

		{"no URL", "--balena.api-url=api.balena-cloud.com", nil, "", []string{"--balena.api-url", "BALENA_API_URL", "https://api.balena-cloud.com", `"api.balena-cloud.com"`}},
		{"a URL by the variable", "", []string{"BALENA_API_URL", "ftp://example.com"}, "", []string{"--balena.api-url", "BALENA_API_URL", `"ftp://example.com"`}},
		{"a URL without a host", "--balena.api-url=https://:443", nil, "", []string{"--balena.api-url", "https://api.balena-cloud.com"}},
		{"a URL with a user", "--balena.api-url=https://me:" + secret + "@example.com", nil, "", []string{"--balena.api-url", "user", "--balena.token-file"}},
		{"a URL with a query", "--balena.api-url=https://example.com/?apikey=" + secret, nil, "", []string{"--balena.api-url", "query", "--balena.token-file"}},
		{"a URL with an empty query", "--balena.api-url=https://example.com/?", nil, "", []string{"--balena.api-url", "query"}},
		{"no URL, with a password", "--balena.api-url=ftp://me:" + secret + "@example.com", nil, "", []string{"--balena.api-url", "example.com"}},
		{"no URL, with a query", "--balena.api-url=example.com?apikey=" + secret, nil, "", []string{"--balena.api-url", "example.com"}},
		{"no URL, with a password that looks like a query", "--balena.api-url=https://me:" + secret + "?x@example.com", nil, "", []string{"--balena.api-url", "https://api.balena-cloud.com"}},
		{"no URL, with a key that looks like a host", "--balena.api-url=example.com?apikey=x@" + secret, nil, "", []string{"--balena.api-url", "https://api.balena-cloud.com"}},
		{"a URL with the version", "--balena.api-url=https://api.balena-cloud.com/v7", nil, "", []string{"--balena.api-url", "BALENA_API_URL", `"https://api.balena-cloud.com/v7"`, "write https://api.balena-cloud.com"}},
		{"a URL with the other version", "", []string{"BALENA_API_URL", "https://api.example.com/balena/v6/"}, "", []string{"--balena.api-url", "BALENA_API_URL", "write https://api.example.com/balena"}},
		{"HTTP to another host", "--balena.api-url=http://api.example.com", nil, "", []string{"--balena.api-url", "unencrypted", "https", "--balena.allow-http"}},
		{"a version that is none", "--balena.api-version=v8", nil, "", []string{"--balena.api-version", "auto,v7,v6"}},
		{"no CA file", "--balena.ca-file=" + missing, nil, "", []string{"--balena.ca-file", missing}},
		{"a CA file without PEM", "--balena.ca-file=" + good, nil, "", []string{"--balena.ca-file", "no PEM certificate"}},

		{"an expression that is none", "--balena.fleet-include=acme/[", nil, "", []string{"--balena.fleet-include", "missing closing ]: `[`"}},
		{"an expression that anchors would mend", "--balena.fleet-exclude=a)|(b", nil, "", []string{"--balena.fleet-exclude", "unexpected )"}},

		{"a switch with a value", "--collector.device=false", nil, "", []string{"--collector.device takes no value", "--no-collector.device"}},
		{"no interval", "--balena.refresh-interval=0", nil, "", []string{"--balena.refresh-interval", "CRAWL_INTERVAL", "from a second to a day"}},
		{"a negative interval", "", []string{"CRAWL_INTERVAL", "-60"}, "", []string{"--balena.refresh-interval", "CRAWL_INTERVAL", "from a second to a day"}},
		{"half a second", "", []string{"CRAWL_INTERVAL", "0.5"}, "", []string{"CRAWL_INTERVAL", "from a second to a day"}},
		{"an interval in words", "", []string{"CRAWL_INTERVAL", "often"}, "", []string{"CRAWL_INTERVAL", "60", "2m", `"often"`}},
		{"an interval that is no number", "", []string{"CRAWL_INTERVAL", "NaN"}, "", []string{"CRAWL_INTERVAL", `"NaN"`}},
		{"no timeout", "--balena.timeout=0s", nil, "", []string{"--balena.timeout", "more than zero"}},
		{"a negative timeout", "--balena.timeout=-1s", nil, "", []string{"--balena.timeout", "more than zero"}},
		{"a timeout without a unit", "--balena.timeout=30", nil, "", []string{"--balena.timeout", "missing unit"}},
		{"a slow interval of nothing", "--balena.slow-interval=0s", nil, "", []string{"--balena.slow-interval", "more than zero"}},
		{"a negative full refresh interval", "--balena.full-refresh-interval=-1s", nil, "", []string{"--balena.full-refresh-interval", "must not be negative", "-1s"}},
		{"a full refresh interval without a unit", "", []string{"BALENA_EXPORTER_BALENA_FULL_REFRESH_INTERVAL", "900"}, "", []string{"--balena.full-refresh-interval", "missing unit"}},
		{"staleness below the interval", "--balena.max-staleness=59s", nil, "", []string{"--balena.max-staleness", "interval of 1m0s"}},
		{"negative staleness", "--balena.max-staleness=-1s", nil, "", []string{"--balena.max-staleness", "must not be negative"}},
		{"a page of nothing", "--balena.page-size=0", nil, "", []string{"--balena.page-size", "from 1 to 10000"}},
		{"a page size in words", "--balena.page-size=many", nil, "", []string{"--balena.page-size", `"many"`}},

		{"a Grafana without a scheme", "--web.grafana-url=grafana.example.com", nil, "", []string{"--web.grafana-url", "https://grafana.example.com", `"grafana.example.com"`}},
		{"a Grafana with a script", "--web.grafana-url=javascript:alert(1)", nil, "", []string{"--web.grafana-url", "must be an address"}},
		{"a Grafana with a password", "--web.grafana-url=https://me:" + token + "@grafana.example.com", nil, "", []string{"--web.grafana-url", "without user"}},
		{"a threshold of a problem that is none", "--web.problem-thresholds=offline=5", nil, "", []string{"--web.problem-thresholds", `"offline"`, "deviceOfflineSeconds"}},
		{"a path of a page", "--web.telemetry-path=/problems", nil, "", []string{"--web.telemetry-path", "a path of its own"}},
		{"thresholds that are none", "--collector.fleet.disconnected-thresholds=3600,1d", nil, "", []string{"--collector.fleet.disconnected-thresholds", "seconds", `"1d"`}},
		{"a threshold of nothing", "--collector.fleet.disconnected-thresholds=0", nil, "", []string{"--collector.fleet.disconnected-thresholds", `"0"`}},
		{"a threshold twice", "--collector.fleet.disconnected-thresholds=60,60", nil, "", []string{"--collector.fleet.disconnected-thresholds", `"60" twice`}},
		{"a pattern in the middle of a tag's key", "--collector.fleet.tags=site-*-a", nil, "", []string{"--collector.fleet.tags", "site-*", `"site-*-a"`}},
		{"no keys of tags", "--collector.tag-limit=0", nil, "", []string{"--collector.tag-limit", "from 1 to 100"}},
		{"a pattern of maintenance", "--collector.maintenance-tag=main*", nil, "", []string{"--collector.maintenance-tag", "one tag", `"main*"`}},
		{"a device tag twice", "--collector.device.tags=site,customer,site", nil, "", []string{"--collector.device.tags", `"site" twice`}},
		{"a fleet tag twice", "--collector.fleet.tags=site,site", nil, "", []string{"--collector.fleet.tags", `"site" twice`}},
		{"an allowlist of nothing", "--collector.metric-allowlist=balena_device_onlin", nil, "", []string{"--collector.metric-allowlist", `"balena_device_onlin"`, "nearest name is balena_device_online"}},
		{"a denylist of the exporter's own metrics", "--collector.metric-denylist=balena_up", nil, "", []string{"--collector.metric-denylist", "matches no metric"}},
		{"a denylist that is no expression", "--collector.metric-denylist=balena_device_.* --collector.metric-denylist=(", nil, "", []string{"--collector.metric-denylist", "missing closing )"}},
		{"too many decimals", "--collector.device.location-decimals=7", nil, "", []string{"--collector.device.location-decimals", "from 0 to 6"}},
		{"no parts", "--web.parts=0", nil, "", []string{"--web.parts", "from 1 to 64"}},
		{"too many parts", "--web.parts=65", nil, "", []string{"--web.parts", "from 1 to 64"}},
		{"a negative limit", "--collector.release.limit=-1", nil, "", []string{"--collector.release.limit", "from 0"}},
		{"a switch that is none", "", []string{"BALENA_EXPORTER_COLLECTOR_DEVICE", "perhaps"}, "", []string{"--collector.device", `"perhaps"`}},

		{"a proxy that cannot be parsed", "", []string{"HTTPS_PROXY", "http://me:" + secret + "%zz@proxy.example.com:3128"}, "", []string{"HTTPS_PROXY", "http://proxy.example.com:3128", "%40 for @"}},
		{"a proxy in lower case", "", []string{"https_proxy", "http://me:" + secret + "%@proxy.example.com"}, "", []string{"https_proxy", "http://proxy.example.com:3128"}},
		{"a proxy for HTTP", "", []string{"HTTP_PROXY", "http://proxy.example.com:" + secret}, "", []string{"HTTP_PROXY", "http://proxy.example.com:3128"}},
		{"a proxy for HTTP in lower case", "", []string{"http_proxy", "http://"}, "", []string{"http_proxy", "http://proxy.example.com:3128"}},

		{"no path", "--web.telemetry-path=metrics", nil, "", []string{"--web.telemetry-path", "/metrics", `"metrics"`}},
		{"a path that is taken", "--web.telemetry-path=/-/healthy", nil, "", []string{"--web.telemetry-path", "/metrics"}},
		{"a path that matches others", "--web.telemetry-path=/{any}", nil, "", []string{"--web.telemetry-path", "/metrics"}},
		{"a path that nobody gets to", "--web.telemetry-path=//metrics", nil, "", []string{"--web.telemetry-path", "/metrics"}},
		{"the path of targets", "--web.telemetry-path=/sd/devices", nil, "", []string{"--web.telemetry-path", "/metrics"}},
		{"an unknown kind of address", "--sd.address=vpn", nil, "", []string{"--sd.address", "none,public,local", "vpn"}},
		{"a template without a device", "--web.enable-sd --sd.template=host:9100", nil, "", []string{"--sd.template", `"host:9100"`, "{uuid} or {name}"}},
		{"a template with another placeholder", "--web.enable-sd --sd.template={id}.example", nil, "", []string{"--sd.template", "{id}", "{uuid} or {name}"}},
		{"a template that is an address of a page", "--web.enable-sd --sd.template=http://{uuid}.example/", nil, "", []string{"--sd.template", "host name", "{uuid}.tailnet.example:9100"}},
		{"a template for public URLs", "--web.enable-sd --sd.address=public --sd.template={uuid}.example", nil, "", []string{"--sd.template", "--sd.address", "keep one"}},
		{"a template with a port, and ports", "--web.enable-sd --sd.template={uuid}.example:9100 --sd.port=9100", nil, "", []string{"--sd.template", "--sd.port", "keep one"}},
		{"a template with names that are hidden", "--web.enable-sd --sd.template={name}.example --no-collector.device.name", nil, "", []string{"--sd.template", "--no-collector.device.name", "{uuid}"}},
		{"a base without public URLs", "--web.enable-sd --sd.device-urls-base=example.com", nil, "", []string{"--sd.device-urls-base", "--sd.address=public", "none"}},
		{"a base that is an address", "--web.enable-sd --sd.address=public --sd.device-urls-base=https://example.com", nil, "", []string{"--sd.device-urls-base", "domain", "devices.example.com", `"https://example.com"`}},
		{"a base with a password", "--web.enable-sd --sd.address=public --sd.device-urls-base=me:" + secret + "@example.com", nil, "", []string{"--sd.device-urls-base", "domain"}},
		{"ports of public URLs", "--web.enable-sd --sd.address=public --sd.port=9100", nil, "", []string{"--sd.port", "--sd.address=public", "port 80", "remove it"}},
		{"a port that is none", "--web.enable-sd --sd.port=70000", nil, "", []string{"--sd.port", "from 1 to 65535", "70000"}},
		{"a port in words", "--web.enable-sd --sd.port=http", nil, "", []string{"--sd.port", "whole number", `"http"`}},
		{"a port twice", "--web.enable-sd --sd.port=9100 --sd.port=9100", nil, "", []string{"--sd.port", "9100", "twice"}},
		{"very many ports", "--web.enable-sd" + seventeenPorts(), nil, "", []string{"--sd.port", "from 0 to 16", "17"}},
		{"a path that is relative", "--web.enable-sd --sd.path=metrics", nil, "", []string{"--sd.path", "/metrics", `"metrics"`}},
		{"a path with a query", "--web.enable-sd --sd.path=/metrics?x", nil, "", []string{"--sd.path", "/metrics", `"/metrics?x"`}},
		{"an unknown scheme", "--web.enable-sd --sd.scheme=ftp", nil, "", []string{"--sd.scheme", "http,https", "ftp"}},
		{"negative scrapes", "--web.max-requests=-1", nil, "", []string{"--web.max-requests", "from 0"}},
		{"no web configuration", "--web.config.file=" + missing, nil, "", []string{"--web.config.file", missing}},
		{"a web configuration with words of its own", "--web.config.file=" + file("words.yml", "tls: please\nauth: no\n"), nil, "", []string{"--web.config.file", "field tls not found"}},
		{"a web configuration without its certificate", "--web.config.file=" + file("cert.yml", "tls_server_config: {cert_file: none.crt, key_file: none.key}\n"), nil, "", []string{"--web.config.file", "none.crt"}},
		{"a web configuration with a plain password", "--web.config.file=" + file("plain.yml", "basic_auth_users: {alice: "+secret+"}\n"), nil, "", []string{"--web.config.file", "bcrypt"}},
		{"the port is in use", "--web.listen-address=" + busy, nil, "", []string{"--web.listen-address", busy, "address already in use", "choose another"}},
		{"one of the ports is in use", "--web.listen-address=127.0.0.1:0 --web.listen-address=" + busy, nil, "", []string{"--web.listen-address", busy, "address already in use", "choose another"}},
		{"the health port is in use", "--web.health-listen-address=" + busy, nil, "", []string{"--web.health-listen-address", busy, "address already in use", "choose another"}},
		{"no socket from systemd", "--web.systemd-socket", nil, "", []string{"--web.systemd-socket", "socket unit"}},

		{"an unknown flag", "--balena.token=" + secret, nil, "", []string{"--balena.token", "unknown", "--help"}},
		{"an argument", "go", nil, "", []string{"unexpected go", "--help"}},
		{"a flag without its value", "--balena.timeout", nil, "", []string{"--balena.timeout", "--help"}},
		{"a flag twice", "--balena.timeout=1s --balena.timeout=2s", nil, "", []string{"balena.timeout", "--help"}},
		{"an unknown level", "--log.level=loud", nil, "", []string{"--log.level", "debug,info,warn,error", "loud"}},
		{"an unknown format", "", []string{"BALENA_EXPORTER_LOG_FORMAT", "xml"}, "", []string{"--log.format", "logfmt,json", "xml"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			switch test.token {
			case "":
				t.Setenv("BALENA_TOKEN", token)
			case noToken:
			default:
				t.Setenv("BALENA_TOKEN", test.token)
			}
			for pair := range slices.Chunk(test.env, 2) {
				t.Setenv(pair[0], pair[1])
			}
			args := strings.Fields(test.args)
			for _, flag := range []string{"--web.listen-address", "--web.health-listen-address"} {
				if !strings.Contains(test.args, flag) {
					args = append(args, flag+"=127.0.0.1:0")
				}
			}
			listens := strings.Contains(test.args, busy) || strings.Contains(test.args, "systemd")
			if listens {
				url, _ := serveHandler(t, newHanging())
				args = append(args, "--balena.api-url="+url)
			}

			var stdout, stderr bytes.Buffer
			ctx, cancel := context.WithTimeout(t.Context(), patience) // the exporter runs if the mistake is not detected
			defer cancel()
			err := run(ctx, args, &stdout, &stderr)
			if err == nil {
				t.Fatal("it runs")
			}
			sentence := err.Error()
			for _, want := range test.want {
				if !strings.Contains(sentence, want) {
					t.Errorf("the sentence does not say %q: %s", want, sentence)
				}
			}
			if strings.Contains(sentence+stdout.String()+stderr.String(), secret) {
				t.Errorf("a secret is told: %s", sentence)
			}
			if strings.Contains(sentence, "\n") || strings.HasSuffix(sentence, ".") || sentence == "" {
				t.Errorf("that is not one sentence: %q", sentence)
			}
			if stdout.Len() > 0 {
				t.Errorf("there is more than a sentence: %s", &stdout)
			}
			// Only errors of listeners occur after the exporter has begun to log.
			if stderr.Len() > 0 && !listens || strings.Contains(stderr.String(), "level=error") {
				t.Errorf("there is more than a sentence: %s", &stderr)
			}
		})
	}
}

func seventeenPorts() (args string) {
	for port := range 17 {
		args += fmt.Sprintf(" --sd.port=%d", port+1)
	}
	return args
}

func TestBadConfigurationExitsWithStatus1(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ arg, want string }{
		{"--web.telemetry-path=", `balena-exporter: error: there is no token; put it into BALENA_TOKEN, or into a file and name that with --balena.token-file (BALENA_TOKEN_FILE)` + "\n"},
		{"--bogus", "balena-exporter: error: unknown long flag '--bogus'; see --help\n"},
	} {
		command := command(t, test.arg)
		var stdout, stderr bytes.Buffer
		command.Stdout, command.Stderr = &stdout, &stderr
		err := command.Run()
		if exit, ok := errors.AsType[*exec.ExitError](err); !ok || exit.ExitCode() != 1 {
			t.Errorf("%s: ended with %v, want exit status 1", test.arg, err)
		}
		if stdout.Len() > 0 || stderr.String() != test.want {
			t.Errorf("%s: wrote %q and %q, want only %q", test.arg, &stdout, &stderr, test.want)
		}
	}
}

func TestHelpAndVersion(t *testing.T) {
	t.Parallel()
	for arg, want := range map[string][]string{
		"--version": {"balena-exporter, version"},
		"--help": {
			"usage: balena-exporter", "BALENA_TOKEN",
			"--balena.api-url", "--balena.api-version", "--balena.token-file", "--balena.ca-file", "--balena.refresh-interval", "--balena.timeout",
			"--balena.page-size", "--balena.max-staleness", "--balena.slow-interval", "--balena.full-refresh-interval", "--balena.fleet-include", "--balena.fleet-exclude",
			"--[no-]balena.archived-fleets", "--[no-]balena.allow-http", "--[no-]collector.device", "--[no-]collector.device.name", "--[no-]collector.device.location", "--collector.device.location-decimals",
			"--[no-]collector.release", "--collector.release.limit", "--[no-]collector.service", "--[no-]collector.api-key", "--[no-]collector.os",
			"--collector.device.tags", "--collector.fleet.tags", "--collector.tag-limit", "--collector.maintenance-tag", "--[no-]collector.service-summary",
			"--collector.fleet.disconnected-thresholds", "--collector.metric-allowlist", "--collector.metric-denylist", "--web.parts",
			"--web.listen-address", "--web.config.file", "--[no-]web.systemd-socket", "--web.telemetry-path", "--web.max-requests",
			"--[no-]web.disable-exporter-metrics", "--web.health-listen-address", "--[no-]web.enable-pprof", "--web.grafana-url", "--web.problem-thresholds",
			"--[no-]web.enable-sd", "--sd.address", "--sd.device-urls-base", "--sd.template", "--sd.port", "--sd.path", "--sd.scheme",
			"--log.level", "--log.format", "--[no-]config.check", "--[no-]version", "--[no-]help",
			"$CRAWL_INTERVAL", "$BALENA_EXPORTER_BALENA_FULL_REFRESH_INTERVAL", "$BALENA_API_URL", "$BALENA_TOKEN_FILE", "$BALENA_EXPORTER_WEB_LISTEN_ADDRESS",
		},
		"-h": {"usage: balena-exporter"},
	} {
		command := command(t, arg)
		var stdout, stderr bytes.Buffer
		command.Stdout, command.Stderr = &stdout, &stderr
		if err := command.Run(); err != nil || stderr.Len() > 0 {
			t.Errorf("%s: ended with %v and wrote %s", arg, err, &stderr)
		}
		for _, want := range want {
			if !strings.Contains(stdout.String(), want) {
				t.Errorf("%s does not tell of %s", arg, want)
			}
		}
	}
}

func TestGoodConfiguration(t *testing.T) {
	file := write(t, t.TempDir(), "token", "\n "+token+" \n")
	interval := func(c *config) any { return c.interval }
	staleness := func(c *config) any { return c.maxStaleness }
	fullRefresh := func(c *config) any { return c.client.FullRefreshInterval }
	warnings := func(c *config) any { return len(c.warnings) }
	exported := func(c *config) any {
		var families []string
		for d := range collector.New(nil, c.collector).Descriptions() {
			if d.Group == "Devices" {
				families = append(families, d.Name)
			}
		}
		return strings.Join(families, " ")
	}
	for _, test := range []struct {
		name string
		args string
		env  []string
		of   func(*config) any
		want any
	}{
		{"the historic variable", "", []string{"CRAWL_INTERVAL", "60"}, interval, time.Minute},
		{"a duration", "", []string{"CRAWL_INTERVAL", "90s"}, interval, 90 * time.Second},
		{"a second and a half", "", []string{"CRAWL_INTERVAL", "1.5"}, interval, 1500 * time.Millisecond},
		{"by the flag", "--balena.refresh-interval=2m", nil, interval, 2 * time.Minute},
		{"the flag goes before the variable", "--balena.refresh-interval=2m", []string{"CRAWL_INTERVAL", "90"}, interval, 2 * time.Minute},
		{"an empty variable is none", "", []string{"CRAWL_INTERVAL", ""}, interval, time.Minute},
		{"five intervals", "", []string{"CRAWL_INTERVAL", "120"}, staleness, 10 * time.Minute},
		{"as long as is said", "--balena.max-staleness=1h", nil, staleness, time.Hour},
		{"a short interval is worth a warning", "--balena.refresh-interval=14", nil, warnings, 1},
		{"so is short staleness", "--balena.max-staleness=119s", nil, warnings, 1},
		{"usually there is none", "--balena.refresh-interval=15 --balena.max-staleness=30s", nil, warnings, 0},
		{"a full refresh an hour", "--balena.full-refresh-interval=1h", nil, fullRefresh, time.Hour},
		{"a full refresh by its variable", "", []string{"BALENA_EXPORTER_BALENA_FULL_REFRESH_INTERVAL", "30m"}, fullRefresh, 30 * time.Minute},
		{"everything each time", "--balena.full-refresh-interval=0", nil, fullRefresh, time.Duration(0)},
		{"refreshes that are all full refreshes are worth no warning", "--balena.refresh-interval=20m", nil, warnings, 0},
		{"the token without blanks around", "", nil, func(c *config) any { token, _ := c.client.Token(context.Background()); return token }, token},

		{"any API", "", nil, func(c *config) any { return c.client.Version }, balena.Version("")},
		{"version 6", "--balena.api-version=v6", nil, func(c *config) any { return c.client.Version }, balena.V6},
		{"balenaCloud", "", nil, func(c *config) any { return c.client.URL.String() }, "https://api.balena-cloud.com"},
		{"openBalena", "", []string{"BALENA_API_URL", "https://api.example.com"}, func(c *config) any { return c.client.URL.String() }, "https://api.example.com"},
		{"a path that holds no version", "--balena.api-url=https://proxy.example.com/v7x", nil, func(c *config) any { return c.client.URL.Path }, "/v7x"},
		{"a proxy with a password", "", []string{"HTTPS_PROXY", "http://me:p%40ss@proxy.example.com:3128", "https_proxy", "socks5://proxy.example.com:1080"}, interval, time.Minute},
		{"a proxy without a scheme", "", []string{"HTTP_PROXY", "proxy.example.com:3128", "http_proxy", ""}, interval, time.Minute},
		{"HTTP to this host", "--balena.api-url=http://[::1]:8080", nil, func(c *config) any { return c.client.URL.Host }, "[::1]:8080"},
		{"HTTP because it is meant", "--balena.api-url=http://api:80 --balena.allow-http", nil, func(c *config) any { return c.client.URL.Host }, "api:80"},
		{"an expression is of the whole slug", "--balena.fleet-include=a|b", nil, func(c *config) any { return c.client.Include.MatchString("ab") }, false},
		{"thresholds in order", "--collector.fleet.disconnected-thresholds=120,60", nil, func(c *config) any { return slices.Equal(c.collector.DisconnectedThresholds, []int{60, 120}) }, true},
		{"tags", "--collector.device.tags=site,,customer,", nil, func(c *config) any { return strings.Join(c.client.DeviceTags, "|") }, "site|customer"},
		{"tags by pattern", "--collector.fleet.tags=site-*,*", nil, func(c *config) any { return strings.Join(c.client.FleetTags, "|") }, "site-*|*"},
		{"no tags", "", nil, func(c *config) any { return c.collector.DeviceTags || c.collector.FleetTags || c.collector.Maintenance }, false},
		{"keys of tags", "--collector.tag-limit=7", nil, func(c *config) any { return c.client.TagLimit }, 7},
		{"maintenance", "--collector.maintenance-tag=repair", nil, func(c *config) any { return c.client.MaintenanceTag == "repair" && c.collector.Maintenance }, true},
		{"a summary of services", "", nil, func(c *config) any { return c.client.ServiceSummary && c.collector.ServiceSummary }, true},
		{"no summary of services", "--no-collector.service-summary", nil, func(c *config) any { return c.client.ServiceSummary || c.collector.ServiceSummary }, false},
		{"releases of balenaOS", "", nil, func(c *config) any { return c.client.OS && c.collector.OS }, true},
		{"no releases of balenaOS", "--no-collector.os", nil, func(c *config) any { return c.client.OS || c.collector.OS }, false},
		{"thresholds of problems", "--web.problem-thresholds=deviceOfflineSeconds=1800", nil, func(c *config) any { return c.thresholds.DeviceOffline }, 1800.0},

		{"metrics by a list", "--collector.metric-allowlist=balena_fleet_.*|balena_device_(online|info)", nil, exported, "balena_device_info balena_device_online"},
		{"metrics by several lists", "--collector.metric-allowlist=balena_device_info --collector.metric-allowlist=balena_device_online", nil, exported, "balena_device_info balena_device_online"},
		{"not by the beginning of a name", "--collector.metric-denylist=balena_device_online --collector.metric-allowlist=balena_device_.*|balena_fleet_tags", nil, func(c *config) any { return c.collector.Exported("balena_device_online_at_all") }, true},
		{"the denylist goes first", "--collector.metric-allowlist=balena_device_info|balena_device_online --collector.metric-denylist=.*_online", nil, exported, "balena_device_info"},
		{"lists by variables", "", []string{"BALENA_EXPORTER_COLLECTOR_METRIC_ALLOWLIST", "balena_device_info\nbalena_device_online"}, exported, "balena_device_info balena_device_online"},
		{"without metrics of devices, what only they need is not read", "--collector.metric-allowlist=balena_fleet_devices", nil, func(c *config) any { return c.client.Devices || c.client.Releases || c.client.Keys }, false},
		{"nor fields that no metric needs", "--collector.metric-denylist=balena_device_memory_.*", nil, func(c *config) any { return strings.Join(c.client.Unneeded, " ") }, "memory_usage memory_total"},
		{"no location", "", nil, func(c *config) any { return c.client.Location || c.collector.Location }, false},
		{"location", "--collector.device.location --collector.device.location-decimals=4", nil, func(c *config) any { return fmt.Sprint(c.client.Location, c.collector.LocationDecimals) }, "true 4"},
		{"no location without its metrics", "--collector.device.location --collector.metric-denylist=.*_degrees", nil, func(c *config) any { return c.client.Location }, false},
		{"parts", "--web.parts=8", nil, func(c *config) any { return c.client.Stripes }, 8},

		{"no targets", "", nil, func(c *config) any { return c.discovery == nil && !c.client.Targets && !c.client.DeviceURLs }, true},
		{"targets without addresses", "--web.enable-sd", nil, func(c *config) any {
			return c.discovery.Address == "none" && c.client.Targets && !c.client.DeviceURLs && !c.client.LocalAddresses
		}, true},
		{"targets with public URLs", "--web.enable-sd --sd.address=public", nil, func(c *config) any { return c.client.DeviceURLs && !c.client.LocalAddresses }, true},
		{"of a domain that is known", "--web.enable-sd --sd.address=public --sd.device-urls-base=devices.example.com:8443", nil, func(c *config) any { return c.client.DeviceURLs }, false},
		{"targets with local addresses", "--web.enable-sd --sd.address=local", nil, func(c *config) any { return c.client.LocalAddresses && !c.client.DeviceURLs }, true},
		{"several ports", "--web.enable-sd --sd.port=9100 --sd.port=8080", nil, func(c *config) any { return fmt.Sprint(c.discovery.Ports) }, "[9100 8080]"},
		{"several ports by the variable", "--web.enable-sd", []string{"BALENA_EXPORTER_SD_PORT", "9100\n8080"}, func(c *config) any { return fmt.Sprint(c.discovery.Ports) }, "[9100 8080]"},
		{"what targets tell", "--web.enable-sd --no-collector.device.name --collector.device.tags=a,b --collector.fleet.tags=c", nil, func(c *config) any {
			return fmt.Sprint(c.discovery.DeviceNames, c.discovery.DeviceTags, c.client.FleetTags)
		}, "false [a b] [c]"},
		{"tags that targets tell and no metric", "--web.enable-sd --collector.device.tags=a --collector.metric-denylist=balena_device_tags", nil, func(c *config) any {
			return fmt.Sprint(c.collector.DeviceTags, c.client.DeviceTags)
		}, "false [a]"},
		{"flags of targets that are not served", "--sd.port=9100", nil, warnings, 1},

		{"variables of all other flags", "", []string{"BALENA_EXPORTER_LOG_LEVEL", "debug"}, func(c *config) any { return c.logLevel }, "debug"},
		{"such as switches", "", []string{"BALENA_EXPORTER_COLLECTOR_DEVICE", "false"}, func(c *config) any { return c.collector.Devices }, false},
		{"numbers", "", []string{"BALENA_EXPORTER_BALENA_PAGE_SIZE", "10"}, func(c *config) any { return c.client.PageSize }, 10},
		{"dashes", "", []string{"BALENA_EXPORTER_COLLECTOR_FLEET_TAGS", "a,b"}, func(c *config) any { return len(c.client.FleetTags) }, 2},
		{"and the toolkit's", "", []string{"BALENA_EXPORTER_WEB_LISTEN_ADDRESS", ":1\n:2"}, func(c *config) any { return len(*c.web.WebListenAddresses) }, 2},
		{"somebody's own variable", "", []string{"BALENA_EXPORTER_VERSION", "1.0", "BALENA_EXPORTER_HELP", "https://example.com"}, interval, time.Minute},
	} {
		t.Run(test.name, func(t *testing.T) {
			for pair := range slices.Chunk(test.env, 2) {
				t.Setenv(pair[0], pair[1])
			}
			var stdout bytes.Buffer
			c, err := parse(append(strings.Fields(test.args), "--balena.token-file="+file), &stdout)
			if err != nil {
				t.Fatal(err)
			}
			if got := test.of(c); got != test.want {
				t.Errorf("got %v, want %v", got, test.want)
			}
			if stdout.Len() > 0 {
				t.Errorf("wrote %s", &stdout)
			}
		})
	}
}

// TestHelpTellsDefaults checks that --help shows a default or a placeholder for each flag, each in a group.
func TestHelpTellsDefaults(t *testing.T) {
	t.Parallel()
	var stdout bytes.Buffer
	if c, err := parse([]string{"--help"}, &stdout); c != nil || err != nil {
		t.Fatalf("--help gives %v, %v", c, err)
	}
	help := strings.Join(strings.Fields(stdout.String()), " ")
	next := 0
	for _, want := range []string{
		"The balena API:", "--balena.api-url=https://api.balena-cloud.com ", "--balena.token-file=FILE ", "--balena.ca-file=FILE ",
		"--balena.fleet-include=REGEXP ", "--balena.fleet-exclude=REGEXP ", "--balena.shard=0/1 ",
		"--[no-]balena.allow-http Send the token over plain HTTP to a host other than this one. Default: off. ($",
		"Metrics:", "--collector.device.tags=KEY,... ", "--collector.fleet.tags=KEY,... ",
		"--[no-]collector.device Export metrics of each device, about 22 series a device. Default: on. ($",
		"--[no-]collector.release Export metrics of releases. Default: on. ($",
		"--[no-]collector.service Export metrics of services, about 3 series a service on a device. Default: off. ($",
		"The web server:", "Default: off. ($BALENA_EXPORTER_WEB_SYSTEMD_SOCKET)", "--web.config.file=FILE ", "Default: off. ($BALENA_EXPORTER_WEB_ENABLE_PPROF)",
		"Service discovery:", "--sd.address=none ", "--sd.device-urls-base=DOMAIN ", "--sd.template=TEMPLATE ", "--sd.port=PORT ... ", "--sd.path=PATH ", "--sd.scheme=SCHEME ",
		"Logging:", "--log.level=info ",
		"Other:", "--[no-]version Show application version. --[no-]config.check Check the configuration, ask the API once, print what is right and what is wrong, and exit. Examples: BALENA_TOKEN=... balena-exporter ",
	} {
		i := strings.Index(help[next:], want)
		if i < 0 {
			t.Fatalf("behind %q the help does not say %q:\n%s", help[:next], want, &stdout)
		}
		next += i + len(want)
	}
	if regexp.MustCompile(`=[A-Z]+\.`).MatchString(help) {
		t.Errorf("a placeholder is the name of its flag:\n%s", &stdout)
	}
}

// Flags that other exporters have too have the same names and defaults.
func TestDefaults(t *testing.T) {
	t.Setenv("BALENA_TOKEN", token)
	c, err := parse(nil, &bytes.Buffer{})
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ got, want any }{
		{strings.Join(*c.web.WebListenAddresses, " "), ":8000"},
		{c.healthAddress, ":8001"},
		{c.telemetryPath, "/metrics"},
		{c.maxRequests, 40},
		{c.interval, time.Minute},
		{c.maxStaleness, 5 * time.Minute},
		{c.client.PageSize, 1000},
		{c.client.FullRefreshInterval, 15 * time.Minute},
		{c.client.ArchivedFleets, true},
		{c.pprof, false},
		{regexp.MustCompile(`^balena-exporter/`).MatchString(c.client.UserAgent), true},
	} {
		if test.got != test.want {
			t.Errorf("got %v, want %v", test.got, test.want)
		}
	}
}
