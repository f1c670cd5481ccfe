package balena

import (
	"cmp"
	"context"
	"maps"
	"slices"
)

// The optional parts of a refresh, each of which may fail without the rest.

// readDeviceTypes reads the slugs of device types, and puts them to the devices. Those of the fleets and those
// that were read before are known already; a device may be of another.
func (f *fetch) readDeviceTypes(ctx context.Context) {
	slugs := part(f, PartDeviceTypes, &f.deviceTypes, f.config.SlowInterval, func() (map[int64]string, error) {
		fields := wanted(deviceTypeFields, &f.config.Options, f.can)
		slugs := map[int64]string{}
		r := request{resource: "device_type", options: fields.options() + "&$orderby=id asc"}
		return slugs, f.get(ctx, r, func(d *decoder) error {
			return decodeAll(d, fields, deviceTypeRow{}, func(row *deviceTypeRow) error {
				slugs[row.id] = row.slug
				return nil
			})
		})
	})
	maps.Copy(f.typeSlugs, slugs)
	if f.snapshot.Reading.Kind == Changes && maps.Equal(f.typeSlugs, f.baseline.typeSlugs) {
		return
	}
	var put []*Device
	for d := range f.snapshot.Devices.All() {
		if slug := f.typeSlugs[d.TypeID]; slug != d.Type {
			typed := new(*d)
			typed.Type = slug
			put = append(put, typed)
		}
	}
	f.snapshot.Devices = f.snapshot.Devices.with(put, nil)
}

// readReleases reads the releases which devices refer to, by ID and only those that are not known yet, and
// the newest release of each fleet.
func (f *fetch) readReleases(ctx context.Context) {
	known := part(f, PartReleases, &f.releases, 0, func() (map[int64]knownRelease, error) {
		return f.askForReleases(ctx)
	})
	for id, r := range known {
		if !r.missing {
			f.snapshot.Releases[id] = r.Release
		}
	}
	if !f.config.Releases {
		return
	}
	latest := part(f, PartLatestReleases, &f.latest, f.config.SlowInterval, func() (map[int64]Release, error) {
		return f.askForLatestReleases(ctx)
	})
	for i := range f.snapshot.Fleets {
		fleet := &f.snapshot.Fleets[i]
		fleet.LatestRelease = latest[fleet.ID]
	}
}

// askForReleases returns every release that is referred to and that the fleets did not bring along. Those
// already known are asked for again with the slow interval if they may have changed: a draft is given another
// version when it is finalized, and one that was missing may have come within the token's reach. Those that are
// final are asked for again in full sweeps only.
func (f *fetch) askForReleases(ctx context.Context) (map[int64]knownRelease, error) {
	now := f.snapshot.Time
	found := map[int64]knownRelease{}
	var unknown []int64
	for _, run := range f.snapshot.Devices.Runs() {
		for _, id := range run.releases {
			if _, ok := found[id]; ok {
				continue
			}
			if _, ok := f.snapshot.Releases[id]; ok { // it came with its fleet
				continue
			}
			r, ok := f.releases.value[id]
			// What is final hardly ever changes, and yet can be given another version, or be deleted.
			believed := r.Final && f.snapshot.Reading.Kind == Changes
			if !ok || !believed && now.Sub(r.asked) >= f.config.SlowInterval {
				r = knownRelease{missing: true, asked: now}
				unknown = append(unknown, id)
			}
			found[id] = r
		}
	}
	slices.Sort(unknown)

	fields := wanted(releaseFields, &f.config.Options, f.can)
	for ids := range slices.Chunk(unknown, releasesPerRequest) {
		r := request{resource: "release", options: fields.options() + "&$filter=id in (" + list(ids) + ")&$orderby=id asc"}
		err := f.get(ctx, r, func(d *decoder) error {
			return decodeAll(d, fields, Release{}, func(row *Release) error {
				found[row.ID] = knownRelease{Release: *row, asked: now}
				return nil
			})
		})
		if err != nil {
			return nil, err
		}
	}
	return found, nil
}

// askForLatestReleases returns the newest release of every fleet, by the fleet's ID.
func (f *fetch) askForLatestReleases(ctx context.Context) (map[int64]Release, error) {
	fields := wanted(latestReleaseFields, &f.config.Options, f.can)
	latest := map[int64]Release{}
	r := request{
		resource: "application", note: "newest releases",
		options: fields.options() + "&$filter=" + accessible + " and is_of__class eq 'fleet' and is_host eq false&$orderby=id asc",
	}
	return latest, f.get(ctx, r, func(d *decoder) error {
		return decodeAll(d, fields, latestRow{}, func(row *latestRow) error {
			latest[row.id] = row.latest
			return nil
		})
	})
}

