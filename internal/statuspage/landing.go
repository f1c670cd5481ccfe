// SPDX-License-Identifier: Apache-2.0

package statuspage

import "net/http"

// landing is the landing page.
type landing struct {
	Version string
	// State is up, down, or starting (before the end of the first refresh).
	State string
	// Data reports whether there is a snapshot. Fleets and Devices are the numbers in it.
	Data            bool
	Fleets, Devices int
	// Connected, Problematic and Lost are numbers of devices. Archived fleets have no problems.
	Connected, Problematic, Lost, FleetsWithProblems int
	Links                                            []Link
}

// root serves the landing page, with status 200 even without a snapshot.
func (h *handler) root(w http.ResponseWriter, r *http.Request) {
	p := h.page(r, name)
	p.NavEntry = "root"
	status := h.Status()
	p.Landing = &landing{Version: h.Version, State: "down", Links: h.Links}
	switch {
	case status.Up:
		p.Landing.State = "up"
	case status.LastError == "":
		p.Landing.State = "starting"
	}
	if s := h.Snapshot(); s != nil {
		h.describe(p, s)
		p.Landing.Data, p.Landing.Fleets, p.Landing.Devices = true, len(s.Fleets), s.Devices.Len()
		for _, f := range h.fleets(s, nil, p.now) {
			p.Landing.Connected += f.Connected
			p.Landing.Problematic += f.Problematic
			p.Landing.Lost += f.Lost
			p.Landing.FleetsWithProblems += min(len(f.Problems), 1)
		}
	} else {
		h.explain(p)
	}
	h.sendPage(w, http.StatusOK, p)
}
