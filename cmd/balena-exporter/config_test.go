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

// TestInvalidConfiguration checks that the error about an invalid configuration is one sentence with the cause and the remedy.
func TestInvalidConfiguration(t *testing.T) {
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
		args  string   // separated by spaces
		env   []string // names and values
		token string   // in the environment. A valid token by default.
		want  []string // substrings of the error: the cause and the remedy
	}{
		{"no token", "", nil, noToken, []string{"BALENA_TOKEN", "--balena.token-file", "BALENA_TOKEN_FILE", "there is no token"}},
		{"a blank token", "", nil, " \n", []string{"BALENA_TOKEN", "--balena.token-file", "there is no token"}},
		{"both kinds of token", "--balena.token-file=" + good, nil, "", []string{"BALENA_TOKEN", "--balena.token-file", "set only one"}},
		{"both kinds of token by variables", "", []string{"BALENA_TOKEN_FILE", good}, "", []string{"BALENA_TOKEN", "BALENA_TOKEN_FILE", "set only one"}},
		{"a token with spaces", "", nil, secret + " " + secret, []string{"BALENA_TOKEN", "contains blanks"}},
		{"a missing token file", "--balena.token-file=" + missing, nil, noToken, []string{"--balena.token-file", "BALENA_TOKEN_FILE", missing, "no such file"}},
		{"a token file that cannot be read", "--balena.token-file=" + dir, nil, noToken, []string{"--balena.token-file", dir, "cannot read"}},
		{"an empty token file", "--balena.token-file=" + file("empty", "\n"), nil, noToken, []string{"--balena.token-file", "the token is empty"}},
		{"a token file with two lines", "--balena.token-file=" + file("two", token+"\n"+token), nil, noToken, []string{"--balena.token-file", "line breaks"}},

		{"a URL without a scheme", "--balena.api-url=api.balena-cloud.com", nil, "", []string{"--balena.api-url", "BALENA_API_URL", "https://api.balena-cloud.com", `"api.balena-cloud.com"`}},
		{"a URL with another scheme, in the variable", "", []string{"BALENA_API_URL", "ftp://example.com"}, "", []string{"--balena.api-url", "BALENA_API_URL", `"ftp://example.com"`}},
		{"a URL without a host", "--balena.api-url=https://:443", nil, "", []string{"--balena.api-url", "https://api.balena-cloud.com"}},
		{"a URL with a user", "--balena.api-url=https://me:" + secret + "@example.com", nil, "", []string{"--balena.api-url", "user", "--balena.token-file"}},
		{"a URL with a query", "--balena.api-url=https://example.com/?apikey=" + secret, nil, "", []string{"--balena.api-url", "query", "--balena.token-file"}},
		{"a URL with an empty query", "--balena.api-url=https://example.com/?", nil, "", []string{"--balena.api-url", "query"}},
		{"a URL with another scheme and a password", "--balena.api-url=ftp://me:" + secret + "@example.com", nil, "", []string{"--balena.api-url", "example.com"}},
		{"a URL without a scheme, with a query", "--balena.api-url=example.com?apikey=" + secret, nil, "", []string{"--balena.api-url", "example.com"}},
		{"a password that looks like a query", "--balena.api-url=https://me:" + secret + "?x@example.com", nil, "", []string{"--balena.api-url", "https://api.balena-cloud.com"}},
		{"a key that looks like a host", "--balena.api-url=example.com?apikey=x@" + secret, nil, "", []string{"--balena.api-url", "https://api.balena-cloud.com"}},
		{"a URL with the version", "--balena.api-url=https://api.balena-cloud.com/v7", nil, "", []string{"--balena.api-url", "BALENA_API_URL", `"https://api.balena-cloud.com/v7"`, "use https://api.balena-cloud.com"}},
		{"a URL with the other version", "", []string{"BALENA_API_URL", "https://api.example.com/balena/v6/"}, "", []string{"--balena.api-url", "BALENA_API_URL", "use https://api.example.com/balena"}},
		{"HTTP to another host", "--balena.api-url=http://api.example.com", nil, "", []string{"--balena.api-url", "unencrypted", "https", "--balena.allow-http"}},
		{"an unknown version", "--balena.api-version=v8", nil, "", []string{"--balena.api-version", "auto,v7,v6"}},
		{"a missing CA file", "--balena.ca-file=" + missing, nil, "", []string{"--balena.ca-file", missing}},
		{"a CA file without PEM", "--balena.ca-file=" + good, nil, "", []string{"--balena.ca-file", "no PEM certificate"}},

		{"an invalid regular expression", "--balena.fleet-include=acme/[", nil, "", []string{"--balena.fleet-include", "missing closing ]: `[`"}},
		{"a regular expression that anchors would make valid", "--balena.fleet-exclude=a)|(b", nil, "", []string{"--balena.fleet-exclude", "unexpected )"}},

		{"a switch with a value", "--collector.device=false", nil, "", []string{"--collector.device does not take a value", "--no-collector.device"}},
		{"an interval of zero", "--balena.refresh-interval=0", nil, "", []string{"--balena.refresh-interval", "CRAWL_INTERVAL", "from a second to a day"}},
		{"a negative interval", "", []string{"CRAWL_INTERVAL", "-60"}, "", []string{"--balena.refresh-interval", "CRAWL_INTERVAL", "from a second to a day"}},
		{"half a second", "", []string{"CRAWL_INTERVAL", "0.5"}, "", []string{"CRAWL_INTERVAL", "from a second to a day"}},
		{"an interval in words", "", []string{"CRAWL_INTERVAL", "often"}, "", []string{"CRAWL_INTERVAL", "60", "2m", `"often"`}},
		{"an interval that is not a number", "", []string{"CRAWL_INTERVAL", "NaN"}, "", []string{"CRAWL_INTERVAL", `"NaN"`}},
		{"a timeout of zero", "--balena.timeout=0s", nil, "", []string{"--balena.timeout", "greater than zero"}},
		{"a negative timeout", "--balena.timeout=-1s", nil, "", []string{"--balena.timeout", "greater than zero"}},
		{"a timeout without a unit", "--balena.timeout=30", nil, "", []string{"--balena.timeout", "missing unit"}},
		{"a slow interval of zero", "--balena.slow-interval=0s", nil, "", []string{"--balena.slow-interval", "greater than zero"}},
		{"a negative full refresh interval", "--balena.full-refresh-interval=-1s", nil, "", []string{"--balena.full-refresh-interval", "must not be negative", "-1s"}},
		{"a full refresh interval without a unit", "", []string{"BALENA_EXPORTER_BALENA_FULL_REFRESH_INTERVAL", "900"}, "", []string{"--balena.full-refresh-interval", "missing unit"}},
		{"staleness below the interval", "--balena.max-staleness=59s", nil, "", []string{"--balena.max-staleness", "interval of 1m0s"}},
		{"negative staleness", "--balena.max-staleness=-1s", nil, "", []string{"--balena.max-staleness", "must not be negative"}},
		{"a page size of zero", "--balena.page-size=0", nil, "", []string{"--balena.page-size", "from 1 to 10000"}},
		{"a page size in words", "--balena.page-size=many", nil, "", []string{"--balena.page-size", `"many"`}},

		{"a URL of Grafana without a scheme", "--web.grafana-url=grafana.example.com", nil, "", []string{"--web.grafana-url", "https://grafana.example.com", `"grafana.example.com"`}},
		{"a script as the URL of Grafana", "--web.grafana-url=javascript:alert(1)", nil, "", []string{"--web.grafana-url", "must be a URL"}},
		{"a URL of Grafana with a password", "--web.grafana-url=https://me:" + token + "@grafana.example.com", nil, "", []string{"--web.grafana-url", "without user"}},
		{"a threshold of an unknown problem", "--web.problem-thresholds=offline=5", nil, "", []string{"--web.problem-thresholds", `"offline"`, "deviceOfflineSeconds"}},
		{"the path of a page", "--web.telemetry-path=/problems", nil, "", []string{"--web.telemetry-path", "an unused path"}},
		{"an invalid threshold", "--collector.fleet.disconnected-thresholds=3600,1d", nil, "", []string{"--collector.fleet.disconnected-thresholds", "seconds", `"1d"`}},
		{"a threshold of zero", "--collector.fleet.disconnected-thresholds=0", nil, "", []string{"--collector.fleet.disconnected-thresholds", `"0"`}},
		{"a threshold twice", "--collector.fleet.disconnected-thresholds=60,60", nil, "", []string{"--collector.fleet.disconnected-thresholds", `"60" twice`}},
		{"a pattern that does not end in an asterisk", "--collector.fleet.tags=site-*-a", nil, "", []string{"--collector.fleet.tags", "site-*", `"site-*-a"`}},
		{"a tag limit of zero", "--collector.tag-limit=0", nil, "", []string{"--collector.tag-limit", "from 1 to 100"}},
		{"a pattern as the maintenance tag", "--collector.maintenance-tag=main*", nil, "", []string{"--collector.maintenance-tag", "single tag", `"main*"`}},
		{"a device tag twice", "--collector.device.tags=site,customer,site", nil, "", []string{"--collector.device.tags", `"site" twice`}},
		{"a fleet tag twice", "--collector.fleet.tags=site,site", nil, "", []string{"--collector.fleet.tags", `"site" twice`}},
		{"an allowlist without a match", "--collector.metric-allowlist=balena_device_onlin", nil, "", []string{"--collector.metric-allowlist", `"balena_device_onlin"`, "most similar name is balena_device_online"}},
		{"a denylist of the exporter's own metrics", "--collector.metric-denylist=balena_up", nil, "", []string{"--collector.metric-denylist", "matches no metric"}},
		{"an invalid denylist", "--collector.metric-denylist=balena_device_.* --collector.metric-denylist=(", nil, "", []string{"--collector.metric-denylist", "missing closing )"}},
		{"too many decimals", "--collector.device.location-decimals=7", nil, "", []string{"--collector.device.location-decimals", "from 0 to 6"}},
		{"zero parts", "--web.parts=0", nil, "", []string{"--web.parts", "from 1 to 64"}},
		{"too many parts", "--web.parts=65", nil, "", []string{"--web.parts", "from 1 to 64"}},
		{"a negative release limit", "--collector.release.limit=-1", nil, "", []string{"--collector.release.limit", "from 0"}},
		{"an invalid value of a switch", "", []string{"BALENA_EXPORTER_COLLECTOR_DEVICE", "perhaps"}, "", []string{"--collector.device", `"perhaps"`}},

		{"an invalid proxy URL", "", []string{"HTTPS_PROXY", "http://me:" + secret + "%zz@proxy.example.com:3128"}, "", []string{"HTTPS_PROXY", "http://proxy.example.com:3128", "@ as %40"}},
		{"an invalid proxy URL in the variable in lower case", "", []string{"https_proxy", "http://me:" + secret + "%@proxy.example.com"}, "", []string{"https_proxy", "http://proxy.example.com:3128"}},
		{"an invalid proxy URL for HTTP", "", []string{"HTTP_PROXY", "http://proxy.example.com:" + secret}, "", []string{"HTTP_PROXY", "http://proxy.example.com:3128"}},
		{"an invalid proxy URL for HTTP in the variable in lower case", "", []string{"http_proxy", "http://"}, "", []string{"http_proxy", "http://proxy.example.com:3128"}},

		{"a telemetry path without a slash", "--web.telemetry-path=metrics", nil, "", []string{"--web.telemetry-path", "/metrics", `"metrics"`}},
		{"the path of a health endpoint", "--web.telemetry-path=/-/healthy", nil, "", []string{"--web.telemetry-path", "/metrics"}},
		{"a telemetry path with a wildcard", "--web.telemetry-path=/{any}", nil, "", []string{"--web.telemetry-path", "/metrics"}},
		{"a telemetry path with an empty element", "--web.telemetry-path=//metrics", nil, "", []string{"--web.telemetry-path", "/metrics"}},
		{"the path of targets", "--web.telemetry-path=/sd/devices", nil, "", []string{"--web.telemetry-path", "/metrics"}},
		{"an unknown kind of address", "--sd.address=vpn", nil, "", []string{"--sd.address", "none,public,local", "vpn"}},
		{"a template without a device", "--web.enable-sd --sd.template=host:9100", nil, "", []string{"--sd.template", `"host:9100"`, "{uuid} or {name}"}},
		{"a template with another placeholder", "--web.enable-sd --sd.template={id}.example", nil, "", []string{"--sd.template", "{id}", "{uuid} or {name}"}},
		{"a template that is a URL", "--web.enable-sd --sd.template=http://{uuid}.example/", nil, "", []string{"--sd.template", "host name", "{uuid}.tailnet.example:9100"}},
		{"a template for public URLs", "--web.enable-sd --sd.address=public --sd.template={uuid}.example", nil, "", []string{"--sd.template", "--sd.address", "change one of them"}},
		{"a template with a port, and ports", "--web.enable-sd --sd.template={uuid}.example:9100 --sd.port=9100", nil, "", []string{"--sd.template", "--sd.port", "keep one"}},
		{"a template with names that are hidden", "--web.enable-sd --sd.template={name}.example --no-collector.device.name", nil, "", []string{"--sd.template", "--no-collector.device.name", "{uuid}"}},
		{"a base without public URLs", "--web.enable-sd --sd.device-urls-base=example.com", nil, "", []string{"--sd.device-urls-base", "--sd.address=public", "none"}},
		{"a base that is a URL", "--web.enable-sd --sd.address=public --sd.device-urls-base=https://example.com", nil, "", []string{"--sd.device-urls-base", "domain", "devices.example.com", `"https://example.com"`}},
		{"a base with a password", "--web.enable-sd --sd.address=public --sd.device-urls-base=me:" + secret + "@example.com", nil, "", []string{"--sd.device-urls-base", "domain"}},
		{"ports of public URLs", "--web.enable-sd --sd.address=public --sd.port=9100", nil, "", []string{"--sd.port", "--sd.address=public", "port 80", "remove it"}},
		{"a port above 65535", "--web.enable-sd --sd.port=70000", nil, "", []string{"--sd.port", "from 1 to 65535", "70000"}},
		{"a port in words", "--web.enable-sd --sd.port=http", nil, "", []string{"--sd.port", "integer", `"http"`}},
		{"a port twice", "--web.enable-sd --sd.port=9100 --sd.port=9100", nil, "", []string{"--sd.port", "9100", "twice"}},
		{"too many ports", "--web.enable-sd" + seventeenPorts(), nil, "", []string{"--sd.port", "from 0 to 16", "17"}},
		{"a relative path of targets", "--web.enable-sd --sd.path=metrics", nil, "", []string{"--sd.path", "/metrics", `"metrics"`}},
		{"a path of targets with a query", "--web.enable-sd --sd.path=/metrics?x", nil, "", []string{"--sd.path", "/metrics", `"/metrics?x"`}},
		{"an unknown scheme", "--web.enable-sd --sd.scheme=ftp", nil, "", []string{"--sd.scheme", "http,https", "ftp"}},
		{"a negative limit of scrapes", "--web.max-requests=-1", nil, "", []string{"--web.max-requests", "from 0"}},
		{"a missing web configuration", "--web.config.file=" + missing, nil, "", []string{"--web.config.file", missing}},
		{"a web configuration with unknown fields", "--web.config.file=" + file("words.yml", "tls: please\nauth: no\n"), nil, "", []string{"--web.config.file", "field tls not found"}},
		{"a web configuration without its certificate", "--web.config.file=" + file("cert.yml", "tls_server_config: {cert_file: none.crt, key_file: none.key}\n"), nil, "", []string{"--web.config.file", "none.crt"}},
		{"a web configuration with a plain password", "--web.config.file=" + file("plain.yml", "basic_auth_users: {alice: "+secret+"}\n"), nil, "", []string{"--web.config.file", "bcrypt"}},
		{"the port is in use", "--web.listen-address=" + busy, nil, "", []string{"--web.listen-address", busy, "address already in use", "use another address"}},
		{"one of the ports is in use", "--web.listen-address=127.0.0.1:0 --web.listen-address=" + busy, nil, "", []string{"--web.listen-address", busy, "address already in use", "use another address"}},
		{"the health port is in use", "--web.health-listen-address=" + busy, nil, "", []string{"--web.health-listen-address", busy, "address already in use", "use another address"}},
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
			afterListening := strings.Contains(test.args, busy) || strings.Contains(test.args, "systemd")
			if afterListening {
				url, _ := serveHandler(t, newHanging())
				args = append(args, "--balena.api-url="+url)
			}

			var stdout, stderr bytes.Buffer
			ctx, cancel := context.WithTimeout(t.Context(), patience) // ends an exporter that does not detect the mistake
			defer cancel()
			err := run(ctx, args, &stdout, &stderr)
			if err == nil {
				t.Fatal("there is no error")
			}
			message := err.Error()
			for _, want := range test.want {
				if !strings.Contains(message, want) {
					t.Errorf("the error does not contain %q: %s", want, message)
				}
			}
			if strings.Contains(message+stdout.String()+stderr.String(), secret) {
				t.Errorf("the output contains a secret: %s", message)
			}
			if strings.Contains(message, "\n") || strings.HasSuffix(message, ".") || message == "" {
				t.Errorf("the error is not one sentence without a period: %q", message)
			}
			if stdout.Len() > 0 {
				t.Errorf("stdout is not empty: %s", &stdout)
			}
			// Errors of listeners occur after the exporter begins to log.
			if stderr.Len() > 0 && !afterListening || strings.Contains(stderr.String(), "level=error") {
				t.Errorf("stderr has other lines: %s", &stderr)
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

func TestInvalidConfigurationExitsWithStatus1(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ arg, want string }{
		{"--web.telemetry-path=", `balena-exporter: error: there is no token; set BALENA_TOKEN, or --balena.token-file (BALENA_TOKEN_FILE) to a file with the token` + "\n"},
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
				t.Errorf("the output of %s does not contain %s", arg, want)
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
		{"the flag", "--balena.refresh-interval=2m", nil, interval, 2 * time.Minute},
		{"the flag takes precedence over the variable", "--balena.refresh-interval=2m", []string{"CRAWL_INTERVAL", "90"}, interval, 2 * time.Minute},
		{"an empty variable is ignored", "", []string{"CRAWL_INTERVAL", ""}, interval, time.Minute},
		{"the default staleness is five intervals", "", []string{"CRAWL_INTERVAL", "120"}, staleness, 10 * time.Minute},
		{"the staleness of the flag", "--balena.max-staleness=1h", nil, staleness, time.Hour},
		{"a short interval causes a warning", "--balena.refresh-interval=14", nil, warnings, 1},
		{"a short staleness causes a warning", "--balena.max-staleness=119s", nil, warnings, 1},
		{"other values cause no warning", "--balena.refresh-interval=15 --balena.max-staleness=30s", nil, warnings, 0},
		{"a full refresh per hour", "--balena.full-refresh-interval=1h", nil, fullRefresh, time.Hour},
		{"the variable of the full refresh interval", "", []string{"BALENA_EXPORTER_BALENA_FULL_REFRESH_INTERVAL", "30m"}, fullRefresh, 30 * time.Minute},
		{"all refreshes are full", "--balena.full-refresh-interval=0", nil, fullRefresh, time.Duration(0)},
		{"a refresh interval above the full refresh interval causes no warning", "--balena.refresh-interval=20m", nil, warnings, 0},
		{"spaces around the token are removed", "", nil, func(c *config) any { token, _ := c.client.Token(context.Background()); return token }, token},

		{"version auto", "", nil, func(c *config) any { return c.client.Version }, balena.Version("")},
		{"version 6", "--balena.api-version=v6", nil, func(c *config) any { return c.client.Version }, balena.V6},
		{"balenaCloud", "", nil, func(c *config) any { return c.client.URL.String() }, "https://api.balena-cloud.com"},
		{"openBalena", "", []string{"BALENA_API_URL", "https://api.example.com"}, func(c *config) any { return c.client.URL.String() }, "https://api.example.com"},
		{"a path that does not end in a version", "--balena.api-url=https://proxy.example.com/v7x", nil, func(c *config) any { return c.client.URL.Path }, "/v7x"},
		{"a proxy with a password", "", []string{"HTTPS_PROXY", "http://me:p%40ss@proxy.example.com:3128", "https_proxy", "socks5://proxy.example.com:1080"}, interval, time.Minute},
		{"a proxy without a scheme", "", []string{"HTTP_PROXY", "proxy.example.com:3128", "http_proxy", ""}, interval, time.Minute},
		{"HTTP to the same host", "--balena.api-url=http://[::1]:8080", nil, func(c *config) any { return c.client.URL.Host }, "[::1]:8080"},
		{"HTTP to another host is allowed", "--balena.api-url=http://api:80 --balena.allow-http", nil, func(c *config) any { return c.client.URL.Host }, "api:80"},
		{"a regular expression is anchored", "--balena.fleet-include=a|b", nil, func(c *config) any { return c.client.Include.MatchString("ab") }, false},
		{"thresholds are sorted", "--collector.fleet.disconnected-thresholds=120,60", nil, func(c *config) any { return slices.Equal(c.collector.DisconnectedThresholds, []int{60, 120}) }, true},
		{"tags", "--collector.device.tags=site,,customer,", nil, func(c *config) any { return strings.Join(c.client.DeviceTags, "|") }, "site|customer"},
		{"patterns of tags", "--collector.fleet.tags=site-*,*", nil, func(c *config) any { return strings.Join(c.client.FleetTags, "|") }, "site-*|*"},
		{"no tags", "", nil, func(c *config) any { return c.collector.DeviceTags || c.collector.FleetTags || c.collector.Maintenance }, false},
		{"the tag limit", "--collector.tag-limit=7", nil, func(c *config) any { return c.client.TagLimit }, 7},
		{"the maintenance tag", "--collector.maintenance-tag=repair", nil, func(c *config) any { return c.client.MaintenanceTag == "repair" && c.collector.Maintenance }, true},
		{"the summary of services", "", nil, func(c *config) any { return c.client.ServiceSummary && c.collector.ServiceSummary }, true},
		{"no summary of services", "--no-collector.service-summary", nil, func(c *config) any { return c.client.ServiceSummary || c.collector.ServiceSummary }, false},
		{"releases of balenaOS", "", nil, func(c *config) any { return c.client.OS && c.collector.OS }, true},
		{"no releases of balenaOS", "--no-collector.os", nil, func(c *config) any { return c.client.OS || c.collector.OS }, false},
		{"thresholds of problems", "--web.problem-thresholds=deviceOfflineSeconds=1800", nil, func(c *config) any { return c.thresholds.DeviceOffline }, 1800.0},

		{"an allowlist", "--collector.metric-allowlist=balena_fleet_.*|balena_device_(online|info)", nil, exported, "balena_device_info balena_device_online"},
		{"several allowlists", "--collector.metric-allowlist=balena_device_info --collector.metric-allowlist=balena_device_online", nil, exported, "balena_device_info balena_device_online"},
		{"a denylist does not match a prefix", "--collector.metric-denylist=balena_device_online --collector.metric-allowlist=balena_device_.*|balena_fleet_tags", nil, func(c *config) any { return c.collector.Exported("balena_device_online_at_all") }, true},
		{"the denylist takes precedence", "--collector.metric-allowlist=balena_device_info|balena_device_online --collector.metric-denylist=.*_online", nil, exported, "balena_device_info"},
		{"the variable of the allowlist", "", []string{"BALENA_EXPORTER_COLLECTOR_METRIC_ALLOWLIST", "balena_device_info\nbalena_device_online"}, exported, "balena_device_info balena_device_online"},
		{"data of devices are not requested without their metrics", "--collector.metric-allowlist=balena_fleet_devices", nil, func(c *config) any { return c.client.Devices || c.client.Releases || c.client.Keys }, false},
		{"fields are not requested without their metrics", "--collector.metric-denylist=balena_device_memory_.*", nil, func(c *config) any { return strings.Join(c.client.Unneeded, " ") }, "memory_usage memory_total"},
		{"no location", "", nil, func(c *config) any { return c.client.Location || c.collector.Location }, false},
		{"location", "--collector.device.location --collector.device.location-decimals=4", nil, func(c *config) any { return fmt.Sprint(c.client.Location, c.collector.LocationDecimals) }, "true 4"},
		{"no location without its metrics", "--collector.device.location --collector.metric-denylist=.*_degrees", nil, func(c *config) any { return c.client.Location }, false},
		{"parts", "--web.parts=8", nil, func(c *config) any { return c.client.Stripes }, 8},

		{"no targets", "", nil, func(c *config) any { return c.discovery == nil && !c.client.Targets && !c.client.DeviceURLs }, true},
		{"targets without addresses", "--web.enable-sd", nil, func(c *config) any {
			return c.discovery.Address == "none" && c.client.Targets && !c.client.DeviceURLs && !c.client.LocalAddresses
		}, true},
		{"targets with public URLs", "--web.enable-sd --sd.address=public", nil, func(c *config) any { return c.client.DeviceURLs && !c.client.LocalAddresses }, true},
		{"public URLs of a configured domain", "--web.enable-sd --sd.address=public --sd.device-urls-base=devices.example.com:8443", nil, func(c *config) any { return c.client.DeviceURLs }, false},
		{"targets with local addresses", "--web.enable-sd --sd.address=local", nil, func(c *config) any { return c.client.LocalAddresses && !c.client.DeviceURLs }, true},
		{"several ports", "--web.enable-sd --sd.port=9100 --sd.port=8080", nil, func(c *config) any { return fmt.Sprint(c.discovery.Ports) }, "[9100 8080]"},
		{"several ports in the variable", "--web.enable-sd", []string{"BALENA_EXPORTER_SD_PORT", "9100\n8080"}, func(c *config) any { return fmt.Sprint(c.discovery.Ports) }, "[9100 8080]"},
		{"labels of targets", "--web.enable-sd --no-collector.device.name --collector.device.tags=a,b --collector.fleet.tags=c", nil, func(c *config) any {
			return fmt.Sprint(c.discovery.DeviceNames, c.discovery.DeviceTags, c.client.FleetTags)
		}, "false [a b] [c]"},
		{"tags that only targets have", "--web.enable-sd --collector.device.tags=a --collector.metric-denylist=balena_device_tags", nil, func(c *config) any {
			return fmt.Sprint(c.collector.DeviceTags, c.client.DeviceTags)
		}, "false [a]"},
		{"flags of targets without --web.enable-sd cause a warning", "--sd.port=9100", nil, warnings, 1},

		{"the variable of a string", "", []string{"BALENA_EXPORTER_LOG_LEVEL", "debug"}, func(c *config) any { return c.logLevel }, "debug"},
		{"the variable of a switch", "", []string{"BALENA_EXPORTER_COLLECTOR_DEVICE", "false"}, func(c *config) any { return c.collector.Devices }, false},
		{"the variable of a number", "", []string{"BALENA_EXPORTER_BALENA_PAGE_SIZE", "10"}, func(c *config) any { return c.client.PageSize }, 10},
		{"the variable of a flag with dashes", "", []string{"BALENA_EXPORTER_COLLECTOR_FLEET_TAGS", "a,b"}, func(c *config) any { return len(c.client.FleetTags) }, 2},
		{"the variable of a flag of the toolkit", "", []string{"BALENA_EXPORTER_WEB_LISTEN_ADDRESS", ":1\n:2"}, func(c *config) any { return len(*c.web.WebListenAddresses) }, 2},
		{"variables of --version and --help are ignored", "", []string{"BALENA_EXPORTER_VERSION", "1.0", "BALENA_EXPORTER_HELP", "https://example.com"}, interval, time.Minute},
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

// TestHelpContainsDefaults checks that --help lists the flags by group, each with a default or a placeholder.
func TestHelpContainsDefaults(t *testing.T) {
	t.Parallel()
	var stdout bytes.Buffer
	if c, err := parse([]string{"--help"}, &stdout); c != nil || err != nil {
		t.Fatalf("parse returned %v, %v", c, err)
	}
	help := strings.Join(strings.Fields(stdout.String()), " ")
	next := 0
	for _, want := range []string{
		"The balena API:", "--balena.api-url=https://api.balena-cloud.com ", "--balena.token-file=FILE ", "--balena.ca-file=FILE ",
		"--balena.fleet-include=REGEXP ", "--balena.fleet-exclude=REGEXP ", "--balena.shard=0/1 ",
		"--[no-]balena.allow-http Allow sending the token over plain HTTP to another host. Default: off. ($",
		"Metrics:", "--collector.device.tags=KEY,... ", "--collector.fleet.tags=KEY,... ",
		"--[no-]collector.device Export metrics of single devices, about 22 series per device. Default: on. ($",
		"--[no-]collector.release Export metrics of releases. Default: on. ($",
		"--[no-]collector.service Export metrics of services, about 3 series per service on a device. Default: off. ($",
		"The web server:", "Default: off. ($BALENA_EXPORTER_WEB_SYSTEMD_SOCKET)", "--web.config.file=FILE ", "Default: off. ($BALENA_EXPORTER_WEB_ENABLE_PPROF)",
		"Service discovery:", "--sd.address=none ", "--sd.device-urls-base=DOMAIN ", "--sd.template=TEMPLATE ", "--sd.port=PORT ... ", "--sd.path=PATH ", "--sd.scheme=SCHEME ",
		"Logging:", "--log.level=info ",
		"Other:", "--[no-]version Show application version. --[no-]config.check Check the configuration, including a request to the API, print the results, and exit. Examples: BALENA_TOKEN=... balena-exporter ",
	} {
		i := strings.Index(help[next:], want)
		if i < 0 {
			t.Fatalf("the help does not contain %q after %q:\n%s", want, help[:next], &stdout)
		}
		next += i + len(want)
	}
	if regexp.MustCompile(`=[A-Z]+\.`).MatchString(help) {
		t.Errorf("the placeholder of a flag is its name:\n%s", &stdout)
	}
}

// TestDefaults checks that flags which are common among exporters have the usual defaults.
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
