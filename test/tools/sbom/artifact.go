// SPDX-License-Identifier: Apache-2.0

package main

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
)

// artifact is a file of a release, or the index of images in an OCI layout.
type artifact struct {
	name     string
	sha256   string
	image    bool
	programs []program
}

// program is a Go program in an artifact.
type program struct {
	name     string
	platform string // of the image that contains it
	sha256   string
	build    *buildinfo.BuildInfo
}

func read(name string, programs []string) (*artifact, error) {
	if info, err := os.Stat(name); err != nil {
		return nil, err
	} else if info.IsDir() {
		if len(programs) > 0 {
			return nil, errors.New("the programs of an OCI layout are read from its images: name none")
		}
		return readLayout(name)
	}
	b, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	a := &artifact{name: filepath.Base(name), sha256: digest(b)}
	for _, file := range programs {
		b, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		if err := a.add(filepath.Base(file), "", b); err != nil {
			return nil, err
		}
	}
	if len(a.programs) == 0 {
		return nil, errors.New("it contains no program")
	}
	return a, nil
}

func (a *artifact) add(name, platform string, contents []byte) error {
	build, err := buildinfo.Read(bytes.NewReader(contents))
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	a.programs = append(a.programs, program{name: name, platform: platform, sha256: digest(contents), build: build})
	return nil
}

// readLayout reads an OCI layout of one index of images, each with programs in /bin.
func readLayout(directory string) (*artifact, error) {
	blobs, err := filepath.Glob(filepath.Join(directory, "blobs", "sha256", "*"))
	if err != nil {
		return nil, err
	}
	for _, file := range blobs { // The library does not compare them with their digests.
		if b, err := os.ReadFile(file); err != nil {
			return nil, err
		} else if digest(b) != filepath.Base(file) {
			return nil, fmt.Errorf("the blob %s has other contents than its name says", filepath.Base(file))
		}
	}
	all, err := layout.ImageIndexFromPath(directory)
	if err != nil {
		return nil, err
	}
	entries, err := all.IndexManifest()
	if err != nil {
		return nil, err
	}
	if len(entries.Manifests) != 1 {
		return nil, fmt.Errorf("index.json has %d entries, want one", len(entries.Manifests))
	}
	index, err := all.ImageIndex(entries.Manifests[0].Digest)
	if err != nil {
		return nil, err
	}
	images, err := index.IndexManifest()
	if err != nil {
		return nil, err
	}
	a := &artifact{name: filepath.Base(directory), sha256: entries.Manifests[0].Digest.Hex, image: true}
	for _, entry := range images.Manifests {
		if entry.Platform == nil {
			return nil, fmt.Errorf("the image %s has no platform", entry.Digest)
		}
		image, err := index.Image(entry.Digest)
		if err != nil {
			return nil, err
		}
		if err := a.readImage(image, entry.Platform.String()); err != nil {
			return nil, fmt.Errorf("the image for %s: %w", entry.Platform, err)
		}
	}
	return a, nil
}

func (a *artifact) readImage(image v1.Image, platform string) error {
	before := len(a.programs)
	extracted := mutate.Extract(image)
	defer func() { _ = extracted.Close() }()
	for files := tar.NewReader(extracted); ; {
		header, err := files.Next()
		switch {
		case errors.Is(err, io.EOF) && len(a.programs) == before:
			return errors.New("it contains no program")
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		case header.Typeflag != tar.TypeReg || path.Dir(path.Join("/", header.Name)) != "/bin":
			continue
		}
		contents, err := io.ReadAll(files)
		if err != nil {
			return err
		}
		if err := a.add(path.Base(header.Name), platform, contents); err != nil {
			return err
		}
	}
}

func digest(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}
