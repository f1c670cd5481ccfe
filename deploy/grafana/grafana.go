// SPDX-License-Identifier: Apache-2.0

// Package grafana contains the Grafana dashboards. They are defined as panels and queries, and generated as JSON files in
// the Helm chart, for the Grafana sidecar, provisioning, or manual import.
//
// All dashboards follow these rules. Queries aggregate away the labels of the exporter, so a restart or a second replica of
// the exporter does not change values. No panel has a line per device; devices are listed in tables with a limit. The data
// source is a variable. Each dashboard links to the next one: all fleets, a fleet, a device, the balena dashboard.
//
// The JSON is for Grafana 11 and later.
package grafana

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/balena-exporter/balena-exporter/internal/balena"
)

//go:generate go run ./generate ../../charts/balena-exporter/files/dashboards

// All returns the dashboards.
func All() []*Dashboard {
	return []*Dashboard{fleetsDashboard(), fleetDashboard(), deviceDashboard(), deviceInsideDashboard(), exporterDashboard()}
}

// Dashboard is a dashboard in the JSON format of Grafana.
type Dashboard struct {
	UID           string   `json:"uid"`
	Title         string   `json:"title"`
	Description   string   `json:"description"`
	Tags          []string `json:"tags"`
	Editable      bool     `json:"editable"`
	GraphTooltip  int      `json:"graphTooltip"` // 1: one crosshair in all panels
	Refresh       string   `json:"refresh"`
	SchemaVersion int      `json:"schemaVersion"`
	Time          options  `json:"time"`
	Timezone      string   `json:"timezone"`
	Links         []any    `json:"links"`
	Templating    struct {
		List []*Variable `json:"list"`
	} `json:"templating"`
	Annotations struct {
		List []any `json:"list"`
	} `json:"annotations"`
	Panels []*Panel `json:"panels"`
}

// schemaVersion is that of Grafana 11. Newer versions migrate it.
const schemaVersion = 39

// Annotation marks times in time series panels.
type Annotation struct {
	Name       string     `json:"name"`
	Datasource datasource `json:"datasource"`
	Enable     bool       `json:"enable"`
	Color      string     `json:"iconColor"`
	Expr       string     `json:"expr"`
	Step       string     `json:"step"`
	TagKeys    string     `json:"tagKeys,omitempty"`
	Title      string     `json:"titleFormat"`
	Text       string     `json:"textFormat"`
}

// Panel is a panel, or the title of a row.
type Panel struct {
	ID              int          `json:"id"`
	Type            string       `json:"type"`
	Title           string       `json:"title"`
	Description     string       `json:"description,omitempty"`
	Position        position     `json:"gridPos"`
	Datasource      datasource   `json:"datasource,omitzero"`
	Targets         []*Target    `json:"targets,omitempty"`
	FieldConfig     *fieldConfig `json:"fieldConfig,omitempty"`
	Options         options      `json:"options,omitempty"`
	Transformations []any        `json:"transformations,omitempty"`
	// Collapsed and Panels are required in titles of rows, and only there. The row is open, and its panels follow it.
	Collapsed *bool `json:"collapsed,omitempty"`
	Panels    []any `json:"panels,omitzero"`

	// Columns are the fields that a table shows, Words the texts of the values 0 and 1, and Colors the colors of series by name.
	Columns []string          `json:"-"`
	Words   []string          `json:"-"`
	Colors  map[string]string `json:"-"`

	// width is its share of the row.
	width int
}

type position struct {
	X      int `json:"x"`
	Y      int `json:"y"`
	Width  int `json:"w"`
	Height int `json:"h"`
}

type datasource struct {
	Type string `json:"type"`
	UID  string `json:"uid"`
}

var prometheus = datasource{Type: "prometheus", UID: "${datasource}"}

// Target is a query of a panel.
type Target struct {
	RefID        string     `json:"refId"`
	Datasource   datasource `json:"datasource"`
	Expr         string     `json:"expr"`
	LegendFormat string     `json:"legendFormat,omitempty"`
	Format       string     `json:"format"`
	Instant      bool       `json:"instant"`
	Range        bool       `json:"range"`
}

