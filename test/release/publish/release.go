// SPDX-License-Identifier: Apache-2.0

package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/google/go-containerregistry/pkg/v1/validate"
	"sigs.k8s.io/yaml"
)

// project is the name of the image and of the chart.
const project = "balena-exporter"

// release is what make release built: one version of everything.
type release struct {
	version string
	// source is the address of the repository, and revision the commit; both are labels of the image.
	source, revision string
	image            v1.ImageIndex
	chart            *chart
	// sbom is the image's, in SPDX's JSON.
	sbom []byte
}

// read reads a release and checks that its parts belong together.
func read(directory string) (*release, error) {
	if err := checkSums(directory); err != nil {
		return nil, err
	}
	r := &release{}
	var err error
	if r.version, r.image, err = readImage(filepath.Join(directory, "image")); err != nil {
		return nil, fmt.Errorf("the image in %s: %w", directory, err)
	}
	if r.source, r.revision, err = origin(r.image, r.version); err != nil {
		return nil, fmt.Errorf("the image in %s: %w", directory, err)
	}
	if r.chart, err = readChart(directory); err != nil {
		return nil, err
	}
	if r.chart.appVersion != r.version {
		return nil, fmt.Errorf("the chart installs version %s (its appVersion), and the image is version %s; make them the same and run make release", r.chart.appVersion, r.version)
	}
	if r.sbom, err = os.ReadFile(filepath.Join(directory, "sbom", "image.spdx.json")); err != nil {
		return nil, fmt.Errorf("the SBOM of the image: %w; run make release", err)
	}
	return r, nil
}

// checkSums fails if a file is not what make release wrote.
func checkSums(directory string) error {
	const list = "sha256sums.txt"
	sums, err := os.ReadFile(filepath.Join(directory, list))
	if err != nil {
		return fmt.Errorf("there is no release to publish: %w; run make release", err)
	}
	for line := range strings.Lines(string(sums)) {
		want, file, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "  ")
		content, err := os.ReadFile(filepath.Join(directory, filepath.FromSlash(file)))
		if err != nil {
			return fmt.Errorf("%s: %w; run make release", list, err)
		}
		if fmt.Sprintf("%x", sha256.Sum256(content)) != want {
			return fmt.Errorf("%s in %s has changed since make release: its SHA-256 is not the one in %s", file, directory, list)
		}
	}
	return nil
}

// readImage reads the one entry of an OCI layout: the index of the platforms, with the version as its name. It reads all
// layers, and fails if one differs from its digest.
func readImage(directory string) (version string, image v1.ImageIndex, err error) {
	all, err := layout.ImageIndexFromPath(directory)
	if err != nil {
		return "", nil, err
	}
	manifest, err := all.IndexManifest()
	if err != nil {
		return "", nil, err
	}
	if len(manifest.Manifests) != 1 || !manifest.Manifests[0].MediaType.IsIndex() {
		return "", nil, fmt.Errorf("the layout has %d entries, want one index of the platforms", len(manifest.Manifests))
	}
	entry := manifest.Manifests[0]
	if version = entry.Annotations["org.opencontainers.image.ref.name"]; version == "" {
		return "", nil, errors.New("the entry of the layout has no name (org.opencontainers.image.ref.name)")
	}
	if image, err = all.ImageIndex(entry.Digest); err != nil {
		return "", nil, err
	}
	return version, image, validate.Index(image)
}

// origin returns what the images of all platforms say of their source. It fails if they differ, or are of another version.
func origin(index v1.ImageIndex, version string) (source, revision string, err error) {
	manifest, err := index.IndexManifest()
	if err != nil {
		return "", "", err
	}
	for i, entry := range manifest.Manifests {
		image, err := index.Image(entry.Digest)
		if err != nil {
			return "", "", err
		}
		file, err := image.ConfigFile()
		if err != nil {
			return "", "", err
		}
		label := func(name string) string { return file.Config.Labels["org.opencontainers.image."+name] }
		switch {
		case label("version") != version:
			return "", "", fmt.Errorf("the image for %s says that it is version %q, and the layout says %q", entry.Platform, label("version"), version)
		case i == 0:
			source, revision = label("source"), label("revision")
		case label("source") != source || label("revision") != revision:
			return "", "", fmt.Errorf("the image for %s is from revision %q, another one from %q", entry.Platform, label("revision"), revision)
		}
	}
	if source == "" || revision == "" {
		return "", "", errors.New("the labels do not say which source and revision it was built from")
	}
	return source, revision, nil
}

