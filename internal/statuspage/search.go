// SPDX-License-Identifier: Apache-2.0

package statuspage

import (
	"strings"

	"github.com/balena-exporter/balena-exporter/internal/balena"
)

// A search walks through all devices. This takes less than a tenth of a second for a million devices, and needs no index.

// found is the field that matched a search, the best match first.
type found int

const (
	byIdentity found = iota
	byBeginningOfUUID
	byBeginningOfName
	byName
	byFleet
	byRelease
	byOS
	byTag
	notFound
)

// String returns the name of the field.
func (f found) String() string {
	return [...]string{"name or UUID", "UUID", "name", "name", "fleet", "release", "OS version", "tag", ""}[f]
}

// search finds devices by a text: by the beginning of the UUID or of the commit of the release, or by a part of the name,
// fleet, release version, OS version or the value of a tag. It ignores the case of ASCII letters.
type search struct {
	text     string // in lower case
	names    bool   // whether device names are searched
	fleets   map[int64]bool
	releases map[int64]bool
}

func newSearch(s *balena.Snapshot, text string, names bool) *search {
	f := &search{text: strings.Map(func(r rune) rune {
		if r < 0x80 {
			return rune(lower(byte(r)))
		}
		return r
	}, text), names: names, fleets: map[int64]bool{}, releases: map[int64]bool{}}
	for i := range s.Fleets {
		if fleet := &s.Fleets[i]; f.contains(fleet.Slug) || f.contains(fleet.Name) {
			f.fleets[fleet.ID] = true
		}
	}
	for id, r := range s.Releases {
		if f.contains(r.Version) || len(r.Commit) >= len(f.text) && equalFolded(r.Commit[:len(f.text)], f.text) {
			f.releases[id] = true
		}
	}
	return f
}

// of returns the field of a device that matches.
func (f *search) of(d *balena.Device) found {
	if len(d.UUID) >= len(f.text) && equalFolded(d.UUID[:len(f.text)], f.text) {
		if len(d.UUID) == len(f.text) {
			return byIdentity
		}
		return byBeginningOfUUID
	}
	if f.names {
		switch at := index(d.Name, f.text); {
		case at == 0 && len(d.Name) == len(f.text):
			return byIdentity
		case at == 0:
			return byBeginningOfName
		case at > 0:
			return byName
		}
	}
	switch {
	case len(f.fleets) > 0 && f.fleets[d.FleetID]:
		return byFleet
	case len(f.releases) > 0 && f.releases[d.RunningRelease]:
		return byRelease
	case f.contains(d.OSVersion):
		return byOS
	}
	for _, tag := range d.Tags() {
		if tag.ID != 0 && f.contains(tag.Value) {
			return byTag
		}
	}
	return notFound
}

// contains reports whether a text contains the searched text.
func (f *search) contains(s string) bool { return index(s, f.text) >= 0 }

// index returns the index of a lower-case text in s, -1 if it is not present.
func index(s, text string) int {
	if text == "" {
		return 0
	}
	first := text[0]
	for i := 0; i+len(text) <= len(s); i++ {
		if lower(s[i]) == first && equalFolded(s[i:i+len(text)], text) {
			return i
		}
	}
	return -1
}

// equalFolded reports whether s equals a lower-case text of the same length.
func equalFolded(s, text string) bool {
	for i := range len(text) {
		if lower(s[i]) != text[i] {
			return false
		}
	}
	return true
}
