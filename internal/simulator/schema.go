// SPDX-License-Identifier: Apache-2.0

package simulator

import (
	"cmp"
	"maps"
	"math"
)

// A view contains the data on which fields depend in addition to the row.
type view struct {
	db  *database
	cfg *Config
	schema
	v6  bool // fields and values of version 6
	now Time
}

// A field is a property of a resource. Queries can select it, filter by it and sort by it.
type field struct {
	name   string
	kind   kind
	key    []byte // `"name":`
	get    func(*view, row) value
	target string // resource of a foreign key
	only   presence
}

// A presence defines which servers have a field.
type presence uint8

const (
	everywhere presence = iota
	onlyV6
	onlyV7
	onlyCloud
)

func (f *field) in(p presence) *field { f.only = p; return f }

func (f *field) to(target string) *field { f.target = target; return f }

// A navigation leads from a row to rows of another resource, by a foreign key of the row or of the other rows. A navigation
// without a foreign key leads to a resource that is not simulated, and has no rows.
type navigation struct {
	target     string
	key        *field // foreign key of the row, or nil
	reverseKey string // foreign key of the other rows
	scan       bool   // the foreign key of the other rows is computed and has no index
}

type resource struct {
	name     string
	public   publicity
	fields   []*field // the fields of a response without $select
	byName   map[string]*field
	navs     map[string]navigation
	synonyms map[string]string // other names of foreign keys
	table    func(*database) relation
}

// A publicity defines whether a resource can be read without a token. For resources of fleets this applies to public fleets.
type publicity uint8

const (
	private publicity = iota
	public
	publicOnCloud
)

// A schema contains the resources of an edition by name, including synonyms.
type schema map[string]*resource

func (s schema) add(r *resource) { s[r.name] = r }

// referencedBy returns navigations to the rows of the target whose foreign key references a row.
func referencedBy(target, key string, names ...string) map[string]navigation {
	navs := make(map[string]navigation, len(names))
	for _, name := range names {
		navs[name] = navigation{target: target, reverseKey: key}
	}
	return navs
}

func merge(all ...map[string]navigation) map[string]navigation {
	navs := make(map[string]navigation)
	for _, m := range all {
		maps.Copy(navs, m)
	}
	return navs
}

func newField(name string, k kind, get func(*view, row) value) *field {
	return &field{name: name, kind: k, key: append(appendString(nil, name), ':'), get: get}
}

// computed returns a field of rows of type R that is not stored in the row.
func computed[R any](name string, k kind, get func(*view, *R) value) *field {
	return newField(name, k, func(c *view, r row) value { return get(c, any(r).(*R)) })
}

// The following functions return fields that are stored in the row. text is never null, and word is null if it is empty.

func text[R any](name string, get func(*R) string) *field {
	return newField(name, kindString, func(_ *view, r row) value { return stringValue(get(any(r).(*R))) })
}

func word[R any](name string, get func(*R) string) *field {
	return newField(name, kindString, func(_ *view, r row) value { return wordValue(get(any(r).(*R))) })
}

func flag[R any](name string, get func(*R) bool) *field {
	return newField(name, kindBool, func(_ *view, r row) value { return boolValue(get(any(r).(*R))) })
}

func number[R any](name string, get func(*R) Number) *field {
	return newField(name, kindInt, func(_ *view, r row) value { return numberValue(get(any(r).(*R))) })
}

func date[R any](name string, get func(*R) Time) *field {
	return newField(name, kindDate, func(_ *view, r row) value { return dateValue(get(any(r).(*R))) })
}

func reference[R any](name, target string, get func(*R) int) *field {
	return newField(name, kindRef, func(_ *view, r row) value { return refValue(get(any(r).(*R))) }).to(target)
}

// null returns a field that is not simulated and always null.
func null(name string) *field {
	return newField(name, kindNull, func(*view, row) value { return value{} })
}

// constant returns a reference with the same id in all rows. Id 0 is null.
func constant(name, target string, id int) *field {
	return newField(name, kindRef, func(*view, row) value { return refValue(id) }).to(target)
}

