// SPDX-License-Identifier: Apache-2.0

package statuspage

import (
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/balena-exporter/balena-exporter/internal/balena"
)

// fleetPage is a page of the devices of a fleet, and the JSON of /fleets/{slug}.
type fleetPage struct {
	fleet
	// Status is the status by which the devices are filtered; empty for all.
	Status string `json:"status,omitempty"`
	// Matching is how many devices there are on all pages.
	Matching int `json:"matching_devices"`
	Page     int `json:"page"`
	Pages    int `json:"pages"`
	// Next is where the next page is; empty on the last one.
	Next string   `json:"next,omitempty"`
	List []device `json:"device_list"`
}

// device is a device as it is listed.
type device struct {
	UUID      string `json:"uuid"`
	Name      string `json:"device_name"`
	Status    string `json:"status"`
	Online    bool   `json:"online"`
	Connected bool   `json:"connected"`
	// ConnectivityChange is when the device last connected or disconnected; nil when that is not known.
	ConnectivityChange *time.Time `json:"connectivity_change"`
	Since              moment     `json:"-"`
	// Release is what the device runs, and TargetRelease what it should run; nil for none.
	Release           *release `json:"release"`
	TargetRelease     *release `json:"target_release"`
	Pinned            bool     `json:"release_pinned"`
	Type              string   `json:"device_type"`
	OSVersion         string   `json:"os_version"`
	OSVariant         string   `json:"os_variant"`
	SupervisorVersion string   `json:"supervisor_version"`
	UpdateStatus      string   `json:"update_status"`
	Undervolted       bool     `json:"undervolted"`
	Frozen            bool     `json:"frozen"`
	// MaintenanceUntil is the end of the device's maintenance, its own or its fleet's; empty while it is in none.
	MaintenanceUntil string `json:"maintenance_until,omitempty"`
	OSUpdateState    string `json:"os_update_state,omitempty"`
	// Services are those of the target release, and ServicesRunning those of them that run; nil where they are not known.
	Services        *int `json:"services"`
	ServicesRunning *int `json:"services_running"`
	// URL is balena's own page of the device.
	URL string `json:"url,omitempty"`
}

// newFleetPage lists the devices of a fleet, worst first. A number beyond the last page is the last page:
// there may be fewer devices than when the link was made.
func (h *handler) newFleetPage(s *balena.Snapshot, l *listing, filter string, number int, now time.Time) *fleetPage {
	devices := l.in(filter)
	p := &fleetPage{fleet: l.fleet, Status: filter, Matching: len(devices)}
	p.Pages = max(1, (len(devices)+DevicesPerPage-1)/DevicesPerPage)
	p.Page = min(number, p.Pages)
	first := (p.Page - 1) * DevicesPerPage
	devices = devices[first:min(first+DevicesPerPage, len(devices))]
	p.List = make([]device, len(devices))
	for i, d := range devices {
		p.List[i] = h.newDevice(s, d, now)
	}
	if p.Page < p.Pages {
		p.Next = p.address(p.Page+1, true)
	}
	return p
}

// defects is how many things beside its status are wrong with a device that is connected: its last update, or that of its
// host OS, failed, its voltage is too low, it runs another release than it should, or not all services of that. What is wrong with one that is
// not connected is just that; the rest is history.
func defects(d *balena.Device) int {
	if !d.Connected() {
		return 0
	}
	n := 0
	if updateFailed(d.UpdateStatus) {
		n++
	}
	if d.Undervolted {
		n++
	}
	if d.OSUpdateState() == balena.OSUpdateFailed {
		n++
	}
	if services, running := d.Installs.Of(d.TargetRelease); d.RunningRelease != d.TargetRelease || running < services {
		n++
	}
	return n
}

// maxDefects is the most that defects returns.
const maxDefects = 4

func updateFailed(updateStatus string) bool {
	return updateStatus == "rejected" || updateStatus == "aborted"
}

func (h *handler) newDevice(s *balena.Snapshot, d *balena.Device, now time.Time) device {
	v := device{
		UUID: d.UUID, Status: statusOf(d), Online: d.Online, Connected: d.Connected(),
		Release: releaseOf(s, d.RunningRelease), TargetRelease: releaseOf(s, d.TargetRelease), Pinned: d.PinnedRelease != 0,
		Type: d.Type, OSVersion: d.OSVersion, OSVariant: d.OSVariant, SupervisorVersion: d.SupervisorVersion,
		UpdateStatus: d.UpdateStatus, Undervolted: d.Undervolted, URL: h.deviceURL(d.UUID),
	}
	if h.DeviceNames {
		v.Name = d.Name
	}
	v.Frozen, v.OSUpdateState = d.Frozen, d.OSUpdateState()
	v.MaintenanceUntil = maintenanceUntil(max(d.Maintenance, s.Fleet(d.FleetID).Maintenance), now)
	if d.Installs.Known() && d.TargetRelease != 0 {
		services, running := d.Installs.Of(d.TargetRelease)
		v.Services, v.ServicesRunning = &services, &running
	}
	if changed := d.ConnectivityChanged(); changed != 0 {
		at := time.UnixMilli(int64(changed)).UTC()
		v.ConnectivityChange = &at
		v.Since = since(at, now)
	}
	return v
}

