// SPDX-License-Identifier: Apache-2.0

// Package problem determines the problems of the devices and fleets of a snapshot. Conditions and thresholds are those of
// the chart's alert rules, which record them as balena:condition. A test compares both.
//
// Only the rules cover conditions that need history: the duration of a condition, a failed host OS update that the device
// no longer reports, devices that configure for too long or reconnect too often, a fleet that shrank or disappeared, a
// rollout that makes no progress. If a fleet is partly offline, the rules fire one alert for the fleet, while this package
// reports all its devices.
package problem

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/balena-exporter/balena-exporter/internal/balena"
)

// Severity is the severity of a problem, as in the label of its alert.
type Severity string

// The severities.
const (
	Critical Severity = "critical"
	Warning  Severity = "warning"
	Info     Severity = "info"
)

// Cause is a kind of problem of a device or of a fleet.
type Cause struct {
	// Alert is the name of the alert, and of its runbook.
	Alert string
	// Text describes the problem.
	Text     string
	Severity Severity
	// Away is set for devices that are lost or have never connected. They are not listed among current problems.
	Away bool
	// since returns when the problem of a device began; nil or 0 if that is unknown.
	since func(*balena.Device) balena.Instant
	check func(subject) bool
}

// subject is a device at a time.
type subject struct {
	*balena.Device
	limits *Thresholds
	now    balena.Instant
}

// Causes are all causes, the worst first. Those with Away are last.
var Causes = []Cause{
	cause("BalenaDeviceOffline", "offline", Warning, connectivity, func(d subject) bool {
		since := d.ConnectivityChanged()
		return !d.Connected() && d.longer(since, d.limits.DeviceOffline) && !d.longer(since, d.limits.DeviceLost)
	}),
	cause("BalenaDeviceReducedFunctionality", "reduced functionality", Warning, connectivity, func(d subject) bool {
		return d.Status == "reduced-functionality"
	}),
	cause("BalenaDeviceUpdateRejected", "update rejected", Warning, update, func(d subject) bool {
		return (d.UpdateStatus == "rejected" || d.UpdateStatus == "aborted") &&
			d.TargetRelease != 0 && !d.OnTarget() && d.reportsUpdates()
	}),
	cause("BalenaDeviceOSUpdateFailed", "OS update failed", Warning, nil, func(d subject) bool {
		return d.OSUpdateState() == balena.OSUpdateFailed
	}),
	cause("BalenaDeviceUpdateStuck", "update stuck", Warning, update, func(d subject) bool {
		return Updating(d.UpdateStatus) && d.reportsUpdates() && d.longer(d.UpdateChanged, d.limits.UpdateStuck)
	}),
	cause("BalenaDeviceStorageNearlyFull", "storage nearly full", Warning, nil, func(d subject) bool {
		return d.Connected() && d.ratio(balena.StorageUsed, balena.StorageSize) > d.limits.Storage
	}),
	cause("BalenaDeviceMemoryExhausted", "memory exhausted", Warning, nil, func(d subject) bool {
		return d.Connected() && d.ratio(balena.MemoryUsed, balena.MemorySize) > d.limits.Memory
	}),
	cause("BalenaDeviceOverheating", "overheating", Warning, nil, func(d subject) bool {
		return d.Connected() && d.Temperature().Float() > d.limits.Temperature
	}),
	cause("BalenaServiceRestarting", "service restarting", Warning, nil, func(d subject) bool {
		return d.hasService("restarting")
	}),
	cause("BalenaServiceNotRunning", "service not running", Warning, nil, subject.serviceNotRunning),
	cause("BalenaServiceExited", "service exited", Info, nil, func(d subject) bool {
		return d.hasService("exited", "Dead")
	}),
	cause("BalenaDeviceUndervolted", "undervoltage", Info, nil, func(d subject) bool {
		return d.Undervolted && d.Connected()
	}),
	cause("BalenaDevelopmentOS", "development OS", Info, nil, func(d subject) bool {
		return d.OSVariant == "dev"
	}),
	cause("BalenaDevicesNeverConnected", "never connected", Info, created, func(d subject) bool {
		return !d.Connected() && d.ConnectivityChanged() == 0 && d.longer(d.Created, d.limits.NeverConnected)
	}).away(),
	cause("BalenaDevicesLost", "lost", Info, connectivity, func(d subject) bool {
		since := d.ConnectivityChanged()
		return !d.Connected() && since != 0 && float64(d.now-since)/1000 >= d.limits.DeviceLost // >= as in the metric
	}).away(),
}

func cause(alert, text string, s Severity, since func(*balena.Device) balena.Instant, check func(subject) bool) Cause {
	return Cause{Alert: alert, Text: text, Severity: s, since: since, check: check}
}

func (c Cause) away() Cause {
	c.Away = true
	return c
}

// Since returns the time at which the problem of a device began; 0 if unknown.
func (c Cause) Since(d *balena.Device) balena.Instant {
	if c.since == nil {
		return 0
	}
	return c.since(d)
}

