// SPDX-License-Identifier: Apache-2.0

package statuspage

import (
	"cmp"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/balena-exporter/balena-exporter/internal/balena"
	"github.com/balena-exporter/balena-exporter/internal/problem"
)

// device is a row of a list of devices, in HTML and JSON.
type device struct {
	UUID      string `json:"uuid"`
	Name      string `json:"device_name"`
	Fleet     string `json:"fleet"`
	Status    string `json:"status"`
	Online    bool   `json:"online"`
	Connected bool   `json:"connected"`
	// Since is when the device last connected or disconnected.
	Since moment `json:"connectivity_change"`
	// Release is the release that the device runs; nil for none.
	Release       *release `json:"release"`
	TargetRelease *release `json:"target_release"`
	Pinned        bool     `json:"release_pinned"`
	Type          string   `json:"device_type"`
	OSVersion     string   `json:"os_version"`
	OSVariant     string   `json:"os_variant"`
	// OSRelease is the published release with the OS version; nil if there is none.
	OSRelease         *osRelease `json:"os_release,omitempty"`
	SupervisorVersion string     `json:"supervisor_version"`
	UpdateStatus      string     `json:"update_status"`
	// UpdateProgress is in percent; nil if no update is running.
	UpdateProgress *float64 `json:"update_progress"`
	Undervolted    bool     `json:"undervolted"`
	Frozen         bool     `json:"frozen"`
	// MaintenanceUntil is the end of the maintenance of the device or its fleet; empty if the device is not in maintenance.
	MaintenanceUntil string `json:"maintenance_until,omitempty"`
	OSUpdateState    string `json:"os_update_state,omitempty"`
	// ServicesInstalled is the number of services of the target release, and ServicesRunning the number of them that
	// run; nil if unknown.
	ServicesInstalled *int `json:"services"`
	ServicesRunning   *int `json:"services_running"`
	// Problems are in order of severity, the worst first.
	Problems []deviceProblem `json:"problems"`
	// URL is the address of the device in the balena dashboard, and Dashboard the address of its Grafana dashboard.
	URL       string `json:"url,omitempty"`
	Dashboard string `json:"dashboard_url,omitempty"`

	// Found is the field that matched a search.
	Found string `json:"found_by,omitempty"`
}

// deviceProblem is a problem of a device.
type deviceProblem struct {
	Alert    string           `json:"problem"`
	Text     string           `json:"-"`
	Severity problem.Severity `json:"severity"`
	// Since is when the problem began.
	Since   moment `json:"since"`
	Runbook string `json:"runbook_url"`
}

func (h *handler) newDevice(s *balena.Snapshot, d *balena.Device, set problem.Set, now time.Time) device {
	fleet := s.Fleet(d.FleetID)
	v := device{
		UUID: d.UUID, Name: either(h.DeviceNames, d.Name, ""), Fleet: fleet.Slug,
		Status: statusOf(d), Online: d.Online, Connected: d.Connected(), Since: instant(d.ConnectivityChanged(), now),
		Release: releaseOf(s, d.RunningRelease), TargetRelease: releaseOf(s, d.TargetRelease), Pinned: d.PinnedRelease != 0,
		Type: d.Type, OSVersion: d.OSVersion, OSVariant: d.OSVariant, SupervisorVersion: d.SupervisorVersion,
		UpdateStatus: d.UpdateStatus, Undervolted: d.Undervolted, Problems: []deviceProblem{},
		Frozen: d.Frozen, OSUpdateState: d.OSUpdateState(), OSRelease: osReleaseOf(s, d, now),
		MaintenanceUntil: maintenanceUntil(max(d.Maintenance, fleet.Maintenance), now), URL: h.deviceURL(d.UUID),
		Dashboard: h.dashboard("balena-device", url.Values{"var-fleet": {fleet.Slug}, "var-device": {d.UUID}}),
	}
	if d.Installs.Known() && d.TargetRelease != 0 {
		services, running, _ := d.Installs.Of(d.TargetRelease)
		v.ServicesInstalled, v.ServicesRunning = &services, &running
	}
	if problem.Updating(d.UpdateStatus) {
		v.UpdateProgress = number(balena.UpdateProgress.Of(d))
	}
	for _, c := range set.All() {
		p := deviceProblem{c.Alert, c.Text, c.Severity, instant(c.Since(d), now), h.runbook(c.Alert)}
		v.Problems = append(v.Problems, p)
	}
	return v
}