// alwaysFalse returns a flag that is always false.
func alwaysFalse(name string) *field {
	return newField(name, kindBool, func(*view, row) value { return boolValue(false) })
}

// object returns a field whose value is JSON.
func object[R any](name string, get func(*view, *R) string) *field {
	return newField(name, kindJSON, func(c *view, r row) value { return value{kind: kindJSON, s: get(c, any(r).(*R))} })
}

func id() *field {
	return newField("id", kindInt, func(_ *view, r row) value { return intValue(int64(r.meta().ID)) })
}

func createdAt() *field {
	return newField("created_at", kindDate, func(_ *view, r row) value { return dateValue(r.meta().CreatedAt) })
}

func modifiedAt() *field {
	return newField("modified_at", kindDate, func(c *view, r row) value {
		switch {
		case c.cfg.ModifiedAtIsNull:
			return value{}
		case c.cfg.ModifiedAtIsConstant:
			return dateValue(r.meta().CreatedAt)
		}
		return dateValue(r.meta().ModifiedAt)
	})
}

// actor returns a reference derived from the id of the row. In version 6 it is a number.
func actor(first int) *field {
	return newField("actor", kindRef, func(c *view, r row) value {
		n := first + r.meta().ID
		if c.v6 {
			return intValue(int64(n))
		}
		return refValue(n)
	}).to("actor")
}

// The ids of actors are the ids of fleets and devices plus these numbers.
const (
	firstFleetActor  = 2
	firstDeviceActor = 18
)

// openSchema is the simulated part of the model of openBalena, and the fields that only balenaCloud has. The order of fields is
// that of responses of the real server without $select.
var openSchema = newSchema()

