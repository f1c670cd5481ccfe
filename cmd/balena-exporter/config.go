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

// config is the configuration. It exists only validated, unless it is to be checked: then it lists its mistakes.
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
	// maxTagKeys is more labels than a series should have.
	maxTagKeys = 100
)

// parse reads the command line and the environment. It returns nil if there is nothing to run, because
// the version or the help was requested.
func parse(args []string, stdout io.Writer) (*config, error) {
	app := kingpin.New(name, "Exports the fleets and devices of balenaCloud or of an openBalena server to Prometheus.\n\n"+
		"The token is read from the environment variable "+tokenVariable+" or from a file. Each flag can also be set by the "+
		"environment variable in parentheses behind it.")
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
	var (
		apiURL      = app.Flag("balena.api-url", "Address of the balena API.").Default("https://api.balena-cloud.com").Envar("BALENA_API_URL").String()
		apiVersion  = app.Flag("balena.api-version", "Version of the API: auto takes v7, and v6 where the server has no v7.").Default("auto").Enum("auto", "v7", "v6")
		tokenFile   = app.Flag("balena.token-file", "File with the token, read anew at each refresh. Without it, the token is taken from the environment variable "+tokenVariable+".").PlaceHolder("FILE").Envar("BALENA_TOKEN_FILE").String()
		caFile      = app.Flag("balena.ca-file", "File of PEM certificates to trust beside the system's, for an openBalena server with a private CA.").PlaceHolder("FILE").String()
		interval    = app.Flag("balena.refresh-interval", "Time between refreshes: seconds, or a duration such as 90s or 2m.").Default("60").Envar("CRAWL_INTERVAL").String()
		timeout     = app.Flag("balena.timeout", "How long a request to the API may take.").Default("30s").Duration()
		pageSize    = app.Flag("balena.page-size", "Devices, services or tags in a request.").Default("1000").Int()
		stale       = app.Flag("balena.max-staleness", "How long data are served while refreshes fail; 0 means "+strconv.Itoa(staleIntervals)+" intervals.").Default("0s").Duration()
		slow        = app.Flag("balena.slow-interval", "Time between requests for what rarely changes: newest releases, device types, API keys.").Default("15m").Duration()
		fullRefresh = app.Flag("balena.full-refresh-interval", "How often everything is read at least; refreshes between ask for what changed. 0 reads everything each time.").Default("15m").Duration()
		include     = app.Flag("balena.fleet-include", "Regular expression of the slugs of the fleets to export, anchored at both ends.").PlaceHolder("REGEXP").String()
		exclude     = app.Flag("balena.fleet-exclude", "Regular expression of the slugs of the fleets not to export, anchored at both ends.").PlaceHolder("REGEXP").String()
		archived    = app.Flag("balena.archived-fleets", "Export archived fleets, too.").Default("true").Bool()
		shard       = app.Flag("balena.shard", "Part of the fleets to export, as INDEX/COUNT with INDEX from 0, for several exporters that divide an account.").Default("0/1").String()
		allowHTTP   = app.Flag("balena.allow-http", "Send the token over plain HTTP to a host other than this one.").Bool()
		thresholds  = app.Flag("collector.fleet.disconnected-thresholds", "Times in seconds for balena_fleet_devices_disconnected_longer_than, separated by commas.").Default("3600,86400,604800,2592000").String()
		deviceNames = app.Flag("collector.device.name", "Export the names of devices.").Default("true").Bool()
		deviceTags  = app.Flag("collector.device.tags", "Keys of the device tags to export, separated by commas. site-* stands for all keys that begin with site-.").PlaceHolder("KEY,...").String()
		fleetTags   = app.Flag("collector.fleet.tags", "Keys of the fleet tags to export, separated by commas. site-* stands for all keys that begin with site-.").PlaceHolder("KEY,...").String()
		tagLimit    = app.Flag("collector.tag-limit", "How many keys of tags the patterns of a list may match. Beyond it, the tags of that list are not exported.").Default("20").Int()
		maintenance = app.Flag("collector.maintenance-tag", "Key of the tag that says that a device or fleet is in maintenance: until the date that is its value, otherwise as long as the tag is there.").PlaceHolder("KEY").String()
	)
	allowlist := app.Flag("collector.metric-allowlist", "Regular expression of the metrics to export, anchored at both ends; may be repeated. The metrics of the exporter itself are always exported.").PlaceHolder("REGEXP").Strings()
	denylist := app.Flag("collector.metric-denylist", "Regular expression of metrics not to export, anchored at both ends; may be repeated. It goes before the allowlist.").PlaceHolder("REGEXP").Strings()
	parts := app.Flag("web.parts", "Into how many parts the devices can be divided, for scrapes with ?part=INDEX/COUNT; COUNT is this or divides it.").Default("1").Int()
	app.Flag("collector.device", "Export metrics of each device, about 22 series a device.").Default("true").BoolVar(&c.collector.Devices)
	app.Flag("collector.device.location", "Export where devices are; only balenaCloud knows it.").Default("false").BoolVar(&c.collector.Location)
	app.Flag("collector.device.location-decimals", "Decimals of the degrees of --collector.device.location: two are about a kilometer.").Default("2").IntVar(&c.collector.LocationDecimals)
	app.Flag("collector.release", "Export metrics of releases.").Default("true").BoolVar(&c.collector.Releases)
	app.Flag("collector.release.limit", "Releases in use that are told apart in a fleet; 0 for no limit.").Default("50").IntVar(&c.collector.ReleaseLimit)
	app.Flag("collector.service", "Export metrics of services, about 3 series a service on a device.").Default("false").BoolVar(&c.collector.Services)
	app.Flag("collector.service-summary", "Export how many services of its release run on each device, 2 series a device and 1 more where some have exited.").Default("true").BoolVar(&c.collector.ServiceSummary)
	app.Flag("collector.os", "Export the releases of balenaOS and of the supervisor that the server publishes, and how far devices are behind them, about 5 series a device.").Default("true").BoolVar(&c.collector.OS)
	app.Flag("collector.api-key", "Export when the caller's API keys expire.").Default("true").BoolVar(&c.collector.Keys)

	c.web = kingpinflag.AddFlags(app, ":8000")
	app.GetFlag("web.config.file").PlaceHolder("FILE")
	app.Flag("web.telemetry-path", "Path under which to expose metrics.").Default("/metrics").StringVar(&c.telemetryPath)
	app.Flag("web.health-listen-address", "Address on which to answer "+healthyPath+" and "+readyPath+" without TLS or authentication, for probes; empty for none.").Default(":8001").StringVar(&c.healthAddress)
	app.Flag("web.max-requests", "Maximum number of scrapes served at the same time; 0 for no limit.").Default("40").IntVar(&c.maxRequests)
	app.Flag("web.disable-exporter-metrics", "Exclude metrics about the exporter itself (promhttp_*, process_*, go_*).").BoolVar(&c.disableExporterMetrics)
	app.Flag("web.grafana-url", "Address of a Grafana with the exporter's dashboards, to which the pages link; empty for none.").PlaceHolder("URL").StringVar(&c.grafanaURL)
	problems := app.Flag("web.problem-thresholds", "Thresholds of /problems that differ from those of the alert rules as they come, separated by commas; the names are those of the chart's prometheusRule.thresholds.").PlaceHolder("NAME=NUMBER,...").String()
	app.Flag("web.enable-pprof", "Serve profiles under /debug/pprof/.").BoolVar(&c.pprof)
	targets := addDiscoveryFlags(app)
	app.Flag("config.check", "Check the configuration, ask the API once, print what is right and what is wrong, and exit.").NoEnvar().BoolVar(&c.check)
	app.Flag("log.level", "Only log messages with the given severity or above. One of: [debug, info, warn, error]").Default("info").EnumVar(&c.logLevel, "debug", "info", "warn", "error")
	app.Flag("log.format", "Output format of log messages. One of: [logfmt, json]").Default("logfmt").EnumVar(&c.logFormat, "logfmt", "json")

	describeSwitches(app)
	nameValues(app)
	if _, err := app.Parse(args); err != nil {
		if name, ok := switchWithValue(app, args); ok {
			return nil, fmt.Errorf("--%s takes no value; write --%s or --no-%s", name, name, name)
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
	c.collector.DeviceTags, c.collector.FleetTags, c.collector.Maintenance = keysOfDevices != nil, keysOfFleets != nil, *maintenance != ""
	c.collector.Exported = check.metrics(*allowlist, *denylist)
	c.collector = c.collector.Trimmed()
	if !c.collector.DeviceTags && !targets.enabled {
		keysOfDevices = nil
	}
	if !c.collector.FleetTags && !targets.enabled {
		keysOfFleets = nil
	}
	c.client = account.Config{
		Config: api.Config{
			URL:       check.apiURL(*apiURL, *allowHTTP),
			Token:     check.token(os.Getenv(tokenVariable), *tokenFile),
			CAFile:    *caFile,
			Timeout:   check.positive("--balena.timeout", *timeout),
			UserAgent: name + "/" + version.Version,
		},
		PageSize: check.within("--balena.page-size", *pageSize, 1, maxPageSize),
		Options: account.Options{
			Devices:             c.collector.Devices,
			Releases:            c.collector.Releases,
			Services:            c.collector.Services,
			ServiceSummary:      c.collector.ServiceSummary,
			Keys:                c.collector.Keys,
			OS:                  c.collector.OS,
			DeviceTags:          keysOfDevices,
			FleetTags:           keysOfFleets,
			TagLimit:            check.within("--collector.tag-limit", *tagLimit, 1, maxTagKeys),
			MaintenanceTag:      check.tag("--collector.maintenance-tag", *maintenance),
			Location:            c.collector.Location,
			Unneeded:            c.collector.Unneeded(account.MetricFields()),
			Stripes:             check.within("--web.parts", *parts, 1, balena.MaxStripes),
			Include:             check.pattern("--balena.fleet-include", *include),
			Exclude:             check.pattern("--balena.fleet-exclude", *exclude),
			ArchivedFleets:      *archived,
			Shard:               check.shard(*shard),
			SlowInterval:        check.positive("--balena.slow-interval", *slow),
			FullRefreshInterval: check.notNegative("--balena.full-refresh-interval", *fullRefresh),
		},
	}
	if *apiVersion != "auto" {
		c.client.Version = balena.Version(*apiVersion)
	}
	c.interval = check.interval(*interval)
	c.maxStaleness = check.notNegative("--balena.max-staleness", *stale)
	switch {
	case c.maxStaleness == 0:
		c.maxStaleness = staleIntervals * c.interval
	case c.maxStaleness < c.interval:
		check.fail("--balena.max-staleness is %s, less than the interval of %s: data would disappear between refreshes", c.maxStaleness, c.interval)
	}
	c.client.Keep = c.maxStaleness
	if c.maxStaleness < 2*c.interval {
		c.warnings = append(c.warnings, fmt.Sprintf("a maximal staleness of %s is short: one refresh that fails or is slow makes all data disappear for a while", c.maxStaleness))
	}
	if c.interval < shortInterval {
		c.warnings = append(c.warnings, fmt.Sprintf("an interval of %s is short: devices tell of their state every few minutes, and the API may limit the rate", c.interval))
	}

	c.collector.DeviceNames = *deviceNames
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
		c.tokenFile, c.mistakes = *tokenFile, check.mistakes
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

// flagGroup is a section of --help.
type flagGroup struct {
	Title string
	Flags []*kingpin.FlagModel
}

// flagGroups groups the flags by the first word of their names, in the order of --help.
func flagGroups(flags []*kingpin.FlagModel) []flagGroup {
	groups := []flagGroup{{Title: "The balena API"}, {Title: "Metrics"}, {Title: "The web server"}, {Title: "Service discovery"}, {Title: "Logging"}, {Title: "Other"}}
	places := map[string]int{"balena": 0, "collector": 1, "web": 2, "sd": 3, "log": 4}
	for _, flag := range flags {
		word, _, _ := strings.Cut(flag.Name, ".")
		place, known := places[word]
		if !known {
			place = len(groups) - 1
		}
		groups[place].Flags = append(groups[place].Flags, flag)
	}
	return groups
}

// describeSwitches adds the default of each switch to its help. Kingpin shows the defaults only of other flags.
func describeSwitches(app *kingpin.Application) {
	for _, flag := range app.Model().Flags {
		if !flag.IsBoolFlag() || flag.Hidden || slices.Contains([]string{"help", "version", "config.check"}, flag.Name) {
			continue
		}
		state := "off"
		if slices.Equal(flag.Default, []string{"true"}) {
			state = "on"
		}
		app.GetFlag(flag.Name).Help(flag.Help + " Default: " + state + ".")
	}
}

// nameValues makes errors about values of flags name the flag. Kingpin's errors do not.
func nameValues(app *kingpin.Application) {
	for _, flag := range app.Model().Flags {
		app.GetFlag(flag.Name).SetValue(namedValue{flag.Value, flag.Name})
	}
}

// switchWithValue finds a switch with a value, as in --collector.device=false. Kingpin would only report an unexpected
// value.
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
		return fmt.Errorf("--%s must be a whole number, and is %q", v.flag, s)
	}
	if err != nil {
		return fmt.Errorf("--%s: %w", v.flag, err)
	}
	return nil
}

// IsBoolFlag tells kingpin that the flag takes no value.
func (v namedValue) IsBoolFlag() bool {
	b, ok := v.Value.(interface{ IsBoolFlag() bool })
	return ok && b.IsBoolFlag()
}

// IsCumulative tells kingpin whether the flag may be repeated.
func (v namedValue) IsCumulative() bool {
	c, ok := v.Value.(interface{ IsCumulative() bool })
	return ok && c.IsCumulative()
}

// checker checks settings and collects the mistakes.
type checker struct{ mistakes []mistake }

// mistake is something wrong with the configuration. The error is one sentence.
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
		c.fail("%s must be an address such as https://api.balena-cloud.com, and is %q", flag, redacted(s))
	case u.User != nil || u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		c.fail("%s must have no user, query or fragment; the token goes into %s or --balena.token-file", flag, tokenVariable)
	case u.Scheme == "http" && !isLoopback(u.Hostname()) && !allowHTTP:
		c.fail("%s would send the token to %s unencrypted; use https, or --balena.allow-http if you mean it", flag, u.Host)
	case versionInPath.MatchString(u.Path):
		c.fail("%s must not end in the version of the API, which the exporter adds, and is %q; write %s", flag, u, strings.TrimSuffix(u.JoinPath("..").String(), "/"))
	}
	return u
}

