// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"text/template"
	"time"

	"github.com/alecthomas/kingpin/v2"
	"github.com/prometheus/common/version"
	"github.com/prometheus/exporter-toolkit/web"
	"github.com/prometheus/exporter-toolkit/web/kingpinflag"

	"github.com/balena-exporter/balena-exporter/collector"
	"github.com/balena-exporter/balena-exporter/internal/balena"
	"github.com/balena-exporter/balena-exporter/internal/balena/account"
	"github.com/balena-exporter/balena-exporter/internal/balena/api"
	"github.com/balena-exporter/balena-exporter/internal/discovery"
	"github.com/balena-exporter/balena-exporter/internal/problem"
	"github.com/balena-exporter/balena-exporter/internal/statuspage"
)

// config is a valid configuration. Only with --config.check it may contain mistakes, which it lists.
type config struct {
	check     bool
	mistakes  []mistake
	tokenFile string

	client       account.Config
	collector    collector.Options
	interval     time.Duration
	maxStaleness time.Duration

	web                    *web.FlagConfig
	telemetryPath          string
	healthAddress          string
	maxRequests            int
	disableExporterMetrics bool
	pprof                  bool
	// discovery is nil unless targets are served.
	discovery  *discovery.Options
	grafanaURL string
	thresholds problem.Thresholds

	logLevel, logFormat string

	// warnings are about settings that are allowed but questionable.
	warnings []string
}

const (
	tokenVariable = "BALENA_TOKEN"
	// minInterval and maxInterval bound the refresh interval. An interval below shortInterval causes a warning: devices
	// report their metrics only every few minutes, and the API has rate limits.
	minInterval   = time.Second
	maxInterval   = 24 * time.Hour
	shortInterval = 15 * time.Second
	// staleIntervals is the default number of failed intervals for which data are served.
	staleIntervals = 5
	maxPageSize    = 10_000
	// maxTagKeys is the maximum of --collector.tag-limit.
	maxTagKeys = 100
)

