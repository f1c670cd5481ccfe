// SPDX-License-Identifier: Apache-2.0

// Publish pushes the image and the chart of a release to an OCI registry, signs both, and attests to the image's SBOM and
// provenance.
//
// The tag is written last, so that a version that has a tag is signed. What a tag names is never replaced. Publishing the same
// release again changes nothing.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/google/go-containerregistry/pkg/v1/partial"
)

func main() {
	directory := flag.String("release", ".release", "`directory` that make release wrote")
	registry := flag.String("registry", "", "registry and namespace, such as ghcr.io/balena-exporter")
	cosign := flag.String("cosign", "cosign", "`path` of the cosign command")
	flag.Parse()
	if err := publish(*directory, *registry, *cosign); err != nil {
		// The libraries' errors have lines.
		fmt.Fprintf(os.Stderr, "publish: error: %s\n", strings.Join(strings.Fields(err.Error()), " "))
		os.Exit(1)
	}
}

func publish(directory, registry, cosign string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if registry == "" {
		return errors.New("there is no registry; write make publish REGISTRY=HOST/NAMESPACE")
	}
	release, err := read(directory)
	if err != nil {
		return err
	}
	signer, err := newSigner(cosign)
	if err != nil {
		return err
	}
	defer signer.close()

	// Both are looked up before either is pushed, so that no half of a release is published.
	image, err := newTarget(ctx, registry+"/"+project, release.version, release.image)
	if err != nil {
		return err
	}
	packed, err := partial.CompressedToImage(release.chart)
	if err != nil {
		return err
	}
	chart, err := newTarget(ctx, registry+"/charts/"+project, release.chart.version, packed)
	if err != nil {
		return err
	}
	provenance, err := signer.provenance(release)
	if err != nil {
		return err
	}
	for _, step := range []func() error{
		image.push,
		func() error { return signer.sign(ctx, image) },
		func() error { return signer.attest(ctx, image, "spdxjson", release.sbom) },
		func() error { return signer.attest(ctx, image, "slsaprovenance1", provenance) },
		chart.push,
		func() error { return signer.sign(ctx, chart) },
		func() error { return signer.attest(ctx, chart, "slsaprovenance1", provenance) },
		image.name,
		chart.name,
	} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}
