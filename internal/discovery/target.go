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

// Address says what the address of a target is made of.
type Address string

// The kinds of addresses.
const (
	// Public is the public URL of the device. Devices without one have no target.
	Public Address = "public"
	// None is the UUID, or what the template makes of it: relabeling, or a network of the user's own, makes an
	// address of it.
	None Address = "none"
	// Local is the first address that the device has on a network of its own, and that another machine can use.
	Local Address = "local"
)

// httpsPort is where public device URLs answer.
const httpsPort = ":443"

// host returns the address of a device without the ports of the options. It is empty where there is none.
func (o *Options) host(d *balena.Device, base string) string {
	switch {
	case o.Address == Local:
		return localAddress(d.LocalAddresses)
	case !hostName.MatchString(d.UUID): // A device may choose its UUID when it is registered.
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

// localAddress returns the first of some addresses, separated by blanks, that another machine can use.
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

// A Template makes addresses, such as {uuid}.tailnet.example:9100.
type Template struct {
	// text and places take turns, beginning and ending with a text.
	text   []string
	places []string
	// HasPort tells whether the template names the port.
	HasPort bool
	// HasName tells whether the template holds the device's name.
	HasName bool
}

var (
	placeholder = regexp.MustCompile(`\{[^{}]*\}`)
	address     = regexp.MustCompile(`^[0-9A-Za-z._-]+(:\d{1,5})?$`)
)

// ParseTemplate reads a template.
func ParseTemplate(s string) (*Template, error) {
	t := &Template{text: placeholder.Split(s, -1), places: placeholder.FindAllString(s, -1)}
	for _, place := range t.places {
		if place != "{uuid}" && place != "{name}" {
			return nil, fmt.Errorf("%s is no placeholder; there are {uuid} and {name}", place)
		}
		t.HasName = t.HasName || place == "{name}"
	}
	if len(t.places) == 0 {
		return nil, errors.New("all devices would have one address; put {uuid} or {name} into it")
	}
	example := placeholder.ReplaceAllString(s, "x")
	_, port, found := strings.Cut(example, ":")
	if n, err := strconv.Atoi(port); !address.MatchString(example) || found && (err != nil || n < 1 || n > maxPort) {
		return nil, errors.New("it must be a host name, with a port or without, such as {uuid}.tailnet.example:9100")
	}
	t.HasPort = found
	return t, nil
}

// of returns the address of a device.
func (t *Template) of(d *balena.Device) string {
	var b strings.Builder
	for i, place := range t.places {
		b.WriteString(t.text[i])
		if place == "{name}" {
			b.WriteString(nameAsHost(d))
		} else {
			b.WriteString(d.UUID)
		}
	}
	b.WriteString(t.text[len(t.places)])
	return b.String()
}

// nameAsHost makes a label of a host name of a device's name, as VPNs do: in lower case, with a dash for
// anything else than letters and digits. A name of which nothing is left is replaced by the UUID.
func nameAsHost(d *balena.Device) string {
	const longest = 63 // bytes, in DNS
	name := strings.Map(func(r rune) rune {
		switch {
		case 'A' <= r && r <= 'Z':
			return r - 'A' + 'a'
		case 'a' <= r && r <= 'z', '0' <= r && r <= '9':
			return r
		}
		return '-'
	}, d.Name)
	name = strings.Trim(name[:min(len(name), longest)], "-")
	if name == "" {
		return d.UUID
	}
	return name
}
