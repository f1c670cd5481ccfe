// SPDX-License-Identifier: Apache-2.0

package collector_test

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/balena-exporter/balena-exporter/internal/balena/account"
	"github.com/balena-exporter/balena-exporter/internal/simulator"
)

// This file defines the edits of an account in histories, except changes that only a full refresh can detect: disabling the VPN
// of a device by configuration, freezing or deactivating a device because of the plan, deleting the row of an install (not only
// marking it as deleted) after the device was read while it was downloading, renaming a service, and changing or deleting a
// final release.

// An editor changes an account in one transaction.
type editor struct {
	*simulator.State
	*rand.Rand
	// at is the time when the transaction began, which is modified_at of its rows. It may be committed much later.
	at simulator.Time
	// downloads are the devices that an exporter may have read while they were downloading.
	downloads map[int]bool
	// options select the fleets in reach of the exporter.
	options *account.Options
	focused bool
}

// row returns the common fields of a new row.
func (e *editor) row() simulator.Row { return simulator.Row{CreatedAt: e.at, ModifiedAt: e.at} }

// setModified sets the modification time of a row.
func (e *editor) setModified(r *simulator.Row) { r.ModifiedAt = e.at }

func (e *editor) chance(p float64) bool { return e.Float64() < p }

// anyOf returns a random row for which fit returns true, or false if there is none.
func anyOf[T any](e *editor, all []*T, fit func(*T) bool) (*T, bool) {
	var found []*T
	for _, r := range all {
		if fit == nil || fit(r) {
			found = append(found, r)
		}
	}
	if len(found) == 0 {
		return nil, false
	}
	return found[e.IntN(len(found))], true
}

func (e *editor) device() (*simulator.Device, bool) {
	if f, ok := e.first(); ok {
		if d, ok := anyOf(e, e.Devices.All(), func(d *simulator.Device) bool { return d.FleetID == f.ID }); ok {
			return d, true
		}
	}
	return anyOf(e, e.Devices.All(), nil)
}

func (e *editor) fleet() (*simulator.Fleet, bool) {
	if f, ok := e.first(); ok {
		return f, true
	}
	return anyOf(e, e.Fleets.All(), func(f *simulator.Fleet) bool { return !f.IsForeign })
}

// first returns the first fleet in reach with a probability of 50%, so that focused editors often change the same fleet.
func (e *editor) first() (*simulator.Fleet, bool) {
	if !e.focused || e.chance(0.5) {
		return nil, false
	}
	for _, f := range e.Fleets.All() {
		if e.inReach(f) {
			return f, true
		}
	}
	return nil, false
}

// release returns a random release of a fleet.
func (e *editor) release(fleet int) (*simulator.Release, bool) {
	return anyOf(e, e.Releases.All(), func(r *simulator.Release) bool { return r.FleetID == fleet })
}

func (e *editor) install(fit func(*simulator.Install) bool) (*simulator.Install, bool) {
	return anyOf(e, e.Installs.All(), fit)
}

// name returns a new, unique name. The options of the exporter may select fleets by it.
func (e *editor) name() string {
	return fmt.Sprintf("%s-%08x", []string{"alpha", "beta"}[e.IntN(2)], e.Uint32())
}

func (e *editor) word(of ...string) string { return of[e.IntN(len(of))] }

// An edit changes an account and returns a description of the change, or "" if nothing changed.
type edit struct {
	weight int
	apply  func(*editor) string
}

// onDevice returns an edit that changes a device and its modification time.
func onDevice(weight int, what string, apply func(*editor, *simulator.Device)) edit {
	return edit{weight, func(e *editor) string {
		d, ok := e.device()
		if !ok {
			return ""
		}
		apply(e, d)
		e.setModified(&d.Row)
		return fmt.Sprintf("device %d %s", d.ID, what)
	}}
}

// onInstall returns an edit that changes an install, and does not modify the device.
func onInstall(weight int, what string, fit func(*simulator.Install) bool, apply func(*editor, *simulator.Install)) edit {
	return edit{weight, func(e *editor) string {
		i, ok := e.install(fit)
		if !ok {
			return ""
		}
		apply(e, i)
		e.setModified(&i.Row)
		return fmt.Sprintf("install %d on device %d %s", i.ID, i.DeviceID, what)
	}}
}