type options map[string]any

type fieldConfig struct {
	Defaults  options `json:"defaults"`
	Overrides []any   `json:"overrides"`
}

// Variable is a variable of a dashboard.
type Variable struct {
	Name       string     `json:"name"`
	Label      string     `json:"label"`
	Type       string     `json:"type"`
	Query      any        `json:"query"`
	Definition string     `json:"definition,omitempty"`
	Datasource datasource `json:"datasource,omitzero"`
	Regex      string     `json:"regex,omitempty"`
	Multi      bool       `json:"multi"`
	IncludeAll bool       `json:"includeAll"`
	AllValue   string     `json:"allValue,omitempty"`
	Refresh    int        `json:"refresh,omitempty"` // 2: whenever the time range changes
	Sort       int        `json:"sort,omitempty"`    // 5: alphabetically, upper case like lower case
	Hide       int        `json:"hide"`              // 2: altogether
	Current    options    `json:"current,omitempty"`
	Options    []any      `json:"options,omitempty"`
}

// JSON returns the dashboard as it is imported.
func (d *Dashboard) JSON() ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(d); err != nil {
		return nil, fmt.Errorf("dashboard %s: %w", d.UID, err)
	}
	return b.Bytes(), nil
}

// FileName returns the name of the file of the dashboard.
func (d *Dashboard) FileName() string { return d.UID + ".json" }

// row is a row of panels.
type row struct {
	title  string // empty for a row that continues the previous one
	height int
	panels []*Panel
}

// gridWidth is the width of a dashboard.
const gridWidth = 24

// newDashboard returns a dashboard with links to the other dashboards.
func newDashboard(uid, title, description string, variables []*Variable, rows ...row) *Dashboard {
	d := &Dashboard{
		UID: uid, Title: title, Description: description, Tags: []string{"balena"}, Editable: true, GraphTooltip: 1, Refresh: "1m",
		SchemaVersion: schemaVersion, Time: options{"from": "now-24h", "to": "now"}, Timezone: "browser",
		Links: []any{options{
			"type": "dashboards", "tags": []string{"balena"}, "title": "balena", "icon": "external link", "tooltip": "", "asDropdown": false, "includeVars": false, "keepTime": true, "targetBlank": false,
		}},
	}
	d.Templating.List = variables
	// The built-in annotation, which Grafana would add.
	d.Annotations.List = []any{options{
		"builtIn": 1, "datasource": datasource{"grafana", "-- Grafana --"}, "enable": true, "hide": true,
		"iconColor": "rgba(0, 211, 255, 1)", "name": "Annotations & Alerts", "type": "dashboard",
	}}
	y := 0
	add := func(p *Panel, x, width, height int) {
		p.ID, p.Position = len(d.Panels)+1, position{x, y, width, height}
		d.Panels = append(d.Panels, p)
	}
	for _, r := range rows {
		if r.title != "" {
			add(&Panel{Type: "row", Title: r.title, Collapsed: new(false), Panels: []any{}}, 0, gridWidth, 1)
			y++
		}
		shares := 0
		for _, p := range r.panels {
			shares += max(1, p.width)
		}
		x, before := 0, 0
		for _, p := range r.panels {
			before += max(1, p.width)
			end := gridWidth * before / shares
			add(p, x, end-x, r.height)
			x = end
		}
		y += r.height
	}
	return d
}

// Definitions of terms. Panels and alerts use the same terms.
const (
	connectedMeans   = "Connected: the VPN is up, or the API heartbeat is online or timeout."
	onlineMeans      = "Online: the VPN is up."
	operationalMeans = "Operational: connected, the VPN and the API heartbeat agree, and no update is running."
	lostMeans        = "Lost: disconnected for so long that the alerts no longer count the device, 7 days by default."
	inServiceMeans   = "In service: expected to work. Devices that are inactive, frozen or in maintenance, and devices of archived fleets, are not in service."
	inUseMeans       = "In use: in service, except never connected and lost devices."
	healthyMeans     = "Healthy: in service, connected, and running the target release with all its services."
	availableMeans   = "Availability: share of the time during which devices in service that have connected before were connected."
	onTargetMeans    = "On target release: running the release that the device is pinned to, otherwise the target release of the fleet."
)