// maintenanceUntil returns the end of a maintenance; empty if it is over or there is none.
func maintenanceUntil(end balena.Instant, now time.Time) string {
	switch {
	case end == balena.Forever:
		return "further notice"
	case int64(end) <= now.UnixMilli():
		return ""
	}
	return time.UnixMilli(int64(end)).UTC().Format(time.RFC3339)
}

// Remarks returns noteworthy conditions that are not problems.
func (d *device) Remarks() []string {
	var remarks []string
	if d.Frozen {
		remarks = append(remarks, "frozen")
	}
	if d.MaintenanceUntil != "" {
		remarks = append(remarks, "maintenance until "+d.MaintenanceUntil)
	}
	if d.OSUpdateState != "" && d.OSUpdateState != balena.OSUpdateFailed { // a failed update is a problem
		remarks = append(remarks, "OS update "+d.OSUpdateState)
	}
	if d.OSRelease != nil && d.OSRelease.remarkable() {
		remarks = append(remarks, "OS "+d.OSRelease.String())
	}
	if d.ServicesInstalled != nil && *d.ServicesRunning < *d.ServicesInstalled && d.OnTarget() {
		remarks = append(remarks, fmt.Sprintf("%d of %d services running", *d.ServicesRunning, *d.ServicesInstalled))
	}
	return remarks
}

// number returns a number for JSON, nil if it is null.
func number(n balena.Number) *float64 {
	if n == balena.Null {
		return nil
	}
	return new(float64(n))
}

// Path and FleetPath return the paths of the pages of the device and its fleet, relative to the root.
func (d *device) Path() string      { return devicePath(d.UUID) }
func (d *device) FleetPath() string { return slugPath(d.Fleet) }

// Title returns the name of the device, or its UUID.
func (d *device) Title() string { return cmp.Or(d.Name, d.UUID) }

// Class returns the CSS class of the status.
func (d *device) Class() string { return statusClass(d.Status) }

// StatusText returns the status in words.
func (d *device) StatusText() string { return statusText(d.Status) }

// OnTarget reports whether the device runs its target release, or has none.
func (d *device) OnTarget() bool {
	return d.TargetRelease == nil || d.Release != nil && d.Release.ID == d.TargetRelease.ID
}

// Connectivity describes for how long the device has been connected or disconnected.
func (d *device) Connectivity() string {
	if d.Since.IsZero() {
		return either(d.Connected, "connected", "never connected")
	}
	return either(d.Connected, "connected for ", "disconnected for ") + d.Since.Ago()
}

// Update describes the progress of a running update; empty if there is none.
func (d *device) Update() string {
	switch {
	case !problem.Updating(d.UpdateStatus):
		return ""
	case d.UpdateProgress == nil:
		return d.UpdateStatus
	}
	return d.UpdateStatus + ", " + strconv.Itoa(int(*d.UpdateProgress)) + "\u00a0%"
}

// devicePage is the page of a device, in HTML and JSON.
type devicePage struct {
	*state
	device
	HeartbeatState string `json:"heartbeat_state"`
	Facts          []fact `json:"-"`
	Figures        []fact `json:"-"`
	// FiguresAge is a sentence about the age of the figures.
	FiguresAge string        `json:"-"`
	Services   []serviceView `json:"services,omitempty"`
	Tags       []tagView     `json:"tags,omitempty"`

	Created        moment `json:"created"`
	Modified       moment `json:"modified"`
	HeartbeatSince moment `json:"heartbeat_change"`
	UpdateSince    moment `json:"update_status_change"`
	// The last reported figures; nil if a figure is not reported or implausible.
	CPUUsage    *float64 `json:"cpu_usage_percent"`
	Temperature *float64 `json:"cpu_temperature_celsius"`
	MemoryUsed  *float64 `json:"memory_used_mebibytes"`
	MemorySize  *float64 `json:"memory_size_mebibytes"`
	StorageUsed *float64 `json:"storage_used_mebibytes"`
	StorageSize *float64 `json:"storage_size_mebibytes"`
}

