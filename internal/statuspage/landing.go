// SPDX-License-Identifier: Apache-2.0

package statuspage

import "net/http"

// landing is the page at the root of the server.
type landing struct {
	Version string
	// State is up, down, or starting until the first refresh has ended.
	State string
	// Data tells whether there are data, of so many fleets and devices. Archived fleets are not among those with problems.
	Data            bool
	Fleets, Devices int
	// Connected, Problematic and Lost are devices; InTrouble are fleets.
	Connected, Problematic, Lost, InTrouble int
	Links                                   []Link
}

// root serves the landing page. It is answered with 200 also when there are no data.
func (h *handler) root(w http.ResponseWriter, r *http.Request) {
	p := h.page(r, name)
	p.Here = "root"
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
			p.Landing.InTrouble += min(len(f.Problems), 1)
		}
	} else {
		h.explain(p)
	}
	h.sendPage(w, http.StatusOK, p)
}
