// SPDX-License-Identifier: Apache-2.0

package simulator

import (
	"math"
	"reflect"
	"slices"
	"strings"
)

// A view contains the data on which fields depend in addition to the row.
type view struct {
	db  *database
	cfg *Config
	schema
	v6 bool // fields and values of version 6
}

// A field is a property of a resource. Queries can select it, filter by it and sort by it.
type field struct {
	name    string
	kind    kind
	key     []byte // `"name":`
	get     func(*view, row) value
	only    server   // that has the field; empty for all
	target  string   // resource of a foreign key
	reverse []string // navigations from the target
	scan    bool     // a foreign key that changes without its row, and therefore has no index
}

// newField returns a field. The name of a foreign key ends with the resource to which it refers.
func newField(name string, k kind, get func(*view, row) value) *field {
	f := &field{name: name, kind: k, key: append(appendString(nil, name), ':'), get: get}
	if k == kindRef {
		f.target = name[strings.LastIndex("__"+name, "__"):]
	}
	return f
}

// A server is a kind of server, as the tag only of a row's field names it.
type server string

const (
	onlyV6     server = "v6"
	onlyV7     server = "v7"
	onlyCloud  server = "cloud"
	allServers server = "all"
)

func (f *field) on(only server) *field { f.only = only; return f }

func (f *field) from(reverse ...string) *field { f.reverse = reverse; return f }

// A navigation leads from a row to rows of another resource, by a foreign key of the row or of the other rows. A navigation
// without a foreign key leads to a resource that is not simulated, and has no rows.
type navigation struct {
	target string
	key    *field // foreign key of the row, or
	back   *field // foreign key of the other rows
}

type resource struct {
	name     string
	public   server   // where no token is needed: allServers or onlyCloud; for resources of fleets this applies to public fleets
	fields   []*field // the fields of a response without $select
	nulls    string   // names of fields that are not simulated and always null
	byName   map[string]*field
	navs     map[string]navigation
	synonyms map[string]string // other names of foreign keys
	table    func(*database) relation
}

// A schema contains the resources of an edition by name, including synonyms.
type schema map[string]*resource

// stored returns the fields that the tags of a row type declare, followed by others.
func stored[R any](others ...*field) []*field {
	var fields []*field
	for _, f := range reflect.VisibleFields(reflect.TypeFor[R]()) {
		name := f.Tag.Get("json")
		if len(f.Index) > 1 || name == "" {
			continue // Row, or not in the API
		}
		i, kind := f.Index[0], kindOf(f.Type)
		empty, notNull := f.Tag.Lookup("empty")
		get := func(_ *view, r row) value {
			v := valueOf(kind, reflect.ValueOf(r).Elem().Field(i))
			switch {
			case v.kind != kindString || v.s != "":
				return v
			case notNull:
				return stringValue(empty)
			}
			return value{}
		}
		fields = append(fields, newField(name, kind, get).on(server(f.Tag.Get("only"))).from(strings.Fields(f.Tag.Get("reverse"))...))
	}
	return append(fields, others...)
}

// computed returns a field of rows of type R whose value is not stored. A text is not null.
func computed[R, V any](name string, get func(*view, *R) V) *field {
	kind := kindOf(reflect.TypeFor[V]())
	return newField(name, kind, func(c *view, r row) value {
		v := get(c, any(r).(*R))
		return valueOf(kind, reflect.ValueOf(&v).Elem())
	})
}

// constant returns a field with the same value in all rows.
func constant[V any](name string, v V) *field {
	kind := kindOf(reflect.TypeFor[V]())
	constant := valueOf(kind, reflect.ValueOf(v))
	return newField(name, kind, func(*view, row) value { return constant })
}

func null(name string) *field {
	return newField(name, kindNull, func(*view, row) value { return value{} })
}

