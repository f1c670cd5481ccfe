// SPDX-License-Identifier: Apache-2.0

package statuspage

import (
	"net/url"
	"strings"
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

// deviceURL returns the address of balena's page of a device, empty for none.
func (h *handler) deviceURL(uuid string) string {
	return strings.ReplaceAll(h.DeviceURL, uuidPlaceholder, url.PathEscape(uuid))
}

// The dashboards of Grafana, by their UIDs, with their variables; see deploy/grafana.
func (h *handler) deviceDashboard(fleet, uuid string) string {
	return h.dashboard("balena-device", url.Values{"var-fleet": {fleet}, "var-device": {uuid}})
}

func (h *handler) fleetDashboard(fleet string) string {
	return h.dashboard("balena-fleet", url.Values{"var-fleet": {fleet}})
}

func (h *handler) dashboard(uid string, variables url.Values) string {
	if h.GrafanaURL == "" {
		return ""
	}
	return strings.TrimSuffix(h.GrafanaURL, "/") + "/d/" + uid + "?" + variables.Encode()
}

// runbook returns the address of the runbook of an alert.
func (h *handler) runbook(alert string) string {
	return h.RunbookURL + "/" + alert + ".md"
}

// slugPath is the path of a fleet's page, relative to the root. Slugs are the server's to choose: a browser or a
// proxy would take "..", "." or nothing between two slashes for a way to another page. Such a segment is written
// behind a tilde, and so is one that begins with a tilde. The slugs of balena have none of these.
func slugPath(slug string) string { return "fleets/" + escaped(slug) }

// devicePath is the path of a device's page, relative to the root. UUIDs are written as slugs are.
func devicePath(uuid string) string { return "devices/" + escaped(uuid) }

func escaped(slug string) string {
	segments := strings.Split(slug, "/")
	for i, s := range segments {
		if strings.Trim(s, ".") == "" || s[0] == '~' {
			s = "~" + s
		}
		segments[i] = url.PathEscape(s)
	}
	return strings.Join(segments, "/")
}

// slugOf is what stands behind the first segment of a path, the reverse of slugPath and devicePath.
func slugOf(path string) string {
	segments := strings.Split(path, "/")
	for i, s := range segments {
		segments[i] = strings.TrimPrefix(s, "~")
	}
	return strings.Join(segments, "/")
}