// versionInPath matches the path of a URL that was copied from the documentation of the API.
var versionInPath = regexp.MustCompile(`/v[1-9]/*$`)

// grafanaURL checks an address that the pages link to.
func (c *checker) grafanaURL(s string) {
	if s == "" {
		return
	}
	u, err := url.Parse(s)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		c.fail("--web.grafana-url must be an address such as https://grafana.example.com, without user, query or fragment, and is %q", redacted(s))
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

// proxies checks the proxies in the environment. If net/http cannot parse one, it connects directly or takes the scheme
// for the host. The value is not shown, because it may contain a password.
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
			c.fail("%s is not the address of a proxy such as http://proxy.example.com:3128; correct or unset it, and write special characters of a user or a password as %%40 for @", variable)
		}
	}
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

func (c *checker) token(value, file string) api.TokenSource {
	value = strings.TrimSpace(value)
	var source api.TokenSource
	switch {
	case value != "" && file != "":
		c.failIn(tokenSubject, "there are two tokens, one in %s and one in --balena.token-file (BALENA_TOKEN_FILE); keep one", tokenVariable)
		return nil
	case file != "":
		source = api.FileToken(file)
	case value != "":
		source = api.StaticToken(value)
	default:
		c.failIn(tokenSubject, "there is no token; put it into %s, or into a file and name that with --balena.token-file (BALENA_TOKEN_FILE)", tokenVariable)
		return nil
	}
	if _, err := source(context.Background()); err != nil {
		where := tokenVariable
		if file != "" {
			where = "--balena.token-file (BALENA_TOKEN_FILE)"
		}
		c.failIn(tokenSubject, "%s: %w", where, err)
	}
	return source
}

