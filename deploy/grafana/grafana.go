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

	"github.com/balena-exporter/balena-exporter/internal/balena"
)

//go:generate go run ./generate ../../charts/balena-exporter/files/dashboards

// All returns the dashboards.
func All() []*Dashboard {
	return []*Dashboard{fleetsDashboard(), fleetDashboard(), deviceDashboard(), deviceInsideDashboard(), exporterDashboard()}
}

// Dashboard is a dashboard in the JSON format of Grafana.
type Dashboard struct {
	UID           string     `json:"uid"`
	Title         string     `json:"title"`
	Description   string     `json:"description"`
	Tags          []string   `json:"tags"`
	Editable      bool       `json:"editable"`
	GraphTooltip  int        `json:"graphTooltip"` // 1: one crosshair in all panels
	Refresh       string     `json:"refresh"`
	SchemaVersion int        `json:"schemaVersion"`
	Time          timeRange  `json:"time"`
	Timezone      string     `json:"timezone"`
	Links         []any      `json:"links"`
	Templating    templating `json:"templating"`
	Annotations   annotated  `json:"annotations"`
	Panels        []*Panel   `json:"panels"`
}

// schemaVersion is that of Grafana 11. Newer versions migrate it.
const schemaVersion = 39

type timeRange struct {
	From string `json:"from"`
	To   string `json:"to"`
}

type templating struct {
	List []*Variable `json:"list"`
}

type annotated struct {
	List []any `json:"list"`
}

// Annotation marks times in time series panels.
type Annotation struct {
	Name       string      `json:"name"`
	Datasource *datasource `json:"datasource"`
	Enable     bool        `json:"enable"`
	Color      string      `json:"iconColor"`
	Expr       string      `json:"expr"`
	Step       string      `json:"step"`
	TagKeys    string      `json:"tagKeys,omitempty"`
	Title      string      `json:"titleFormat"`
	Text       string      `json:"textFormat"`
}

