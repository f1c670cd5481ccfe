// SPDX-License-Identifier: Apache-2.0

// Package problem says what is wrong with a device or a fleet of a snapshot. The conditions and thresholds are those of
// the alert rules of the chart, which record them as balena:condition; a test holds both equal.
//
// What needs the past is left to the rules: how long a condition has lasted, a failed update of the host OS that the device no
// longer reports, devices that configure for too long or reconnect too often, a fleet that shrank or is gone, a rollout that does
// not converge. A page lists the devices of a fleet that is partly offline, where the rules fire one
// alert for the fleet.
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

// Severity is how urgent a problem is, as in the label of its alert.
type Severity string

// The severities.
const (
	Critical Severity = "critical"
	Warning  Severity = "warning"
	Info     Severity = "info"
)

// Cause is what may be wrong with a device.
type Cause struct {
	// Alert is the name of the alert, and of its runbook.
	Alert string
	// Text describes a device that has the problem.
	Text     string
	Severity Severity
	// Away tells that the device has not been there for so long, or never, that it is not among those that need
	// somebody today.
	Away bool
	// is tells whether a device has the problem, and since when; 0 where that is not known.
	is func(*Thresholds, *balena.Device, balena.Instant) (since balena.Instant, ok bool)
}

// Causes are all causes, the worst first. Those that are away are the last.
var Causes = []Cause{
	{Alert: "BalenaDeviceOffline", Text: "offline", Severity: Warning, is: offline},
	{Alert: "BalenaDeviceReducedFunctionality", Text: "reduced functionality", Severity: Warning, is: reduced},
	{Alert: "BalenaDeviceUpdateRejected", Text: "update rejected", Severity: Warning, is: updateRejected},
	{Alert: "BalenaDeviceOSUpdateFailed", Text: "OS update failed", Severity: Warning, is: osUpdateFailed},
	{Alert: "BalenaDeviceUpdateStuck", Text: "update stuck", Severity: Warning, is: updateStuck},
	{Alert: "BalenaDeviceStorageNearlyFull", Text: "storage nearly full", Severity: Warning, is: storageFull},
	{Alert: "BalenaDeviceMemoryExhausted", Text: "memory exhausted", Severity: Warning, is: memoryExhausted},
	{Alert: "BalenaDeviceOverheating", Text: "overheating", Severity: Warning, is: overheating},
	{Alert: "BalenaServiceRestarting", Text: "service restarting", Severity: Warning, is: serviceIn("restarting")},
	{Alert: "BalenaServiceNotRunning", Text: "service not running", Severity: Warning, is: serviceNotRunning},
	{Alert: "BalenaServiceExited", Text: "service exited", Severity: Info, is: serviceIn("exited", "Dead")},
	{Alert: "BalenaDeviceUndervolted", Text: "undervoltage", Severity: Info, is: undervolted},
	{Alert: "BalenaDevelopmentOS", Text: "development OS", Severity: Info, is: developmentOS},
	{Alert: "BalenaDevicesNeverConnected", Text: "never connected", Severity: Info, Away: true, is: neverConnected},
	{Alert: "BalenaDevicesLost", Text: "lost", Severity: Info, Away: true, is: lost},
}

// Set is a set of causes.
type Set uint32

// Has tells whether a cause, by its index in [Causes], belongs to the set.
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

// Index returns the index of a cause by the name of its alert, -1 if there is none.
func Index(alert string) int {
	return slices.IndexFunc(Causes, func(c Cause) bool { return c.Alert == alert })
}

// away is the set of causes that are away.
var away = func() (s Set) {
	for i, c := range Causes {
		if c.Away {
			s |= 1 << i
		}
	}
	return s
}()

// Away tells whether one of the causes is away.
func (s Set) Away() bool { return s&away != 0 }

// Thresholds are the limits of the conditions. Times are in seconds.
type Thresholds struct {
	DeviceOffline, DeviceLost, NeverConnected, UpdateStuck, BuildFailed float64
	// Storage and Memory are parts of the whole, Temperature is in °C.
	Storage, Memory, Temperature float64
	// FleetPart is how many devices make a part of a fleet at least; the others are parts of the devices in use.
	FleetPart, FleetOffline, FleetLargelyOffline float64
}

// Of returns what is wrong with a device at a time, which is nothing while it is not in service. Of fleets in which no device
// is, see [Absent].
func (t *Thresholds) Of(d *balena.Device, now balena.Instant) (s Set) {
	if !InService(d, now) {
		return 0
	}
	for i := range Causes {
		if _, ok := Causes[i].is(t, d, now); ok {
			s |= 1 << i
		}
	}
	return s
}