// interval accepts durations, and plain seconds like the predecessor of this exporter.
func (c *checker) interval(s string) time.Duration {
	const flag = "--balena.refresh-interval (CRAWL_INTERVAL)"
	d, err := time.ParseDuration(s)
	if seconds, e := strconv.ParseFloat(s, 64); e == nil && seconds < 1e9 && seconds > -1e9 {
		d, err = time.Duration(seconds*float64(time.Second)), nil
	}
	switch {
	case err != nil:
		c.fail("%s must be seconds such as 60, or a duration such as 2m, and is %q", flag, s)
	case d < minInterval || d > maxInterval:
		c.fail("%s must be from a second to a day, and is %s", flag, s)
	}
	return d
}

func (c *checker) positive(flag string, d time.Duration) time.Duration {
	if d <= 0 {
		c.fail("%s must be more than zero, and is %s", flag, d)
	}
	return d
}

func (c *checker) notNegative(flag string, d time.Duration) time.Duration {
	if d < 0 {
		c.fail("%s must not be negative, and is %s", flag, d)
	}
	return d
}

func (c *checker) within(flag string, n, least, most int) int {
	if n < least || n > most {
		c.fail("%s must be from %d to %d, and is %d", flag, least, most, n)
	}
	return n
}

func (c *checker) pattern(flag, s string) *regexp.Regexp {
	if s == "" {
		return nil
	}
	// Compile it alone first, so that the added characters do not appear in an error and do not close a bracket.
	_, err := regexp.Compile(s)
	if err != nil {
		c.fail("%s is no regular expression: %w", flag, err)
		return nil
	}
	re, err := regexp.Compile("^(?:" + s + ")$")
	if err != nil {
		c.fail("%s is no regular expression: %w", flag, err)
	}
	return re
}