// onFleet returns an edit that changes a fleet.
func onFleet(weight int, what string, apply func(*editor, *simulator.Fleet)) edit {
	return edit{weight, func(e *editor) string {
		f, ok := e.fleet()
		if !ok {
			return ""
		}
		apply(e, f)
		e.setModified(&f.Row)
		return fmt.Sprintf("fleet %d, %s, %s", f.ID, f.Slug, what)
	}}
}

func downloading(i *simulator.Install) bool { return i.Status == "Downloading" }
func notDeleted(i *simulator.Install) bool  { return i.Status != "deleted" }
func deleted(i *simulator.Install) bool     { return i.Status == "deleted" }

var edits = []edit{
	{6, createDevice},
	{1, createDevices},
	{1, deleteDevices},
	{5, deleteDevice},
	{2, registerAgain},
	{8, moveDevice},
	onDevice(5, "is renamed", func(e *editor, d *simulator.Device) { d.Name = e.name() }),
	onDevice(6, "connects", func(e *editor, d *simulator.Device) { d.Connect(e.at) }),
	onDevice(6, "disconnects", func(e *editor, d *simulator.Device) { d.Disconnect(e.at) }),
	onDevice(4, "misses a heartbeat", func(e *editor, d *simulator.Device) { d.HeartbeatState, d.HeartbeatChangedOn = "timeout", e.at }),
	onDevice(6, "measures", func(e *editor, d *simulator.Device) {
		d.CPUUsage, d.CPUTemp = simulator.N(e.IntN(101)), simulator.N(e.IntN(90))
		d.MemoryUsage, d.MemoryTotal, d.IsUndervolted = simulator.N(e.IntN(4000)), simulator.N(4000), e.chance(0.5)
	}),
	onDevice(3, "reports an update's progress", func(e *editor, d *simulator.Device) {
		d.UpdateStatus, d.LastUpdateStatusEvent = e.word("downloading", "downloaded", "applying changes", "aborted", "rejected"), e.at
		d.Status, d.DownloadProgress = "Downloading", simulator.N(e.IntN(100))
	}),
	onDevice(3, "runs another release", func(e *editor, d *simulator.Device) {
		d.UpdateStatus, d.LastUpdateStatusEvent, d.Status, d.DownloadProgress, d.RunningReleaseID = "done", e.at, "Idle", simulator.Number{}, 0
		if r, ok := e.release(d.FleetID); ok {
			d.RunningReleaseID = r.ID
		}
	}),
	onDevice(3, "is pinned", func(e *editor, d *simulator.Device) {
		if r, ok := e.release(d.FleetID); ok {
			d.PinnedReleaseID = r.ID
		}
	}),
	onDevice(2, "is unpinned", func(_ *editor, d *simulator.Device) { d.PinnedReleaseID = 0 }),
	onDevice(2, "is set up", func(e *editor, d *simulator.Device) {
		d.ProvisioningState, d.ProvisioningProgress = e.word("", "Provisioning", "Post-Provisioning"), simulator.N(e.IntN(100))
	}),
	onDevice(3, "updates its host OS", func(e *editor, d *simulator.Device) {
		d.UpdateOS(e.word("", simulator.OSUpdatePreparing, simulator.OSUpdateRunning, simulator.OSUpdateFailed, "Formatting"))
	}),
	onDevice(2, "is configured", func(e *editor, d *simulator.Device) {
		d.IsWebAccessible, d.OSVersion, d.OSVariant, d.SupervisorVersion = e.chance(0.5), e.name(), e.word("", "prod", "dev"), e.name()
	}),
	onDevice(2, "should have another host OS and supervisor", func(e *editor, d *simulator.Device) {
		for _, id := range []*int{&d.OSReleaseID, &d.SupervisorReleaseID} {
			if r, ok := anyOf(e, e.Releases.All(), nil); ok && e.chance(0.8) {
				*id = r.ID
			}
		}
	}),
	onDevice(1, "is of another type", func(e *editor, d *simulator.Device) {
		if t, ok := anyOf(e, e.DeviceTypes.All(), nil); ok {
			d.DeviceTypeID = t.ID
		}
	}),

	{6, startDownload},
	onInstall(6, "is downloaded further", downloading, func(e *editor, i *simulator.Install) { i.DownloadProgress = simulator.N(e.IntN(100)) }),
	onInstall(5, "is downloaded", downloading, func(_ *editor, i *simulator.Install) { i.Status, i.DownloadProgress = "Downloaded", simulator.Number{} }),
	onInstall(2, "is given up", downloading, func(_ *editor, i *simulator.Install) { i.Status, i.DownloadProgress = "deleted", simulator.Number{} }),
	onInstall(5, "changes its state", notDeleted, func(e *editor, i *simulator.Install) {
		i.Status, i.DownloadProgress = e.word("Running", "exited", "restarting", "Stopping", "Downloaded"), simulator.Number{}
	}),
	onInstall(4, "is marked as deleted", notDeleted, func(_ *editor, i *simulator.Install) { i.Status, i.DownloadProgress = "deleted", simulator.Number{} }),
	onInstall(2, "is there again", deleted, func(e *editor, i *simulator.Install) { i.Status, i.InstallDate = "Running", e.at }),
	{4, deleteInstall},

	{6, setDeviceTag},
	{3, removeDeviceTag},
	{2, replaceDeviceTag},
	{3, setFleetTag},

	onFleet(3, "has another target", func(e *editor, f *simulator.Fleet) {
		f.TargetReleaseID = 0
		if r, ok := e.release(f.ID); ok && e.chance(0.8) {
			f.TargetReleaseID = r.ID
		}
	}),
	onFleet(3, "has a new name", func(e *editor, f *simulator.Fleet) { e.RenameFleet(f.ID, e.name()) }),
	onFleet(2, "is archived, or not any more", func(_ *editor, f *simulator.Fleet) { f.IsArchived = !f.IsArchived }),
	onFleet(1, "is for another type", func(e *editor, f *simulator.Fleet) {
		if t, ok := anyOf(e, e.DeviceTypes.All(), nil); ok {
			f.DeviceTypeID = t.ID
		}
	}),
	onFleet(1, "is of another class", func(e *editor, f *simulator.Fleet) { f.Class = e.word("fleet", "fleet", "block") }),
	{1, swapNames},
	{2, createFleet},
	{1, deleteFleet},

	{3, newRelease},
	{2, finalizeRelease},
	{2, renameType},
	{1, renameOrganization},
	{2, changeInvoices},
	{2, changeSystemRelease},
	{2, changeKeys},
}

