// SPDX-License-Identifier: Apache-2.0

// Sbom writes the software bill of materials of an artifact of a release as SPDX JSON: which programs the artifact
// contains, and which Go modules are linked into them, with the version, the hash of go.sum and the license of each.
//
// The modules come from what the Go linker has written into the programs, the licenses from NOTICE, and the time from
// SOURCE_DATE_EPOCH. The same artifact gives the same bytes.
package main

import (
	"bytes"
	"flag"
	"fmt"
	"os"

	"github.com/spdx/tools-golang/json"
	"github.com/spdx/tools-golang/spdxlib"
)

func main() {
	version := flag.String("version", "", "`version` of the release")
	notice := flag.String("notice", "NOTICE", "`file` with the modules' licenses")
	output := flag.String("output", "", "`file` to write")
	flag.Usage = func() {
		fmt.Fprintln(flag.CommandLine.Output(), "usage: sbom [flags] ARTIFACT [PROGRAM …]\n\n"+
			"ARTIFACT is a file that contains the programs, or the directory of an OCI layout, whose images are read for programs.")
		flag.PrintDefaults()
	}
	flag.Parse()
	if flag.NArg() == 0 || *version == "" || *output == "" {
		flag.Usage()
		os.Exit(2)
	}
	if err := write(*output, *version, *notice, os.Getenv("SOURCE_DATE_EPOCH"), flag.Arg(0), flag.Args()[1:]); err != nil {
		fmt.Fprintf(os.Stderr, "cannot write the bill of materials of %s: %v\n", flag.Arg(0), err)
		os.Exit(1)
	}
}

func write(output, version, notice, epoch, artifact string, programs []string) error {
	r := release{version: version}
	var err error
	if r.created, err = instant(epoch); err != nil {
		return err
	}
	if r.licenses, err = readLicenses(notice); err != nil {
		return err
	}
	a, err := read(artifact, programs)
	if err != nil {
		return err
	}
	document, err := r.document(a)
	if err != nil {
		return err
	}
	if err := spdxlib.ValidateDocument(document); err != nil {
		return err
	}
	var b bytes.Buffer
	if err := json.Write(document, &b, json.Indent(" ")); err != nil {
		return err
	}
	return os.WriteFile(output, b.Bytes(), 0o644)
}
