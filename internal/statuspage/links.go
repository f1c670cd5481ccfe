// SPDX-License-Identifier: Apache-2.0

package statuspage

import (
	"net/url"
	"strings"
)

// Link is a link of the landing page.
type Link struct {
	Text string
	// Address is a URL, or an absolute path on this server.
	Address string
	// About is an optional description.
	About string
}

// Href returns the address relative to the landing page.
func (l Link) Href() string {
	if strings.HasPrefix(l.Address, "/") {
		return "." + l.Address
	}
	return l.Address
}

// deviceURL returns the URL of a device in the balena dashboard, empty for none.
func (h *handler) deviceURL(uuid string) string {
	return strings.ReplaceAll(h.DeviceURL, "{uuid}", url.PathEscape(uuid))
}

// dashboard returns the URL of a Grafana dashboard; see deploy/grafana.
func (h *handler) dashboard(uid string, variables url.Values) string {
	if h.GrafanaURL == "" {
		return ""
	}
	return strings.TrimSuffix(h.GrafanaURL, "/") + "/d/" + uid + "?" + variables.Encode()
}

// runbook returns the URL of the runbook of an alert.
func (h *handler) runbook(alert string) string {
	return h.RunbookURL + "/" + alert + ".md"
}

// slugPath returns the path of a fleet's page, relative to the root. Browsers and proxies resolve the segments "..", "."
// and "", which a slug might contain. These segments, and segments that begin with a tilde, are prefixed with a tilde.
// Slugs of balena do not contain them.
func slugPath(slug string) string { return "fleets/" + escaped(slug) }

// devicePath returns the path of a device's page, relative to the root, escaped like slugPath.
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

// slugOf returns the slug or UUID in a path without its first segment. It is the inverse of slugPath and devicePath.
func slugOf(path string) string {
	return strings.ReplaceAll("/"+path, "/~", "/")[1:]
}
