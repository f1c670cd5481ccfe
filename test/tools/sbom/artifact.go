// SPDX-License-Identifier: Apache-2.0

package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"
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

// manifest is what an index and a manifest of an OCI layout have in common.
type manifest struct {
	Manifests, Layers []descriptor
}

type descriptor struct {
	Digest   string
	Platform struct{ OS, Architecture, Variant string }
}

// readLayout reads an OCI layout of one index of images, each with programs in /bin.
func readLayout(directory string) (*artifact, error) {
	b, err := os.ReadFile(filepath.Join(directory, "index.json"))
	if err != nil {
		return nil, err
	}
	var layout manifest
	if err := json.Unmarshal(b, &layout); err != nil {
		return nil, fmt.Errorf("index.json: %w", err)
	}
	if len(layout.Manifests) != 1 {
		return nil, fmt.Errorf("index.json has %d entries, want one", len(layout.Manifests))
	}
	index, err := readManifest(directory, layout.Manifests[0])
	if err != nil {
		return nil, err
	}
	a := &artifact{name: filepath.Base(directory), sha256: strings.TrimPrefix(layout.Manifests[0].Digest, "sha256:"), image: true}
	for _, image := range index.Manifests {
		m, err := readManifest(directory, image)
		if err != nil {
			return nil, err
		}
		before := len(a.programs)
		platform := path.Join(image.Platform.OS, image.Platform.Architecture, image.Platform.Variant)
		for _, layer := range m.Layers {
			if err := a.readLayer(directory, platform, layer); err != nil {
				return nil, err
			}
		}
		if len(a.programs) == before {
			return nil, fmt.Errorf("the image for %s contains no program", platform)
		}
	}
	return a, nil
}

func (a *artifact) readLayer(directory, platform string, layer descriptor) error {
	b, err := blob(directory, layer)
	if err != nil {
		return err
	}
	uncompressed, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		return fmt.Errorf("%s: %w", layer.Digest, err)
	}
	for files := tar.NewReader(uncompressed); ; {
		header, err := files.Next()
		if errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("%s: %w", layer.Digest, err)
		}
		if header.Typeflag != tar.TypeReg || path.Dir(path.Join("/", header.Name)) != "/bin" {
			continue
		}
		contents, err := io.ReadAll(files)
		if err != nil {
			return fmt.Errorf("%s: %w", layer.Digest, err)
		}
		if err := a.add(path.Base(header.Name), platform, contents); err != nil {
			return err
		}
	}
}

func readManifest(directory string, d descriptor) (*manifest, error) {
	b, err := blob(directory, d)
	if err != nil {
		return nil, err
	}
	m := new(manifest)
	if err := json.Unmarshal(b, m); err != nil {
		return nil, fmt.Errorf("%s: %w", d.Digest, err)
	}
	return m, nil
}

// blob reads what a descriptor stands for, and compares it with the digest.
func blob(directory string, d descriptor) ([]byte, error) {
	hash, ok := strings.CutPrefix(d.Digest, "sha256:")
	if !ok {
		return nil, fmt.Errorf("the digest %q is not a SHA-256", d.Digest)
	}
	b, err := os.ReadFile(filepath.Join(directory, "blobs", "sha256", hash))
	if err != nil {
		return nil, err
	}
	if digest(b) != hash {
		return nil, fmt.Errorf("the blob %s has other contents than its name says", d.Digest)
	}
	return b, nil
}

func digest(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}
