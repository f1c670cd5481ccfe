// SPDX-License-Identifier: Apache-2.0

// Command generate writes the Grafana dashboards as JSON files into a directory, and removes other JSON files from it.
package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/balena-exporter/balena-exporter/deploy/grafana"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: generate DIRECTORY")
		os.Exit(2)
	}
	if err := generate(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "generate:", err)
		os.Exit(1)
	}
}

func generate(directory string) error {
	if err := os.MkdirAll(directory, 0o755); err != nil {
		return err
	}
	old, err := filepath.Glob(filepath.Join(directory, "*.json"))
	if err != nil {
		return err
	}
	for _, file := range old {
		if err := os.Remove(file); err != nil {
			return err
		}
	}
	for _, d := range grafana.All() {
		data, err := d.JSON()
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(directory, d.FileName()), data, 0o644); err != nil {
			return err
		}
	}
	return nil
}