var connectivity = (*balena.Device).ConnectivityChanged

func update(d *balena.Device) balena.Instant  { return d.UpdateChanged }
func created(d *balena.Device) balena.Instant { return d.Created }

// longer reports whether more than a number of seconds have passed since a time. It returns false if the time is unknown.
func (d subject) longer(since balena.Instant, seconds float64) bool {
	return since != 0 && float64(d.now-since)/1000 > seconds
}

// reportsUpdates reports whether the status of updates is current: the device is connected, and its supervisor reports it.
func (d subject) reportsUpdates() bool {
	return d.Connected() && !tooOld.MatchString(d.SupervisorVersion)
}

// tooOld matches versions of the supervisor that do not report the status of updates. Their status in the API is outdated.
var tooOld = regexp.MustCompile(`^(?:\d[.].+|1[0-5][.].+|16[.][0-6][.].+)$`)

// hasService reports whether a service on a connected device is in one of several states.
func (d subject) hasService(statuses ...string) bool {
	isIn := func(s balena.Service) bool { return slices.Contains(statuses, s.Status) }
	return d.Connected() && slices.ContainsFunc(d.Services(), isIn)
}

// serviceNotRunning reports whether a service of the release neither runs nor has exited. Restarting services are a
// separate problem.
func (d subject) serviceNotRunning() bool {
	if !d.Installs.Known() || !d.OnTarget() || !d.Connected() || d.Status == "updating" {
		return false
	}
	services, running, exited := d.Installs.Of(d.TargetRelease)
	return services != running && services-running-exited > 0 && !d.hasService("restarting")
}

// Updating reports whether an update is running according to its status.
func Updating(status string) bool {
	return status == "downloading" || status == "downloaded" || status == "applying changes"
}

// ratio returns used/size; NaN if one of them is unknown.
func (d subject) ratio(used, size *balena.Figure) float64 {
	return used.Of(d.Device).Float() / size.Of(d.Device).Float()
}

// Set is a set of causes.
type Set uint32

// Has reports whether the set contains the cause with an index in [Causes].
func (s Set) Has(index int) bool { return s&(1<<index) != 0 }

// All returns the causes of the set, the worst first.
func (s Set) All() []Cause {
	var all []Cause
	for i := range Causes {
		if s.Has(i) {
			all = append(all, Causes[i])
		}
	}
	return all
}

// Index returns the index of the cause with an alert, -1 if there is none.
func Index(alert string) int {
	return slices.IndexFunc(Causes, func(c Cause) bool { return c.Alert == alert })
}

var firstAway = slices.IndexFunc(Causes, func(c Cause) bool { return c.Away })

// Away reports whether the set contains a cause with Away.
func (s Set) Away() bool { return s>>firstAway != 0 }

// Thresholds are the thresholds of the conditions. Times are in seconds.
type Thresholds struct {
	DeviceOffline, DeviceLost, NeverConnected, UpdateStuck, BuildFailed float64
	// Storage and Memory are ratios, Temperature is in °C.
	Storage, Memory, Temperature float64
	// FleetPart is the minimum number of disconnected devices for a problem of the fleet. The others are ratios of
	// disconnected devices to devices in use.
	FleetPart, FleetOffline, FleetLargelyOffline float64
}

// A View finds the problems of the devices and fleets of a snapshot at a point in time.
type View struct {
	limits   *Thresholds
	snapshot *balena.Snapshot
	now      balena.Instant
	// absent has the fleets of which no device is expected to work: they are archived or in maintenance, or their
	// organization is frozen.
	absent map[int64]bool
}

// Of returns the view of a snapshot at a time.
func (t *Thresholds) Of(s *balena.Snapshot, now balena.Instant) *View {
	v := &View{limits: t, snapshot: s, now: now, absent: map[int64]bool{}}
	for i := range s.Fleets {
		if f := &s.Fleets[i]; f.Absent(now) || v.frozen(f) {
			v.absent[f.ID] = true
		}
	}
	return v
}

// frozen reports whether the organization of a fleet is frozen.
func (v *View) frozen(f *balena.Fleet) bool {
	return slices.ContainsFunc(v.snapshot.Organizations, func(o balena.Organization) bool { return o.Frozen && o.Handle == f.Organization })
}

// InService reports whether a device and its fleet are in service.
func (v *View) InService(d *balena.Device) bool {
	return !d.OutOfService() && d.Maintenance <= v.now && (len(v.absent) == 0 || !v.absent[d.FleetID])
}

// Device returns the problems of a device. A device that is not in service has none.
func (v *View) Device(d *balena.Device) Set {
	if !v.InService(d) {
		return 0
	}
	return v.check(d)
}

func (v *View) check(d *balena.Device) (s Set) {
	for i := range Causes {
		if Causes[i].check(subject{d, v.limits, v.now}) {
			s |= 1 << i
		}
	}
	return s
}

