package balena

// Version is a version of the balena API.
type Version string

// The versions that every server of today speaks one of. openBalena has v7 since August 2024.
const (
	V7 Version = "v7"
	V6 Version = "v6"
)

// The words that v6 and v7 have for the same thing in overall_status.
const (
	statusOffline      = "offline"      // v6
	statusDisconnected = "disconnected" // v7
	statusIdle         = "idle"         // v6: either of the next two
	statusReduced      = "reduced-functionality"
	statusOperational  = "operational"
)

// speakV7 puts a device that v6 described into the words of v7.
//
// v6 calls idle what v7 calls operational or reduced-functionality; v7's rule decides which: reduced when
// the heartbeat timed out, or when VPN and heartbeat disagree. One thing can't be told from v6: a device
// whose VPN is switched off by configuration is operational in v7 and reduced here.
func (d *Device) speakV7() {
	switch d.Status {
	case statusOffline:
		d.Status = statusDisconnected
	case statusIdle:
		if d.HeartbeatState == heartbeatTimeout || d.Online != (d.HeartbeatState == heartbeatOnline) {
			d.Status = statusReduced
		} else {
			d.Status = statusOperational
		}
	}
}
