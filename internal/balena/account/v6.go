// SPDX-License-Identifier: Apache-2.0

package account

import "github.com/balena-exporter/balena-exporter/internal/balena"

// Values of overall_status. Some of them differ between v6 and v7.
const (
	statusOffline      = "offline"      // v6
	statusDisconnected = "disconnected" // v7
	statusIdle         = "idle"         // v6: either of the following two
	statusReduced      = "reduced-functionality"
	statusOperational  = "operational"
	statusUpdating     = "updating"
)

// inWordsOfV7 converts the status of a device from v6 to v7.
//
// The v6 status idle is operational or reduced-functionality in v7. The rule of v7 decides: reduced if the heartbeat timed
// out, or if only one of VPN and heartbeat works. In v6 a device that downloads an image is updating; in v7 only while it
// has a heartbeat. Two cases cannot be distinguished in v6: a device whose VPN is switched off by configuration is
// operational in v7, but reduced here, and so is a device without a heartbeat whose supervisor is so old
// that it reports a download of the device instead of its images.
func inWordsOfV7(d *balena.Device) {
	heard := d.HeartbeatState == balena.HeartbeatOnline || d.HeartbeatState == balena.HeartbeatTimeout
	switch d.Status {
	case statusOffline:
		d.Status = statusDisconnected
	case statusUpdating:
		if !heard {
			d.Status = statusReduced
		}
	case statusIdle:
		if d.HeartbeatState == balena.HeartbeatTimeout || d.Online != heard {
			d.Status = statusReduced
		} else {
			d.Status = statusOperational
		}
	}
}
