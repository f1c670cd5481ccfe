// SPDX-License-Identifier: Apache-2.0

package main

import (
	"net/url"
	"path"
	"slices"
	"strings"

	"github.com/alecthomas/kingpin/v2"

	"github.com/balena-exporter/balena-exporter/internal/balena"
	"github.com/balena-exporter/balena-exporter/internal/discovery"
)

// discoveryFlags are the flags of service discovery.
type discoveryFlags struct {
	discovery.Options
	enabled  bool
	template string
}

// maxTargetPorts is the maximum number of ports per device. Each port is a target.
const maxTargetPorts = 16

func addDiscoveryFlags(app *kingpin.Application) *discoveryFlags {
	f := &discoveryFlags{}
	app.Flag("web.enable-sd", "Serve the devices as targets for Prometheus (http_sd) under "+targetsPath+".").BoolVar(&f.enabled)
	app.Flag("sd.address", "Kind of target addresses: none uses the UUID or --sd.template, public the public device URL, local the local address of the device.").
		Default(string(discovery.None)).EnumVar((*string)(&f.Address), string(discovery.None), string(discovery.Public), string(discovery.Local))
	app.Flag("sd.device-urls-base", "Domain of public device URLs, such as devices.example.com. Default: the domain that the API provides, which is available only on balenaCloud.").PlaceHolder("DOMAIN").StringVar(&f.URLsBase)
	app.Flag("sd.template", "Template for the host names of devices in your network, such as {uuid}.tailnet.example or {name}.vpn.example:9100.").PlaceHolder("TEMPLATE").StringVar(&f.template)
	app.Flag("sd.port", "Port of an exporter on the devices. Repeatable. Each port is a target.").PlaceHolder("PORT").IntsVar(&f.Ports)
	app.Flag("sd.path", "Metrics path of the targets. Default: the path in the scrape configuration.").PlaceHolder("PATH").StringVar(&f.Path)
	app.Flag("sd.scheme", "Scheme of the targets: http or https. Default: https for public device URLs, otherwise the scheme in the scrape configuration.").PlaceHolder("SCHEME").EnumVar(&f.Scheme, "", "http", "https")
	return f
}

// apply checks the flags and puts them into the configuration.
func (f *discoveryFlags) apply(check *checker, c *config) {
	if !f.enabled {
		if f.Address != discovery.None || f.URLsBase+f.template+f.Path+f.Scheme != "" || len(f.Ports) > 0 {
			c.warnings = append(c.warnings, "the flags --sd.… have no effect without --web.enable-sd")
		}
		return
	}
	o := &f.Options
	o.DeviceNames, o.DeviceTags = c.collector.DeviceNames, c.client.DeviceTags
	switch {
	case o.Address != discovery.Public:
		if o.URLsBase != "" {
			check.fail("--sd.device-urls-base needs --sd.address=public, but --sd.address is %s; change one of them", o.Address)
		}
	case o.URLsBase != "" && !balena.IsDomain(o.URLsBase):
		check.fail("--sd.device-urls-base must be a domain such as devices.example.com, without a scheme, but is %q", redacted(o.URLsBase))
	case len(o.Ports) > 0:
		check.fail("--sd.port cannot be combined with --sd.address=public, because public device URLs lead to port 80 of the device; remove it")
	}
	if f.template != "" {
		var err error
		o.Template, err = discovery.ParseTemplate(f.template)
		switch {
		case o.Address != discovery.None:
			check.fail("--sd.template needs --sd.address=none, but --sd.address is %s; change one of them", o.Address)
		case err != nil:
			check.fail("--sd.template is %q: %w", f.template, err)
		case o.Template.HasPort && len(o.Ports) > 0:
			check.fail("--sd.template contains a port, and --sd.port is set; keep one of them")
		case o.Template.HasName && !o.DeviceNames:
			check.fail("--sd.template contains {name}, but --no-collector.device.name is set; use {uuid}, or export names")
		}
	}
	check.within("the number of --sd.port", len(o.Ports), 0, maxTargetPorts)
	for i, port := range o.Ports {
		check.within("--sd.port", port, 1, 1<<16-1)
		if slices.Contains(o.Ports[:i], port) {
			check.fail("--sd.port contains %d twice", port)
		}
	}
	if o.Path != "" {
		if u, err := url.Parse(o.Path); err != nil || !strings.HasPrefix(o.Path, "/") || u.Path != o.Path || path.Clean(o.Path) != o.Path {
			check.fail("--sd.path must be a path such as /metrics, but is %q", o.Path)
		}
	}
	c.discovery = o
	c.client.Targets = true
	c.client.LocalAddresses = o.Address == discovery.Local
	c.client.DeviceURLs = o.Address == discovery.Public && o.URLsBase == ""
}