// The causes of problems of a fleet as a whole, the worst first.
var (
	DevicesFrozen  = cause("BalenaDevicesFrozen", "devices frozen", Critical, nil, nil)
	LargelyOffline = cause("BalenaFleetLargelyOffline", "largely offline", Critical, nil, nil)
	PartlyOffline  = cause("BalenaFleetPartlyOffline", "partly offline", Warning, nil, nil)
	BuildFailed    = cause("BalenaReleaseBuildFailed", "last build failed", Info, nil, nil)
)

// FleetDevices holds the numbers of devices of a fleet.
type FleetDevices struct {
	All, Frozen int
	// InService is the number of devices in service. The others count devices in service only.
	InService, NeverConnected, Lost, Connected int
}

// Add counts a device, and returns its problems.
func (v *View) Add(n *FleetDevices, d *balena.Device) Set {
	n.All++
	if d.Frozen {
		n.Frozen++
	}
	if !v.InService(d) {
		return 0
	}
	problems := v.check(d)
	n.InService++
	switch {
	case d.Connected():
		n.Connected++
	case d.NeverConnected():
		n.NeverConnected++
	case problems.Has(indexLost):
		n.Lost++
	}
	return problems
}

var indexLost = Index("BalenaDevicesLost")

// Fleet returns the problems of a fleet as a whole, the worst first.
func (v *View) Fleet(f *balena.Fleet, n FleetDevices) (causes []Cause) {
	t := v.limits
	if f.Archived {
		return nil
	}
	if n.Frozen > 0 || n.All > 0 && v.frozen(f) {
		causes = append(causes, DevicesFrozen)
	}
	if n.All > 0 && n.InService == 0 || v.frozen(f) {
		return causes
	}
	inUse := n.InService - n.NeverConnected - n.Lost
	if offline := inUse - n.Connected; float64(offline) >= t.FleetPart && inUse > 0 {
		switch part := float64(offline) / float64(inUse); {
		case part >= t.FleetLargelyOffline:
			causes = append(causes, LargelyOffline)
		case part >= t.FleetOffline:
			causes = append(causes, PartlyOffline)
		}
	}
	if r := f.LatestRelease; (r.Status == "error" || r.Status == "failed") && r.Created != 0 && float64(v.now-r.Created)/1000 < t.BuildFailed {
		causes = append(causes, BuildFailed)
	}
	return causes
}

const hour, day = 3600, 24 * 3600

// thresholds has the names and the defaults of the thresholds, which are those of the chart's prometheusRule.thresholds.
var thresholds = []struct {
	name     string
	standard float64
	of       func(*Thresholds) *float64
}{
	{"deviceOfflineSeconds", hour, func(t *Thresholds) *float64 { return &t.DeviceOffline }},
	{"deviceLostSeconds", 7 * day, func(t *Thresholds) *float64 { return &t.DeviceLost }},
	{"neverConnectedSeconds", day, func(t *Thresholds) *float64 { return &t.NeverConnected }},
	{"updateStuckSeconds", 2 * hour, func(t *Thresholds) *float64 { return &t.UpdateStuck }},
	{"buildFailedSeconds", 7 * day, func(t *Thresholds) *float64 { return &t.BuildFailed }},
	{"storageRatio", 0.9, func(t *Thresholds) *float64 { return &t.Storage }},
	{"memoryRatio", 0.95, func(t *Thresholds) *float64 { return &t.Memory }},
	{"temperatureCelsius", 80, func(t *Thresholds) *float64 { return &t.Temperature }},
	{"fleetPartDevices", 3, func(t *Thresholds) *float64 { return &t.FleetPart }},
	{"fleetOfflineRatio", 0.2, func(t *Thresholds) *float64 { return &t.FleetOffline }},
	{"fleetLargelyOfflineRatio", 0.5, func(t *Thresholds) *float64 { return &t.FleetLargelyOffline }},
}

// DefaultThresholds returns the default thresholds of the rules.
func DefaultThresholds() (t Thresholds) {
	for _, row := range thresholds {
		*row.of(&t) = row.standard
	}
	return t
}

// Names returns the names of the thresholds.
func Names() (names []string) {
	for _, row := range thresholds {
		names = append(names, row.name)
	}
	return names
}

// Set sets thresholds from a list NAME=NUMBER,….
func (t *Thresholds) Set(list string) error {
	for item := range strings.SplitSeq(list, ",") {
		if item = strings.TrimSpace(item); item == "" {
			continue
		}
		name, text, _ := strings.Cut(item, "=")
		i := slices.Index(Names(), name)
		if i < 0 {
			return fmt.Errorf("unknown threshold %q; valid thresholds: %s", name, strings.Join(Names(), ", "))
		}
		value, err := strconv.ParseFloat(text, 64)
		if err != nil || !(value > 0) {
			return fmt.Errorf("invalid value %[2]q of %[1]s: it must be a number greater than 0", name, text)
		}
		*thresholds[i].of(t) = value
	}
	if t.DeviceLost < t.DeviceOffline {
		return fmt.Errorf("deviceLostSeconds (%v) must not be less than deviceOfflineSeconds (%v)", t.DeviceLost, t.DeviceOffline)
	}
	return nil
}