// reachEdits are edits that change the devices in reach of the exporter, or their fleets.
var reachEdits = []edit{
	{10, createDevice},
	{5, deleteDevice},
	{2, registerAgain},
	{18, moveDevice},
	{5, bringDevice},
	{3, takeDevice},
	onFleet(1, "is archived, or not any more", func(_ *editor, f *simulator.Fleet) { f.IsArchived = !f.IsArchived }),
	{1, createFleet},
	{1, deleteFleet},
	{3, startDownload},
	{3, deleteInstall},
	{3, replaceDeviceTag},
}

// apply applies a random edit of a kind, and returns its description.
func (e *editor) apply(kind []edit) string {
	sum := 0
	for _, h := range kind {
		sum += h.weight
	}
	x := e.IntN(sum)
	for _, h := range kind {
		if x -= h.weight; x < 0 {
			return h.apply(e)
		}
	}
	panic("unreachable")
}

func createDevice(e *editor) string {
	f, ok := e.fleet()
	if !ok {
		return ""
	}
	return fmt.Sprintf("device %d is created in fleet %d", e.newDevice(f, "").ID, f.ID)
}

func (e *editor) newDevice(f *simulator.Fleet, uuid string) *simulator.Device {
	d := e.AddDevice(simulator.Device{Row: e.row(), UUID: uuid, FleetID: f.ID, Name: e.name(), IsFrozen: e.chance(0.1), IsInactive: e.chance(0.1), IsVPNDisabled: e.chance(0.1)})
	if e.chance(0.5) {
		d.Connect(e.at)
	}
	if r, ok := e.release(f.ID); ok && e.chance(0.5) {
		d.RunningReleaseID = r.ID
	}
	if e.chance(0.3) {
		e.DeviceTags.Add(simulator.DeviceTag{Row: e.row(), DeviceID: d.ID, Key: "site", Value: e.name()})
	}
	return d
}

func deleteDevice(e *editor) string {
	d, ok := e.device()
	if !ok {
		return ""
	}
	e.DeleteDevice(d.ID)
	return fmt.Sprintf("device %d is deleted", d.ID)
}

// createDevices and deleteDevices change many devices at once.