// rowFields are the fields of all resources.
var rowFields = []*field{
	newField("created_at", kindDate, func(_ *view, r row) value { return dateValue(r.meta().CreatedAt) }),
	newField("modified_at", kindDate, func(c *view, r row) value {
		switch {
		case c.cfg.ModifiedAtIsNull:
			return value{}
		case c.cfg.ModifiedAtIsConstant:
			return dateValue(r.meta().CreatedAt)
		}
		return dateValue(r.meta().ModifiedAt)
	}),
	newField("id", kindInt, func(_ *view, r row) value { return intValue(int64(r.meta().ID)) }),
}

// actor returns a reference derived from the id of the row. In version 6 it is a number.
func actor(first int) *field {
	return newField("actor", kindRef, func(c *view, r row) value {
		n := first + r.meta().ID
		if c.v6 {
			return intValue(int64(n))
		}
		return refValue(n)
	})
}

// The ids of actors are the ids of fleets and devices plus these numbers.
const (
	firstFleetActor  = 2
	firstDeviceActor = 18
)

// openSchema is the simulated part of the model of openBalena, and the fields that only balenaCloud has. Without $select, the
// fields are in this order, and not in that of the real server: in JSON the order of keys has no meaning.
var openSchema = newSchema()

func newSchema() schema {
	return newSchemaOf([]*resource{
		{
			name:   "organization",
			fields: stored[Organization](constant("is_enforcing_saml_login", false).on(onlyCloud)),
			table:  func(db *database) relation { return &db.Organizations },
		},
		{
			name:   "user",
			fields: []*field{constant("actor", userID), constant("username", userName), constant("email", userEmail)},
			nulls:  "password jwt_secret",
			table:  func(db *database) relation { return &db.Users },
		},
		{
			name:   "cpu_architecture",
			public: allServers,
			fields: stored[Architecture](),
			table:  func(db *database) relation { return &db.Architectures },
		},
		{
			name:   "device_manufacturer",
			public: allServers,
			fields: stored[Manufacturer](),
			table:  func(db *database) relation { return &db.Manufacturers },
		},
		{
			name:   "device_family",
			public: allServers,
			fields: stored[Family](),
			table:  func(db *database) relation { return &db.Families },
		},
		{
			name:   "device_type",
			public: allServers,
			fields: stored[DeviceType](
				computed("logo", (*view).logo),
				computed("contract", (*view).contract),
				constant("is_private", false).on(onlyCloud),
			),
			synonyms: map[string]string{"supports__cpu_architecture": "is_of__cpu_architecture"},
			table:    func(db *database) relation { return &db.DeviceTypes },
		},
		{
			// Each device type has one alias, its slug.
			name:   "device_type_alias",
			public: allServers,
			fields: []*field{
				computed("device_type", func(_ *view, t *DeviceType) int { return t.ID }).
					from("device_type_alias", "device_type__is_referenced_by__alias", "is_referenced_by__alias"),
				computed("is_referenced_by__alias", func(_ *view, t *DeviceType) string { return t.Slug }),
			},
			table: func(db *database) relation { return &db.DeviceTypes },
		},
		{
			name:   "application",
			public: allServers,
			fields: stored[Fleet](
				actor(firstFleetActor),
				constant("application_type", 1),
				computed("is_discoverable", func(_ *view, f *Fleet) bool { return f.IsPublic }).on(onlyCloud),
				null("depends_on__application").on(onlyV6),
			),
			table: func(db *database) relation { return &db.Fleets },
		},
		{
			name:   "release",
			public: onlyCloud,
			fields: stored[Release](
				computed("composition", (*view).composition),
				computed("version", (*view).version),
				computed("start_timestamp", func(_ *view, r *Release) Time { return r.CreatedAt }),
				computed("end_timestamp", (*view).endedAt),
				computed("update_timestamp", func(_ *view, r *Release) Time { return r.ModifiedAt }),
				computed("release_type", (*view).releaseType).on(onlyV6),
				computed("semver_major", func(_ *view, r *Release) Number { return N(parseVersion(r.Semver).major) }),
				computed("semver_minor", func(_ *view, r *Release) Number { return N(parseVersion(r.Semver).minor) }),
				computed("semver_patch", func(_ *view, r *Release) Number { return N(parseVersion(r.Semver).patch) }),
				computed("semver_prerelease", func(_ *view, r *Release) string { return parseVersion(r.Semver).prerelease }),
				computed("semver_build", func(_ *view, r *Release) string { return parseVersion(r.Semver).build }),
				computed("revision", (*view).revision),
				constant("is_created_by__user", userID).on(onlyCloud).from("creates__release"),
			),
			nulls: "build_log release_version contract note invalidation_reason",
			table: func(db *database) relation { return &db.Releases },
		},
		{
			name:   "release_tag",
			public: onlyCloud,
			fields: stored[ReleaseTag](),
			table:  func(db *database) relation { return &db.ReleaseTags },
		},
		{
			// Each image belongs to the release for which it was built.
			name:   "release_image",
			public: onlyCloud,
			fields: []*field{
				computed("image", func(_ *view, i *Image) int { return i.ID }).
					from("release_image", "image__is_part_of__release", "is_part_of__release"),
				computed("is_part_of__release", func(_ *view, i *Image) int { return i.ReleaseID }).
					from("release_image", "image__is_part_of__release", "contains__image"),
			},
			synonyms: map[string]string{"contains__image": "image", "release": "is_part_of__release"},
			table:    func(db *database) relation { return &db.Images },
		},
		{
			name:   "service",
			public: onlyCloud,
			fields: stored[Service](),
			table:  func(db *database) relation { return &db.Services },
		},
		{
			name:   "image",
			public: onlyCloud,
			fields: stored[Image](
				computed("start_timestamp", func(_ *view, i *Image) Time { return i.CreatedAt }),
				computed("end_timestamp", func(_ *view, i *Image) Time { return i.CreatedAt }),
				computed("push_timestamp", func(_ *view, i *Image) Time { return i.CreatedAt }),
				newField("image_size", kindString, (*view).imageSize),
				computed("is_stored_at__image_location", func(_ *view, i *Image) string { return "registry2.example.test/v2/" + hexID(i.ID) }),
				constant("status", "success"),
			),
			nulls:    "dockerfile project_type error_message build_log content_hash contract",
			synonyms: map[string]string{"is_a_build_of__application__has__service_name": "is_a_build_of__service"},
			table:    func(db *database) relation { return &db.Images },
		},
		{
			name: "device",
			fields: stored[Device](
				actor(firstDeviceActor),
				computed("is_online", func(_ *view, d *Device) bool { return d.IsConnectedToVPN }),
				computed("overall_status", (*view).overallStatus),
				computed("overall_progress", (*view).overallProgress),
				targetRelease(),
				constant("is_managed_by__service_instance", 0),
				computed("is_active", func(_ *view, d *Device) bool { return !d.IsInactive }).on(onlyCloud),
				constant("belongs_to__user", 0).on(onlyCloud).from("owns__device"),
				null("logs_channel").on(onlyV6), null("vpn_address").on(onlyV6), null("is_managed_by__device").on(onlyV6),
			),
			nulls: "local_id note is_locked_until__date public_address mac_address storage_block_device cpu_id api_port api_secret",
			table: func(db *database) relation { return &db.Devices },
		},
		{
			name:     "image_install",
			fields:   stored[Install](),
			synonyms: map[string]string{"image": "installs__image"},
			table:    func(db *database) relation { return &db.Installs },
		},
		{
			name:   "device_tag",
			fields: stored[DeviceTag](),
			table:  func(db *database) relation { return &db.DeviceTags },
		},
		{
			name:   "application_tag",
			public: onlyCloud,
			fields: stored[FleetTag](),
			table:  func(db *database) relation { return &db.FleetTags },
		},
		{
			name:   "api_key",
			fields: stored[APIKey](constant("is_of__actor", userID)),
			nulls:  "key",
			table:  func(db *database) relation { return &db.APIKeys },
		},
	})
}