func (c *checker) shard(s string) balena.Shard {
	var shard balena.Shard
	index, count, _ := strings.Cut(s, "/")
	var err [2]error
	shard.Index, err[0] = strconv.Atoi(index)
	shard.Count, err[1] = strconv.Atoi(count)
	if errors.Join(err[:]...) != nil || shard.Index < 0 || shard.Index >= shard.Count || shard.Count > balena.MaxShards {
		c.fail("--balena.shard must be INDEX/COUNT such as 0/3, the index from 0 and the count up to %d, and is %q", balena.MaxShards, s)
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
			c.fail("%s names %q twice", flag, item)
		}
		items = append(items, item)
	}
	return items
}

// tags takes keys of tags, and beginnings of keys with a "*" behind them.
func (c *checker) tags(flag, s string) []string {
	keys := c.list(flag, s)
	for _, key := range keys {
		if strings.Contains(strings.TrimSuffix(key, "*"), "*") {
			c.fail("%s takes a * at the end of a key only, as in site-*, and has %q", flag, key)
		}
	}
	return keys
}

// tag takes the key of one tag.
func (c *checker) tag(flag, s string) string {
	key := strings.TrimSpace(s)
	if strings.ContainsAny(key, "*,") {
		c.fail("%s must be the key of one tag, and is %q", flag, s)
	}
	return key
}

func (c *checker) seconds(flag, s string) []int {
	var seconds []int
	for _, item := range c.list(flag, s) {
		n, err := strconv.Atoi(item)
		if err != nil || n <= 0 {
			c.fail("%s must be seconds separated by commas, and %q is none", flag, item)
		}
		seconds = append(seconds, n)
	}
	slices.Sort(seconds)
	return slices.Compact(seconds)
}

func (c *checker) telemetryPath(p string) {
	taken := p == healthyPath || p == readyPath || p == targetsPath || slices.Contains(statuspage.Paths, p) || strings.HasPrefix(p, "/debug/pprof")
	// Requests for an unclean path are redirected to the clean path, which would not exist.
	if !strings.HasPrefix(p, "/") || p != path.Clean(p) || strings.ContainsAny(p, "{}% ?#") || taken {
		c.fail("--web.telemetry-path must be a path of its own such as /metrics, and is %q", p)
	}
}