// Panel is a panel, or the title of a row.
type Panel struct {
	ID              int          `json:"id"`
	Type            string       `json:"type"`
	Title           string       `json:"title"`
	Description     string       `json:"description,omitempty"`
	Position        position     `json:"gridPos"`
	Datasource      *datasource  `json:"datasource,omitempty"`
	Targets         []*Target    `json:"targets,omitempty"`
	FieldConfig     *fieldConfig `json:"fieldConfig,omitempty"`
	Options         options      `json:"options,omitempty"`
	Transformations []any        `json:"transformations,omitempty"`
	// Collapsed and Panels are required in titles of rows, and only there. The row is open, and its panels follow it.
	Collapsed *bool     `json:"collapsed,omitempty"`
	Panels    *[]*Panel `json:"panels,omitempty"`

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

func prometheus() *datasource { return &datasource{Type: "prometheus", UID: "${datasource}"} }

// Target is a query of a panel.
type Target struct {
	RefID        string      `json:"refId"`
	Datasource   *datasource `json:"datasource"`
	Expr         string      `json:"expr"`
	LegendFormat string      `json:"legendFormat,omitempty"`
	Format       string      `json:"format"`
	Instant      bool        `json:"instant"`
	Range        bool        `json:"range"`
}

type options map[string]any

type fieldConfig struct {
	Defaults  options `json:"defaults"`
	Overrides []any   `json:"overrides"`
}

// Variable is a variable of a dashboard.
type Variable struct {
	Name       string      `json:"name"`
	Label      string      `json:"label"`
	Type       string      `json:"type"`
	Query      any         `json:"query"`
	Definition string      `json:"definition,omitempty"`
	Datasource *datasource `json:"datasource,omitempty"`
	Regex      string      `json:"regex,omitempty"`
	Multi      bool        `json:"multi"`
	IncludeAll bool        `json:"includeAll"`
	AllValue   string      `json:"allValue,omitempty"`
	Refresh    int         `json:"refresh,omitempty"` // 2: whenever the time range changes
	Sort       int         `json:"sort,omitempty"`    // 5: alphabetically, upper case like lower case
	Hide       int         `json:"hide"`              // 2: altogether
	Current    options     `json:"current,omitempty"`
	Options    []any       `json:"options,omitempty"`
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
		SchemaVersion: schemaVersion, Time: timeRange{"now-24h", "now"}, Timezone: "browser",
		Links: []any{options{
			"type": "dashboards", "tags": []string{"balena"}, "title": "balena", "icon": "external link", "tooltip": "", "asDropdown": false, "includeVars": false, "keepTime": true, "targetBlank": false,
		}},
		Templating: templating{List: variables},
		// The built-in annotation, which Grafana would add.
		Annotations: annotated{List: []any{options{
			"builtIn": 1, "datasource": datasource{"grafana", "-- Grafana --"}, "enable": true, "hide": true,
			"iconColor": "rgba(0, 211, 255, 1)", "name": "Annotations & Alerts", "type": "dashboard",
		}}},
	}
	y := 0
	add := func(p *Panel, x, width, height int) {
		p.ID, p.Position = len(d.Panels)+1, position{x, y, width, height}
		d.Panels = append(d.Panels, p)
	}
	for _, r := range rows {
		if r.title != "" {
			add(&Panel{Type: "row", Title: r.title, Collapsed: new(false), Panels: &[]*Panel{}}, 0, gridWidth, 1)
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
		Name: "Firing alerts", Datasource: prometheus(), Enable: true, Color: "red", Step: "60s", TagKeys: "severity", Title: "{{alertname}}", Text: text,
		Expr: "count by (alertname, severity, " + by + `) (ALERTS{alertstate="firing",alertname=~"Balena.+",` + matchers + "})",
	}
}

// rollouts marks changes of the target release of fleets. A change is visible for five minutes, so that it does not fall
// between two steps of a long time range. If there are several target releases at a time, the last scraped one is used.
func rollouts(matchers string, enable bool) *Annotation {
	return &Annotation{
		Name: "Rollouts", Datasource: prometheus(), Enable: enable, Color: "blue", Step: "60s", Title: "Target release changed", Text: "{{fleet}} {{release_version}}",
		Expr: "max by (fleet, release_version) (topk by (fleet) (1, timestamp(balena_fleet_target_release_info{" + matchers + "}))" +
			" and on (fleet) changes(balena_fleet_target_release_created_timestamp_seconds{" + matchers + "}[5m]) > 0)",
	}
}

// alertsTable lists firing alerts.
func alertsTable(description, matchers string, columns ...column) *Panel {
	columns = append([]column{
		{field: "alertname", title: "Alert"},
		{field: "severity", title: "Severity", width: 90},
	}, columns...)
	columns = append(columns, column{field: value(""), title: "Alerts", unit: "short", width: 80})
	return table("Firing alerts", description, "Alerts", true, columns,
		rowsOf(`count by (alertname, severity, fleet) (ALERTS{alertstate="firing",alertname=~"Balena.+",`+matchers+"})"))
}

// Variables.

func datasourceVariable() *Variable {
	return &Variable{Name: "datasource", Label: "Data source", Type: "datasource", Query: "prometheus"}
}

// fromMetrics is a variable with values from Prometheus.
func fromMetrics(name, label, query string) *Variable {
	return &Variable{
		Name: name, Label: label, Type: "query", Datasource: prometheus(), Definition: query,
		Query: options{"query": query, "refId": "variable"}, Refresh: 2, Sort: 5,
	}
}

// several allows several values of a variable, and selects all of them by default.
func (v *Variable) several() *Variable {
	v.Multi, v.IncludeAll, v.AllValue = true, true, ".+"
	v.Current = options{"text": []string{"All"}, "value": []string{"$__all"}}
	return v
}

func organizationVariable() *Variable {
	return fromMetrics("organization", "Organization", "label_values(balena_fleet_info, organization)").several()
}

// fleetVariable has the fleets with the selected tag, and fleets of devices with the tag.
func fleetVariable(matchers string) *Variable {
	v := fromMetrics("fleet", "Fleet", `query_result(group by (fleet) (`+tagged(
		"max by (fleet, $tag) (balena_fleet_tags or balena_device_tags)", `balena_fleet_info{organization=~"$organization"`+matchers+"}", "fleet")+"))")
	v.Regex = `/fleet="([^"]+)"/`
	return v
}

// tagVariable is the label of a tag by which fleets and devices are selected. The chart replaces its values by the labels of
// its alerts.
func tagVariable() *Variable {
	return &Variable{Name: "tag", Label: "Tag", Type: "custom", Query: "tag_site", Current: options{"text": "tag_site", "value": "tag_site"}}
}

// tagValueVariable has the values of the tag. The selection of all values includes fleets and devices without the tag.
func tagValueVariable() *Variable {
	v := fromMetrics("tag_value", "Value of the tag", "query_result(group by ($tag) (balena_fleet_tags or balena_device_tags))")
	v.Regex = `/="([^"]+)"/`
	v = v.several()
	v.AllValue = ".*"
	return v
}

// listed restricts the selection of all values to the listed values.
func (v *Variable) listed() *Variable {
	v.AllValue = ""
	return v
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
	for _, n := range []string{"10", "20", "50", "100"} {
		v.Options = append(v.Options, options{"text": n, "value": n, "selected": n == "20"})
	}
	return v
}

// balenaVariable is the URL of the balena dashboard. The chart replaces it, or removes the links.
func balenaVariable() *Variable {
	return constant("balena", "balena's dashboard", "https://dashboard.balena-cloud.com")
}

// lostVariable is the number of seconds after which devices are lost. It must be a threshold of
// balena_fleet_devices_disconnected_longer_than. The chart replaces it by the value of its alerts.
func lostVariable() *Variable {
	return constant("lost", "Seconds after which devices are lost", "604800")
}

func constant(name, label, value string) *Variable {
	return &Variable{Name: name, Label: label, Type: "constant", Query: value, Hide: 2, Current: options{"text": value, "value": value}}
}

// Links. Grafana replaces the variables for the clicked row or series.

const (
	keepContext = "?${datasource:queryparam}&${__url_time_range}"
	toFleet     = "/d/balena-fleet" + keepContext + "&var-fleet=${__data.fields.fleet:percentencode}"
	toDevice    = "/d/balena-device" + keepContext + "&var-fleet=${fleet:percentencode}&var-device=${__data.fields.uuid:percentencode}"
	toBalena    = "${balena}/devices/${__data.fields.uuid:percentencode}/summary"
)

func link(title, url string) options {
	return options{"title": title, "url": url, "targetBlank": title == balenaLink}
}

const balenaLink = "Open in balena's dashboard"

// Panels.

func newPanel(kind, title, description string, targets ...*Target) *Panel {
	p := &Panel{
		Type: kind, Title: title, Description: description, Datasource: prometheus(), Targets: targets, Options: options{},
		FieldConfig: &fieldConfig{Defaults: options{}, Overrides: []any{}},
	}
	for i, t := range targets {
		t.RefID = string(rune('A' + i))
	}
	return p
}

// now is a query for the value at the end of the time range.
func now(expr, legend string) *Target {
	return &Target{Datasource: prometheus(), Expr: expr, LegendFormat: legend, Format: "time_series", Instant: true}
}

// over is a query for all values in the time range.
func over(expr, legend string) *Target {
	return &Target{Datasource: prometheus(), Expr: expr, LegendFormat: legend, Format: "time_series", Range: true}
}

// rowsOf is a query whose series become the rows of a table.
func rowsOf(expr string) *Target {
	return &Target{Datasource: prometheus(), Expr: expr, Format: "table", Instant: true}
}

// stat shows a number.
func stat(title, description, expr, unit string) *Panel {
	p := newPanel("stat", title, description, now(expr, "")).unit(unit)
	p.Options = options{
		"colorMode": "value", "graphMode": "none", "justifyMode": "center", "textMode": "auto", "orientation": "auto", "wideLayout": true, "showPercentChange": false, "percentChangeColorMode": "standard",
		"reduceOptions": lastValue(),
	}
	p.FieldConfig.Defaults["noValue"] = "–"
	return p.thresholds("text")
}

// lastValue reduces a series to its last value.
func lastValue() options {
	return options{"calcs": []string{"lastNotNull"}, "fields": "", "values": false}
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
		"legend":  options{"displayMode": "list", "placement": "bottom", "showLegend": true, "calcs": []string{}},
		"tooltip": options{"mode": "multi", "sort": "desc"},
	}
	return p
}

