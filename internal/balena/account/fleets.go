// SPDX-License-Identifier: Apache-2.0

package account

import (
	"context"
	"fmt"
	"net/http"

	"github.com/balena-exporter/balena-exporter/internal/balena"
	"github.com/balena-exporter/balena-exporter/internal/balena/api"
)

const (
	// accessible is the condition that the token may directly access an application. Without it, a bad token gets
	// the public fleets instead of a 401.
	accessible = "is_directly_accessible_by__user/any(dau:1 eq 1)"
	// allFleets is the condition for all fleets.
	allFleets = accessible + " and is_of__class eq 'fleet' and is_host eq false"
	// maxFullPages is the maximum number of full pages of a list without a count: 100,000 fleets, device types
	// or keys with pages of 1,000.
	maxFullPages = 100
	// maxDevices is the maximum number of devices of an account. If a server counts more, they are not read.
	maxDevices = 5_000_000
)

// readFleets reads all fleets, and determines the version of the API.
func (f *refresh) readFleets(ctx context.Context) error {
	if f.config.Version != "" {
		return f.listFleets(ctx, f.config.Version)
	}
	version := &f.trust.version
	err := f.listFleets(ctx, balena.V7)
	for try := 1; !version.observed && missing(err) && try < atStart; try++ {
		err = f.listFleets(ctx, balena.V7)
	}
	switch {
	case err == nil:
		if version.saw(balena.V7); version.holds(balena.V7) {
			return nil
		}
	case !missing(err) && !version.holds(balena.V6):
		return err
	}
	v7Missing := missing(err)
	err = f.listFleets(ctx, balena.V6)
	switch {
	case missing(err) && v7Missing:
		return noAPI()
	case err != nil:
		return err
	}
	if v7Missing {
		version.saw(balena.V6)
	}
	if version.holds(balena.V7) {
		return badAnswer("GET /v7/application", http.StatusNotFound,
			"answered 404, while v6 answers: v6 is used once %d refreshes in a row have seen that", convincing)
	}
	return nil
}

// missing reports whether an error means that the server does not have a version of the API.
func missing(err error) bool { return api.StatusOf(err) == http.StatusNotFound }

// noAPI is the error of a server that has neither version of the API.
func noAPI() error {
	return badAnswer("GET /v7/application and /v6/application", http.StatusNotFound,
		"answered 404: there is no balena API at this address, check --balena.api-url")
}

func (f *refresh) listFleets(ctx context.Context, version balena.Version) error {
	f.after.asked = dialect{version: version, cloud: !f.trust.cloud.holds(false)}
	s := f.snapshot
	s.Fleets, s.Releases = nil, map[int64]balena.Release{}
	f.after.fleets, f.after.typeSlugs = map[int64]*balena.Fleet{}, map[int64]string{}
	f.counted, f.reachable = map[int64]int{}, 0

	fleetCount := 0
	slugs := map[string]bool{}
	q := query(f, "application", fleetFields, allFleets, 0)
	q.Initial.counted = notCounted
	clock, err := api.List(ctx, f.client, q, func(row *fleetRow) error {
		switch {
		case row.Slug == "" || slugs[row.Slug]:
			return fmt.Errorf("fleet %d: missing or duplicate slug %q", row.ID, row.Slug)
		case row.class != "fleet" || row.host:
			return fmt.Errorf("%s is no fleet, and the filter asks for fleets", row.Slug)
		case row.counted == notCounted:
			return fmt.Errorf("the devices of fleet %s are not counted", row.Slug)
		}
		slugs[row.Slug] = true
		fleetCount++
		f.after.typeSlugs[row.deviceTypeID] = row.DeviceType
		f.reachable += row.counted
		if !f.selects(&row.Fleet) {
			return nil
		}
		if row.TargetRelease = row.target.ID; row.target.ID != 0 {
			s.Releases[row.target.ID] = row.target
		}
		f.counted[row.ID] = row.counted
		s.Fleets = append(s.Fleets, row.Fleet)
		return nil
	})
	if err != nil {
		return err
	}
	if fleetCount == 0 && !f.trust.empty {
		f.trust.empty = true
		if f.before.fleetCount == 0 {
			return f.listFleets(ctx, version) // ask again at once, because nothing is known about the account yet
		}
		return f.badList("application", "the server lists no fleet, and listed %d before: the next refresh believes it", f.before.fleetCount)
	}
	f.trust.empty = fleetCount == 0
	if f.reachable > maxDevices {
		return f.badList("application", "the server counts %d devices, and there are no more than %d in any account", f.reachable, maxDevices)
	}
	f.after.fleetCount, f.after.clock = fleetCount, clock
	for i := range s.Fleets {
		f.after.fleets[s.Fleets[i].ID] = &s.Fleets[i]
	}
	return nil
}

// selects reports whether the options select a fleet.
func (f *refresh) selects(fleet *balena.Fleet) bool {
	o := &f.config.Options
	return o.Shard.Has(fleet.ID) && (o.ArchivedFleets || !fleet.Archived) &&
		(o.Include == nil || o.Include.MatchString(fleet.Slug)) &&
		(o.Exclude == nil || !o.Exclude.MatchString(fleet.Slug))
}

// countAgain counts the devices of all fleets again. The list of fleets stays the same.
func (f *refresh) countAgain(ctx context.Context) error {
	counted, reachable := map[int64]int{}, 0
	q := query(f, "application", countFields, allFleets, 0)
	q.Note = "counts"
	err := list(ctx, f, q, func(row *fleetRow) error {
		if _, selected := f.after.fleets[row.ID]; selected {
			counted[row.ID] = row.counted
		}
		reachable += row.counted
		return nil
	})
	if err == nil {
		f.counted, f.reachable = counted, reachable
	}
	return err
}

// badList returns the error of a list that cannot be correct.
func (f *refresh) badList(resource, format string, args ...any) error {
	return badAnswer("GET /"+string(f.after.asked.version)+"/"+resource, http.StatusOK, format, args...)
}

// badAnswer returns the error of an answer that cannot be correct.
func badAnswer(request string, status int, format string, args ...any) error {
	return &api.Error{Problem: api.BadAnswer, Request: request, Status: status, Err: fmt.Errorf(format, args...)}
}
