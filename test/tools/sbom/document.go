// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"regexp"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/spdx/tools-golang/spdx"
	"github.com/spdx/tools-golang/spdx/v2/common"
)

const (
	project  = "github.com/balena-exporter/balena-exporter"
	supplier = "The balena-exporter Authors"
	ours     = "Apache-2.0"
)

// release is what the documents of all artifacts have in common.
type release struct {
	version  string
	created  string
	licenses map[string]string // SPDX expressions by module
}

func instant(epoch string) (string, error) {
	seconds, err := strconv.ParseInt(epoch, 10, 64)
	if err != nil {
		return "", fmt.Errorf("SOURCE_DATE_EPOCH is not a number of seconds: %q", epoch)
	}
	return time.Unix(seconds, 0).UTC().Format(time.RFC3339), nil
}

// readLicenses reads the table of modules and licenses at the top of NOTICE.
func readLicenses(notice string) (map[string]string, error) {
	b, err := os.ReadFile(notice)
	if err != nil {
		return nil, err
	}
	licenses := map[string]string{}
	for _, row := range regexp.MustCompile(`(?m)^ {2}(\S+|Go's standard library) +(\S+(?: and \S+)*)$`).FindAllStringSubmatch(string(b), -1) {
		licenses[row[1]] = strings.ReplaceAll(row[2], " and ", " AND ")
	}
	if licenses["Go's standard library"] == "" {
		return nil, fmt.Errorf("%s has no table of modules and their licenses", notice)
	}
	return licenses, nil
}

// document describes an artifact. It contains programs, and modules are linked into those.
func (r *release) document(a *artifact) (*spdx.Document, error) {
	d := &spdx.Document{
		SPDXVersion:       spdx.Version,
		DataLicense:       spdx.DataLicense,
		SPDXIdentifier:    "DOCUMENT",
		DocumentName:      a.name,
		DocumentNamespace: fmt.Sprintf("https://%s/sbom/%s/%s-%s", project, r.version, a.name, a.sha256),
		CreationInfo: &spdx.CreationInfo{
			Created:  r.created,
			Creators: []common.Creator{{CreatorType: "Organization", Creator: supplier}, {CreatorType: "Tool", Creator: "sbom-" + r.version}},
		},
	}
	purpose := "ARCHIVE"
	if a.image {
		purpose = "CONTAINER"
	} else if strings.HasSuffix(a.name, ".deb") || strings.HasSuffix(a.name, ".rpm") {
		purpose = "INSTALL"
	}
	root := r.own(a.name, a.sha256, purpose)
	root.PackageSPDXIdentifier = "artifact"
	d.Packages = append(d.Packages, root)
	relate(d, "DOCUMENT", "DESCRIBES", root.PackageSPDXIdentifier)

	modules := map[string]common.ElementID{}
	for i, p := range a.programs {
		one := r.own(p.name, p.sha256, "APPLICATION")
		one.PackageSPDXIdentifier = common.ElementID(fmt.Sprintf("program-%d", i+1))
		one.PackageExternalReferences = []*spdx.PackageExternalReference{purl(project, "v"+r.version)}
		if p.platform != "" {
			one.PackageComment = "In the image for " + p.platform + "."
		}
		d.Packages = append(d.Packages, one)
		relate(d, root.PackageSPDXIdentifier, "CONTAINS", one.PackageSPDXIdentifier)
		library := &debug.Module{Path: "stdlib", Version: strings.TrimPrefix(p.build.GoVersion, "go")}
		for _, m := range append([]*debug.Module{library}, p.build.Deps...) {
			if m.Replace != nil {
				m = m.Replace
			}
			key := m.Path + "@" + m.Version
			if modules[key] == "" {
				linked, err := r.linked(m)
				if err != nil {
					return nil, err
				}
				linked.PackageSPDXIdentifier = common.ElementID(fmt.Sprintf("module-%d", len(modules)+1))
				modules[key] = linked.PackageSPDXIdentifier
				d.Packages = append(d.Packages, linked)
			}
			relate(d, one.PackageSPDXIdentifier, "STATIC_LINK", modules[key])
		}
	}
	return d, nil
}

// own is a package that the project makes.
func (r *release) own(name, sha256, purpose string) *spdx.Package {
	return &spdx.Package{
		PackageName:               name,
		PackageVersion:            r.version,
		PackageSupplier:           &common.Supplier{SupplierType: "Organization", Supplier: supplier},
		PackageDownloadLocation:   "https://" + project + "/releases/tag/v" + r.version,
		IsFilesAnalyzedTagPresent: true,
		PackageChecksums:          []common.Checksum{{Algorithm: common.SHA256, Value: sha256}},
		PackageLicenseConcluded:   ours,
		PackageLicenseDeclared:    ours,
		PackageCopyrightText:      "Copyright " + supplier,
		PrimaryPackagePurpose:     purpose,
	}
}

// linked is the package of a module that is linked into a program.
func (r *release) linked(m *debug.Module) (*spdx.Package, error) {
	name := m.Path
	if m.Path == "stdlib" {
		name = "Go's standard library"
	}
	license := r.licenses[name]
	if license == "" {
		return nil, fmt.Errorf("NOTICE does not have the license of %s: run go generate ./test/repository", name)
	}
	p := &spdx.Package{
		PackageName:               m.Path,
		PackageVersion:            m.Version,
		PackageSupplier:           &common.Supplier{Supplier: "NOASSERTION"},
		PackageDownloadLocation:   "NOASSERTION",
		IsFilesAnalyzedTagPresent: true,
		PackageLicenseConcluded:   license,
		PackageLicenseDeclared:    license,
		PackageCopyrightText:      "NOASSERTION",
		PackageExternalReferences: []*spdx.PackageExternalReference{purl(m.Path, m.Version)},
		PrimaryPackagePurpose:     "LIBRARY",
	}
	if m.Sum != "" {
		p.PackageSourceInfo = "go.sum " + m.Sum
	}
	return p, nil
}

// purl refers to a Go module as a package URL, by which scanners for vulnerabilities find it.
func purl(module, version string) *spdx.PackageExternalReference {
	return &spdx.PackageExternalReference{Category: "PACKAGE-MANAGER", RefType: "purl", Locator: "pkg:golang/" + module + "@" + version}
}

func relate(d *spdx.Document, from common.ElementID, relationship string, to common.ElementID) {
	d.Relationships = append(d.Relationships, &spdx.Relationship{
		RefA:         common.DocElementID{ElementRefID: from},
		RefB:         common.DocElementID{ElementRefID: to},
		Relationship: relationship,
	})
}
