// SPDX-License-Identifier: Apache-2.0

// Package packs the Helm chart as helm package does, with the time of the commit (SOURCE_DATE_EPOCH) in place of the
// files' own times: the same commit gives the same bytes.
package main

import (
	"fmt"
	"os"
	"strconv"
	"time"

	"helm.sh/helm/v4/pkg/chart/common"
	"helm.sh/helm/v4/pkg/chart/v2/loader"
	"helm.sh/helm/v4/pkg/chart/v2/util"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: package CHART DIRECTORY")
		os.Exit(2)
	}
	archive, err := pack(os.Args[1], os.Args[2], os.Getenv("SOURCE_DATE_EPOCH"))
	if err != nil {
		fmt.Fprintf(os.Stderr, "cannot package the chart %s: %v\n", os.Args[1], err)
		os.Exit(1)
	}
	fmt.Println(archive)
}

// pack writes the chart to an archive in a directory and returns its path. The epoch is in seconds.
func pack(chart, directory, epoch string) (string, error) {
	seconds, err := strconv.ParseInt(epoch, 10, 64)
	if err != nil {
		return "", fmt.Errorf("SOURCE_DATE_EPOCH is not a number of seconds: %q", epoch)
	}
	c, err := loader.Load(chart)
	if err != nil {
		return "", err
	}
	c.ModTime = time.Unix(seconds, 0)
	c.SchemaModTime = c.ModTime
	for _, files := range [][]*common.File{c.Raw, c.Templates, c.Files} {
		for _, f := range files {
			f.ModTime = c.ModTime
		}
	}
	return util.Save(c, directory)
}