func newSchema() schema {
	resources := []*resource{
		{
			name: "organization",
			fields: []*field{
				createdAt(), modifiedAt(), id(),
				text("name", func(o *Organization) string { return o.Name }),
				text("handle", func(o *Organization) string { return o.Handle }),
				flag("is_frozen", func(o *Organization) bool { return o.IsFrozen }).in(onlyCloud),
				date("has_past_due_invoice_since__date", func(o *Organization) Time { return o.PastDueInvoiceSince }).in(onlyCloud),
				alwaysFalse("is_enforcing_saml_login").in(onlyCloud),
			},
			navs:  referencedBy("application", "organization", "application", "is_of__application"),
			table: func(db *database) relation { return &db.Organizations },
		},
		{
			name: "user",
			fields: []*field{
				createdAt(), modifiedAt(), id(), constant("actor", "actor", userID),
				text("username", func(*User) string { return userName }), null("password"), null("jwt_secret"),
				text("email", func(*User) string { return userEmail }),
			},
			navs: merge(
				referencedBy("release", "is_created_by__user", "creates__release"),
				referencedBy("device", "belongs_to__user", "owns__device"),
			),
			table: func(db *database) relation { return &db.Users },
		},
		{
			name:   "cpu_architecture",
			public: public,
			fields: []*field{
				createdAt(), modifiedAt(), id(),
				text("slug", func(a *Architecture) string { return a.Slug }),
			},
			navs:  referencedBy("device_type", "is_of__cpu_architecture", "device_type", "is_supported_by__device_type"),
			table: func(db *database) relation { return &db.Architectures },
		},
		{
			name:   "device_manufacturer",
			public: public,
			fields: []*field{
				createdAt(), modifiedAt(), id(),
				text("slug", func(m *Manufacturer) string { return m.Slug }),
				text("name", func(m *Manufacturer) string { return m.Name }),
			},
			table: func(db *database) relation { return &db.Manufacturers },
		},
		{
			name:   "device_family",
			public: public,
			fields: []*field{
				createdAt(), modifiedAt(), id(),
				text("slug", func(f *Family) string { return f.Slug }),
				text("name", func(f *Family) string { return f.Name }),
				reference("is_manufactured_by__device_manufacturer", "device_manufacturer", func(f *Family) int { return f.ManufacturerID }),
			},
			navs:  referencedBy("device_type", "belongs_to__device_family", "device_type"),
			table: func(db *database) relation { return &db.Families },
		},
		{
			name:   "device_type",
			public: public,
			fields: []*field{
				createdAt(), modifiedAt(), id(),
				text("slug", func(t *DeviceType) string { return t.Slug }),
				text("name", func(t *DeviceType) string { return t.Name }),
				reference("is_of__cpu_architecture", "cpu_architecture", func(t *DeviceType) int { return t.ArchitectureID }),
				text("logo", (*DeviceType).logo), object("contract", (*view).contract),
				reference("belongs_to__device_family", "device_family", func(t *DeviceType) int { return t.FamilyID }),
				alwaysFalse("is_private").in(onlyCloud),
			},
			synonyms: map[string]string{"supports__cpu_architecture": "is_of__cpu_architecture"},
			navs: merge(
				referencedBy("device", "is_of__device_type", "describes__device", "device"),
				referencedBy("application", "is_for__device_type", "is_default_for__application"),
				referencedBy("device_type_alias", "device_type", "device_type_alias", "device_type__is_referenced_by__alias", "is_referenced_by__alias"),
			),
			table: func(db *database) relation { return &db.DeviceTypes },
		},
		{
			// Each device type has one alias, its slug.
			name:   "device_type_alias",
			public: public,
			fields: []*field{
				createdAt(), modifiedAt(),
				reference("device_type", "device_type", func(t *DeviceType) int { return t.ID }),
				text("is_referenced_by__alias", func(t *DeviceType) string { return t.Slug }),
				id(),
			},
			table: func(db *database) relation { return &db.DeviceTypes },
		},
		{
			name:   "application",
			public: public,
			fields: []*field{
				createdAt(), modifiedAt(), id(), actor(firstFleetActor),
				flag("should_track_latest_release", func(f *Fleet) bool { return f.TracksLatest }),
				word("is_of__class", func(f *Fleet) string { return f.Class }),
				reference("organization", "organization", func(f *Fleet) int { return f.OrganizationID }),
				text("app_name", func(f *Fleet) string { return f.AppName }),
				text("slug", func(f *Fleet) string { return f.Slug }),
				reference("is_for__device_type", "device_type", func(f *Fleet) int { return f.DeviceTypeID }),
				reference("should_be_running__release", "release", func(f *Fleet) int { return f.TargetReleaseID }),
				null("depends_on__application").in(onlyV6),
				constant("application_type", "application_type", 1),
				flag("is_host", func(f *Fleet) bool { return f.IsHost }),
				flag("is_archived", func(f *Fleet) bool { return f.IsArchived }),
				word("uuid", func(f *Fleet) string { return f.UUID }),
				flag("is_public", func(f *Fleet) bool { return f.IsPublic }),
				flag("is_discoverable", func(f *Fleet) bool { return f.IsPublic }).in(onlyCloud),
				date("is_accessible_by_support_until__date", func(f *Fleet) Time { return f.SupportUntil }).in(onlyCloud),
			},
			navs: merge(
				referencedBy("device", "belongs_to__application", "owns__device"),
				referencedBy("release", "belongs_to__application", "owns__release"),
				referencedBy("application_tag", "application", "application_tag", "application__has__tag_key"),
				referencedBy("service", "application", "service", "application__has__service_name"),
			),
			table: func(db *database) relation { return &db.Fleets },
		},
		{
			name:   "release",
			public: publicOnCloud,
			fields: []*field{
				createdAt(), modifiedAt(), id(),
				reference("belongs_to__application", "application", func(r *Release) int { return r.FleetID }),
				text("commit", func(r *Release) string { return r.Commit }),
				object("composition", (*view).composition),
				text("status", func(r *Release) string { return r.Status }),
				text("source", func(r *Release) string { return cmp.Or(r.Source, "cloud") }), null("build_log"),
				flag("is_invalidated", func(r *Release) bool { return r.IsInvalidated }),
				date("start_timestamp", func(r *Release) Time { return r.CreatedAt }), date("end_timestamp", (*Release).endedAt),
				date("update_timestamp", func(r *Release) Time { return r.ModifiedAt }), null("release_version"), null("contract"),
				flag("is_passing_tests", func(r *Release) bool { return r.IsPassingTests }),
				text("release_type", (*Release).releaseType).in(onlyV6),
				date("is_finalized_at__date", func(r *Release) Time { return r.FinalizedAt }),
				word("phase", func(r *Release) string { return r.Phase }),
				flag("is_final", func(r *Release) bool { return r.IsFinal }),
				word("semver", func(r *Release) string { return r.Semver }),
				number("semver_major", func(r *Release) Number { return N(parseVersion(r.Semver).major) }),
				number("semver_minor", func(r *Release) Number { return N(parseVersion(r.Semver).minor) }),
				number("semver_patch", func(r *Release) Number { return N(parseVersion(r.Semver).patch) }),
				text("semver_prerelease", func(r *Release) string { return parseVersion(r.Semver).prerelease }),
				text("semver_build", func(r *Release) string { return parseVersion(r.Semver).build }),
				text("variant", func(r *Release) string { return r.Variant }), number("revision", (*Release).revision),
				word("raw_version", func(r *Release) string { return r.RawVersion }),
				object("version", func(_ *view, r *Release) string { return r.version() }),
				word("known_issue_list", func(r *Release) string { return r.KnownIssues }), null("note"), null("invalidation_reason"),
				constant("is_created_by__user", "user", userID).in(onlyCloud),
			},
			navs: merge(
				referencedBy("release_tag", "release", "release_tag", "release__has__tag_key"),
				referencedBy("release_image", "is_part_of__release", "release_image", "image__is_part_of__release", "contains__image"),
				referencedBy("device", "is_running__release", "is_running_on__device"),
				referencedBy("device", "is_pinned_on__release", "is_pinned_to__device"),
				referencedBy("device", "should_be_operated_by__release", "should_operate__device"),
				referencedBy("device", "should_be_managed_by__release", "should_manage__device"),
				map[string]navigation{"should_be_running_on__device": {target: "device", reverseKey: "should_be_running__release", scan: true}},
				referencedBy("application", "should_be_running__release", "should_be_running_on__application"),
				referencedBy("image_install", "is_provided_by__release", "provides__image_install", "provides__device__installs__image"),
			),
			table: func(db *database) relation { return &db.Releases },
		},
		{
			name:   "release_tag",
			public: publicOnCloud,
			fields: []*field{
				createdAt(), modifiedAt(),
				reference("release", "release", func(t *ReleaseTag) int { return t.ReleaseID }),
				text("tag_key", func(t *ReleaseTag) string { return t.Key }),
				id(),
				text("value", func(t *ReleaseTag) string { return t.Value }),
			},
			table: func(db *database) relation { return &db.ReleaseTags },
		},
		{
			// Each image belongs to the release for which it was built.
			name:   "release_image",
			public: publicOnCloud,
			fields: []*field{
				createdAt(), modifiedAt(),
				reference("image", "image", func(i *Image) int { return i.ID }),
				reference("is_part_of__release", "release", func(i *Image) int { return i.ReleaseID }),
				id(),
			},
			synonyms: map[string]string{"contains__image": "image", "release": "is_part_of__release"},
			table:    func(db *database) relation { return &db.Images },
		},
		{
			name:   "service",
			public: publicOnCloud,
			fields: []*field{
				createdAt(), modifiedAt(), id(),
				reference("application", "application", func(s *Service) int { return s.FleetID }),
				text("service_name", func(s *Service) string { return s.Name }),
			},
			navs:  referencedBy("image", "is_a_build_of__service", "is_built_by__image"),
			table: func(db *database) relation { return &db.Services },
		},
		{
			name:   "image",
			public: publicOnCloud,
			fields: []*field{
				createdAt(), modifiedAt(), id(),
				date("start_timestamp", func(i *Image) Time { return i.CreatedAt }),
				date("end_timestamp", func(i *Image) Time { return i.CreatedAt }),
				null("dockerfile"),
				reference("is_a_build_of__service", "service", func(i *Image) int { return i.ServiceID }),
				computed("image_size", kindString, (*view).imageSize),
				text("is_stored_at__image_location", func(i *Image) string { return "registry2.example.test/v2/" + hexID(i.ID) }),
				null("project_type"), null("error_message"), null("build_log"),
				date("push_timestamp", func(i *Image) Time { return i.CreatedAt }),
				text("status", func(*Image) string { return "success" }),
				null("content_hash"), null("contract"),
			},
			synonyms: map[string]string{"is_a_build_of__application__has__service_name": "is_a_build_of__service"},
			navs: merge(
				referencedBy("image_install", "installs__image", "image_install", "device__installs__image"),
				referencedBy("release_image", "image", "release_image", "image__is_part_of__release", "is_part_of__release"),
			),
			table: func(db *database) relation { return &db.Images },
		},
		{
			name: "device",
			fields: []*field{
				createdAt(), modifiedAt(), id(), actor(firstDeviceActor),
				word("api_heartbeat_state", func(d *Device) string { return d.HeartbeatState }),
				date("changed_api_heartbeat_state_on__date", func(d *Device) Time { return d.HeartbeatChangedOn }).in(onlyV7),
				word("uuid", func(d *Device) string { return d.UUID }),
				null("local_id"),
				word("device_name", func(d *Device) string { return d.Name }),
				null("note"),
				reference("is_of__device_type", "device_type", func(d *Device) int { return d.DeviceTypeID }),
				reference("belongs_to__application", "application", func(d *Device) int { return d.FleetID }),
				flag("is_online", func(d *Device) bool { return d.IsConnectedToVPN }),
				date("last_connectivity_event", func(d *Device) Time { return d.LastConnectivityEvent }),
				flag("is_connected_to_vpn", func(d *Device) bool { return d.IsConnectedToVPN }),
				date("last_vpn_event", func(d *Device) Time { return d.LastVPNEvent }),
				null("is_locked_until__date"), null("logs_channel").in(onlyV6),
				null("public_address"), null("vpn_address").in(onlyV6), word("ip_address", func(d *Device) string { return d.IPAddress }), null("mac_address"),
				flag("is_web_accessible", func(d *Device) bool { return d.IsWebAccessible }),
				number("memory_usage", func(d *Device) Number { return d.MemoryUsage }),
				number("memory_total", func(d *Device) Number { return d.MemoryTotal }),
				null("storage_block_device"),
				number("storage_usage", func(d *Device) Number { return d.StorageUsage }),
				number("storage_total", func(d *Device) Number { return d.StorageTotal }),
				number("cpu_usage", func(d *Device) Number { return d.CPUUsage }),
				number("cpu_temp", func(d *Device) Number { return d.CPUTemp }),
				flag("is_undervolted", func(d *Device) bool { return d.IsUndervolted }),
				null("cpu_id"),
				reference("is_running__release", "release", func(d *Device) int { return d.RunningReleaseID }),
				number("download_progress", func(d *Device) Number { return d.DownloadProgress }),
				word("status", func(d *Device) string { return d.Status }),
				word("os_version", func(d *Device) string { return d.OSVersion }),
				word("os_variant", func(d *Device) string { return d.OSVariant }),
				computed("overall_status", kindString, func(c *view, d *Device) value { return stringValue(c.overallStatus(d)) }),
				computed("overall_progress", kindInt, func(c *view, d *Device) value { return numberValue(c.overallProgress(d)) }),
				word("supervisor_version", func(d *Device) string { return d.SupervisorVersion }),
				number("provisioning_progress", func(d *Device) Number { return d.ProvisioningProgress }),
				word("provisioning_state", func(d *Device) string { return d.ProvisioningState }),
				null("api_port"), null("api_secret"), constant("is_managed_by__service_instance", "service_instance", 0),
				reference("is_pinned_on__release", "release", func(d *Device) int { return d.PinnedReleaseID }).in(onlyV7),
				targetRelease(),
				reference("should_be_operated_by__release", "release", func(d *Device) int { return d.OSReleaseID }),
				reference("should_be_managed_by__release", "release", func(d *Device) int { return d.SupervisorReleaseID }).in(onlyV7),
				null("is_managed_by__device").in(onlyV6),
				word("update_status", func(d *Device) string { return d.UpdateStatus }),
				date("last_update_status_event", func(d *Device) Time { return d.LastUpdateStatusEvent }),
				flag("is_active", func(d *Device) bool { return !d.IsInactive }).in(onlyCloud),
				flag("is_frozen", func(d *Device) bool { return d.IsFrozen }).in(onlyCloud),
				word("latitude", func(d *Device) string { return d.Latitude }).in(onlyCloud),
				word("longitude", func(d *Device) string { return d.Longitude }).in(onlyCloud),
				word("location", func(d *Device) string { return d.Location }).in(onlyCloud),
				text("custom_latitude", func(d *Device) string { return d.CustomLatitude }).in(onlyCloud),
				text("custom_longitude", func(d *Device) string { return d.CustomLongitude }).in(onlyCloud),
				date("is_accessible_by_support_until__date", func(d *Device) Time { return d.SupportUntil }).in(onlyCloud),
				constant("belongs_to__user", "user", 0).in(onlyCloud),
			},
			navs: merge(
				referencedBy("device_tag", "device", "device_tag", "device__has__tag_key"),
				referencedBy("image_install", "device", "image_install", "device__installs__image", "installs__image"),
			),
			table: func(db *database) relation { return &db.Devices },
		},
		{
			name: "image_install",
			fields: []*field{
				createdAt(), modifiedAt(),
				reference("installs__image", "image", func(i *Install) int { return i.ImageID }),
				reference("device", "device", func(i *Install) int { return i.DeviceID }),
				number("download_progress", func(i *Install) Number { return i.DownloadProgress }),
				text("status", func(i *Install) string { return i.Status }),
				date("install_date", func(i *Install) Time { return i.InstallDate }),
				reference("is_provided_by__release", "release", func(i *Install) int { return i.ReleaseID }),
				id(),
			},
			synonyms: map[string]string{"image": "installs__image"},
			table:    func(db *database) relation { return &db.Installs },
		},
		{
			name: "device_tag",
			fields: []*field{
				createdAt(), modifiedAt(),
				reference("device", "device", func(t *DeviceTag) int { return t.DeviceID }),
				text("tag_key", func(t *DeviceTag) string { return t.Key }),
				id(),
				text("value", func(t *DeviceTag) string { return t.Value }),
			},
			table: func(db *database) relation { return &db.DeviceTags },
		},
		{
			name:   "application_tag",
			public: publicOnCloud,
			fields: []*field{
				createdAt(), modifiedAt(),
				reference("application", "application", func(t *FleetTag) int { return t.FleetID }),
				text("tag_key", func(t *FleetTag) string { return t.Key }),
				id(),
				text("value", func(t *FleetTag) string { return t.Value }),
			},
			table: func(db *database) relation { return &db.FleetTags },
		},
		{
			name: "api_key",
			fields: []*field{
				createdAt(), modifiedAt(), id(), null("key"),
				date("expiry_date", func(k *APIKey) Time { return k.ExpiryDate }),
				constant("is_of__actor", "actor", userID),
				word("name", func(k *APIKey) string { return k.Name }),
				word("description", func(k *APIKey) string { return k.Description }),
			},
			table: func(db *database) relation { return &db.APIKeys },
		},
	}
	all := make(schema, len(resources)+len(cloudSynonyms))
	for _, r := range resources {
		all.add(r)
	}
	all.complete()
	return all
}

