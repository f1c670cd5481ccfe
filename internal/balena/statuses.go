// SPDX-License-Identifier: Apache-2.0

package balena

// The values that fields of the API are known to have, for what shows all of them. A server may have others: whoever
// uses these lists must expect any text.

// Unknown stands for a status, a type or a version that the API does not tell. It is also a heartbeat state of its own.
const Unknown = "unknown"

// NoUpdate stands for an update status of null.
const NoUpdate = "none"

// StatusInactive is the status of a device that was deactivated, or has not been activated yet.
const StatusInactive = "inactive"

// DeviceStatuses are the values of overall_status in the words of v7, from the best to the worst.
var DeviceStatuses = []string{
	"operational", "updating", "configuring", "post-provisioning", StatusInactive, "reduced-functionality", "disconnected",
}

// HeartbeatStates are the values of api_heartbeat_state, from the best to the worst.
var HeartbeatStates = []string{HeartbeatOnline, HeartbeatTimeout, "offline", HeartbeatUnknown}

// OSUpdateStates are the states of an update of the host OS.
var OSUpdateStates = []string{OSUpdatePreparing, OSUpdateRunning, OSUpdateSupervisor, OSUpdateRebooting, OSUpdateFailed, OSUpdateOther}

// UpdateStatuses are the values of update_status and [NoUpdate], from the best to the worst.
var UpdateStatuses = []string{"done", "downloading", "downloaded", "applying changes", NoUpdate, "aborted", "rejected"}