// parse reads the command line and the environment. It returns nil if there is nothing to run, because
// the version or the help was requested.
func parse(args []string, stdout io.Writer) (*config, error) {
	app := kingpin.New(name, "Exports metrics of the fleets and devices of balenaCloud or of an openBalena server to Prometheus.\n\n"+
		"The token is read from the environment variable "+tokenVariable+" or from a file. Each flag can also be set by the "+
		"environment variable in parentheses.")
	app.HelpFlag.Short('h')
	app.Version(version.Print(name))
	app.DefaultEnvars()
	// Environment variables with these names may exist for other purposes.
	app.HelpFlag.NoEnvar()
	app.VersionFlag.NoEnvar()
	app.UsageTemplate(usageTemplate)
	app.UsageFuncs(template.FuncMap{"Groups": flagGroups})
	app.UsageWriter(stdout)
	app.ErrorWriter(stdout)
	done := false
	app.Terminate(func(int) { done = true })

	c := &config{}
	apiURL := app.Flag("balena.api-url", "URL of the balena API.").Default("https://api.balena-cloud.com").Envar("BALENA_API_URL").String()
	apiVersion := app.Flag("balena.api-version", "Version of the API. auto uses v7, or v6 if the server does not have v7.").Default("auto").Enum("auto", "v7", "v6")
	app.Flag("balena.token-file", "File with the token. It is read at each refresh. Without it, the token is read from the environment variable "+tokenVariable+".").PlaceHolder("FILE").Envar("BALENA_TOKEN_FILE").StringVar(&c.tokenFile)
	app.Flag("balena.ca-file", "File with PEM certificates to trust in addition to those of the system, for an openBalena server with a private CA.").PlaceHolder("FILE").StringVar(&c.client.CAFile)
	interval := app.Flag("balena.refresh-interval", "Interval between refreshes: a number of seconds, or a duration such as 90s or 2m.").Default("60").Envar("CRAWL_INTERVAL").String()
	app.Flag("balena.timeout", "Timeout of requests to the API.").Default("30s").DurationVar(&c.client.Timeout)
	app.Flag("balena.page-size", "Maximum number of devices, services or tags per response of the API.").Default("1000").IntVar(&c.client.PageSize)
	app.Flag("balena.max-staleness", "How long the last data are served while refreshes fail. 0 means "+strconv.Itoa(staleIntervals)+" intervals.").Default("0s").DurationVar(&c.maxStaleness)
	app.Flag("balena.slow-interval", "Interval between requests for data that rarely change: latest releases, device types, API keys.").Default("15m").DurationVar(&c.client.SlowInterval)
	app.Flag("balena.full-refresh-interval", "Maximum interval between full refreshes. Other refreshes are incremental. 0 makes all refreshes full.").Default("15m").DurationVar(&c.client.FullRefreshInterval)
	include := app.Flag("balena.fleet-include", "Regular expression for the slugs of the fleets to export, anchored at both ends.").PlaceHolder("REGEXP").String()
	exclude := app.Flag("balena.fleet-exclude", "Regular expression for the slugs of fleets not to export, anchored at both ends.").PlaceHolder("REGEXP").String()
	app.Flag("balena.archived-fleets", "Export archived fleets.").Default("true").BoolVar(&c.client.ArchivedFleets)
	shard := app.Flag("balena.shard", "Shard of the fleets to export, as INDEX/COUNT with INDEX counted from 0. Use it to divide an account among several exporters.").Default("0/1").String()
	allowHTTP := app.Flag("balena.allow-http", "Allow sending the token over plain HTTP to another host.").Bool()
	thresholds := app.Flag("collector.fleet.disconnected-thresholds", "Comma-separated thresholds of balena_fleet_devices_disconnected_longer_than, in seconds.").Default("3600,86400,604800,2592000").String()
	app.Flag("collector.device.name", "Export device names.").Default("true").BoolVar(&c.collector.DeviceNames)
	deviceTags := app.Flag("collector.device.tags", "Comma-separated keys of device tags to export. site-* matches all keys that begin with site-.").PlaceHolder("KEY,...").String()
	fleetTags := app.Flag("collector.fleet.tags", "Comma-separated keys of fleet tags to export. site-* matches all keys that begin with site-.").PlaceHolder("KEY,...").String()
	app.Flag("collector.tag-limit", "Maximum number of keys that the patterns of a list of tags may match. If more keys match, the tags of that list are not exported.").Default("20").IntVar(&c.client.TagLimit)
	app.Flag("collector.maintenance-tag", "Key of the tag that sets the maintenance of a device or fleet. If the value of the tag is a date, the maintenance ends then, otherwise when the tag is removed.").PlaceHolder("KEY").StringVar(&c.client.MaintenanceTag)
	allowlist := app.Flag("collector.metric-allowlist", "Regular expression for metrics to export, anchored at both ends. Repeatable. Metrics of the exporter itself are always exported.").PlaceHolder("REGEXP").Strings()
	denylist := app.Flag("collector.metric-denylist", "Regular expression for metrics not to export, anchored at both ends. Repeatable. It takes precedence over the allowlist.").PlaceHolder("REGEXP").Strings()
	app.Flag("web.parts", "Maximum number of parts of an exposition, for scrapes with ?part=INDEX/COUNT. COUNT must divide this number.").Default("1").IntVar(&c.client.Stripes)
	app.Flag("collector.device", "Export metrics of single devices, about 22 series per device.").Default("true").BoolVar(&c.collector.Devices)
	app.Flag("collector.device.location", "Export the coordinates of devices. Only balenaCloud provides them.").Default("false").BoolVar(&c.collector.Location)
	app.Flag("collector.device.location-decimals", "Number of decimals of --collector.device.location, in degrees. Two decimals are about a kilometer.").Default("2").IntVar(&c.collector.LocationDecimals)
	app.Flag("collector.release", "Export metrics of releases.").Default("true").BoolVar(&c.collector.Releases)
	app.Flag("collector.release.limit", "Maximum number of releases per fleet in balena_fleet_devices_by_release. The others are summed in one series. 0 for no limit.").Default("50").IntVar(&c.collector.ReleaseLimit)
	app.Flag("collector.service", "Export metrics of services, about 3 series per service on a device.").Default("false").BoolVar(&c.collector.Services)
	app.Flag("collector.service-summary", "Export the numbers of services and of running services per device, 2 series per device, and 1 more if services have exited.").Default("true").BoolVar(&c.collector.ServiceSummary)
	app.Flag("collector.os", "Export the releases of balenaOS and of the supervisor that the server publishes, and comparisons of devices with them, about 5 series per device.").Default("true").BoolVar(&c.collector.OS)
	app.Flag("collector.api-key", "Export the expiry dates of the API keys of the token's owner.").Default("true").BoolVar(&c.collector.Keys)

	c.web = kingpinflag.AddFlags(app, ":8000")
	app.GetFlag("web.config.file").PlaceHolder("FILE")
	app.Flag("web.telemetry-path", "Path under which to expose metrics.").Default("/metrics").StringVar(&c.telemetryPath)
	app.Flag("web.health-listen-address", "Address on which to expose "+healthyPath+" and "+readyPath+" without TLS and authentication, for probes. Empty to disable.").Default(":8001").StringVar(&c.healthAddress)
	app.Flag("web.max-requests", "Maximum number of concurrent scrapes. 0 for no limit.").Default("40").IntVar(&c.maxRequests)
	app.Flag("web.disable-exporter-metrics", "Exclude metrics about the exporter itself (promhttp_*, process_*, go_*).").BoolVar(&c.disableExporterMetrics)
	app.Flag("web.grafana-url", "URL of a Grafana server with the exporter's dashboards, for links on the status pages. Empty for no links.").PlaceHolder("URL").StringVar(&c.grafanaURL)
	problems := app.Flag("web.problem-thresholds", "Comma-separated thresholds of /problems that differ from the defaults of the alert rules. The names are those of the chart's prometheusRule.thresholds.").PlaceHolder("NAME=NUMBER,...").String()
	app.Flag("web.enable-pprof", "Serve profiles under /debug/pprof/.").BoolVar(&c.pprof)
	targets := addDiscoveryFlags(app)
	app.Flag("config.check", "Check the configuration, including a request to the API, print the results, and exit.").NoEnvar().BoolVar(&c.check)
	app.Flag("log.level", "Only log messages with the given severity or above. One of: [debug, info, warn, error]").Default("info").EnumVar(&c.logLevel, "debug", "info", "warn", "error")
	app.Flag("log.format", "Output format of log messages. One of: [logfmt, json]").Default("logfmt").EnumVar(&c.logFormat, "logfmt", "json")

	explain(app)
	if _, err := app.Parse(args); err != nil {
		if name, ok := switchWithValue(app, args); ok {
			return nil, fmt.Errorf("--%s does not take a value; use --%s or --no-%s", name, name, name)
		}
		return nil, fmt.Errorf("%w; see --help", err)
	}
	if done {
		return nil, nil
	}

	// The rest checks flag by flag. The first mistake ends the exporter.
	check := checker{}
	check.proxies()
	keysOfDevices, keysOfFleets := check.tags("--collector.device.tags", *deviceTags), check.tags("--collector.fleet.tags", *fleetTags)
	c.collector.DeviceTags, c.collector.FleetTags, c.collector.Maintenance = keysOfDevices != nil, keysOfFleets != nil, c.client.MaintenanceTag != ""
	c.collector.Exported = check.metrics(*allowlist, *denylist)
	c.collector = c.collector.Trimmed()
	if c.collector.DeviceTags || targets.enabled {
		c.client.DeviceTags = keysOfDevices
	}
	if c.collector.FleetTags || targets.enabled {
		c.client.FleetTags = keysOfFleets
	}
	c.client.URL = check.apiURL(*apiURL, *allowHTTP)
	c.client.Token = check.token(os.Getenv(tokenVariable), c.tokenFile)
	c.client.UserAgent = name + "/" + version.Version
	check.positive("--balena.timeout", c.client.Timeout)
	check.within("--balena.page-size", c.client.PageSize, 1, maxPageSize)
	c.client.Devices = c.collector.Devices
	c.client.Releases = c.collector.Releases
	c.client.Services = c.collector.Services
	c.client.ServiceSummary = c.collector.ServiceSummary
	c.client.Keys = c.collector.Keys
	c.client.OS = c.collector.OS
	c.client.Location = c.collector.Location
	c.client.Unneeded = c.collector.Unneeded(account.MetricFields())
	check.within("--collector.tag-limit", c.client.TagLimit, 1, maxTagKeys)
	c.client.MaintenanceTag = check.tag("--collector.maintenance-tag", c.client.MaintenanceTag)
	check.within("--web.parts", c.client.Stripes, 1, balena.MaxStripes)
	c.client.Include = check.pattern("--balena.fleet-include", *include)
	c.client.Exclude = check.pattern("--balena.fleet-exclude", *exclude)
	c.client.Shard = check.shard(*shard)
	check.positive("--balena.slow-interval", c.client.SlowInterval)
	check.notNegative("--balena.full-refresh-interval", c.client.FullRefreshInterval)
	if *apiVersion != "auto" {
		c.client.Version = balena.Version(*apiVersion)
	}
	c.interval = check.interval(*interval)
	check.notNegative("--balena.max-staleness", c.maxStaleness)
	switch {
	case c.maxStaleness == 0:
		c.maxStaleness = staleIntervals * c.interval
	case c.maxStaleness < c.interval:
		check.fail("--balena.max-staleness is %s, less than the interval of %s: data would become stale between refreshes", c.maxStaleness, c.interval)
	}
	c.client.Keep = c.maxStaleness
	if c.maxStaleness < 2*c.interval {
		c.warnings = append(c.warnings, fmt.Sprintf("--balena.max-staleness of %s is short: a single failed or slow refresh makes all data stale", c.maxStaleness))
	}
	if c.interval < shortInterval {
		c.warnings = append(c.warnings, fmt.Sprintf("--balena.refresh-interval of %s is short: devices report every few minutes, and the API may limit the rate of requests", c.interval))
	}

	c.collector.DisconnectedThresholds = check.seconds("--collector.fleet.disconnected-thresholds", *thresholds)
	check.within("--collector.device.location-decimals", c.collector.LocationDecimals, 0, 6)
	check.within("--collector.release.limit", c.collector.ReleaseLimit, 0, 1<<30)
	check.within("--web.max-requests", c.maxRequests, 0, 1<<30)
	check.telemetryPath(c.telemetryPath)
	targets.apply(&check, c)
	check.grafanaURL(c.grafanaURL)
	c.thresholds = problem.DefaultThresholds()
	if err := c.thresholds.Set(*problems); err != nil {
		check.fail("--web.problem-thresholds: %w", err)
	}
	if err := web.Validate(*c.web.WebConfigFile); err != nil {
		// YAML errors have several lines.
		check.failIn(webConfiguration, "--web.config.file: %s", strings.Join(strings.Fields(err.Error()), " "))
	}
	if c.check {
		c.mistakes = check.mistakes
		return c, nil
	}
	if len(check.mistakes) > 0 {
		return nil, check.mistakes[0].err
	}
	return c, nil
}