// readServices reads what is installed on the devices.
func (f *fetch) readServices(ctx context.Context) {
	if !f.config.Services {
		return
	}
	attach(ctx, f, PartServices, &f.services, attachment[serviceRow]{
		// An image that is removed stays as a row of this status.
		resource: "image_install", filter: f.ofDevices("status ne 'deleted'"), changed: f.ofDevices(""),
		fields: wanted(serviceFields, &f.config.Options, f.can),
		blank:  serviceRow{Service: Service{Progress: null}},
		row:    func(r *serviceRow) (id, device int64) { return r.ID, r.device },
		gone:   func(r *serviceRow) bool { return r.Status == "deleted" },
		own:    func(b *Belongings) { b.Services = slices.Clone(b.Services) },
		clear:  func(b *Belongings) { b.Services = nil },
		put: func(b *Belongings, r *serviceRow) {
			b.Services = slices.DeleteFunc(b.Services, func(s Service) bool { return s.ID == r.ID })
			if r.Status == "deleted" {
				return
			}
			i, _ := slices.BinarySearchFunc(b.Services, r.Service, Service.compare)
			b.Services = slices.Insert(b.Services, i, r.Service)
		},
		count: func(d *Device) int { return len(d.Services()) },
	})
}

// compare is the order of a device's services.
func (s Service) compare(o Service) int {
	return cmp.Or(cmp.Compare(s.Name, o.Name), cmp.Compare(s.Status, o.Status), cmp.Compare(s.ID, o.ID))
}

// readTags reads the tags that were asked for.
func (f *fetch) readTags(ctx context.Context) {
	if keys := f.config.FleetTags; len(keys) > 0 {
		tags := part(f, PartFleetTags, &f.fleetTags, 0, func() (map[int64][]string, error) {
			return f.askForFleetTags(ctx, keys)
		})
		for i := range f.snapshot.Fleets {
			f.snapshot.Fleets[i].Tags = tags[f.snapshot.Fleets[i].ID]
		}
	}
	if keys := f.config.DeviceTags; len(keys) > 0 {
		filter := f.ofDevices(inList("tag_key", keys))
		attach(ctx, f, PartDeviceTags, &f.deviceTags, attachment[tagRow]{
			resource: "device_tag", filter: filter, changed: filter,
			fields: wanted(tagFields("device"), &f.config.Options, f.can),
			row:    func(r *tagRow) (id, device int64) { return r.ID, r.owner },
			own:    func(b *Belongings) { b.Tags = slices.Clone(b.Tags) },
			clear:  func(b *Belongings) { b.Tags = nil },
			put: func(b *Belongings, r *tagRow) {
				if i := slices.Index(keys, r.key); i >= 0 {
					if b.Tags == nil {
						b.Tags = make([]Tag, len(keys))
					}
					b.Tags[i] = r.Tag
				}
			},
			count: func(d *Device) (n int) {
				for _, t := range d.Tags() {
					if t.ID != 0 {
						n++
					}
				}
				return n
			},
		})
	}
}

// askForFleetTags returns the values of the tags of keys, in their order, by the ID of the fleet.
func (f *fetch) askForFleetTags(ctx context.Context, keys []string) (map[int64][]string, error) {
	tags := map[int64][]string{}
	p := pages[tagRow]{
		resource: "application_tag",
		filter:   inList("tag_key", keys),
		fields:   wanted(tagFields("application"), &f.config.Options, f.can),
		id:       func(row *tagRow) int64 { return row.ID },
		each: func(row *tagRow) error {
			i := slices.Index(keys, row.key)
			if i < 0 {
				return nil
			}
			if tags[row.owner] == nil {
				tags[row.owner] = make([]string, len(keys))
			}
			tags[row.owner][i] = row.Value
			return nil
		},
	}
	return tags, p.read(ctx, f.Client)
}

// readKeys reads which of the caller's named API keys expire when.
func (f *fetch) readKeys(ctx context.Context) {
	if !f.config.Keys {
		return
	}
	f.snapshot.Keys = part(f, PartKeys, &f.keys, f.config.SlowInterval, func() ([]Key, error) {
		fields := wanted(keyFields, &f.config.Options, f.can)
		var keys []Key
		r := request{
			resource: "api_key",
			options:  fields.options() + "&$filter=name ne null and expiry_date ne null&$orderby=id asc",
		}
		err := f.get(ctx, r, func(d *decoder) error {
			return decodeAll(d, fields, Key{}, func(row *Key) error {
				keys = append(keys, *row)
				return nil
			})
		})
		return keys, err
	})
}
