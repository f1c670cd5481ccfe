// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"
)

var (
	programsFlag  = flag.String("programs", "../../bin/cluster", "directory of the programs and images that make built")
	artifactsFlag = flag.String("artifacts", "../../bin/cluster/artifacts", "directory for logs, and for events and manifests of stories that fail")
)

// All stories share one cluster.
var (
	kubernetes *Cluster
	prometheus *Prometheus
	artifacts  string
)

func TestMain(m *testing.M) {
	flag.Parse()
	code, err := Isolated(func() int { return runStories(m) })
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	os.Exit(code)
}

// runStories starts the cluster and runs all stories.
func runStories(m *testing.M) int {
	ctx := context.Background()
	start := time.Now()
	err := func() error {
		programs, err := filepath.Abs(*programsFlag)
		if err != nil {
			return err
		}
		if artifacts, err = filepath.Abs(*artifactsFlag); err != nil {
			return err
		}
		if err := os.RemoveAll(artifacts); err != nil {
			return err
		}
		if kubernetes, err = Start(ctx, programs, filepath.Join(artifacts, "logs")); err != nil {
			return err
		}
		fmt.Printf("a node is ready after %.1f s\n", time.Since(start).Seconds())
		prometheus, err = kubernetes.Monitor(ctx)
		return err
	}()
	if err != nil {
		fmt.Fprintf(os.Stderr, "no cluster: %v\nlogs are in %s\n", err, artifacts)
		return 1
	}
	fmt.Printf("Prometheus is ready after %.1f s\n", time.Since(start).Seconds())
	code := m.Run()
	fmt.Printf("all stories took %.1f s\n", time.Since(start).Seconds())
	if code != 0 {
		fmt.Printf("logs, events and manifests are in %s\n", artifacts)
	}
	return code
}
