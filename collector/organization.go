// SPDX-License-Identifier: Apache-2.0

package collector

import (
	"iter"
	"slices"

	"github.com/balena-exporter/balena-exporter/internal/balena"
)

// Metrics of the organizations that own the fleets.

func organizationTable() anyTable {
	organizations := kind[balena.Organization]{
		labels:   []string{"organization"},
		all:      func(v *view) iter.Seq[balena.Organization] { return slices.Values(v.Organizations) },
		identity: func(o *balena.Organization, values []string) []string { return append(values, o.Handle) },
	}
	return organizations.table("Organizations", "1 per organization",
		labeled("balena_organization_info", "The name of an organization that owns fleets.",
			"organization.handle, name", []string{"organization_name"},
			func(o *balena.Organization, out *samples) { out.add(1, o.Name) }).on("balenaCloud"),
		gauge("balena_organization_frozen", "Whether the organization is frozen, including all its devices.", "organization.is_frozen",
			func(o *balena.Organization) float64 { return boolean(o.Frozen) }).on("balenaCloud"),
		gauge("balena_organization_past_due_since_timestamp_seconds", "Since when the organization has had a past due invoice. Exported only while it has one.", "organization.has_past_due_invoice_since__date",
			func(o *balena.Organization) float64 { return o.PastDue.Seconds() }).on("balenaCloud"),
	)
}
