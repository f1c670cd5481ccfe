// SPDX-License-Identifier: Apache-2.0

package statuspage

import (
	"net/http"
	"strings"
	"time"
)

// Link is a link of the landing page.
type Link struct {
	Text string
	// Address is the address of another server's page, or a path of this server from its root.
	Address string
	// About says what is there; it may be empty.
	About string
}

// Href is the address as the landing page links it: relative, for a path of this server.
func (l Link) Href() string {
	if strings.HasPrefix(l.Address, "/") {
		return "." + l.Address
	}
	return l.Address
}

// landing is the page at the root of the server.
type landing struct {
	Version string
	// State is up, down, or starting until the first refresh has ended.
	State string
	// Data tells whether there are data, of so many fleets and devices.
	Data            bool
	Fleets, Devices int
	Links           []Link
}

// root serves the landing page. It is answered with 200 also when there are no data.
func (h *handler) root(w http.ResponseWriter, _ *http.Request) {
	now := time.Now()
	status := h.Status()
	p := h.page(now, name, "./", "fleets")
	p.Landing = &landing{Version: h.Version, State: "down", Links: h.Links}
	switch {
	case status.Up:
		p.Landing.State = "up"
	case status.LastError == "":
		p.Landing.State = "starting"
	}
	if s := h.Snapshot(); s != nil {
		h.describe(p, s, now)
		p.Landing.Data, p.Landing.Fleets, p.Landing.Devices = true, len(s.Fleets), s.Devices.Len()
	} else {
		h.explain(p, now)
	}
	sendPage(w, http.StatusOK, p)
}