// areas shows stacked values over time.
func areas(title, description string, target *Target) *Panel {
	p := lines(title, description, "short", target)
	p.FieldConfig.Defaults["min"] = 0
	p.FieldConfig.Defaults["custom"] = options{
		"drawStyle": "line", "fillOpacity": 60, "lineWidth": 0, "showPoints": "never", "spanNulls": false,
		"stacking": options{"mode": "normal", "group": "A"},
	}
	return p
}

// bars shows a number for each series, as bars.
func bars(title, description string, target *Target) *Panel {
	p := newPanel("bargauge", title, description, target).unit("short")
	p.FieldConfig.Defaults["min"] = 0
	p.Options = options{
		"displayMode": "basic", "orientation": "horizontal", "valueMode": "text", "namePlacement": "left", "showUnfilled": true, "minVizHeight": 16, "maxVizHeight": 300, "minVizWidth": 8, "sizing": "auto",
		"reduceOptions": lastValue(), "legend": options{"displayMode": "list", "placement": "bottom", "showLegend": false, "calcs": []string{}},
	}
	return p.thresholds("blue")
}

// named renames series of a panel.
func (p *Panel) named(names ...[2]string) *Panel {
	for _, n := range names {
		p.FieldConfig.Overrides = append(p.FieldConfig.Overrides, options{
			"matcher":    options{"id": "byName", "options": n[0]},
			"properties": []any{options{"id": "displayName", "value": n[1]}},
		})
	}
	return p
}

