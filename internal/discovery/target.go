// SPDX-License-Identifier: Apache-2.0

package discovery

import (
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"strconv"
	"strings"

	"github.com/balena-exporter/balena-exporter/internal/balena"
)

// Address is a kind of target address.
type Address string

// The kinds of addresses.
const (
	// Public is the public URL of the device. Devices without one have no target.
	Public Address = "public"
	// None is the UUID, or the result of the template. Relabeling, or the DNS of the user's network, turns it into an
	// address.
	None Address = "none"
	// Local is the first local address of the device that other hosts can use.
	Local Address = "local"
)

// httpsPort is the port of public device URLs.
const httpsPort = ":443"

// host returns the address of a device without the ports of the options; empty if it has none.
func (o *Options) host(d *balena.Device, base string) string {
	switch {
	case o.Address == Local:
		return localAddress(d.Where().LocalAddresses)
	case !hostName.MatchString(d.UUID): // whoever registers the device chooses the UUID
		return ""
	case o.Address == Public && (base == "" || !d.WebAccessible):
		return ""
	case o.Address == Public && strings.Contains(base, ":"):
		return d.UUID + "." + base
	case o.Address == Public:
		return d.UUID + "." + base + httpsPort
	case o.Template == nil:
		return d.UUID
	}
	return o.Template.of(d)
}

// hostName matches a label of a host name.
var hostName = regexp.MustCompile(`^[0-9A-Za-z]([0-9A-Za-z-]{0,61}[0-9A-Za-z])?$`)

// localAddress returns the first of several space-separated addresses that other hosts can use.
func localAddress(addresses string) string {
	for word := range strings.FieldsSeq(addresses) {
		a, err := netip.ParseAddr(word)
		switch {
		case err != nil || a.Zone() != "" || !a.Unmap().IsGlobalUnicast(): // loopback, link-local, multicast
		case a.Unmap().Is4():
			return a.Unmap().String()
		default:
			return "[" + a.String() + "]"
		}
	}
	return ""
}

// A Template is a template for addresses, such as {uuid}.tailnet.example:9100.
type Template struct {
	text string
	// HasPort reports whether the template contains a port.
	HasPort bool
	// HasName reports whether the template contains {name}.
	HasName bool
}

var (
	placeholder = regexp.MustCompile(`\{[^{}]*\}`)
	address     = regexp.MustCompile(`^[0-9A-Za-z._-]+(:\d{1,5})?$`)
)

// ParseTemplate parses a template.
func ParseTemplate(s string) (*Template, error) {
	t := &Template{text: s}
	placeholders := placeholder.FindAllString(s, -1)
	for _, p := range placeholders {
		if p != "{uuid}" && p != "{name}" {
			return nil, fmt.Errorf("unknown placeholder %s; use {uuid} or {name}", p)
		}
		t.HasName = t.HasName || p == "{name}"
	}
	if len(placeholders) == 0 {
		return nil, errors.New("all devices would have the same address; use {uuid} or {name}")
	}
	example := placeholder.ReplaceAllString(s, "x")
	_, port, found := strings.Cut(example, ":")
	if n, err := strconv.Atoi(port); !address.MatchString(example) || found && (err != nil || n < 1 || n > maxPort) {
		return nil, errors.New("it must be a host name with an optional port, such as {uuid}.tailnet.example:9100")
	}
	t.HasPort = found
	return t, nil
}

// of returns the address of a device, whose UUID is a label of a host name.
func (t *Template) of(d *balena.Device) string {
	address := strings.ReplaceAll(t.text, "{uuid}", d.UUID)
	if t.HasName {
		address = strings.ReplaceAll(address, "{name}", nameAsHost(d))
	}
	return address
}

// nameAsHost converts a device's name to a label of a host name, as VPNs do: in lower case, with dashes in place of
// all characters except letters and digits. If nothing remains, it returns the UUID.
func nameAsHost(d *balena.Device) string {
	const maxLabel = 63 // bytes, in DNS
	name := strings.Map(func(r rune) rune {
		switch {
		case 'A' <= r && r <= 'Z':
			return r - 'A' + 'a'
		case 'a' <= r && r <= 'z', '0' <= r && r <= '9':
			return r
		}
		return '-'
	}, d.Name)
	name = strings.Trim(name[:min(len(name), maxLabel)], "-")
	if name == "" {
		return d.UUID
	}
	return name
}
