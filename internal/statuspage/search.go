// SPDX-License-Identifier: Apache-2.0

package statuspage

import (
	"strings"

	"github.com/balena-exporter/balena-exporter/internal/balena"
)

// A search goes through all devices each time. That takes less than a tenth of a second for a million of them, and
// nothing has to be kept or renewed between searches.

// found says by what a device was found, the best first.
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

// String is what a device was found by, in words.
func (f found) String() string {
	return [...]string{"name or UUID", "UUID", "name", "name", "fleet", "release", "OS version", "tag", ""}[f]
}

// search finds devices by a text, without regard to the case of ASCII letters: by the beginning of the UUID, and by a part of
// the name, fleet, release, OS version or the value of a tag.
type search struct {
	text     string // in lower case
	names    bool   // whether names of devices may be used
	fleets   map[int64]bool
	releases map[int64]bool
	systems  []system
}

// system is a version of the OS, and whether it was searched for. There are few, and devices share their text.
type system struct {
	version string
	found   bool
}

func newSearch(s *balena.Snapshot, text string, names bool) *search {
	f := &search{text: strings.Map(func(r rune) rune {
		if r < 0x80 {
			return rune(lower(byte(r)))
		}
		return r
	}, text), names: names, fleets: map[int64]bool{}, releases: map[int64]bool{}}
	for i := range s.Fleets {
		if fleet := &s.Fleets[i]; f.in(fleet.Slug) || f.in(fleet.Name) {
			f.fleets[fleet.ID] = true
		}
	}
	for id, r := range s.Releases {
		if f.in(r.Version) || len(r.Commit) >= len(f.text) && folded(r.Commit[:len(f.text)], f.text) {
			f.releases[id] = true
		}
	}
	return f
}

// of says by what a device is found.
func (f *search) of(d *balena.Device) found {
	if len(d.UUID) >= len(f.text) && folded(d.UUID[:len(f.text)], f.text) {
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
	case f.system(d.OSVersion):
		return byOS
	}
	if d.Attachments != nil {
		for _, tag := range d.Attachments.Tags {
			if tag.ID != 0 && f.in(tag.Value) {
				return byTag
			}
		}
	}
	return notFound
}

func (f *search) system(version string) bool {
	for i := range f.systems {
		if f.systems[i].version == version {
			return f.systems[i].found
		}
	}
	is := f.in(version)
	const few = 16
	if len(f.systems) < few {
		f.systems = append(f.systems, system{version, is})
	}
	return is
}

func (f *search) in(s string) bool { return index(s, f.text) >= 0 }

// index returns where a text in lower case is in another one, -1 if it is not.
func index(s, text string) int {
	if text == "" {
		return 0
	}
	first := text[0]
	for i := 0; i+len(text) <= len(s); i++ {
		if lower(s[i]) == first && folded(s[i:i+len(text)], text) {
			return i
		}
	}
	return -1
}

// folded tells whether a text is another one of the same length, which is in lower case.
func folded(s, text string) bool {
	for i := range len(text) {
		if lower(s[i]) != text[i] {
			return false
		}
	}
	return true
}