// usageTemplate is the template of --help.
const usageTemplate = `usage: {{.App.Name}} [<flags>]

{{.App.Help | Wrap 0}}
{{- range Groups .Context.Flags}}
{{.Title}}:
{{.Flags | FlagsToTwoColumns | FormatTwoColumns}}
{{- end}}
Examples:
  BALENA_TOKEN=... {{.App.Name}}
  {{.App.Name}} --balena.token-file=/run/secrets/balena --balena.fleet-include='acme/.*'
  {{.App.Name}} --balena.token-file=token --balena.api-url=https://api.balena.example.com --balena.ca-file=ca.pem
`

// flagGroup is a section of --help, with the flags whose names begin with a word.
type flagGroup struct {
	word  string
	Title string
	Flags []*kingpin.FlagModel
}

// flagGroups groups the flags in the order of --help.
func flagGroups(flags []*kingpin.FlagModel) []flagGroup {
	groups := []flagGroup{
		{"balena", "The balena API", nil},
		{"collector", "Metrics", nil},
		{"web", "The web server", nil},
		{"sd", "Service discovery", nil},
		{"log", "Logging", nil},
		{"", "Other", nil},
	}
	for _, flag := range flags {
		word, _, _ := strings.Cut(flag.Name, ".")
		i := slices.IndexFunc(groups, func(g flagGroup) bool { return g.word == word || g.word == "" })
		groups[i].Flags = append(groups[i].Flags, flag)
	}
	return groups
}

