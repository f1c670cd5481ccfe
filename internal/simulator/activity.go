// SPDX-License-Identifier: Apache-2.0

package simulator

import (
	"fmt"
	"math/rand/v2"
)

// Probabilities per tick. With these values about a quarter of the devices is offline, and a rollout takes about twenty ticks.
const (
	chanceVPNDrops     = 0.004
	chanceComesBack    = 0.012 // an offline device connects
	chanceFirstSeen    = 0.002 // a device connects for the first time
	chanceReconnects   = 0.3   // a device without VPN or with late heartbeats reconnects
	chanceHeartbeat    = 0.3   // a heartbeat is missed while the VPN is down
	chanceMeasures     = 0.2   // a device reports new hardware figures
	chanceVoltage      = 0.001 // an undervoltage begins or ends
	chanceUpdateStarts = 0.25
	chanceUpdateFails  = 0.02
	chanceUpdateRetry  = 0.05
	chanceRelease      = 0.02 // a release is pushed to a fleet
)

// activity simulates random changes of an account.
type activity struct {
	seed, ticks uint64
	cloud       bool // include changes that only balenaCloud has
}

// A step is the changes of a tick.
type step struct {
	generator
	added []*Install
}

func newStep(db *database, seed, stream uint64, now Time) *step {
	return &step{generator: generator{database: db, Rand: rand.New(rand.NewPCG(seed, stream)), now: now}}
}

func (a *activity) tick(db *database, now Time) {
	a.ticks++
	s := newStep(db, a.seed, a.ticks, now)
	if s.chance(chanceRelease) {
		s.pushRelease()
	}
	if a.cloud {
		s.changeAccount()
	}
	db.Devices.each(now, func(d *Device) {
		if d.IsInactive || d.IsFrozen {
			return
		}
		s.connectivity(d)
		if d.HeartbeatState == "online" {
			s.measure(d)
			s.update(d)
		}
	})
	for _, i := range s.added {
		db.Installs.insert(i)
	}
	a.changeConditions(db, now)
	if len(s.added) > 0 {
		// Remove old rows of deleted images, so that the account does not grow without limit.
		db.Installs.DeleteFunc(func(i *Install) bool { return i.Status == "deleted" && i.ModifiedAt < now-day })
	}
}

// change changes a number of devices. Nine out of ten online devices report new hardware figures, and one goes offline. If
// more devices must change, offline devices connect.
func (a *activity) change(db *database, devices int, now Time) {
	a.ticks++
	s := newStep(db, a.seed, a.ticks, now)
	var offline []*Device
	changed := func(d *Device) {
		d.ModifiedAt = now
		devices--
	}
	for _, i := range s.Perm(db.Devices.Len()) {
		d := db.Devices.rows[i]
		switch {
		case devices == 0:
			return
		case d.IsInactive || d.IsFrozen:
			continue
		case d.HeartbeatState != "online" || !d.CPUUsage.valid:
			offline = append(offline, d)
			continue
		case s.chance(0.1):
			d.Disconnect(now)
		default:
			s.report(d)
		}
		changed(d)
	}
	for _, d := range offline[:min(devices, len(offline))] {
		d.Connect(now)
		changed(d)
	}
}

// pushRelease adds a release to a random fleet that tracks its latest release.
func (s *step) pushRelease() {
	fleets := s.ownFleets()
	if len(fleets) == 0 {
		return
	}
	f := fleets[s.IntN(len(fleets))]
	if f.Class != "fleet" || f.IsArchived || !f.TracksLatest {
		return
	}
	f.TargetReleaseID = s.newRelease(f.ID, fmt.Sprintf("2.%d.0", s.Releases.nextID()), s.now).ID
	f.ModifiedAt = s.now
	s.Fleets.forget()
}

// connectivity connects or disconnects a device. The VPN disconnects before the heartbeat times out.
func (s *step) connectivity(d *Device) {
	switch d.HeartbeatState {
	case "online":
		switch {
		case d.IsConnectedToVPN:
			if s.chance(chanceVPNDrops) {
				d.dropVPN(s.now)
			}
		case d.IsVPNDisabled:
			if s.chance(chanceVPNDrops) {
				d.heartbeat("timeout", s.now)
			}
		case s.chance(chanceReconnects):
			d.Connect(s.now)
		case s.chance(chanceHeartbeat):
			d.heartbeat("timeout", s.now)
		}
	case "timeout":
		switch {
		case s.chance(chanceReconnects):
			d.Connect(s.now)
		case !d.IsConnectedToVPN && s.chance(chanceHeartbeat):
			d.heartbeat("offline", s.now)
		}
	case "offline":
		if s.chance(chanceComesBack) {
			d.Connect(s.now)
		}
	default:
		if s.chance(chanceFirstSeen) {
			d.Connect(s.now)
			d.ProvisioningState, d.ProvisioningProgress, d.Status = "", Number{}, "Idle"
			s.setReportedFields(d)
		}
	}
}