// timeline shows states over time.
func timeline(title, description string, targets ...*Target) *Panel {
	p := newPanel("state-timeline", title, description, targets...)
	p.FieldConfig.Defaults["custom"] = options{"fillOpacity": 70, "lineWidth": 0}
	p.Options = options{
		"mergeValues": true, "rowHeight": 0.85, "showValue": "never",
		"legend":  options{"displayMode": "list", "placement": "bottom", "showLegend": false, "calcs": []string{}},
		"tooltip": options{"mode": "single", "sort": "none"},
	}
	return p.thresholds("transparent", step{"blue", 1})
}

// column is a column of a table: a label, or the value of a query, by its field name.
type column struct {
	field string
	title string
	unit  string
	// width is in pixels; 0 for automatic.
	width int
	links []options
	// colors are the color thresholds of the value.
	colors []step
	// states are the colors of the texts of the column.
	states []seriesColor
	// gauge also shows the value, a ratio, as a bar.
	gauge bool
}

// value returns the field name of the value of a query.
func value(query string) string {
	if query == "" {
		return "Value"
	}
	return "Value #" + query
}

// table shows the rows of all queries, joined by their common labels, with the given columns, sorted by one of them.
func table(title, description, sortBy string, descending bool, columns []column, targets ...*Target) *Panel {
	p := newPanel("table", title, description, targets...)
	p.FieldConfig.Defaults["custom"] = options{"align": "auto", "filterable": true, "inspect": false}
	p.Options = options{
		"cellHeight": "sm", "showHeader": true, "frameIndex": 0, "footer": options{"show": false, "reducer": []string{"sum"}},
		"sortBy": []any{options{"displayName": sortBy, "desc": descending}},
	}
	order, names, keep := options{}, options{}, []string{}
	for i, c := range columns {
		order[c.field], names[c.field] = i, c.title
		keep = append(keep, c.field)
		properties := []any{}
		set := func(id string, value any) { properties = append(properties, options{"id": id, "value": value}) }
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
			set("thresholds", thresholds(c.colors))
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
			p.FieldConfig.Overrides = append(p.FieldConfig.Overrides, options{
				"matcher": options{"id": "byName", "options": c.title}, "properties": properties,
			})
		}
	}
	p.Transformations = []any{
		options{"id": "merge", "options": options{}},
		options{"id": "filterFieldsByName", "options": options{"include": options{"names": keep}}},
		options{"id": "organize", "options": options{"indexByName": order, "renameByName": names, "excludeByName": options{}}},
	}
	return p
}

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
	p.FieldConfig.Overrides = append(p.FieldConfig.Overrides, options{
		"matcher":    options{"id": "byRegexp", "options": "/.*/"},
		"properties": []any{options{"id": "noValue", "value": "–"}},
	})
	return p
}