// explain adds the default of each boolean flag to its help: kingpin shows defaults only for other flags. It also adds the
// name of each flag to errors about its value, which do not contain it.
func explain(app *kingpin.Application) {
	for _, flag := range app.Model().Flags {
		if flag.IsBoolFlag() && !flag.Hidden && !slices.Contains([]string{"help", "version", "config.check"}, flag.Name) {
			state := "off"
			if slices.Equal(flag.Default, []string{"true"}) {
				state = "on"
			}
			app.GetFlag(flag.Name).Help(flag.Help + " Default: " + state + ".")
		}
		app.GetFlag(flag.Name).SetValue(namedValue{flag.Value, flag.Name})
	}
}

// switchWithValue finds a boolean flag with a value, as in --collector.device=false. Kingpin only reports an unexpected value.
func switchWithValue(app *kingpin.Application, args []string) (name string, found bool) {
	for _, arg := range args {
		name, _, hasValue := strings.Cut(strings.TrimPrefix(arg, "--"), "=")
		if flag := app.GetFlag(name); hasValue && flag != nil && flag.Model().IsBoolFlag() {
			return name, true
		}
	}
	return "", false
}

type namedValue struct {
	kingpin.Value
	flag string
}

func (v namedValue) Set(s string) error {
	err := v.Value.Set(s)
	if _, ok := errors.AsType[*strconv.NumError](err); ok {
		return fmt.Errorf("--%s must be an integer, but is %q", v.flag, s)
	}
	if err != nil {
		return fmt.Errorf("--%s: %w", v.flag, err)
	}
	return nil
}