// complete builds the indexes of resources, fields and navigations.
func (s schema) complete() {
	for _, r := range s {
		r.byName = make(map[string]*field, len(r.fields))
		if r.navs == nil {
			r.navs = make(map[string]navigation)
		}
		for _, f := range r.fields {
			r.byName[f.name] = f
			if f.target != "" {
				r.navs[f.name] = navigation{target: f.target, key: f}
			}
		}
		for name, of := range r.synonyms {
			r.navs[name] = r.navs[of]
		}
	}
	for name, of := range cloudSynonyms {
		s[name] = s[of]
	}
}

// targetRelease returns the field of the target release: the release to which the device is pinned, or in version 7 otherwise
// the target release of the fleet.
func targetRelease() *field {
	return computed("should_be_running__release", kindRef, func(c *view, d *Device) value { return refValue(c.targetRelease(d)) }).to("release")
}

func (c *view) targetRelease(d *Device) int {
	if c.v6 {
		return d.PinnedReleaseID
	}
	return c.db.targetRelease(d)
}

func (db *database) targetRelease(d *Device) int {
	if d.PinnedReleaseID != 0 {
		return d.PinnedReleaseID
	}
	if f, ok := db.Fleets.find(d.FleetID).(*Fleet); ok {
		return f.TargetReleaseID
	}
	return 0
}