// Annotations.

// annotate adds annotations to a dashboard.
func (d *Dashboard) annotate(list ...*Annotation) *Dashboard {
	for _, a := range list {
		d.Annotations.List = append(d.Annotations.List, a)
	}
	return d
}

// firing marks the times at which alerts fire.
func firing(matchers, by, text string) *Annotation {
	return &Annotation{
		Name: "Firing alerts", Datasource: prometheus, Enable: true, Color: "red", Step: "60s", TagKeys: "severity", Title: "{{alertname}}", Text: text,
		Expr: "count by (alertname, severity, " + by + `) (ALERTS{alertstate="firing",alertname=~"Balena.+",` + matchers + "})",
	}
}

// rollouts marks changes of the target release of fleets. A change is visible for five minutes, so that it does not fall
// between two steps of a long time range. If there are several target releases at a time, the last scraped one is used.
func rollouts(matchers string, enable bool) *Annotation {
	return &Annotation{
		Name: "Rollouts", Datasource: prometheus, Enable: enable, Color: "blue", Step: "60s", Title: "Target release changed", Text: "{{fleet}} {{release_version}}",
		Expr: "max by (fleet, release_version) (topk by (fleet) (1, timestamp(balena_fleet_target_release_info{" + matchers + "}))" +
			" and on (fleet) changes(balena_fleet_target_release_created_timestamp_seconds{" + matchers + "}[5m]) > 0)",
	}
}

// alertsTable lists firing alerts.
func alertsTable(description, matchers string, columns ...column) *Panel {
	count := `count by (alertname, severity, fleet) (ALERTS{alertstate="firing",alertname=~"Balena.+",` + matchers + "})"
	columns = append([]column{{title: "Alert", label: "alertname"}, {title: "Severity", label: "severity", width: 90}}, columns...)
	return table("Firing alerts", description, "Alerts", true, append(columns, column{title: "Alerts", unit: "short", width: 80, query: count})...)
}

// Variables.

var (
	datasourceVariable   = &Variable{Name: "datasource", Label: "Data source", Type: "datasource", Query: "prometheus"}
	organizationVariable = fromMetrics("organization", "Organization", "label_values(balena_fleet_info, organization)", "").several(".+")

	// tagVariable is the label of a tag by which fleets and devices are selected. The chart replaces its values by the labels of
	// its alerts.
	tagVariable = &Variable{Name: "tag", Label: "Tag", Type: "custom", Query: "tag_site", Current: options{"text": "tag_site", "value": "tag_site"}}

	// tagValueVariable has the values of the tag. The selection of all values includes fleets and devices without the tag.
	tagValueVariable = fromMetrics("tag_value", "Value of the tag", "query_result(group by ($tag) (balena_fleet_tags or balena_device_tags))", `/="([^"]+)"/`).several(".*")

	// balenaVariable is the URL of the balena dashboard. The chart replaces it, or removes the links.
	balenaVariable = constant("balena", "balena's dashboard", "https://dashboard.balena-cloud.com")

	// lostVariable is the number of seconds after which devices are lost. It must be a threshold of
	// balena_fleet_devices_disconnected_longer_than. The chart replaces it by the value of its alerts.
	lostVariable = constant("lost", "Seconds after which devices are lost", "604800")
)

// fromMetrics is a variable with values from Prometheus. Unless it is empty, a regular expression extracts them from the results.
func fromMetrics(name, label, query, regex string) *Variable {
	return &Variable{
		Name: name, Label: label, Type: "query", Datasource: prometheus, Definition: query, Regex: regex,
		Query: options{"query": query, "refId": "variable"}, Refresh: 2, Sort: 5,
	}
}