// measure changes the undervoltage and the hardware figures of a device at random.
func (s *step) measure(d *Device) {
	if s.chance(chanceVoltage) {
		d.IsUndervolted = !d.IsUndervolted
	}
	if d.CPUUsage.valid && s.chance(chanceMeasures) {
		s.report(d)
	}
}

// report changes the hardware figures of a device by small random steps.
func (s *step) report(d *Device) {
	walk := func(n Number, by, low, high int) Number {
		return N(max(low, min(high, int(n.n)+s.IntN(2*by+1)-by)))
	}
	d.CPUUsage = walk(d.CPUUsage, 10, 0, 100)
	d.CPUTemp = walk(d.CPUTemp, 3, 30, 95)
	d.MemoryUsage = walk(d.MemoryUsage, 50, 50, int(d.MemoryTotal.n))
	d.StorageUsage = walk(d.StorageUsage, 100, 100, int(d.StorageTotal.n))
}

// update sets the next state of the update of a device to its target release: downloading, downloaded, applying changes, done.
// The update may also be rejected or aborted, and is retried later.
func (s *step) update(d *Device) {
	target := s.targetRelease(d)
	r, ok := s.Releases.find(target).(*Release)
	if !ok {
		return
	}
	if target == d.RunningReleaseID {
		if d.UpdateStatus != "done" && d.UpdateStatus != "" {
			s.finish(d, target) // the target changed back to the running release
		}
		return
	}
	installs := s.installsFor(d, target)
	if len(installs) == 0 && d.UpdateStatus != "rejected" && d.UpdateStatus != "aborted" {
		// The update has not begun, or the target has changed.
		if s.chance(chanceUpdateStarts) {
			s.download(d, r)
		}
		return
	}
	switch d.UpdateStatus {
	case "downloading":
		if s.chance(chanceUpdateFails) {
			s.endUpdate(d, "aborted", installs)
		} else if s.progress(d, installs) {
			d.setUpdate("downloaded", s.now)
		}
	case "downloaded":
		if s.chance(chanceUpdateFails) {
			s.endUpdate(d, "rejected", installs)
		} else {
			d.setUpdate("applying changes", s.now)
		}
	case "applying changes":
		s.finish(d, target)
	default:
		if s.chance(chanceUpdateRetry) {
			s.download(d, r)
		}
	}
}

// installsFor returns the image installs of a release on a device, without deleted ones.
func (s *step) installsFor(d *Device, release int) []*Install {
	var installs []*Install
	for _, i := range s.installsOf(d.ID) {
		if i.ReleaseID == release && i.Status != "deleted" {
			installs = append(installs, i)
		}
	}
	return installs
}

// download begins an update. A device has only one install per image, even if it was deleted before. New installs are added
// at the end of the tick, so that the index of the table remains valid.
func (s *step) download(d *Device, r *Release) {
	d.setUpdate("downloading", s.now)
	known := make(map[int]*Install)
	for _, i := range s.installsOf(d.ID) {
		known[i.ImageID] = i
	}
	for _, image := range s.images(r) {
		if i := known[image.ID]; i != nil {
			i.Status, i.DownloadProgress, i.InstallDate, i.ModifiedAt = "Downloading", N(0), s.now, s.now
			i.ReleaseID = r.ID
			continue
		}
		s.added = append(s.added, &Install{
			Row: rowAt(s.now), DeviceID: d.ID, ImageID: image.ID, ReleaseID: r.ID,
			Status: "Downloading", DownloadProgress: N(0), InstallDate: s.now,
		})
	}
}

// progress continues a download and reports whether it is complete.
func (s *step) progress(d *Device, installs []*Install) bool {
	complete := true
	for _, i := range installs {
		if i.Status != "Downloading" {
			continue
		}
		if n := int(i.DownloadProgress.n) + 10 + s.IntN(40); n < 100 {
			i.DownloadProgress, complete = N(n), false
		} else {
			i.Status, i.DownloadProgress = "Downloaded", Number{}
		}
		i.ModifiedAt = s.now
	}
	if complete {
		d.Status, d.DownloadProgress = "Idle", Number{}
	}
	return complete
}

func (s *step) endUpdate(d *Device, status string, installs []*Install) {
	d.setUpdate(status, s.now)
	d.Status, d.DownloadProgress = "Idle", Number{}
	for _, i := range installs {
		s.remove(i)
	}
}

// finish sets the running release of a device and deletes the images of all other releases.
func (s *step) finish(d *Device, release int) {
	d.setUpdate("done", s.now)
	d.RunningReleaseID = release
	d.Status, d.DownloadProgress = "Idle", Number{}
	for _, i := range s.installsOf(d.ID) {
		switch {
		case i.ReleaseID != release:
			s.remove(i)
		case i.Status == "Downloaded" || i.Status == "Downloading":
			i.Status, i.DownloadProgress, i.InstallDate, i.ModifiedAt = "Running", Number{}, s.now, s.now
		}
	}
}

func (s *step) remove(i *Install) {
	if i.Status != "deleted" {
		i.Status, i.DownloadProgress, i.ModifiedAt = "deleted", Number{}, s.now
	}
}