// mapped shows the rows of a table on a map, by two columns with degrees. A third column determines the colors.
func (p *Panel) mapped(latitude, longitude, colored string, colors []seriesColor) *Panel {
	p.Type = "geomap"
	delete(p.FieldConfig.Defaults, "custom")
	p.FieldConfig.Overrides = append(p.FieldConfig.Overrides, options{
		"matcher":    options{"id": "byName", "options": colored},
		"properties": []any{options{"id": "mappings", "value": mappings(colors)}},
	})
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

// ratio sets the range of the axis to 0 to 1, shown as percentages.
func (p *Panel) ratio() *Panel {
	p.FieldConfig.Defaults["min"], p.FieldConfig.Defaults["max"] = 0, 1
	return p.unit("percentunit")
}

// step is a color threshold.
type step struct {
	color string
	from  float64
}

// thresholds sets the base color and the color thresholds of the value.
func (p *Panel) thresholds(base string, steps ...step) *Panel {
	p.FieldConfig.Defaults["thresholds"] = thresholds(append([]step{{color: base}}, steps...))
	p.FieldConfig.Defaults["color"] = options{"mode": "thresholds"}
	return p
}

// thresholds returns color thresholds. The first step is the base color.
func thresholds(steps []step) options {
	list := []any{options{"color": steps[0].color, "value": nil}}
	for _, s := range steps[1:] {
		list = append(list, options{"color": s.color, "value": s.from})
	}
	return options{"mode": "absolute", "steps": list}
}

// Thresholds of the age of data: two and five intervals of 60 s. The chart replaces them by values for its intervals.
var late, gone = step{"orange", 120}, step{"red", 300}

// goodShare returns color thresholds of a share whose target is 100 %.
func goodShare() []step { return []step{{color: "red"}, {"orange", 0.8}, {"green", 0.95}} }

// goodShare sets these thresholds for a panel.
func (p *Panel) goodShare() *Panel {
	s := goodShare()
	return p.thresholds(s[0].color, s[1:]...)
}

// words shows texts instead of 0 and 1.
func (p *Panel) words(zero, zeroColor, one, oneColor string) *Panel {
	p.FieldConfig.Defaults["mappings"] = []any{options{"type": "value", "options": options{
		"0": options{"text": zero, "color": zeroColor, "index": 0},
		"1": options{"text": one, "color": oneColor, "index": 1},
	}}}
	return p
}

// colors sets the colors of series by name.
func (p *Panel) colors(byName []seriesColor) *Panel {
	for _, c := range byName {
		p.FieldConfig.Overrides = append(p.FieldConfig.Overrides, options{
			"matcher":    options{"id": "byName", "options": c.name},
			"properties": []any{options{"id": "color", "value": options{"mode": "fixed", "fixedColor": c.color}}},
		})
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

// osAge returns color thresholds of the age of a release of balenaOS, with the same colors.
func osAge() []step {
	return []step{{color: "text"}, {"orange", 365 * 86400}, {"red", 2 * 365 * 86400}}
}

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