func constant(name, label, value string) *Variable {
	return &Variable{Name: name, Label: label, Type: "constant", Query: value, Hide: 2, Current: options{"text": value, "value": value}}
}

// several allows several values of a variable, and selects all of them by default: what matches all, or the listed values if
// it is empty.
func (v *Variable) several(all string) *Variable {
	v.Multi, v.IncludeAll, v.AllValue = true, true, all
	v.Current = options{"text": []string{"All"}, "value": []string{"$__all"}}
	return v
}

// fleetVariable has the fleets with the selected tag, and fleets of devices with the tag.
func fleetVariable(matchers string) *Variable {
	return fromMetrics("fleet", "Fleet", `query_result(group by (fleet) (`+tagged(
		"max by (fleet, $tag) (balena_fleet_tags or balena_device_tags)", `balena_fleet_info{organization=~"$organization"`+matchers+"}", "fleet")+"))",
		`/fleet="([^"]+)"/`)
}

// tagged selects the series of known whose tag has the selected value. Without the tag, the value is empty, which matches
// only the selection of all values.
func tagged(tags, known, by string) string {
	return `label_replace(` + tags + ` and on (` + by + `) ` + known + ` or on (` + by + `) ` + known + `, "chosen", "yes", "$tag", "$tag_value")` +
		` and on (chosen) label_replace(vector(1), "chosen", "yes", "fleet", "")`
}

// topVariable is the maximum number of devices in a table.
func topVariable() *Variable {
	v := &Variable{Name: "top", Label: "Devices in tables", Type: "custom", Query: "10,20,50,100", Current: options{"text": "20", "value": "20"}}
	for n := range strings.SplitSeq(v.Query.(string), ",") {
		v.Options = append(v.Options, options{"text": n, "value": n, "selected": n == "20"})
	}
	return v
}

// Links. Grafana replaces the variables for the clicked row or series.

const (
	keepContext = "?${datasource:queryparam}&${__url_time_range}"
	toFleet     = "/d/balena-fleet" + keepContext + "&var-fleet="
	ofDashboard = "&var-fleet=${fleet:percentencode}&var-device=${device:percentencode}"
	balenaLink  = "Open in balena's dashboard"
	balenaURL   = "${balena}/devices/${device:percentencode}/summary"
)

var (
	rowToFleet    = link("Open the fleet", toFleet+"${__data.fields.fleet:percentencode}")
	seriesToFleet = link("Open the fleet", toFleet+"${__field.labels.fleet:percentencode}")
	rowToDevice   = link("Open the device", "/d/balena-device"+keepContext+"&var-fleet=${fleet:percentencode}&var-device=${__data.fields.uuid:percentencode}")
	rowToBalena   = link(balenaLink, "${balena}/devices/${__data.fields.uuid:percentencode}/summary")
	toBalena      = link(balenaLink, balenaURL)
)

func link(title, url string) options {
	return options{"title": title, "url": url, "targetBlank": title == balenaLink}
}

// Panels.

func newPanel(kind, title, description string, targets ...*Target) *Panel {
	p := &Panel{
		Type: kind, Title: title, Description: description, Datasource: prometheus, Targets: targets, Options: options{},
		FieldConfig: &fieldConfig{Defaults: options{}, Overrides: []any{}},
	}
	for i, t := range targets {
		t.RefID = string(rune('A' + i))
	}
	return p
}

// now is a query for the value at the end of the time range.
func now(expr, legend string) *Target {
	return &Target{Datasource: prometheus, Expr: expr, LegendFormat: legend, Format: "time_series", Instant: true}
}

// over is a query for all values in the time range.
func over(expr, legend string) *Target {
	return &Target{Datasource: prometheus, Expr: expr, LegendFormat: legend, Format: "time_series", Range: true}
}

// stat shows a number.
func stat(title, description, expr, unit string) *Panel {
	p := newPanel("stat", title, description, now(expr, "")).unit(unit)
	p.Options = options{
		"colorMode": "value", "graphMode": "none", "justifyMode": "center", "textMode": "auto", "orientation": "auto", "wideLayout": true, "showPercentChange": false, "percentChangeColorMode": "standard",
		"reduceOptions": lastValue,
	}
	p.FieldConfig.Defaults["noValue"] = "–"
	return p.thresholds(steps("text"))
}