// overallStatus computes the status like the real server. The first matching case applies.
func (c *view) overallStatus(d *Device) string {
	switch {
	case d.IsInactive:
		return "inactive"
	case d.ProvisioningState == "Post-Provisioning":
		return "post-provisioning"
	case d.neverConnected():
		return "configuring"
	case !d.IsConnectedToVPN && !d.hasHeartbeat():
		if c.v6 {
			return "offline"
		}
		return "disconnected"
	case d.isDownloading():
		return "updating"
	case d.ProvisioningProgress.valid:
		return "configuring"
	case (d.hasHeartbeat() || c.v6) && c.db.downloadsImage(d): // v6 does not check the heartbeat
		return "updating"
	case c.v6:
		return "idle"
	case d.HeartbeatState == "timeout", !d.IsVPNDisabled && d.IsConnectedToVPN != d.hasHeartbeat():
		return "reduced-functionality"
	}
	return "operational"
}

func (db *database) installsOf(device int) []row {
	return db.Installs.referrers("device", func(r row) int { return r.(*Install).DeviceID }, device)
}

func (db *database) imagesOf(release int) []row {
	return db.Images.referrers("release", func(r row) int { return r.(*Image).ReleaseID }, release)
}

func (db *database) servicesOf(fleet int) []row {
	return db.Services.referrers("fleet", func(r row) int { return r.(*Service).FleetID }, fleet)
}