// InService tells whether a device is expected to work, as far as that does not depend on its fleet.
func InService(d *balena.Device, now balena.Instant) bool {
	return !d.OutOfService() && d.Maintenance <= now
}

// Absent tells whether no device of a fleet is expected to work at a time: it is archived, in maintenance, or of an
// organization that is frozen.
func Absent(s *balena.Snapshot, f *balena.Fleet, now balena.Instant) bool {
	return f.Absent(now) || frozen(s, f)
}

// frozen tells whether the organization of a fleet is frozen.
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

// Since returns since when a device has a problem that it has; 0 where that is not known.
func (t *Thresholds) Since(cause int, d *balena.Device, now balena.Instant) balena.Instant {
	since, _ := Causes[cause].is(t, d, now)
	return since
}

// longer tells whether more than so many seconds have passed since a time that is known.
func longer(now, since balena.Instant, seconds float64) bool {
	return since != 0 && float64(now-since)/1000 > seconds
}

func offline(t *Thresholds, d *balena.Device, now balena.Instant) (balena.Instant, bool) {
	since := d.ConnectivityChanged()
	return since, !d.Connected() && longer(now, since, t.DeviceOffline) && !longer(now, since, t.DeviceLost)
}

func lost(t *Thresholds, d *balena.Device, now balena.Instant) (balena.Instant, bool) {
	since := d.ConnectivityChanged()
	return since, !d.Connected() && since != 0 && float64(now-since)/1000 >= t.DeviceLost // at least, as the metric counts
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

// tooOld matches versions of the supervisor that do not report the status of updates. What the API has of one is left from
// before.
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

// serviceNotRunning tells whether services of the release neither run nor have exited, as some are meant to. Services that restart
// are another problem.
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

// Updating tells whether a device is in the middle of an update.
func Updating(d *balena.Device) bool {
	return d.UpdateStatus == "downloading" || d.UpdateStatus == "downloaded" || d.UpdateStatus == "applying changes"
}

// Ratio is the part of a size that is in use; NaN where one of them is not known.
func Ratio(used, size balena.Number) float64 { return used.Float() / size.Float() }

// FleetCause is what may be wrong with a fleet as a whole.
type FleetCause struct {
	Alert, Text string
	Severity    Severity
}

// The causes of fleets that can be told from a snapshot, the worst first.
var (
	DevicesFrozen  = &FleetCause{"BalenaDevicesFrozen", "devices frozen", Critical}
	LargelyOffline = &FleetCause{"BalenaFleetLargelyOffline", "largely offline", Critical}
	PartlyOffline  = &FleetCause{"BalenaFleetPartlyOffline", "partly offline", Warning}
	BuildFailed    = &FleetCause{"BalenaReleaseBuildFailed", "last build failed", Info}
)

// FleetDevices is how many devices a fleet has, and how many of them are frozen.
type FleetDevices struct {
	All, Frozen int
	// InService are those in service. Of them, NeverConnected, Lost and Connected are as their names say.
	InService, NeverConnected, Lost, Connected int
}

// Add counts a device of a fleet that is absent or not.
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

// OfFleet returns what is wrong with a fleet of a snapshot, the worst first.
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

// DefaultThresholds returns the thresholds of the rules as they come.
func DefaultThresholds() Thresholds {
	const hour, day = 3600, 24 * 3600
	return Thresholds{
		DeviceOffline: hour, DeviceLost: 7 * day, NeverConnected: day, UpdateStuck: 2 * hour, BuildFailed: 7 * day,
		Storage: 0.9, Memory: 0.95, Temperature: 80,
		FleetPart: 3, FleetOffline: 0.2, FleetLargelyOffline: 0.5,
	}
}

// Names are the names of the thresholds, which are those of the chart's prometheusRule.thresholds.
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

// Set changes thresholds as NAME=NUMBER,… says.
func (t *Thresholds) Set(list string) error {
	for item := range strings.SplitSeq(list, ",") {
		if item = strings.TrimSpace(item); item == "" {
			continue
		}
		name, text, _ := strings.Cut(item, "=")
		i := slices.IndexFunc(byName, func(n threshold) bool { return n.name == name })
		if i < 0 {
			return fmt.Errorf("%q is no threshold; there are %s", name, strings.Join(Names(), ", "))
		}
		value, err := strconv.ParseFloat(text, 64)
		if err != nil || !(value > 0) {
			return fmt.Errorf("%s must be a number of more than 0, and is %q", name, text)
		}
		*byName[i].of(t) = value
	}
	if cmp.Less(t.DeviceLost, t.DeviceOffline) {
		return fmt.Errorf("deviceLostSeconds (%v) is less than deviceOfflineSeconds (%v), and no device would be offline before it is lost", t.DeviceLost, t.DeviceOffline)
	}
	return nil
}
