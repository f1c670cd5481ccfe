// SPDX-License-Identifier: Apache-2.0

package account

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"time"

	"github.com/balena-exporter/balena-exporter/internal/balena"
	"github.com/balena-exporter/balena-exporter/internal/balena/api"
)

// This file reads the optional parts of a refresh. Each of them may fail alone.

// parts holds the last data of each part.
type parts struct {
	deviceTypes   kept[map[int64]string]
	organizations kept[[]balena.Organization]
	latest        kept[map[int64]balena.Release]
	deviceURLs    kept[string]
	keys          kept[[]balena.Key]
	services      kept[*horizon]
	deviceTags    kept[*horizon]
	fleetTags     kept[fleetTags]
	// deviceTagKeys are the keys of the devices' tags, in the order in which the devices hold them.
	deviceTagKeys []string
	releases      kept[map[int64]knownRelease]
	system        kept[knownSystemReleases]
}

// knownRelease is a release, or a record that the API does not return it.
type knownRelease struct {
	balena.Release
	missing bool
	asked   time.Time
}

// readDeviceTypes reads the slugs of device types, and sets them in the devices. The types of fleets, and those that were
// read before, are already known; a device may have another type.
func (f *refresh) readDeviceTypes(ctx context.Context) {
	slugs := part(ctx, f, balena.PartDeviceTypes, &f.parts.deviceTypes, f.config.SlowInterval, func(ctx context.Context) (map[int64]string, error) {
		slugs := map[int64]string{}
		return slugs, list(ctx, f, query(f, "device_type", deviceTypeFields, "", 0), func(row *deviceTypeRow) error {
			slugs[row.id] = row.slug
			return nil
		})
	})
	maps.Copy(f.after.typeSlugs, slugs)
	if f.snapshot.Reading.Kind == balena.Incremental && maps.Equal(f.after.typeSlugs, f.before.typeSlugs) {
		return
	}
	var put []*balena.Device
	for d := range f.snapshot.Devices.All() {
		if slug := f.after.typeSlugs[d.TypeID]; slug != d.Type {
			typed := new(*d)
			typed.Type = slug
			put = append(put, typed)
		}
	}
	f.snapshot.Devices = f.snapshot.Devices.With(put, nil)
}

// readOrganizations reads whether the organizations of the fleets are frozen, or have an invoice overdue. A server that
// refuses the query, although it has fields of balenaCloud, has nothing to tell; one that answered before fails.
func (f *refresh) readOrganizations(ctx context.Context) {
	if !f.trust.cloud.holds(true) {
		return
	}
	last := &f.parts.organizations
	f.snapshot.Organizations = part(ctx, f, balena.PartOrganizations, last, f.config.SlowInterval, func(ctx context.Context) ([]balena.Organization, error) {
		organizations, err := f.askForOrganizations(ctx)
		refused := api.NotUnderstood(err) || api.ProblemOf(err) == api.Unauthorized
		if refused && last.value == nil {
			return nil, nil
		}
		return organizations, err
	})
}

// askForOrganizations returns the organizations of the fleets.
func (f *refresh) askForOrganizations(ctx context.Context) ([]balena.Organization, error) {
	handles := map[string]bool{}
	for i := range f.snapshot.Fleets {
		if handle := f.snapshot.Fleets[i].Organization; handle != "" {
			handles[handle] = true
		}
	}
	var organizations []balena.Organization
	err := listSome(ctx, f, slices.Sorted(maps.Keys(handles)), handlesPerRequest, func(some []string) api.Query[balena.Organization] {
		return query(f, "organization", organizationFields, api.In("handle", some), len(some))
	}, func(row *balena.Organization) error {
		if !handles[row.Handle] { // that was asked for, and not answered yet
			return fmt.Errorf("organization %d: missing or duplicate handle", row.ID)
		}
		handles[row.Handle] = false
		organizations = append(organizations, *row)
		return nil
	})
	slices.SortFunc(organizations, func(a, b balena.Organization) int { return cmp.Compare(a.ID, b.ID) })
	return organizations, err
}

// handlesPerRequest keeps URLs far below the 16 KB that the server takes.
const handlesPerRequest = 100

// readReleases reads the releases to which devices refer, by ID, if they are not known yet, and the newest release of
// each fleet.
func (f *refresh) readReleases(ctx context.Context) {
	known := part(ctx, f, balena.PartReleases, &f.parts.releases, 0, f.askForReleases)
	for id, r := range known {
		if !r.missing {
			f.snapshot.Releases[id] = r.Release
		}
	}
	if !f.config.Releases {
		return
	}
	latest := part(ctx, f, balena.PartLatestReleases, &f.parts.latest, f.config.SlowInterval, f.askForLatestReleases)
	for i := range f.snapshot.Fleets {
		fleet := &f.snapshot.Fleets[i]
		fleet.LatestRelease = latest[fleet.ID]
	}
}

