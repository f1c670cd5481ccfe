// SPDX-License-Identifier: Apache-2.0

package balena

// These are the known values of fields of the API, for code that shows all of them. A server may have other values, so
// code must accept any text.

// Unknown replaces a status, a type or a version that is null. It is also one of the heartbeat states.
const Unknown = "unknown"

// NoUpdate replaces an update status that is null.
const NoUpdate = "none"

// StatusInactive is the status of a device that was deactivated, or has not been activated yet.
const StatusInactive = "inactive"

// DeviceStatuses are the values of overall_status in v7, from the best to the worst.
var DeviceStatuses = []string{
	"operational", "updating", "configuring", "post-provisioning", StatusInactive, "reduced-functionality", "disconnected",
}

// HeartbeatStates are the values of api_heartbeat_state, from the best to the worst.
var HeartbeatStates = []string{HeartbeatOnline, HeartbeatTimeout, "offline", HeartbeatUnknown}

// OSUpdateStates are the states of an update of the host OS.
var OSUpdateStates = []string{OSUpdatePreparing, OSUpdateRunning, OSUpdateSupervisor, OSUpdateRebooting, OSUpdateFailed, OSUpdateOther}

// UpdateStatuses are the values of update_status and [NoUpdate], from the best to the worst.
var UpdateStatuses = []string{"done", "downloading", "downloaded", "applying changes", NoUpdate, "aborted", "rejected"}