// IsBoolFlag reports whether the flag takes no value.
func (v namedValue) IsBoolFlag() bool {
	b, ok := v.Value.(interface{ IsBoolFlag() bool })
	return ok && b.IsBoolFlag()
}

// IsCumulative reports whether the flag may be repeated.
func (v namedValue) IsCumulative() bool {
	c, ok := v.Value.(interface{ IsCumulative() bool })
	return ok && c.IsCumulative()
}

// checker checks settings and collects the mistakes.
type checker struct{ mistakes []mistake }

// mistake is an error in the configuration. Its message is one sentence.
type mistake struct {
	in  subject
	err error
}

// fail adds a mistake in the settings.
func (c *checker) fail(format string, args ...any) { c.failIn(settings, format, args...) }

func (c *checker) failIn(in subject, format string, args ...any) {
	c.mistakes = append(c.mistakes, mistake{in, fmt.Errorf(format, args...)})
}

func (c *checker) apiURL(s string, allowHTTP bool) *url.URL {
	const flag = "--balena.api-url (BALENA_API_URL)"
	u, err := url.Parse(s)
	switch {
	case err != nil || u.Hostname() == "" || u.Scheme != "http" && u.Scheme != "https":
		c.fail("%s must be a URL such as https://api.balena-cloud.com, but is %q", flag, redacted(s))
	case u.User != nil || u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		c.fail("%s must not contain a user, query or fragment; put the token into %s or --balena.token-file", flag, tokenVariable)
	case u.Scheme == "http" && !isLoopback(u.Hostname()) && !allowHTTP:
		c.fail("%s would send the token to %s unencrypted; use https, or allow it with --balena.allow-http", flag, u.Host)
	case versionInPath.MatchString(u.Path):
		c.fail("%s must not end in the version of the API, which the exporter adds, but is %q; use %s", flag, u, strings.TrimSuffix(u.JoinPath("..").String(), "/"))
	}
	return u
}

// versionInPath matches the path of a URL that was copied from the documentation of the API.
var versionInPath = regexp.MustCompile(`/v[1-9]/*$`)

// grafanaURL checks the URL of Grafana.
func (c *checker) grafanaURL(s string) {
	if s == "" {
		return
	}
	u, err := url.Parse(s)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		c.fail("--web.grafana-url must be a URL such as https://grafana.example.com, without user, query or fragment, but is %q", redacted(s))
	}
}

// redacted hides possible passwords and keys in an invalid URL: everything before an @, and everything after a ? or
// a #. If a URL has both, the password may contain either of them.
func redacted(s string) string {
	user, query := strings.LastIndex(s, "@"), strings.IndexAny(s, "?#")
	switch {
	case user >= 0 && query >= 0:
		return "…"
	case user >= 0:
		return "…" + s[user:]
	case query >= 0:
		return s[:query] + "…"
	}
	return s
}