func createDevices(e *editor) string {
	f, ok := e.fleet()
	if !ok {
		return ""
	}
	n := e.IntN(80)
	for range n {
		e.newDevice(f, "")
	}
	return fmt.Sprintf("%d devices are created in fleet %d", n, f.ID)
}

func deleteDevices(e *editor) string {
	gone := e.Float64() / 2
	n := 0
	for _, d := range e.Devices.All() {
		if e.chance(gone) {
			e.DeleteDevice(d.ID)
			n++
		}
	}
	return fmt.Sprintf("%d devices are deleted", n)
}

// registerAgain deletes a device and adds a new device with the same UUID.
func registerAgain(e *editor) string {
	d, ok := e.device()
	f, some := e.fleet()
	if !ok || !some {
		return ""
	}
	e.DeleteDevice(d.ID)
	return fmt.Sprintf("device %d is registered again as %d in fleet %d", d.ID, e.newDevice(f, d.UUID).ID, f.ID)
}

// moveDevice moves a device to another fleet, or out of all fleets.
func moveDevice(e *editor) string {
	d, ok := e.device()
	f, some := e.fleet()
	if !ok || !some {
		return ""
	}
	from := d.FleetID
	d.FleetID = f.ID
	if e.chance(0.05) {
		d.FleetID = 0
	}
	if e.chance(0.5) {
		d.PinnedReleaseID = 0
	}
	e.setModified(&d.Row)
	return fmt.Sprintf("device %d moves from fleet %d to fleet %d", d.ID, from, d.FleetID)
}

// inReach reports whether the options select a fleet.
func (e *editor) inReach(f *simulator.Fleet) bool {
	o := e.options
	return f.Class == "fleet" && !f.IsHost && (o.ArchivedFleets || !f.IsArchived) &&
		(o.Include == nil || o.Include.MatchString(f.Slug)) && (o.Exclude == nil || !o.Exclude.MatchString(f.Slug)) &&
		(o.Shard.Count <= 1 || f.ID%o.Shard.Count == o.Shard.Index)
}

// bringDevice moves a device into reach, and takeDevice moves a device out of reach.
func bringDevice(e *editor) string { return e.changeReach(true) }
func takeDevice(e *editor) string  { return e.changeReach(false) }

func (e *editor) changeReach(in bool) string {
	d, ok := anyOf(e, e.Devices.All(), func(d *simulator.Device) bool {
		f := e.Fleet(d.FleetID)
		return (f != nil && e.inReach(f)) != in
	})
	f, some := anyOf(e, e.Fleets.All(), func(f *simulator.Fleet) bool { return e.inReach(f) == in })
	if !ok || in && !some {
		return ""
	}
	from := d.FleetID
	d.FleetID = 0
	if some {
		d.FleetID = f.ID
	}
	e.setModified(&d.Row)
	return fmt.Sprintf("device %d moves from fleet %d to fleet %d, into reach: %t", d.ID, from, d.FleetID, in)
}

// startDownload starts an update of a device by changing only its installs.
func startDownload(e *editor) string {
	d, ok := e.device()
	if !ok {
		return ""
	}
	r, ok := e.release(d.FleetID)
	if !ok {
		return ""
	}
	known := map[int]*simulator.Install{}
	for _, i := range e.InstallsOf(d.ID) {
		known[i.ImageID] = i
	}
	for _, image := range e.images(r) {
		i := known[image]
		if i == nil {
			i = e.Installs.Add(simulator.Install{Row: e.row(), DeviceID: d.ID, ImageID: image})
		}
		i.ReleaseID, i.Status, i.DownloadProgress, i.InstallDate = r.ID, "Downloading", simulator.N(e.IntN(100)), e.at
		e.setModified(&i.Row)
	}
	return fmt.Sprintf("device %d starts to download release %d", d.ID, r.ID)
}

// images returns the ids of the images of a release. If there are none, it adds images of one or two services.
func (e *editor) images(r *simulator.Release) []int {
	var images []int
	for _, i := range e.Images.All() {
		if i.ReleaseID == r.ID {
			images = append(images, i.ID)
		}
	}
	if len(images) > 0 {
		return images
	}
	for _, name := range []string{"main", "telemetry"}[:1+e.IntN(2)] {
		s, ok := anyOf(e, e.Services.All(), func(s *simulator.Service) bool { return s.FleetID == r.FleetID && s.Name == name })
		if !ok {
			s = e.Services.Add(simulator.Service{Row: e.row(), FleetID: r.FleetID, Name: name})
		}
		images = append(images, e.Images.Add(simulator.Image{Row: e.row(), ServiceID: s.ID, ReleaseID: r.ID}).ID)
	}
	return images
}