// lastValue reduces a series to its last value.
var lastValue = options{"calcs": []string{"lastNotNull"}, "fields": "", "values": false}

func legend(shown bool) options {
	return options{"displayMode": "list", "placement": "bottom", "showLegend": shown, "calcs": []string{}}
}

// name shows a label instead of a number.
func name(title, description, expr, label string) *Panel {
	p := stat(title, description, expr, "none")
	p.Targets[0].LegendFormat = "{{" + label + "}}"
	p.Options["textMode"] = "name"
	return p
}

// lines shows numbers over time.
func lines(title, description, unit string, targets ...*Target) *Panel {
	p := newPanel("timeseries", title, description, targets...).unit(unit)
	p.FieldConfig.Defaults["custom"] = options{"drawStyle": "line", "fillOpacity": 8, "lineWidth": 1, "showPoints": "never", "spanNulls": false}
	p.Options = options{
		"legend":  legend(true),
		"tooltip": options{"mode": "multi", "sort": "desc"},
	}
	return p
}

// areas shows stacked values over time.
func areas(title, description string, target *Target) *Panel {
	p := lines(title, description, "short", target).fromZero()
	p.FieldConfig.Defaults["custom"] = options{
		"drawStyle": "line", "fillOpacity": 60, "lineWidth": 0, "showPoints": "never", "spanNulls": false,
		"stacking": options{"mode": "normal", "group": "A"},
	}
	return p
}

// bars shows a number for each series, as bars.
func bars(title, description string, target *Target) *Panel {
	p := newPanel("bargauge", title, description, target).unit("short").fromZero()
	p.Options = options{
		"displayMode": "basic", "orientation": "horizontal", "valueMode": "text", "namePlacement": "left", "showUnfilled": true, "minVizHeight": 16, "maxVizHeight": 300, "minVizWidth": 8, "sizing": "auto",
		"reduceOptions": lastValue, "legend": legend(false),
	}
	return p.thresholds(steps("blue"))
}

// named renames series of a panel.
func (p *Panel) named(names ...[2]string) *Panel {
	for _, n := range names {
		p.override("byName", n[0], property("displayName", n[1]))
	}
	return p
}

// timeline shows states over time.
func timeline(title, description string, targets ...*Target) *Panel {
	p := newPanel("state-timeline", title, description, targets...)
	p.FieldConfig.Defaults["custom"] = options{"fillOpacity": 70, "lineWidth": 0}
	p.Options = options{
		"mergeValues": true, "rowHeight": 0.85, "showValue": "never",
		"legend":  legend(false),
		"tooltip": options{"mode": "single", "sort": "none"},
	}
	return p.thresholds(steps("transparent", step{"blue", 1}))
}

// column is a column of a table: the value of a query, or a label.
type column struct {
	title string
	// label is empty for a value.
	label string
	// query is empty for a label of the results of another column's query.
	query string
	unit  string
	// width is in pixels; 0 for automatic.
	width int
	links []options
	// colors are the color thresholds of the value.
	colors options
	// states are the colors of the texts of the column.
	states []seriesColor
	// gauge also shows the value, a ratio, as a bar.
	gauge bool
}

