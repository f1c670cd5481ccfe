// SPDX-License-Identifier: Apache-2.0

package statuspage

import "net/http"

// landing is the landing page.
type landing struct {
	Version string
	// State is up, down, or starting (before the end of the first refresh).
	State string
	// Fleets and Devices are the numbers in the snapshot, if there is one.
	Fleets, Devices int
	// Connected, Problematic and Lost are numbers of devices. Archived fleets have no problems.
	Connected, Problematic, Lost, FleetsWithProblems int
	Links                                            []Link
}

// root serves the landing page, with status 200 even without a snapshot.
func (h *handler) root(w http.ResponseWriter, r *http.Request) {
	p := h.page(r, "root", "balena-exporter")
	l := &landing{Version: h.Version, State: "down", Links: h.Links}
	p.Content = l
	switch {
	case p.Up:
		l.State = "up"
	case p.LastError == "":
		l.State = "starting"
	}
	if s := h.Snapshot(); s != nil {
		h.describe(p, s)
		l.Fleets, l.Devices = len(s.Fleets), s.Devices.Len()
		for _, f := range h.fleets(s, nil, p.now) {
			l.Connected += f.Connected
			l.Problematic += f.Problematic
			l.Lost += f.Lost
			l.FleetsWithProblems += min(len(f.Problems), 1)
		}
	} else {
		h.explain(p)
	}
	sendHTML(w, http.StatusOK, p)
}