// proxies checks the proxies in the environment. If net/http cannot parse one, it connects directly or uses the scheme as
// host. The value is not shown, because it may contain a password.
func (c *checker) proxies() {
	for _, variable := range []string{"HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"} {
		address := os.Getenv(variable)
		if address == "" {
			continue
		}
		if !strings.Contains(address, "://") {
			address = "http://" + address
		}
		if u, err := url.Parse(address); err != nil || u.Host == "" {
			c.fail("%s is not a valid proxy URL such as http://proxy.example.com:3128; correct or unset it, and escape special characters in the user name and password, such as @ as %%40", variable)
		}
	}
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

func (c *checker) token(value, file string) api.TokenSource {
	const flag = "--balena.token-file (BALENA_TOKEN_FILE)"
	value = strings.TrimSpace(value)
	source, where := api.StaticToken(value), tokenVariable
	switch {
	case value != "" && file != "":
		c.failIn(tokenSubject, "there are two tokens, in %s and in %s; set only one", tokenVariable, flag)
		return nil
	case file != "":
		source, where = api.FileToken(file), flag
	case value == "":
		c.failIn(tokenSubject, "there is no token; set %s, or %s to a file with the token", tokenVariable, flag)
		return nil
	}
	if _, err := source(context.Background()); err != nil {
		c.failIn(tokenSubject, "%s: %w", where, err)
	}
	return source
}

// interval accepts durations, and numbers of seconds for compatibility with an earlier exporter.
func (c *checker) interval(s string) time.Duration {
	const flag = "--balena.refresh-interval (CRAWL_INTERVAL)"
	d, err := time.ParseDuration(s)
	if seconds, e := strconv.ParseFloat(s, 64); e == nil && seconds < 1e9 && seconds > -1e9 {
		d, err = time.Duration(seconds*float64(time.Second)), nil
	}
	switch {
	case err != nil:
		c.fail("%s must be a number of seconds such as 60, or a duration such as 2m, but is %q", flag, s)
	case d < minInterval || d > maxInterval:
		c.fail("%s must be from a second to a day, but is %s", flag, s)
	}
	return d
}

func (c *checker) positive(flag string, d time.Duration) {
	if d <= 0 {
		c.fail("%s must be greater than zero, but is %s", flag, d)
	}
}

func (c *checker) notNegative(flag string, d time.Duration) {
	if d < 0 {
		c.fail("%s must not be negative, but is %s", flag, d)
	}
}

func (c *checker) within(flag string, n, least, most int) {
	if n < least || n > most {
		c.fail("%s must be from %d to %d, but is %d", flag, least, most, n)
	}
}

func (c *checker) pattern(flag, s string) *regexp.Regexp {
	if s == "" {
		return nil
	}
	// The text is compiled without anchors first, so that they do not appear in an error and do not close a bracket.
	re, err := regexp.Compile(s)
	if err == nil {
		re, err = regexp.Compile("^(?:" + s + ")$")
	}
	if err != nil {
		c.fail("%s is not a valid regular expression: %w", flag, err)
	}
	return re
}

func (c *checker) shard(s string) balena.Shard {
	var shard balena.Shard
	var err, countErr error
	index, count, _ := strings.Cut(s, "/")
	shard.Index, err = strconv.Atoi(index)
	shard.Count, countErr = strconv.Atoi(count)
	if err != nil || countErr != nil || shard.Index < 0 || shard.Index >= shard.Count || shard.Count > balena.MaxShards {
		c.fail("--balena.shard must be INDEX/COUNT such as 0/3, with INDEX counted from 0 and COUNT at most %d, but is %q", balena.MaxShards, s)
	}
	return shard
}

func (c *checker) list(flag, s string) []string {
	var items []string
	for item := range strings.SplitSeq(s, ",") {
		if item = strings.TrimSpace(item); item == "" {
			continue
		}
		if slices.Contains(items, item) {
			c.fail("%s contains %q twice", flag, item)
		}
		items = append(items, item)
	}
	return items
}

// tags parses keys of tags, and prefixes of keys followed by "*".
func (c *checker) tags(flag, s string) []string {
	keys := c.list(flag, s)
	for _, key := range keys {
		if strings.Contains(strings.TrimSuffix(key, "*"), "*") {
			c.fail("%s may contain * only at the end of a key, as in site-*, but contains %q", flag, key)
		}
	}
	return keys
}

// tag parses the key of a single tag.
func (c *checker) tag(flag, s string) string {
	key := strings.TrimSpace(s)
	if strings.ContainsAny(key, "*,") {
		c.fail("%s must be the key of a single tag, but is %q", flag, s)
	}
	return key
}

func (c *checker) seconds(flag, s string) []int {
	var seconds []int
	for _, item := range c.list(flag, s) {
		n, err := strconv.Atoi(item)
		if err != nil || n <= 0 {
			c.fail("%s must be a comma-separated list of seconds, but contains %q", flag, item)
		}
		seconds = append(seconds, n)
	}
	slices.Sort(seconds)
	return slices.Compact(seconds)
}

func (c *checker) telemetryPath(p string) {
	used := p == healthyPath || p == readyPath || p == targetsPath || slices.Contains(statuspage.Paths, p) || strings.HasPrefix(p, "/debug/pprof")
	// Requests for an unclean path are redirected to the clean path, which would not exist.
	if !strings.HasPrefix(p, "/") || p != path.Clean(p) || strings.ContainsAny(p, "{}% ?#") || used {
		c.fail("--web.telemetry-path must be an unused path such as /metrics, but is %q", p)
	}
}