// overallProgress computes the progress in percent like the real server. The first matching case applies.
func (c *view) overallProgress(d *Device) Number {
	switch {
	case d.IsInactive:
		return Number{}
	case d.ProvisioningState == "Post-Provisioning", d.neverConnected():
		return d.ProvisioningProgress
	case !d.IsConnectedToVPN && !d.hasHeartbeat():
		return Number{}
	case d.isDownloading():
		return d.DownloadProgress
	case d.ProvisioningProgress.valid:
		return d.ProvisioningProgress
	case !c.db.downloadsImage(d):
		return Number{}
	}
	// The mean over images that are being downloaded or belong to the target release.
	sum, n := 0, 0
	for _, r := range c.db.installsOf(d.ID) {
		i := r.(*Install)
		if i.Status != "Downloading" && (i.Status == "deleted" || i.ReleaseID != c.db.targetRelease(d)) {
			continue
		}
		progress := 100 // the image is downloaded
		if i.DownloadProgress.valid {
			progress = int(i.DownloadProgress.n)
		}
		sum, n = sum+progress, n+1
	}
	return N(int(math.Round(float64(sum) / float64(n))))
}

// The following functions are conditions of overall_status and overall_progress.

func (d *Device) hasHeartbeat() bool {
	return d.HeartbeatState == "online" || d.HeartbeatState == "timeout"
}

func (d *Device) neverConnected() bool {
	return !d.IsConnectedToVPN && d.LastConnectivityEvent == 0 && (d.HeartbeatState == "unknown" || d.HeartbeatState == "")
}

func (d *Device) isDownloading() bool { return d.Status == "Downloading" && d.DownloadProgress.valid }

func (db *database) downloadsImage(d *Device) bool {
	for _, r := range db.installsOf(d.ID) {
		if i := r.(*Install); i.Status == "Downloading" && i.DownloadProgress.valid {
			return true
		}
	}
	return false
}
