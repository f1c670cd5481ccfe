// SPDX-License-Identifier: Apache-2.0

package account

import (
	"context"
	"maps"
	"slices"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/balena-exporter/balena-exporter/internal/balena"
	"github.com/balena-exporter/balena-exporter/internal/balena/api"
)

// Releases of balenaOS belong to public host applications, one or more for each device type; releases of the supervisor
// belong to public applications, one for each CPU architecture. Only these applications are read without the condition
// accessible: users have no direct access to most of them. An invalid token causes no 401 here; the query for fleets
// detects it.

const (
	// systemIntervals is the number of slow intervals between two reads of system releases, of which only a few are
	// published per month.
	systemIntervals = 4
	// maxReleasesPerApplication is the maximum number of releases of such an application.
	maxReleasesPerApplication = 5000
	// supervisorApplications is the condition for the applications of the supervisor. Source: balena-sdk,
	// getSupervisorReleasesForCpuArchitecture.
	supervisorApplications = "is_host eq false and is_public eq true and startswith(slug,'balena_os/') and endswith(slug,'-supervisor')"
	// publishedReleases is the condition for final, successful releases. Invalidated ones are included, because devices may
	// run them.
	publishedReleases = "is_final eq true and status eq 'success' and semver_major gt 0"
)

// knownSystemReleases holds the system releases for some device types, which are IDs.
type knownSystemReleases struct {
	types    map[int64]bool
	releases *balena.SystemReleases // nil if there are none
}

// systemApplication is an application with releases of balenaOS or of the supervisor.
type systemApplication struct {
	id           int64
	host         bool
	deviceType   string
	architecture string
}

var systemApplicationFields = api.Record[systemApplication]{
	api.ID(func(s *systemApplication) *int64 { return &s.id }),
	api.To("is_host", boolean, func(s *systemApplication) *bool { return &s.host }),
	api.Expanded("is_for__device_type", func(s *systemApplication) *systemApplication { return s }, api.Record[systemApplication]{
		api.To("slug", word, func(s *systemApplication) *string { return &s.deviceType }),
		api.Expanded("is_of__cpu_architecture", func(s *systemApplication) *string { return &s.architecture }, only("slug")),
	}),
}

// systemReleaseRow is a release of such an application.
type systemReleaseRow struct {
	balena.SystemRelease
	id, application int64
}

var systemReleaseFields = api.Record[systemReleaseRow]{
	api.ID(func(r *systemReleaseRow) *int64 { return &r.id }),
	api.To("belongs_to__application", reference, func(r *systemReleaseRow) *int64 { return &r.application }),
	api.To("raw_version", word, func(r *systemReleaseRow) *string { return &r.Version }),
	api.To("variant", word, func(r *systemReleaseRow) *string { return &r.Variant }),
	api.To("phase", word, func(r *systemReleaseRow) *string { return &r.Phase }),
	api.To("is_invalidated", boolean, func(r *systemReleaseRow) *bool { return &r.Invalidated }),
	api.To("known_issue_list", isText, func(r *systemReleaseRow) *bool { return &r.KnownIssues }),
	api.To("created_at", instant, func(r *systemReleaseRow) *balena.Instant { return &r.Created }),
}

// isText reads a text, and reports whether there is one.
func isText(d *api.Decoder, v jsontext.Value) (bool, error) {
	s, err := d.Text(v)
	return s != "", err
}

// readSystemReleases reads the releases of balenaOS and of the supervisor. Most openBalena servers publish none. A server
// that refuses the queries several times in a row is treated as one that publishes none, unless releases of an earlier
// answer are kept: then the part fails until they are too old.
func (f *refresh) readSystemReleases(ctx context.Context) {
	if !f.config.OS {
		return
	}
	last := &f.parts.system
	types := f.typesInUse()
	last.renew = !maps.Equal(types, last.value.types)
	read := part(ctx, f, balena.PartSystemReleases, last, systemIntervals*f.config.SlowInterval, func(ctx context.Context) (knownSystemReleases, error) {
		releases, err := f.askForSystemReleases(ctx, types)
		switch {
		case err == nil:
			f.trust.systemRefusals = 0
		case api.NotUnderstood(err) || api.ProblemOf(err) == api.Unauthorized:
			if f.trust.systemRefusals++; f.trust.systemRefusals >= convincing && last.value.releases == nil {
				err = nil
			}
		}
		if releases.Equal(last.value.releases) {
			releases = last.value.releases // equal snapshots have the same pointer
		}
		return knownSystemReleases{types, releases}, err
	})
	f.snapshot.System = read.releases
}