// table shows the rows of all queries, joined by their common labels, with the given columns, sorted by one of them.
func table(title, description, sortBy string, descending bool, columns ...column) *Panel {
	var targets []*Target
	for _, c := range columns {
		if c.query != "" {
			targets = append(targets, &Target{Datasource: prometheus, Expr: c.query, Format: "table", Instant: true})
		}
	}
	p := newPanel("table", title, description, targets...)
	p.FieldConfig.Defaults["custom"] = options{"align": "auto", "filterable": true, "inspect": false}
	p.Options = options{
		"cellHeight": "sm", "showHeader": true, "frameIndex": 0, "footer": options{"show": false, "reducer": []string{"sum"}},
		"sortBy": []any{options{"displayName": sortBy, "desc": descending}},
	}
	order, names := options{}, options{}
	for i, c := range columns {
		field := c.label
		if field == "" { // Grafana numbers the values if there are several queries.
			field = "Value"
			if len(p.Targets) > 1 {
				field += " #" + targets[0].RefID
			}
		}
		if c.query != "" {
			targets = targets[1:]
		}
		order[field], names[field] = i, c.title
		p.Columns = append(p.Columns, field)
		var properties []options
		set := func(id string, value any) { properties = append(properties, property(id, value)) }
		if c.unit != "" {
			set("unit", c.unit)
		}
		if c.width != 0 {
			set("custom.width", c.width)
		}
		if c.links != nil {
			set("links", c.links)
		}
		if c.colors != nil {
			set("thresholds", c.colors)
			set("custom.cellOptions", options{"type": "color-text"})
		}
		if c.states != nil {
			set("mappings", mappings(c.states))
			set("custom.cellOptions", options{"type": "color-text"})
		}
		if c.gauge {
			set("min", 0)
			set("max", 1)
			set("custom.cellOptions", options{"type": "gauge", "mode": "basic", "valueDisplayMode": "text"})
		}
		if len(properties) > 0 {
			p.override("byName", c.title, properties...)
		}
	}
	p.Transformations = []any{
		options{"id": "merge", "options": options{}},
		options{"id": "filterFieldsByName", "options": options{"include": options{"names": p.Columns}}},
		options{"id": "organize", "options": options{"indexByName": order, "renameByName": names, "excludeByName": options{}}},
	}
	return p
}

// override sets properties of the fields that a matcher finds.
func (p *Panel) override(matcher, field string, properties ...options) *Panel {
	p.FieldConfig.Overrides = append(p.FieldConfig.Overrides, options{
		"matcher": options{"id": matcher, "options": field}, "properties": properties,
	})
	return p
}

func property(id string, value any) options { return options{"id": id, "value": value} }

// mappings returns the colors of texts.
func mappings(colors []seriesColor) []any {
	byText := options{}
	for i, c := range colors {
		byText[c.name] = options{"color": c.color, "index": i}
	}
	return []any{options{"type": "value", "options": byText}}
}

// thenBy also sorts the rows of a table by another column, in descending order.
func (p *Panel) thenBy(title string) *Panel {
	p.Options["sortBy"] = append(p.Options["sortBy"].([]any), options{"displayName": title, "desc": true})
	return p
}

// empty sets the text of a panel without data, which states why. Single cells without a value show a dash.
func (p *Panel) empty(why string) *Panel {
	p.FieldConfig.Defaults["noValue"] = why
	return p.override("byRegexp", "/.*/", property("noValue", "–"))
}

// mapped shows the rows of a table on a map, by two columns with degrees. A third column determines the colors.
func (p *Panel) mapped(latitude, longitude, colored string, colors []seriesColor) *Panel {
	p.Type = "geomap"
	delete(p.FieldConfig.Defaults, "custom")
	p.override("byName", colored, property("mappings", mappings(colors)))
	p.Options = options{
		"view":     options{"id": "fit", "lat": 0, "lon": 0, "zoom": 15, "allLayers": true},
		"controls": options{"showZoom": true, "mouseWheelZoom": false, "showAttribution": true, "showScale": false, "showMeasure": false, "showDebug": false},
		"basemap":  options{"type": "default", "name": "Basemap"},
		"layers": []any{options{
			"type": "markers", "name": "Devices", "tooltip": true,
			"location": options{"mode": "coords", "latitude": latitude, "longitude": longitude},
			"config":   options{"showLegend": true, "style": options{"color": options{"field": colored, "fixed": gray}, "size": options{"fixed": 6, "min": 2, "max": 15}, "opacity": 0.8}},
		}},
		"tooltip": options{"mode": "details"},
	}
	return p
}

// wide doubles the width of a panel.
func (p *Panel) wide() *Panel {
	p.width = 2
	return p
}