// fact is a property of a device.
type fact struct {
	Name, Text string
	// When is the time of the last change.
	When moment
	// Ratio is the ratio that a bar shows, from 0 to 1; negative for no bar.
	Ratio float64
}

// Width returns the width of the bar.
func (f fact) Width() int { return int(min(max(f.Ratio, 0), 1) * barWidth) }

type serviceView struct {
	Name      string   `json:"service_name"`
	Status    string   `json:"status"`
	Progress  *float64 `json:"download_progress_percent"`
	Installed moment   `json:"installed"`
}

// ProgressText returns the progress of a download; empty if there is none.
func (s serviceView) ProgressText() string {
	if s.Progress == nil {
		return ""
	}
	return strconv.Itoa(int(*s.Progress)) + "\u00a0%"
}

type tagView struct {
	Key   string `json:"key"`
	Value string `json:"value"`
}

// device fills the page of a device.
func (h *handler) device(p *page, s *balena.Snapshot) *failure {
	d := h.deviceOf(s, p.slug)
	if d == nil {
		return fail(http.StatusNotFound, "No such device",
			"No fleet that the exporter reads has a device with this UUID. The device may have been removed.")
	}
	content := h.newDevicePage(s, d, p)
	p.Content, p.Title, p.Formats = content, content.Title(), []link{{"JSON", "?format=json"}}
	return nil
}

// deviceOf returns the device with a UUID, or nil.
func (h *handler) deviceOf(s *balena.Snapshot, uuid string) *balena.Device {
	defer h.acquireWalk()()
	for d := range s.Devices.All() {
		if d.UUID == uuid {
			return d
		}
	}
	return nil
}

func (h *handler) newDevicePage(s *balena.Snapshot, d *balena.Device, of *page) *devicePage {
	now := of.now
	p := &devicePage{
		state: of.state, device: h.newDevice(s, d, h.view(s, now).Device(d), now),
		HeartbeatState: cmp.Or(d.HeartbeatState, balena.Unknown),
		Created:        instant(d.Created, now), Modified: instant(d.Modified, now),
		HeartbeatSince: instant(d.HeartbeatChanged, now), UpdateSince: instant(d.UpdateChanged, now),
	}
	add := func(name, text string, when moment) {
		if text != "" || !when.IsZero() {
			p.Facts = append(p.Facts, fact{Name: name, Text: text, When: when})
		}
	}
	add("VPN", either(d.Online, "connected", "disconnected"), instant(d.LastConnectivity, now))
	add("Heartbeat", p.HeartbeatState, p.HeartbeatSince)
	add("Release", cmp.Or(p.Release.String(), "none"), moment{})
	add("Target release", cmp.Or(p.TargetRelease.String(), "none")+either(p.Pinned, ", pinned", ""), moment{})
	add("Update status", cmp.Or(p.Update(), d.UpdateState()), p.UpdateSince)
	add("OS", strings.TrimSpace(cmp.Or(d.OSVersion, balena.Unknown)+" "+d.OSVariant), moment{})
	if p.OSRelease != nil {
		add("OS release", p.OSRelease.String(), moment{})
		if p.OSRelease.Line != balena.DefaultLine {
			add("OS line", strings.TrimSpace(p.OSRelease.Line+" "+p.OSRelease.Phase), moment{})
		}
	}
	add("OS update state", p.OSUpdateState, moment{})
	if p.ServicesInstalled != nil {
		add("Services of the release", fmt.Sprintf("%d of %d running", *p.ServicesRunning, *p.ServicesInstalled), moment{})
	}
	if p.MaintenanceUntil != "" {
		add("Maintenance", "until "+p.MaintenanceUntil, moment{})
	}
	add("OS update", pending(s, d.OSTarget, d.OSVersion), moment{})
	add("Supervisor", cmp.Or(d.SupervisorVersion, balena.Unknown), moment{})
	add("Supervisor update", pending(s, d.SupervisorTarget, d.SupervisorVersion), moment{})
	add("Device type", cmp.Or(d.Type, balena.Unknown), moment{})
	add("Public URL", either(d.WebAccessible, "enabled", ""), moment{})
	add("Deactivated", either(d.Deactivated, "yes", ""), moment{})
	add("Frozen", either(d.Frozen, "yes, because the plan does not cover the device", ""), moment{})
	add("Registered", "", p.Created)
	add("Last modified", "", p.Modified)
	p.addFigures(d)
	p.addAttachments(s, d, now)
	return p
}

