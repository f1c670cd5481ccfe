// SPDX-License-Identifier: Apache-2.0

package balena

import (
	"cmp"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// What can be concluded from the fields of a device.

// Forever is the end of a time that has none.
const Forever Instant = math.MaxInt64

// OutOfService tells whether nothing is expected of the device until somebody decides otherwise: it was deactivated,
// has not been activated yet, or is frozen.
func (d *Device) OutOfService() bool {
	return d.Deactivated || d.Frozen || d.Status == StatusInactive
}

// MaintenanceUntil is the end of a maintenance as the value of a tag tells it: a time as in RFC 3339, or a date, which is
// over at midnight UTC. Any other value has no end.
func MaintenanceUntil(value string) Instant {
	value = strings.TrimSpace(value)
	if at, err := time.Parse(time.RFC3339, value); err == nil {
		return Instant(max(at.UnixMilli(), 1))
	}
	if day, err := time.Parse(time.DateOnly, value); err == nil {
		return Instant(max(day.AddDate(0, 0, 1).UnixMilli(), 1))
	}
	return Forever
}

// UpdateState is the status of the device's last update. A supervisor that is too old to report it, or of unknown
// version, leaves it [Unknown]: that nothing is reported is no sign that there was no update.
func (d *Device) UpdateState() string {
	switch {
	case d.UpdateStatus != "":
		return d.UpdateStatus
	case reportsUpdates(d.SupervisorVersion):
		return NoUpdate
	}
	return Unknown
}

// reportsUpdates tells whether a version of the supervisor reports update_status: 16.7.0 and later ones do.
func reportsUpdates(supervisor string) bool {
	const major, minor = 16, 7
	first, rest, _ := strings.Cut(strings.TrimPrefix(supervisor, "v"), ".")
	second, _, _ := strings.Cut(rest, ".")
	x, err := strconv.Atoi(first)
	if err != nil || x != major {
		return err == nil && x > major
	}
	y, err := strconv.Atoi(second)
	return err == nil && y >= minor
}

// The states of an update of the host OS.
const (
	OSUpdatePreparing  = "preparing"
	OSUpdateRunning    = "running"
	OSUpdateSupervisor = "supervisor"
	OSUpdateRebooting  = "rebooting"
	OSUpdateFailed     = "failed"
	OSUpdateOther      = "other"
)

// osUpdateStates are the states by what the host OS update writes into provisioning_state.
var osUpdateStates = map[string]string{
	"":                             "",
	"Provisioning":                 "", // of a new device, like the next
	"Post-Provisioning":            "",
	"Preparing OS update":          OSUpdatePreparing,
	"Running OS update":            OSUpdateRunning,
	"Running supervisor update":    OSUpdateSupervisor,
	"Update successful, rebooting": OSUpdateRebooting,
	"OS update failed":             OSUpdateFailed,
}

// OSUpdateState is the state of the update of the host OS; empty without one. A text that is not known is
// [OSUpdateOther]. The supervisor clears the text when it starts.
func (d *Device) OSUpdateState() string {
	state, known := osUpdateStates[d.ProvisioningState]
	if !known {
		return OSUpdateOther
	}
	return state
}

// Healthy tells whether the device does what it should: it is connected, runs its target release, and all services of
// that run.
func (d *Device) Healthy() bool {
	services, running, _ := d.Installs.Of(d.TargetRelease)
	return d.Connected() && d.OnTarget() && services > 0 && running == services
}

// Installs is how many services of each release are on a device, how many of them run, and how many have exited. It is a text, which many
// devices have in common: a device costs no more than a reference to it.
type Installs string // empty where they are not known

// noInstalls are those of a device without services.
const noInstalls Installs = "-"

// ServiceRunning is the status of a service that runs. In the others it has ended, as some are meant to.
const (
	ServiceRunning = "Running"
	serviceExited  = "exited"
	serviceDead    = "Dead"
)

// NewInstalls makes Installs of services, of which it uses the release and the status.
func NewInstalls(all []Service) Installs {
	type count struct {
		release                   int64
		services, running, exited int
	}
	var counts []count
	for i := range all {
		of := all[i].Release
		at, found := slices.BinarySearchFunc(counts, of, func(c count, release int64) int { return cmp.Compare(c.release, release) })
		if !found {
			counts = slices.Insert(counts, at, count{release: of})
		}
		c := &counts[at]
		c.services++
		switch all[i].Status {
		case ServiceRunning:
			c.running++
		case serviceExited, serviceDead:
			c.exited++
		}
	}
	var b strings.Builder
	for _, c := range counts {
		for _, n := range [...]int64{c.release, int64(c.services), int64(c.running), int64(c.exited)} {
			if b.Len() > 0 {
				b.WriteByte(' ')
			}
			b.WriteString(strconv.FormatInt(n, 10))
		}
	}
	return cmp.Or(Installs(b.String()), noInstalls)
}

// Known tells whether it is known what is on the device.
func (i Installs) Known() bool { return i != "" }

// Of returns how many services of a release are on the device, how many of them run, and how many have exited or are dead.
func (i Installs) Of(release int64) (services, running, exited int) {
	if i == noInstalls {
		return 0, 0, 0
	}
	rest, next := string(i), ""
	number := func() int64 {
		next, rest, _ = strings.Cut(rest, " ")
		n, _ := strconv.ParseInt(next, 10, 64) // NewInstalls wrote it
		return n
	}
	for rest != "" {
		of, s, r, e := number(), number(), number(), number()
		if of == release && release != 0 {
			return int(s), int(r), int(e)
		}
	}
	return 0, 0, 0
}