// deleteInstall deletes the row of an install, unless an exporter may have read the device while it was downloading. The
// progress depends on all installs of the device, and an incremental refresh cannot detect a deleted row.
func deleteInstall(e *editor) string {
	i, ok := e.install(func(i *simulator.Install) bool { return !e.downloads[i.DeviceID] })
	if !ok {
		return ""
	}
	e.Installs.Delete(i.ID)
	return fmt.Sprintf("install %d on device %d (%s) is deleted for good", i.ID, i.DeviceID, i.Status)
}

// maintenances are values of the maintenance tag, with dates before and after the time of the tests.
var maintenances = []string{"2026-11-21", "2026-11-22", "2026-11-22T11:00:00Z", "2026-12-24"}

func setDeviceTag(e *editor) string {
	d, ok := e.device()
	if !ok {
		return ""
	}
	key := e.word("site", "owner", "owner-2", "user's note", "maintenance")
	t, ok := anyOf(e, e.DeviceTags.All(), func(t *simulator.DeviceTag) bool { return t.DeviceID == d.ID && t.Key == key })
	if !ok {
		t = e.DeviceTags.Add(simulator.DeviceTag{Row: e.row(), DeviceID: d.ID, Key: key})
	}
	t.Value = e.word("", "a", e.name(), maintenances[e.IntN(len(maintenances))])
	e.setModified(&t.Row)
	return fmt.Sprintf("device %d is tagged %s=%s", d.ID, key, t.Value)
}

func removeDeviceTag(e *editor) string {
	t, ok := anyOf(e, e.DeviceTags.All(), nil)
	if !ok {
		return ""
	}
	e.DeviceTags.Delete(t.ID)
	return fmt.Sprintf("device %d loses its tag %s", t.DeviceID, t.Key)
}

// replaceDeviceTag moves a tag to another device, where it replaces a tag with the same key.
func replaceDeviceTag(e *editor) string {
	t, ok := anyOf(e, e.DeviceTags.All(), nil)
	d, some := e.device()
	if !ok || !some {
		return ""
	}
	e.DeviceTags.DeleteFunc(func(o *simulator.DeviceTag) bool { return o.ID == t.ID || o.DeviceID == d.ID && o.Key == t.Key })
	e.DeviceTags.Add(simulator.DeviceTag{Row: e.row(), DeviceID: d.ID, Key: t.Key, Value: t.Value})
	return fmt.Sprintf("the tag %s of device %d is now one of device %d", t.Key, t.DeviceID, d.ID)
}

func setFleetTag(e *editor) string {
	f, ok := e.fleet()
	if !ok {
		return ""
	}
	key, value := e.word("env", "note", "user's note", "maintenance"), e.word("", "a", e.name(), maintenances[e.IntN(len(maintenances))])
	e.FleetTags.DeleteFunc(func(t *simulator.FleetTag) bool { return t.FleetID == f.ID && t.Key == key })
	if e.chance(0.7) {
		e.FleetTags.Add(simulator.FleetTag{Row: e.row(), FleetID: f.ID, Key: key, Value: value})
	}
	return fmt.Sprintf("fleet %d has another tag %s, or none", f.ID, key)
}

// swapNames swaps the names of two fleets.
func swapNames(e *editor) string {
	a, ok := e.fleet()
	if !ok {
		return ""
	}
	b, ok := anyOf(e, e.Fleets.All(), func(f *simulator.Fleet) bool { return f.ID != a.ID && f.OrganizationID == a.OrganizationID })
	if !ok {
		return ""
	}
	a.AppName, a.Slug, b.AppName, b.Slug = b.AppName, b.Slug, a.AppName, a.Slug
	e.setModified(&a.Row)
	e.setModified(&b.Row)
	return fmt.Sprintf("fleets %d and %d swap names", a.ID, b.ID)
}

func createFleet(e *editor) string {
	f := e.AddFleet(simulator.Fleet{Row: e.row(), AppName: e.name(), Class: e.word("fleet", "fleet", "fleet", "block"), IsArchived: e.chance(0.1)})
	n := e.IntN(3)
	for range n {
		e.newDevice(f, "")
	}
	return fmt.Sprintf("fleet %d, %s, is created with %d devices", f.ID, f.Slug, n)
}

