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
	enabled                               bool
	address, base, template, path, scheme string
	ports                                 []int
}

// maxTargetPorts is the maximum number of ports per device. Each port is a target.
const maxTargetPorts = 16

func addDiscoveryFlags(app *kingpin.Application) *discoveryFlags {
	f := &discoveryFlags{}
	app.Flag("web.enable-sd", "Serve the devices as targets for Prometheus (http_sd) under "+targetsPath+".").BoolVar(&f.enabled)
	app.Flag("sd.address", "Kind of target addresses: none uses the UUID or --sd.template, public the public device URL, local the local address of the device.").
		Default(string(discovery.None)).EnumVar(&f.address, string(discovery.None), string(discovery.Public), string(discovery.Local))
	app.Flag("sd.device-urls-base", "Domain of public device URLs, such as devices.example.com. Default: the domain that the API provides, which is available only on balenaCloud.").PlaceHolder("DOMAIN").StringVar(&f.base)
	app.Flag("sd.template", "Template for the host names of devices in your network, such as {uuid}.tailnet.example or {name}.vpn.example:9100.").PlaceHolder("TEMPLATE").StringVar(&f.template)
	app.Flag("sd.port", "Port of an exporter on the devices. Repeatable. Each port is a target.").PlaceHolder("PORT").IntsVar(&f.ports)
	app.Flag("sd.path", "Metrics path of the targets. Default: the path in the scrape configuration.").PlaceHolder("PATH").StringVar(&f.path)
	app.Flag("sd.scheme", "Scheme of the targets: http or https. Default: https for public device URLs, otherwise the scheme in the scrape configuration.").PlaceHolder("SCHEME").EnumVar(&f.scheme, "", "http", "https")
	return f
}

// apply checks the flags and puts them into the configuration.
func (f *discoveryFlags) apply(check *checker, c *config) {
	if !f.enabled {
		if f.address != string(discovery.None) || f.base+f.template+f.path+f.scheme != "" || len(f.ports) > 0 {
			c.warnings = append(c.warnings, "the flags --sd.… have no effect without --web.enable-sd")
		}
		return
	}
	o := &discovery.Options{
		Address: discovery.Address(f.address), URLsBase: f.base, Ports: f.ports, Scheme: f.scheme, Path: f.path,
		DeviceNames: c.collector.DeviceNames, DeviceTags: c.client.DeviceTags,
	}
	switch {
	case o.Address != discovery.Public:
		if f.base != "" {
			check.fail("--sd.device-urls-base needs --sd.address=public, but --sd.address is %s; change one of them", f.address)
		}
	case f.base != "" && !balena.IsDomain(f.base):
		check.fail("--sd.device-urls-base must be a domain such as devices.example.com, without a scheme, but is %q", redacted(f.base))
	case len(f.ports) > 0:
		check.fail("--sd.port cannot be combined with --sd.address=public, because public device URLs lead to port 80 of the device; remove it")
	}
	if f.template != "" {
		var err error
		o.Template, err = discovery.ParseTemplate(f.template)
		switch {
		case o.Address != discovery.None:
			check.fail("--sd.template needs --sd.address=none, but --sd.address is %s; change one of them", f.address)
		case err != nil:
			check.fail("--sd.template is %q: %w", f.template, err)
		case o.Template.HasPort && len(f.ports) > 0:
			check.fail("--sd.template contains a port, and --sd.port is set; keep one of them")
		case o.Template.HasName && !o.DeviceNames:
			check.fail("--sd.template contains {name}, but --no-collector.device.name is set; use {uuid}, or export names")
		}
	}
	check.within("the number of --sd.port", len(f.ports), 0, maxTargetPorts)
	for i, port := range f.ports {
		check.within("--sd.port", port, 1, 1<<16-1)
		if slices.Contains(f.ports[:i], port) {
			check.fail("--sd.port contains %d twice", port)
		}
	}
	if f.path != "" {
		if u, err := url.Parse(f.path); err != nil || !strings.HasPrefix(f.path, "/") || u.Path != f.path || path.Clean(f.path) != f.path {
			check.fail("--sd.path must be a path such as /metrics, but is %q", f.path)
		}
	}
	c.discovery = o
	c.client.Targets = true
	c.client.LocalAddresses = o.Address == discovery.Local
	c.client.DeviceURLs = o.Address == discovery.Public && o.URLsBase == ""
}