// pending describes a target version that differs from the running version; empty if there is none.
func pending(s *balena.Snapshot, target int64, running string) string {
	version := s.Releases[target].Version
	if target == 0 || version == "" || strings.Contains(running, version) {
		return ""
	}
	return "to " + version
}

// addFigures adds the hardware figures. The API does not provide the time of a report, but a report modifies the device:
// the figures are at least as old as the last modification.
func (p *devicePage) addFigures(d *balena.Device) {
	p.CPUUsage, p.Temperature = number(balena.CPUUsage.Of(d)), number(d.Temperature())
	p.MemoryUsed, p.MemorySize = number(balena.MemoryUsed.Of(d)), number(balena.MemorySize.Of(d))
	p.StorageUsed, p.StorageSize = number(balena.StorageUsed.Of(d)), number(balena.StorageSize.Of(d))
	add := func(name, text string, ratio float64) {
		p.Figures = append(p.Figures, fact{Name: name, Text: text, Ratio: ratio})
	}
	if v := p.CPUUsage; v != nil {
		add("CPU usage", decimal(*v)+"\u00a0%", *v/100)
	}
	if v := p.Temperature; v != nil {
		add("CPU temperature", decimal(*v)+"\u00a0°C", -1)
	}
	for _, part := range []struct {
		name       string
		used, size *float64
	}{{"Memory", p.MemoryUsed, p.MemorySize}, {"Storage", p.StorageUsed, p.StorageSize}} {
		switch {
		case part.used == nil:
		case part.size == nil || *part.size == 0:
			add(part.name, mebibytes(*part.used), -1)
		default:
			ratio := *part.used / *part.size
			add(part.name, mebibytes(*part.used)+" of "+mebibytes(*part.size)+", "+strconv.Itoa(int(ratio*100))+"\u00a0%", ratio)
		}
	}
	switch {
	case len(p.Figures) == 0:
	case !d.Connected():
		p.FiguresAge = "The device is disconnected. These are its last reported figures."
	case d.Modified != 0:
		p.FiguresAge = "Reported at least " + p.Modified.Ago() + " ago. Devices report figures at most every 5 minutes."
	default:
		p.FiguresAge = "Devices report figures at most every 5 minutes."
	}
	if d.Undervolted {
		add("Undervoltage", "reported since the last boot", -1)
	}
}

func (p *devicePage) addAttachments(snapshot *balena.Snapshot, d *balena.Device, now time.Time) {
	for _, s := range d.Services() {
		v := serviceView{
			Name: cmp.Or(s.Name, balena.Unknown), Status: cmp.Or(s.Status, balena.Unknown),
			Installed: instant(s.Installed, now),
		}
		if !balena.DownloadProgress.Implausible(s.Progress) {
			v.Progress = number(s.Progress)
		}
		p.Services = append(p.Services, v)
	}
	for i, tag := range d.Tags() {
		if tag.ID != 0 && i < len(snapshot.DeviceTagKeys) {
			p.Tags = append(p.Tags, tagView{snapshot.DeviceTagKeys[i], tag.Value})
		}
	}
}

func either(condition bool, yes, no string) string {
	if condition {
		return yes
	}
	return no
}