// deleteFleet deletes a fleet, and the references of other devices to its releases.
func deleteFleet(e *editor) string {
	f, ok := e.fleet()
	if !ok {
		return ""
	}
	e.DeleteFleet(f.ID)
	for _, d := range e.Devices.All() {
		for _, id := range []*int{&d.RunningReleaseID, &d.PinnedReleaseID, &d.OSReleaseID, &d.SupervisorReleaseID} {
			if *id != 0 && e.Release(*id) == nil {
				*id = 0
				e.setModified(&d.Row)
			}
		}
	}
	return fmt.Sprintf("fleet %d is deleted", f.ID)
}

func newRelease(e *editor) string {
	f, ok := e.fleet()
	if !ok {
		return ""
	}
	version := fmt.Sprintf("3.%d.0", e.IntN(1000))
	r := e.NewRelease(f.ID, version)
	if e.chance(0.5) {
		r.IsFinal, r.FinalizedAt, r.RawVersion = false, 0, fmt.Sprintf("%s-%d", version, e.at)
	}
	r.Status = e.word("success", "running", "failed")
	if e.chance(0.3) {
		f.TargetReleaseID = r.ID
		e.setModified(&f.Row)
	}
	return fmt.Sprintf("release %d of fleet %d is built: %s", r.ID, f.ID, r.RawVersion)
}

func finalizeRelease(e *editor) string {
	r, ok := anyOf(e, e.Releases.All(), func(r *simulator.Release) bool { return !r.IsFinal })
	if !ok {
		return ""
	}
	r.IsFinal, r.FinalizedAt, r.RawVersion, r.Status = true, e.at, r.Semver, "success"
	e.setModified(&r.Row)
	return fmt.Sprintf("release %d is finalized", r.ID)
}

func renameType(e *editor) string {
	t, ok := anyOf(e, e.DeviceTypes.All(), nil)
	if !ok {
		return ""
	}
	t.Slug = e.name()
	e.setModified(&t.Row)
	return fmt.Sprintf("device type %d is now %s", t.ID, t.Slug)
}

func renameOrganization(e *editor) string {
	o, ok := anyOf(e, e.Organizations.All(), nil)
	if !ok {
		return ""
	}
	o.Handle = e.name()
	e.setModified(&o.Row)
	return fmt.Sprintf("organization %d is now %s", o.ID, o.Handle)
}

// changeInvoices freezes an organization without its devices, because only full refreshes detect changes of is_frozen.
func changeInvoices(e *editor) string {
	o, ok := anyOf(e, e.Organizations.All(), nil)
	if !ok {
		return ""
	}
	o.IsFrozen, o.PastDueInvoiceSince = e.chance(0.5), 0
	if e.chance(0.5) {
		o.PastDueInvoiceSince = e.at
	}
	e.setModified(&o.Row)
	return fmt.Sprintf("organization %d is frozen: %t, an invoice is overdue: %t", o.ID, o.IsFrozen, o.PastDueInvoiceSince != 0)
}

// changeSystemRelease invalidates a release of balenaOS or of the supervisor, or makes it valid again.
func changeSystemRelease(e *editor) string {
	r, ok := anyOf(e, e.Releases.All(), func(r *simulator.Release) bool {
		f := e.Fleet(r.FleetID)
		return f != nil && f.IsForeign
	})
	if !ok {
		return ""
	}
	r.IsInvalidated = !r.IsInvalidated
	e.setModified(&r.Row)
	return fmt.Sprintf("release %d of a system is invalidated: %t", r.ID, r.IsInvalidated)
}

func changeKeys(e *editor) string {
	k, ok := anyOf(e, e.APIKeys.All(), nil)
	switch {
	case ok && e.chance(0.3):
		e.APIKeys.Delete(k.ID)
		return fmt.Sprintf("API key %d is deleted", k.ID)
	case ok && e.chance(0.5):
		k.ExpiryDate = e.at.Add(time.Hour)
		e.setModified(&k.Row)
		return fmt.Sprintf("API key %d will expire", k.ID)
	}
	k = e.APIKeys.Add(simulator.APIKey{Row: e.row(), Name: e.name(), ExpiryDate: e.at.Add(time.Hour)})
	return fmt.Sprintf("API key %d is made", k.ID)
}