// askForReleases returns every release to which something refers, except those that were read together with fleets. Known
// releases are read again with the slow interval if they may have changed: a draft gets another version when it is
// finalized, and a missing release may have become accessible. Final releases are read again in full refreshes only.
func (f *refresh) askForReleases(ctx context.Context) (map[int64]knownRelease, error) {
	now := f.snapshot.Time
	found := map[int64]knownRelease{}
	var unknown []int64
	for _, run := range f.snapshot.Devices.Runs() {
		for _, id := range run.Releases {
			if _, ok := found[id]; ok {
				continue
			}
			if _, ok := f.snapshot.Releases[id]; ok { // it was read together with its fleet
				continue
			}
			r, ok := f.parts.releases.value[id]
			// A final release rarely changes, but it can get another version or be deleted.
			believed := r.Final && f.snapshot.Reading.Kind == balena.Incremental
			if !ok || !believed && now.Sub(r.asked) >= f.config.SlowInterval {
				r = knownRelease{missing: true, asked: now}
				unknown = append(unknown, id)
			}
			found[id] = r
		}
	}
	slices.Sort(unknown)
	return found, listSome(ctx, f, unknown, idsPerRequest, func(ids []int64) api.Query[balena.Release] {
		q := query(f, "release", releaseFields, api.InIDs("id", ids), len(ids))
		q.Enough = len(ids)
		return q
	}, func(row *balena.Release) error {
		found[row.ID] = knownRelease{Release: *row, asked: now}
		return nil
	})
}

// askForLatestReleases returns the newest release of every fleet, by the fleet's ID.
func (f *refresh) askForLatestReleases(ctx context.Context) (map[int64]balena.Release, error) {
	latest := map[int64]balena.Release{}
	q := query(f, "application", latestReleaseFields, allFleets, 0)
	q.Note = "newest releases"
	return latest, list(ctx, f, q, func(row *latestRow) error {
		latest[row.id] = row.latest
		return nil
	})
}

// fleetTags are the keys of the tags that are asked for, and the values of the tags that were read: by the ID of the fleet, by key.
type fleetTags struct {
	keys   []string
	values map[int64]map[string]string
}

// readFleetTags reads the configured tags of fleets.
func (f *refresh) readFleetTags(ctx context.Context) {
	asked := f.config.fleetTags()
	if asked.empty() {
		return
	}
	tags := part(ctx, f, balena.PartFleetTags, &f.parts.fleetTags, 0, func(ctx context.Context) (fleetTags, error) {
		return f.askForFleetTags(ctx, asked)
	})
	f.snapshot.FleetTagKeys = asked.exported(tags.keys)
	for i := range f.snapshot.Fleets {
		fleet := &f.snapshot.Fleets[i]
		values := tags.values[fleet.ID]
		if value, tagged := values[asked.maintenance]; tagged && asked.maintenance != "" {
			fleet.Maintenance = balena.MaintenanceUntil(value)
		}
		for k, key := range f.snapshot.FleetTagKeys {
			if value, tagged := values[key]; tagged {
				if fleet.Tags == nil {
					fleet.Tags = make([]string, len(f.snapshot.FleetTagKeys))
				}
				fleet.Tags[k] = value
			}
		}
	}
}

// askForFleetTags returns the tags of the fleets.
func (f *refresh) askForFleetTags(ctx context.Context, asked askedTags) (fleetTags, error) {
	fleets := slices.Sorted(maps.Keys(f.after.fleets))
	values, err := f.askForApplicationTags(ctx, "", asked.condition(), fleets, maxFleetsInFilter)
	if err != nil {
		return fleetTags{}, err
	}
	there := map[string]bool{}
	for _, of := range values {
		for key := range of {
			there[key] = true
		}
	}
	keys, err := asked.keys(there)
	return fleetTags{keys, values}, err
}

// askForApplicationTags returns the tags of applications that match a condition: by the ID of the application, by key. It asks
// for n applications at a time.
func (f *refresh) askForApplicationTags(ctx context.Context, note, condition string, applications []int64, n int) (map[int64]map[string]string, error) {
	tags := map[int64]map[string]string{}
	return tags, listSome(ctx, f, applications, n, func(ids []int64) api.Query[tagRow] {
		filter := api.And(condition, api.InIDs("application", ids))
		q := query(f, "application_tag", tagFields("application"), filter, len(ids)*maxTagsPerFleet)
		q.Note = note
		return q
	}, func(row *tagRow) error {
		if tags[row.owner] == nil {
			tags[row.owner] = map[string]string{}
		}
		tags[row.owner][row.key] = row.Value
		return nil
	})
}

// readKeys reads the expiry dates of the caller's named API keys.
func (f *refresh) readKeys(ctx context.Context) {
	if !f.config.Keys {
		return
	}
	f.snapshot.Keys = part(ctx, f, balena.PartKeys, &f.parts.keys, f.config.SlowInterval, func(ctx context.Context) ([]balena.Key, error) {
		var keys []balena.Key
		err := list(ctx, f, query(f, "api_key", keyFields, "name ne null and expiry_date ne null", 0), func(row *balena.Key) error {
			keys = append(keys, *row)
			return nil
		})
		return keys, err
	})
}

// readDeviceURLs reads the domain of public device URLs. A server without a configuration has no such URLs.
func (f *refresh) readDeviceURLs(ctx context.Context) {
	if !f.config.DeviceURLs {
		return
	}
	f.snapshot.DeviceURLsBase = part(ctx, f, balena.PartDeviceURLs, &f.parts.deviceURLs, f.config.SlowInterval, func(ctx context.Context) (string, error) {
		base, err := api.Object(ctx, f.client, "config", configFields)
		switch {
		case missing(err):
			return "", nil
		case err == nil && base != "" && !balena.IsDomain(base):
			// Whoever scrapes the devices sends a password to it.
			return "", badAnswer("GET /config", http.StatusOK, "deviceUrlsBase is not the name of a domain")
		}
		return base, err
	})
}
