// SPDX-License-Identifier: Apache-2.0

package account

import "github.com/balena-exporter/balena-exporter/internal/balena"

// Words of overall_status. Some of them differ between v6 and v7.
const (
	statusOffline      = "offline"      // v6
	statusDisconnected = "disconnected" // v7
	statusIdle         = "idle"         // v6: either of the next two
	statusReduced      = "reduced-functionality"
	statusOperational  = "operational"
	statusUpdating     = "updating"
)

// inWordsOfV7 puts a device that v6 described into the words of v7.
//
// v6 calls idle what v7 calls operational or reduced-functionality; v7's rule decides which: reduced when
// the heartbeat timed out, or when VPN and heartbeat disagree. v6 calls a device updating that downloads an image;
// v7 does so only while its heartbeat is there. Two things can't be told from v6: a device whose VPN is switched off by
// configuration is operational in v7 and reduced here, and so is one without a heartbeat whose supervisor is so old
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