// typesInUse returns the IDs of the types of all devices.
func (f *refresh) typesInUse() map[int64]bool {
	types := map[int64]bool{}
	last := int64(0)
	for d := range f.snapshot.Devices.All() {
		if d.TypeID != last {
			last = d.TypeID
			types[last] = true
		}
	}
	return types
}

// askForSystemReleases returns the releases for some device types, nil if there are none.
func (f *refresh) askForSystemReleases(ctx context.Context, types map[int64]bool) (*balena.SystemReleases, error) {
	applications, err := f.askForSystemApplications(ctx, types)
	if err != nil || len(applications) == 0 {
		return nil, err
	}
	ids := slices.Sorted(maps.Keys(applications))
	tags, err := f.askForApplicationTags(ctx, ofSystemApplications, api.In("tag_key", balena.ReleasePolicyTags), ids, idsPerRequest)
	if err != nil {
		return nil, err
	}
	os, supervisor := map[string][]balena.SystemRelease{}, map[string][]balena.SystemRelease{}
	err = listSome(ctx, f, ids, idsPerRequest, func(ids []int64) api.Query[systemReleaseRow] {
		filter := api.And(api.InIDs("belongs_to__application", ids), publishedReleases)
		return systemQuery(f, "release", systemReleaseFields, filter, len(ids)*maxReleasesPerApplication)
	}, func(row *systemReleaseRow) error {
		of, known := applications[row.application]
		switch {
		case !known:
			return f.badList("release", "release %d belongs to an application that was not requested", row.id)
		case of.host:
			row.Phase = balena.ReleasePolicy(tags[of.id]).Phase(row.Phase, row.Version)
			os[of.deviceType] = append(os[of.deviceType], row.SystemRelease)
		default:
			supervisor[of.architecture] = append(supervisor[of.architecture], row.SystemRelease)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	releases := &balena.SystemReleases{OS: histories(os), Supervisor: histories(supervisor), Architectures: map[string]string{}}
	for _, of := range applications {
		if of.host {
			releases.Architectures[of.deviceType] = of.architecture
		}
	}
	return releases, nil
}

// ofSystemApplications is the note of the queries for system releases and what belongs to them.
const ofSystemApplications = "of system applications"

// systemQuery is [query] with the note ofSystemApplications.
func systemQuery[T any](f *refresh, resource string, fields api.Record[T], filter string, limit int) api.Query[T] {
	q := query(f, resource, fields, filter, limit)
	q.Note = ofSystemApplications
	return q
}

func histories(releases map[string][]balena.SystemRelease) map[string]*balena.ReleaseHistory {
	of := make(map[string]*balena.ReleaseHistory, len(releases))
	for key, r := range releases {
		of[key] = balena.NewReleaseHistory(r)
	}
	return of
}

// askForSystemApplications returns the host applications of some device types, and the supervisor applications of their CPU
// architectures, by ID; none if there are no host applications.
func (f *refresh) askForSystemApplications(ctx context.Context, types map[int64]bool) (map[int64]systemApplication, error) {
	applications := map[int64]systemApplication{}
	architectures := map[string]bool{}
	add := func(row *systemApplication) error {
		if row.host {
			architectures[row.architecture] = true
		}
		if row.host || architectures[row.architecture] {
			applications[row.id] = *row
		}
		return nil
	}
	err := listSome(ctx, f, slices.Sorted(maps.Keys(types)), idsPerRequest, func(ids []int64) api.Query[systemApplication] {
		return systemQuery(f, "application", systemApplicationFields, "is_host eq true and "+api.InIDs("is_for__device_type", ids), 0)
	}, add)
	if err != nil {
		return nil, err
	}
	if len(applications) > 0 {
		return applications, list(ctx, f, systemQuery(f, "application", systemApplicationFields, supervisorApplications, 0), add)
	}
	if len(types) > 0 && f.parts.system.value.releases != nil {
		return nil, f.badList("application", "the server lists no host application, and listed some before")
	}
	return nil, nil
}
