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
	"cmp"
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

// Cause is a kind of problem of a device.
type Cause struct {
	// Alert is the name of the alert, and of its runbook.
	Alert string
	// Text describes the problem.
	Text     string
	Severity Severity
	// Away is set for devices that are lost or have never connected. They are not listed among current problems.
	Away bool
	// check reports whether a device has the problem, and since when; 0 if unknown.
	check func(*Thresholds, *balena.Device, balena.Instant) (since balena.Instant, ok bool)
}

// Causes are all causes, the worst first. Those with Away are last.
var Causes = []Cause{
	{Alert: "BalenaDeviceOffline", Text: "offline", Severity: Warning, check: offline},
	{Alert: "BalenaDeviceReducedFunctionality", Text: "reduced functionality", Severity: Warning, check: reduced},
	{Alert: "BalenaDeviceUpdateRejected", Text: "update rejected", Severity: Warning, check: updateRejected},
	{Alert: "BalenaDeviceOSUpdateFailed", Text: "OS update failed", Severity: Warning, check: osUpdateFailed},
	{Alert: "BalenaDeviceUpdateStuck", Text: "update stuck", Severity: Warning, check: updateStuck},
	{Alert: "BalenaDeviceStorageNearlyFull", Text: "storage nearly full", Severity: Warning, check: storageFull},
	{Alert: "BalenaDeviceMemoryExhausted", Text: "memory exhausted", Severity: Warning, check: memoryExhausted},
	{Alert: "BalenaDeviceOverheating", Text: "overheating", Severity: Warning, check: overheating},
	{Alert: "BalenaServiceRestarting", Text: "service restarting", Severity: Warning, check: serviceIn("restarting")},
	{Alert: "BalenaServiceNotRunning", Text: "service not running", Severity: Warning, check: serviceNotRunning},
	{Alert: "BalenaServiceExited", Text: "service exited", Severity: Info, check: serviceIn("exited", "Dead")},
	{Alert: "BalenaDeviceUndervolted", Text: "undervoltage", Severity: Info, check: undervolted},
	{Alert: "BalenaDevelopmentOS", Text: "development OS", Severity: Info, check: developmentOS},
	{Alert: "BalenaDevicesNeverConnected", Text: "never connected", Severity: Info, Away: true, check: neverConnected},
	{Alert: "BalenaDevicesLost", Text: "lost", Severity: Info, Away: true, check: lost},
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

// away is the set of causes with Away.
var away = func() (s Set) {
	for i, c := range Causes {
		if c.Away {
			s |= 1 << i
		}
	}
	return s
}()

// Away reports whether the set contains a cause with Away.
func (s Set) Away() bool { return s&away != 0 }

// Thresholds are the thresholds of the conditions. Times are in seconds.
type Thresholds struct {
	DeviceOffline, DeviceLost, NeverConnected, UpdateStuck, BuildFailed float64
	// Storage and Memory are ratios, Temperature is in °C.
	Storage, Memory, Temperature float64
	// FleetPart is the minimum number of disconnected devices for a problem of the fleet. The others are ratios of
	// disconnected devices to devices in use.
	FleetPart, FleetOffline, FleetLargelyOffline float64
}

// Of returns the problems of a device at a time. A device that is not in service has none. It does not check whether the
// fleet is absent; see [Absent].
func (t *Thresholds) Of(d *balena.Device, now balena.Instant) (s Set) {
	if !InService(d, now) {
		return 0
	}
	for i := range Causes {
		if _, ok := Causes[i].check(t, d, now); ok {
			s |= 1 << i
		}
	}
	return s
}

// InService reports whether a device is in service, without regard to its fleet.
func InService(d *balena.Device, now balena.Instant) bool {
	return !d.OutOfService() && d.Maintenance <= now
}

// Absent reports whether no device of a fleet is expected to work at a time: the fleet is archived or in maintenance, or
// its organization is frozen.
func Absent(s *balena.Snapshot, f *balena.Fleet, now balena.Instant) bool {
	return f.Absent(now) || frozen(s, f)
}

// frozen reports whether the organization of a fleet is frozen.
func frozen(s *balena.Snapshot, f *balena.Fleet) bool {
	return slices.ContainsFunc(s.Organizations, func(o balena.Organization) bool { return o.Frozen && o.Handle == f.Organization })
}

// AbsentFleets returns the IDs of the fleets of a snapshot that are absent.
func AbsentFleets(s *balena.Snapshot, now balena.Instant) map[int64]bool {
	absent := map[int64]bool{}
	for i := range s.Fleets {
		if Absent(s, &s.Fleets[i], now) {
			absent[s.Fleets[i].ID] = true
		}
	}
	return absent
}

// Since returns the time at which a problem of a device began; 0 if unknown.
func (t *Thresholds) Since(cause int, d *balena.Device, now balena.Instant) balena.Instant {
	since, _ := Causes[cause].check(t, d, now)
	return since
}

// longer reports whether more than a number of seconds have passed since a time. It returns false if the time is unknown.
func longer(now, since balena.Instant, seconds float64) bool {
	return since != 0 && float64(now-since)/1000 > seconds
}

func offline(t *Thresholds, d *balena.Device, now balena.Instant) (balena.Instant, bool) {
	since := d.ConnectivityChanged()
	return since, !d.Connected() && longer(now, since, t.DeviceOffline) && !longer(now, since, t.DeviceLost)
}

func lost(t *Thresholds, d *balena.Device, now balena.Instant) (balena.Instant, bool) {
	since := d.ConnectivityChanged()
	return since, !d.Connected() && since != 0 && float64(now-since)/1000 >= t.DeviceLost // >= as in the metric
}

func neverConnected(t *Thresholds, d *balena.Device, now balena.Instant) (balena.Instant, bool) {
	return d.Created, !d.Connected() && d.ConnectivityChanged() == 0 && longer(now, d.Created, t.NeverConnected)
}

func reduced(_ *Thresholds, d *balena.Device, _ balena.Instant) (balena.Instant, bool) {
	return d.ConnectivityChanged(), d.Status == "reduced-functionality"
}

func updateStuck(t *Thresholds, d *balena.Device, now balena.Instant) (balena.Instant, bool) {
	return d.UpdateChanged, Updating(d) && d.Connected() && !tooOld.MatchString(d.SupervisorVersion) && longer(now, d.UpdateChanged, t.UpdateStuck)
}

func updateRejected(_ *Thresholds, d *balena.Device, _ balena.Instant) (balena.Instant, bool) {
	return d.UpdateChanged, (d.UpdateStatus == "rejected" || d.UpdateStatus == "aborted") &&
		d.TargetRelease != 0 && d.RunningRelease != d.TargetRelease && d.Connected() && !tooOld.MatchString(d.SupervisorVersion)
}

// tooOld matches versions of the supervisor that do not report the status of updates. Their status in the API is outdated.
var tooOld = regexp.MustCompile(`^(?:\d[.].+|1[0-5][.].+|16[.][0-6][.].+)$`)

func osUpdateFailed(_ *Thresholds, d *balena.Device, _ balena.Instant) (balena.Instant, bool) {
	return 0, d.OSUpdateState() == balena.OSUpdateFailed
}

func storageFull(t *Thresholds, d *balena.Device, _ balena.Instant) (balena.Instant, bool) {
	return 0, d.Connected() && Ratio(balena.StorageUsed.Of(d), balena.StorageSize.Of(d)) > t.Storage
}

func memoryExhausted(t *Thresholds, d *balena.Device, _ balena.Instant) (balena.Instant, bool) {
	return 0, d.Connected() && Ratio(balena.MemoryUsed.Of(d), balena.MemorySize.Of(d)) > t.Memory
}

func overheating(t *Thresholds, d *balena.Device, _ balena.Instant) (balena.Instant, bool) {
	return 0, d.Connected() && d.Temperature().Float() > t.Temperature
}

func undervolted(_ *Thresholds, d *balena.Device, _ balena.Instant) (balena.Instant, bool) {
	return 0, d.Undervolted && d.Connected()
}

func developmentOS(_ *Thresholds, d *balena.Device, _ balena.Instant) (balena.Instant, bool) {
	return 0, d.OSVariant == "dev"
}

func serviceIn(statuses ...string) func(*Thresholds, *balena.Device, balena.Instant) (balena.Instant, bool) {
	return func(_ *Thresholds, d *balena.Device, _ balena.Instant) (balena.Instant, bool) {
		if d.Attachments == nil || !d.Connected() {
			return 0, false
		}
		return 0, slices.ContainsFunc(d.Attachments.Services, func(s balena.Service) bool { return slices.Contains(statuses, s.Status) })
	}
}

// serviceNotRunning reports whether a service of the release neither runs nor has exited. Restarting services are a
// separate problem.
func serviceNotRunning(_ *Thresholds, d *balena.Device, _ balena.Instant) (balena.Instant, bool) {
	if !d.Installs.Known() || !d.OnTarget() || !d.Connected() || d.Status == "updating" {
		return 0, false
	}
	services, running := d.Installs.Of(d.TargetRelease)
	if services == running || services-running-d.Installs.Exited(d.TargetRelease) <= 0 {
		return 0, false
	}
	restarting := func(s balena.Service) bool { return s.Status == "restarting" }
	return 0, !slices.ContainsFunc(d.Services(), restarting)
}

// Updating reports whether an update of a device is running.
func Updating(d *balena.Device) bool {
	return d.UpdateStatus == "downloading" || d.UpdateStatus == "downloaded" || d.UpdateStatus == "applying changes"
}

// Ratio returns used/size; NaN if one of them is unknown.
func Ratio(used, size balena.Number) float64 { return used.Float() / size.Float() }

// FleetCause is a kind of problem of a fleet as a whole.
type FleetCause struct {
	Alert, Text string
	Severity    Severity
}

// The causes of fleets, the worst first.
var (
	DevicesFrozen  = &FleetCause{"BalenaDevicesFrozen", "devices frozen", Critical}
	LargelyOffline = &FleetCause{"BalenaFleetLargelyOffline", "largely offline", Critical}
	PartlyOffline  = &FleetCause{"BalenaFleetPartlyOffline", "partly offline", Warning}
	BuildFailed    = &FleetCause{"BalenaReleaseBuildFailed", "last build failed", Info}
)

// FleetDevices holds the numbers of devices of a fleet.
type FleetDevices struct {
	All, Frozen int
	// InService is the number of devices in service. The others count devices in service only.
	InService, NeverConnected, Lost, Connected int
}

// Add counts a device. absent reports whether its fleet is absent.
func (n *FleetDevices) Add(d *balena.Device, problems Set, absent bool, now balena.Instant) {
	n.All++
	if d.Frozen {
		n.Frozen++
	}
	if absent || !InService(d, now) {
		return
	}
	n.InService++
	switch {
	case d.Connected():
		n.Connected++
	case d.NeverConnected():
		n.NeverConnected++
	case problems.Has(indexLost):
		n.Lost++
	}
}

var indexLost = Index("BalenaDevicesLost")

// OfFleet returns the problems of a fleet as a whole, the worst first.
func (t *Thresholds) OfFleet(s *balena.Snapshot, f *balena.Fleet, n FleetDevices, now balena.Instant) (causes []*FleetCause) {
	if f.Archived {
		return nil
	}
	if n.Frozen > 0 || n.All > 0 && frozen(s, f) {
		causes = append(causes, DevicesFrozen)
	}
	if n.All > 0 && n.InService == 0 || frozen(s, f) {
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
	if r := f.LatestRelease; (r.Status == "error" || r.Status == "failed") && r.Created != 0 && float64(now-r.Created)/1000 < t.BuildFailed {
		causes = append(causes, BuildFailed)
	}
	return causes
}

// DefaultThresholds returns the default thresholds of the rules.
func DefaultThresholds() Thresholds {
	const hour, day = 3600, 24 * 3600
	return Thresholds{
		DeviceOffline: hour, DeviceLost: 7 * day, NeverConnected: day, UpdateStuck: 2 * hour, BuildFailed: 7 * day,
		Storage: 0.9, Memory: 0.95, Temperature: 80,
		FleetPart: 3, FleetOffline: 0.2, FleetLargelyOffline: 0.5,
	}
}

// Names returns the names of the thresholds, which are those of the chart's prometheusRule.thresholds.
func Names() []string {
	names := make([]string, 0, len(byName))
	for _, n := range byName {
		names = append(names, n.name)
	}
	return names
}

type threshold struct {
	name string
	of   func(*Thresholds) *float64
}

var byName = []threshold{
	{"deviceOfflineSeconds", func(t *Thresholds) *float64 { return &t.DeviceOffline }},
	{"deviceLostSeconds", func(t *Thresholds) *float64 { return &t.DeviceLost }},
	{"neverConnectedSeconds", func(t *Thresholds) *float64 { return &t.NeverConnected }},
	{"updateStuckSeconds", func(t *Thresholds) *float64 { return &t.UpdateStuck }},
	{"buildFailedSeconds", func(t *Thresholds) *float64 { return &t.BuildFailed }},
	{"storageRatio", func(t *Thresholds) *float64 { return &t.Storage }},
	{"memoryRatio", func(t *Thresholds) *float64 { return &t.Memory }},
	{"temperatureCelsius", func(t *Thresholds) *float64 { return &t.Temperature }},
	{"fleetPartDevices", func(t *Thresholds) *float64 { return &t.FleetPart }},
	{"fleetOfflineRatio", func(t *Thresholds) *float64 { return &t.FleetOffline }},
	{"fleetLargelyOfflineRatio", func(t *Thresholds) *float64 { return &t.FleetLargelyOffline }},
}

// Get returns a threshold by its name.
func (t *Thresholds) Get(name string) float64 {
	for _, n := range byName {
		if n.name == name {
			return *n.of(t)
		}
	}
	return 0
}

// Set sets thresholds from a list NAME=NUMBER,….
func (t *Thresholds) Set(list string) error {
	for item := range strings.SplitSeq(list, ",") {
		if item = strings.TrimSpace(item); item == "" {
			continue
		}
		name, text, _ := strings.Cut(item, "=")
		i := slices.IndexFunc(byName, func(n threshold) bool { return n.name == name })
		if i < 0 {
			return fmt.Errorf("unknown threshold %q; valid thresholds: %s", name, strings.Join(Names(), ", "))
		}
		value, err := strconv.ParseFloat(text, 64)
		if err != nil || !(value > 0) {
			return fmt.Errorf("invalid value %[2]q of %[1]s: it must be a number greater than 0", name, text)
		}
		*byName[i].of(t) = value
	}
	if cmp.Less(t.DeviceLost, t.DeviceOffline) {
		return fmt.Errorf("deviceLostSeconds (%v) must not be less than deviceOfflineSeconds (%v)", t.DeviceLost, t.DeviceOffline)
	}
	return nil
}