// chart is a chart as Helm stores it in a registry: a manifest of the metadata and the archive.
type chart struct {
	version, appVersion string
	manifest            []byte
	config, archive     []byte
}

const (
	chartConfigType  types.MediaType = "application/vnd.cncf.helm.config.v1+json"
	chartArchiveType types.MediaType = "application/vnd.cncf.helm.chart.content.v1.tar+gzip"
)

// readChart reads the one chart in a directory. Its manifest depends on the archive only. helm push is not used because it
// writes the time into the manifest, so that the same chart would have another digest each time.
func readChart(directory string) (*chart, error) {
	files, err := filepath.Glob(filepath.Join(directory, project+"-*.tgz"))
	if err != nil {
		return nil, err
	}
	if len(files) != 1 {
		return nil, fmt.Errorf("%s holds %d charts (%s-*.tgz), want one; run make release", directory, len(files), project)
	}
	c := &chart{}
	if c.archive, err = os.ReadFile(files[0]); err != nil {
		return nil, err
	}
	metadata, err := fileOf(c.archive, project+"/Chart.yaml")
	if err != nil {
		return nil, fmt.Errorf("%s: %w", files[0], err)
	}
	if c.config, err = yaml.YAMLToJSON(metadata); err != nil {
		return nil, fmt.Errorf("%s: %w", files[0], err)
	}
	var about struct {
		Name, Version, AppVersion, Description, Home string
		Sources                                      []string
	}
	if err := json.Unmarshal(c.config, &about); err != nil {
		return nil, fmt.Errorf("%s: %w", files[0], err)
	}
	if want := about.Name + "-" + about.Version + ".tgz"; about.Name != project || filepath.Base(files[0]) != want {
		return nil, fmt.Errorf("%s holds the chart %s, version %s", files[0], about.Name, about.Version)
	}
	c.version, c.appVersion = about.Version, about.AppVersion
	annotations := map[string]string{
		"org.opencontainers.image.title":       about.Name,
		"org.opencontainers.image.version":     about.Version,
		"org.opencontainers.image.description": about.Description,
		"org.opencontainers.image.url":         about.Home,
	}
	if len(about.Sources) > 0 {
		annotations["org.opencontainers.image.source"] = about.Sources[0]
	}
	c.manifest, err = json.Marshal(v1.Manifest{
		SchemaVersion: 2,
		MediaType:     types.OCIManifestSchema1,
		Config:        descriptor(c.config, chartConfigType),
		Layers:        []v1.Descriptor{descriptor(c.archive, chartArchiveType)},
		Annotations:   annotations,
	})
	return c, err
}

func descriptor(content []byte, mediaType types.MediaType) v1.Descriptor {
	digest, size, _ := v1.SHA256(bytes.NewReader(content)) // reading from memory does not fail
	return v1.Descriptor{MediaType: mediaType, Digest: digest, Size: size}
}

// The methods of partial.CompressedImageCore make a chart something that can be pushed.

func (c *chart) RawManifest() ([]byte, error)        { return c.manifest, nil }
func (c *chart) RawConfigFile() ([]byte, error)      { return c.config, nil }
func (c *chart) MediaType() (types.MediaType, error) { return types.OCIManifestSchema1, nil }
func (c *chart) LayerByDigest(v1.Hash) (partial.CompressedLayer, error) {
	return static.NewLayer(c.archive, chartArchiveType), nil
}

// fileOf returns a file of a .tar.gz.
func fileOf(archive []byte, name string) ([]byte, error) {
	unzip, err := gzip.NewReader(bytes.NewReader(archive))
	if err != nil {
		return nil, err
	}
	files := tar.NewReader(unzip)
	for {
		header, err := files.Next()
		if errors.Is(err, io.EOF) {
			return nil, fmt.Errorf("there is no %s", name)
		}
		if err != nil {
			return nil, err
		}
		if header.Name == name {
			return io.ReadAll(files)
		}
	}
}