// newSchemaOf builds the indexes of resources, fields and navigations.
func newSchemaOf(resources []*resource) schema {
	s := make(schema, len(resources)+len(cloudSynonyms))
	for _, r := range resources {
		r.fields = slices.Concat(rowFields, r.fields)
		for name := range strings.FieldsSeq(r.nulls) {
			r.fields = append(r.fields, null(name))
		}
		r.byName, r.navs, s[r.name] = make(map[string]*field), make(map[string]navigation), r
	}
	for _, r := range resources {
		for _, f := range r.fields {
			if !slices.Contains([]server{"", onlyV6, onlyV7, onlyCloud}, f.only) {
				panic("the field " + f.name + " is only on " + string(f.only))
			}
			r.byName[f.name] = f
			if f.target != "" {
				r.navs[f.name] = navigation{target: f.target, key: f}
			}
			for _, name := range f.reverse {
				s[f.target].navs[name] = navigation{target: r.name, back: f}
			}
		}
		for name, of := range r.synonyms {
			r.navs[name] = r.navs[of]
		}
	}
	for name, of := range cloudSynonyms {
		s[name] = s[of]
	}
	return s
}

// targetRelease returns the field of the target release: the release to which the device is pinned, or in version 7 otherwise
// the target release of the fleet.
func targetRelease() *field {
	f := computed("should_be_running__release", (*view).targetRelease).from("should_be_running_on__device")
	f.scan = true
	return f
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

// overall computes overall_status, and overall_progress in percent, like the real server. The first matching case applies.
func (c *view) overall(d *Device) (status string, progress Number) {
	switch {
	case d.IsInactive:
		return "inactive", Number{}
	case d.ProvisioningState == "Post-Provisioning":
		return "post-provisioning", d.ProvisioningProgress
	case d.neverConnected():
		return "configuring", d.ProvisioningProgress
	case !d.IsConnectedToVPN && !d.hasHeartbeat():
		if c.v6 {
			return "offline", Number{}
		}
		return "disconnected", Number{}
	case d.Status == "Downloading" && d.DownloadProgress.valid:
		return "updating", d.DownloadProgress
	case d.ProvisioningProgress.valid:
		return "configuring", d.ProvisioningProgress
	}
	progress = c.db.imageProgress(d)
	switch {
	case (d.hasHeartbeat() || c.v6) && progress.valid: // v6 does not check the heartbeat
		status = "updating"
	case c.v6:
		status = "idle"
	case d.HeartbeatState == "timeout", !d.IsVPNDisabled && d.IsConnectedToVPN != d.hasHeartbeat():
		status = "reduced-functionality"
	default:
		status = "operational"
	}
	return status, progress
}

func (c *view) overallStatus(d *Device) string {
	status, _ := c.overall(d)
	return status
}

func (c *view) overallProgress(d *Device) Number {
	_, progress := c.overall(d)
	return progress
}

// imageProgress returns the mean over images that are being downloaded or belong to the target release. It is null if no image
// is being downloaded.
func (db *database) imageProgress(d *Device) Number {
	target, downloading, sum, n := db.targetRelease(d), false, 0, 0
	for _, i := range db.installsOf(d.ID) {
		switch {
		case i.Status == "Downloading":
			downloading = downloading || i.DownloadProgress.valid
		case i.Status == "deleted" || i.ReleaseID != target:
			continue
		}
		progress := 100 // the image is downloaded
		if i.DownloadProgress.valid {
			progress = int(i.DownloadProgress.n)
		}
		sum, n = sum+progress, n+1
	}
	if !downloading {
		return Number{}
	}
	return N(int(math.Round(float64(sum) / float64(n))))
}

func (db *database) installsOf(device int) []*Install {
	return db.Installs.by("device", func(r row) int { return r.(*Install).DeviceID }, device)
}

func (db *database) imagesOf(release int) []*Image {
	return db.Images.by("release", func(r row) int { return r.(*Image).ReleaseID }, release)
}

func (db *database) servicesOf(fleet int) []*Service {
	return db.Services.by("fleet", func(r row) int { return r.(*Service).FleetID }, fleet)
}

func (d *Device) hasHeartbeat() bool {
	return d.HeartbeatState == "online" || d.HeartbeatState == "timeout"
}

func (d *Device) neverConnected() bool {
	return !d.IsConnectedToVPN && d.LastConnectivityEvent == 0 && (d.HeartbeatState == "unknown" || d.HeartbeatState == "")
}