// maintenanceUntil is the end of a maintenance, empty when it is over or there is none.
func maintenanceUntil(end balena.Instant, now time.Time) string {
	switch {
	case end == balena.Forever:
		return "further notice"
	case int64(end) <= now.UnixMilli():
		return ""
	}
	return time.UnixMilli(int64(end)).UTC().Format(time.RFC3339)
}

// shortUUID is how much of a UUID balena's own pages and command line show.
const shortUUID = 7

// ShortUUID is the beginning of the UUID.
func (d *device) ShortUUID() string { return d.UUID[:min(shortUUID, len(d.UUID))] }

// Class and StatusText show the status.
func (d *device) Class() string { return statusClass(d.Status) }

// StatusText is the status in words.
func (d *device) StatusText() string { return statusText(d.Status) }

// OnTarget tells whether the device runs what it should.
func (d *device) OnTarget() bool {
	return d.TargetRelease == nil || d.Release != nil && d.Release.ID == d.TargetRelease.ID
}

// Remarks are what else is worth knowing. What is only true while a device is connected is left out
// otherwise.
func (d *device) Remarks() []string {
	var remarks []string
	if d.Frozen {
		remarks = append(remarks, "frozen")
	}
	if d.MaintenanceUntil != "" {
		remarks = append(remarks, "maintenance until "+d.MaintenanceUntil)
	}
	if d.OSUpdateState != "" {
		remarks = append(remarks, "OS update "+d.OSUpdateState)
	}
	if d.Services != nil && *d.ServicesRunning < *d.Services && d.OnTarget() {
		remarks = append(remarks, fmt.Sprintf("%d of %d services running", *d.ServicesRunning, *d.Services))
	}
	if updateFailed(d.UpdateStatus) {
		remarks = append(remarks, "update "+d.UpdateStatus)
	}
	if d.Undervolted && d.Connected {
		remarks = append(remarks, "undervoltage")
	}
	if d.Pinned {
		remarks = append(remarks, "pinned")
	}
	if d.OSVariant == "dev" {
		remarks = append(remarks, "development OS")
	}
	return remarks
}

// choice is a link to another view of the page.
type choice struct {
	Text    string
	Address string
	status
	Current bool
}

// Filters are the statuses to choose from. One that is chosen and that no device is in any more is there
// too.
func (p *fleetPage) Filters() []choice {
	links := []choice{{Text: "All", Address: "?", status: status{Devices: p.Devices}, Current: p.Status == ""}}
	bar := p.Bar()
	slices.Reverse(bar)
	found := p.Status == ""
	for _, s := range bar {
		found = found || s.Name == p.Status
		links = append(links, choice{Text: s.Text(), Address: p.filtered(s.Name), status: s, Current: s.Name == p.Status})
	}
	if !found {
		links = append(links, choice{Text: statusText(p.Status), Address: p.filtered(p.Status), status: status{Name: p.Status}, Current: true})
	}
	return links
}

func (p *fleetPage) filtered(status string) string {
	return "?" + url.Values{"status": {status}}.Encode()
}

// Turns are the ways to the other pages; none where there is but one.
func (p *fleetPage) Turns() []choice {
	var links []choice
	if p.Page > 1 {
		links = append(links, choice{Text: "First", Address: p.address(1, false)}, choice{Text: "Previous", Address: p.address(p.Page-1, false)})
	}
	if p.Page < p.Pages {
		links = append(links, choice{Text: "Next", Address: p.address(p.Page+1, false)}, choice{Text: "Last", Address: p.address(p.Pages, false)})
	}
	return links
}

// address is where a page of the list is, relative to the others.
func (p *fleetPage) address(number int, json bool) string {
	query := url.Values{}
	if p.Status != "" {
		query.Set("status", p.Status)
	}
	if json {
		query.Set("format", "json")
	}
	query.Set("page", strconv.Itoa(number))
	return "?" + query.Encode()
}

// JSON is where the same is as JSON.
func (p *fleetPage) JSON() string { return p.address(p.Page, true) }

// First and Last are the numbers of the devices that are listed.
func (p *fleetPage) First() int { return min((p.Page-1)*DevicesPerPage+1, p.Matching) }

// Last is the number of the last device that is listed.
func (p *fleetPage) Last() int { return min(p.Page*DevicesPerPage, p.Matching) }

// StatusText is the chosen status in words.
func (p *fleetPage) StatusText() string { return statusText(p.Status) }