func (p *Panel) unit(unit string) *Panel {
	p.FieldConfig.Defaults["unit"] = unit
	return p
}

// fromZero starts the axis at 0.
func (p *Panel) fromZero() *Panel {
	p.FieldConfig.Defaults["min"] = 0
	return p
}

// ratio sets the range of the axis to 0 to 1, shown as percentages.
func (p *Panel) ratio() *Panel {
	p.FieldConfig.Defaults["max"] = 1
	return p.fromZero().unit("percentunit")
}

// step is a color threshold.
type step struct {
	color string
	from  float64
}

// steps returns color thresholds: a base color, and others from a value on.
func steps(base string, more ...step) options {
	list := []any{options{"color": base, "value": nil}}
	for _, s := range more {
		list = append(list, options{"color": s.color, "value": s.from})
	}
	return options{"mode": "absolute", "steps": list}
}

// thresholds colors the value of a panel.
func (p *Panel) thresholds(colors options) *Panel {
	p.FieldConfig.Defaults["thresholds"], p.FieldConfig.Defaults["color"] = colors, options{"mode": "thresholds"}
	return p
}

// Color thresholds of several panels.
var (
	noneIsGood = steps("green", step{"orange", 1})
	someIsBad  = steps("text", step{"orange", 1})
	// goodShare is for a share whose target is 100 %.
	goodShare = steps("red", step{"orange", 0.8}, step{"green", 0.95})
	// dataAge is for the age of data: two and five intervals of 60 s. The chart replaces them by values for its intervals.
	dataAge = steps("green", step{"orange", 120}, step{"red", 300})
	// osAge is for the age of a release of balenaOS, with the colors of ageColors.
	osAge = steps("text", step{"orange", 365 * 86400}, step{"red", 2 * 365 * 86400})
)

// words shows texts instead of 0 and 1.
func (p *Panel) words(zero, zeroColor, one, oneColor string) *Panel {
	p.Words = []string{zero, one}
	p.FieldConfig.Defaults["mappings"] = []any{options{"type": "value", "options": options{
		"0": options{"text": zero, "color": zeroColor, "index": 0},
		"1": options{"text": one, "color": oneColor, "index": 1},
	}}}
	return p
}

// colors sets the colors of series by name.
func (p *Panel) colors(byName []seriesColor) *Panel {
	p.Colors = map[string]string{}
	for _, c := range byName {
		p.Colors[c.name] = c.color
		p.override("byName", c.name, property("color", options{"mode": "fixed", "fixedColor": c.color}))
	}
	return p
}

type seriesColor struct{ name, color string }

// The colors of states are the same in all panels. They are in the order of the states, from the best to the worst.
var (
	statusColors    = inOrder(balena.DeviceStatuses, "green", "blue", "purple", "super-light-purple", gray, "orange", "red")
	heartbeatColors = inOrder(balena.HeartbeatStates, "green", "orange", "red", gray)
	updateColors    = inOrder(balena.UpdateStatuses, "green", "light-blue", "blue", "purple", gray, "orange", "red")
)

// phaseColors are the colors of the phases of ESR lines.
var phaseColors = []seriesColor{{"next", "green"}, {"current", "green"}, {"sunset", "orange"}, {balena.EndOfLifePhase, "red"}}

// ageColors are the colors of ages of releases of balenaOS, by the values that the alert rules record.
var ageColors = []seriesColor{{"less than 90 days", "green"}, {"90 days to 1 year", "yellow"}, {"1 to 2 years", "orange"}, {"more than 2 years", "red"}}

const gray = "#8c959f"

// inOrder assigns colors to states. A test finds states without a color.
func inOrder(states []string, colors ...string) []seriesColor {
	var list []seriesColor
	for i, color := range colors[:min(len(colors), len(states))] {
		list = append(list, seriesColor{states[i], color})
	}
	return list
}

// linked adds links to a panel's values.
func (p *Panel) linked(links ...options) *Panel {
	p.FieldConfig.Defaults["links"] = links
	return p
}
