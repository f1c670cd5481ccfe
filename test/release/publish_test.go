// SPDX-License-Identifier: Apache-2.0

// Package release publishes to a real registry on this machine, and verifies, pulls and installs what was published.
package release

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"flag"
	"fmt"
	"io/fs"
	"maps"
	"math/rand"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

var (
	cosignPath = flag.String("cosign", "../../bin/tools/cosign", "path of the cosign command")
	helmPath   = flag.String("helm", "../../bin/cluster/helm", "path of the helm command")
	built      = flag.String("release", "../../.release", "directory that make release wrote")
)

// programs are publish and registry, built for the tests.
var programs string

func TestMain(m *testing.M) {
	flag.Parse()
	var err error
	if programs, err = os.MkdirTemp("", "balena-exporter-release-test"); err != nil {
		panic(err)
	}
	build := exec.Command("go", "build", "-o", programs+"/", "./publish", "./registry")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	build.Stderr = os.Stderr
	if err := build.Run(); err != nil {
		panic(err)
	}
	status := m.Run()
	_ = os.RemoveAll(programs)
	os.Exit(status)
}

// registry is a running registry, with the namespace in which a test publishes.
type registry struct {
	t       *testing.T
	address string
	storage string
}

func startRegistry(t *testing.T) *registry {
	t.Helper()
	r := &registry{t: t, storage: t.TempDir()}
	command := exec.Command(filepath.Join(programs, "registry"), "-storage="+r.storage)
	command.Stderr = os.Stderr
	stdout, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = command.Process.Kill()
		_ = command.Wait()
	})
	if _, err := fmt.Fscanln(stdout, &r.address); err != nil {
		t.Fatalf("the registry does not say where it listens: %v", err)
	}
	return r
}

func (r *registry) namespace() string { return r.address + "/acme" }

func (r *registry) image() string { return r.namespace() + "/balena-exporter" }

func (r *registry) chart() string { return r.namespace() + "/charts/balena-exporter" }

// digest returns what a reference names; empty if there is no such thing.
func (r *registry) digest(reference string) string {
	r.t.Helper()
	parsed, err := name.ParseReference(reference)
	if err != nil {
		r.t.Fatal(err)
	}
	d, err := remote.Head(parsed)
	if err != nil {
		return ""
	}
	return d.Digest.String()
}

// files are the names of all files in the registry's storage, but for uploads that are under way.
func (r *registry) files() []string {
	r.t.Helper()
	var names []string
	err := filepath.WalkDir(r.storage, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && !entry.IsDir() && !strings.Contains(path, "/_uploads/") {
			names = append(names, strings.TrimPrefix(path, r.storage))
		}
		return err
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return names
}

// keys is a pair of keys to sign with.
type keys struct{ private, public string }

func newKeys(t *testing.T) keys {
	t.Helper()
	directory := t.TempDir()
	prefix := filepath.Join(directory, "cosign")
	run(t, *cosignPath, "generate-key-pair", "--output-key-prefix", prefix)
	return keys{prefix + ".key", prefix + ".pub"}
}

const password = "s3cret-of-the-tests"

// command is a program with the environment of the tests: nothing of the user's configuration, and no network needed.
func command(program string, args ...string) *exec.Cmd {
	c := exec.Command(program, args...)
	c.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + programs, "COSIGN_PASSWORD=" + password, "DOCKER_CONFIG=" + programs}
	return c
}

// run returns what a program prints, which must succeed.
func run(t *testing.T, program string, args ...string) []byte {
	t.Helper()
	var stderr bytes.Buffer
	c := command(program, args...)
	c.Stderr = &stderr
	out, err := c.Output()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", filepath.Base(program), strings.Join(args, " "), err, &stderr)
	}
	return out
}

// fails returns what a program complains about, which must fail.
func fails(t *testing.T, program string, args ...string) string {
	t.Helper()
	out, err := command(program, args...).CombinedOutput()
	if err == nil {
		t.Errorf("%s %s succeeds:\n%s", filepath.Base(program), strings.Join(args, " "), out)
	}
	return string(out)
}

// publish publishes a release, and returns what the program prints.
func (r *registry) publish(k keys, release string) (string, error) {
	c := command(filepath.Join(programs, "publish"), "-release="+release, "-registry="+r.namespace(), "-cosign="+*cosignPath)
	if k.private != "" {
		c.Env = append(c.Env, "COSIGN_KEY="+k.private)
	}
	out, err := c.CombinedOutput()
	return string(out), err
}

func (r *registry) publishes(k keys, release string) string {
	r.t.Helper()
	out, err := r.publish(k, release)
	if err != nil {
		r.t.Fatalf("publish: %v\n%s", err, out)
	}
	return out
}

// Without a key, the workflow of GitHub Actions signs, and signatures must be by that workflow. A test cannot reach Sigstore's
// services, so a script takes the place of cosign and records its arguments.
func TestPublishWithoutKey(t *testing.T) {
	t.Parallel()
	r, directory := startRegistry(t), t.TempDir()
	script := filepath.Join(directory, "cosign")
	if err := os.WriteFile(script, []byte("#!/bin/sh\necho \"$@\" >>"+directory+"/asked\n[ $1 = sign ] # it fails to verify\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	c := command(filepath.Join(programs, "publish"), "-release="+first.write(t), "-registry="+r.namespace(), "-cosign="+script)
	c.Env = append(c.Env, "ACTIONS_ID_TOKEN_REQUEST_URL=https://token.example.com", "GITHUB_SERVER_URL=https://github.com",
		"GITHUB_WORKFLOW_REF=balena-exporter/balena-exporter/.github/workflows/release.yml@refs/tags/v1.2.3")
	out, err := c.CombinedOutput()
	if err == nil || !strings.Contains(string(out), "its signature does not verify") {
		t.Errorf("ended with %v and printed %s", err, out)
	}
	content, err := os.ReadFile(filepath.Join(directory, "asked"))
	if err != nil {
		t.Fatal(err)
	}
	image := r.image() + "@" + layoutDigest(t, first.write(t))
	verify := "verify --certificate-identity=https://github.com/balena-exporter/balena-exporter/.github/workflows/release.yml@refs/tags/v1.2.3" +
		" --certificate-oidc-issuer=https://token.actions.githubusercontent.com " + image + "\n"
	if want := verify + "sign --yes " + image + "\n" + verify; string(content) != want {
		t.Errorf("cosign was asked\n%s\nwant\n%s", content, want)
	}
	if tagged := r.digest(r.image() + ":1.2.3"); tagged != "" {
		t.Error("what is not signed has a tag")
	}
	r.publishes(newKeys(t), first.write(t)) // which takes up what was left
}

// verify verifies as the README says.
func verify(k keys, command ...string) []string {
	return append(command[:len(command)-1:len(command)-1], "--key", k.public, "--insecure-ignore-tlog=true", command[len(command)-1])
}

// sample is a small release: what make release writes, with random layers.
type sample struct {
	version, appVersion, revision string
	// seed makes other layers.
	seed byte
	// label is the version in the labels of the image, if not version.
	label string
}

func (s sample) write(t *testing.T) (directory string) {
	t.Helper()
	directory = t.TempDir()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	if s.label == "" {
		s.label = s.version
	}
	index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for i, architecture := range []string{"amd64", "arm64"} {
		image, err := random.Image(5000, 1, random.WithSource(rand.NewSource(int64(s.seed)*2+int64(i))))
		must(err)
		file, err := image.ConfigFile()
		must(err)
		file = file.DeepCopy()
		file.OS, file.Architecture = "linux", architecture
		file.Config.Labels = map[string]string{
			"org.opencontainers.image.version":  s.label,
			"org.opencontainers.image.revision": s.revision,
			"org.opencontainers.image.source":   "https://github.com/balena-exporter/balena-exporter",
		}
		image, err = mutate.ConfigFile(image, file)
		must(err)
		image = mutate.MediaType(image, types.OCIManifestSchema1)
		image = mutate.ConfigMediaType(image, types.OCIConfigJSON)
		index = mutate.AppendManifests(index, mutate.IndexAddendum{Add: image, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: architecture}}})
	}
	path, err := layout.Write(filepath.Join(directory, "image"), empty.Index)
	must(err)
	must(path.AppendIndex(index, layout.WithAnnotations(map[string]string{"org.opencontainers.image.ref.name": s.version})))

	chart := fmt.Sprintf("apiVersion: v2\nname: balena-exporter\nversion: %s\nappVersion: %s\ndescription: for tests\n", s.version, s.appVersion)
	var archive bytes.Buffer
	zip := gzip.NewWriter(&archive)
	files := tar.NewWriter(zip)
	must(files.WriteHeader(&tar.Header{Name: "balena-exporter/Chart.yaml", Mode: 0o644, Size: int64(len(chart))}))
	_, err = files.Write([]byte(chart))
	must(err)
	must(files.Close())
	must(zip.Close())
	must(os.WriteFile(filepath.Join(directory, "balena-exporter-"+s.version+".tgz"), archive.Bytes(), 0o600))

	must(os.Mkdir(filepath.Join(directory, "sbom"), 0o700))
	must(os.WriteFile(filepath.Join(directory, "sbom", "image.spdx.json"), []byte(`{"spdxVersion": "SPDX-2.3", "name": "balena-exporter"}`), 0o600))
	writeSums(t, directory)
	return directory
}

// writeSums writes sha256sums.txt for what is in a directory.
func writeSums(t *testing.T, directory string) {
	t.Helper()
	var lines strings.Builder
	err := filepath.WalkDir(directory, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || entry.Name() == "sha256sums.txt" {
			return err
		}
		content, err := os.ReadFile(path)
		fmt.Fprintf(&lines, "%x  %s\n", sha256.Sum256(content), strings.TrimPrefix(path, directory+"/"))
		return err
	})
	if err == nil {
		err = os.WriteFile(filepath.Join(directory, "sha256sums.txt"), []byte(lines.String()), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

var first = sample{version: "1.2.3", appVersion: "1.2.3", revision: "0123456789abcdef0123456789abcdef01234567"}

func TestPublish(t *testing.T) {
	t.Parallel()
	r, k := startRegistry(t), newKeys(t)
	release := first.write(t)
	out := r.publishes(k, release)
	image, chart := r.digest(r.image()+":1.2.3"), r.digest(r.chart()+":1.2.3")
	want := fmt.Sprintf("published %s:1.2.3@%s\npublished %s:1.2.3@%s\n", r.image(), image, r.chart(), chart)
	if out != want {
		t.Errorf("printed %s, want %s", out, want)
	}
	if layoutDigest := layoutDigest(t, release); image != layoutDigest {
		t.Errorf("the image in the registry is %s, and was built as %s", image, layoutDigest)
	}
	run(t, *cosignPath, verify(k, "verify", r.image()+"@"+image)...)
	run(t, *cosignPath, verify(k, "verify", r.chart()+"@"+chart)...)

	for _, test := range []struct{ kind, of, want string }{
		{"spdxjson", r.image() + "@" + image, `{"name":"balena-exporter","spdxVersion":"SPDX-2.3"}`},
		{"slsaprovenance1", r.image() + "@" + image, provenance},
		{"slsaprovenance1", r.chart() + "@" + chart, provenance},
	} {
		if got := predicates(t, run(t, *cosignPath, verify(k, "verify-attestation", "--type", test.kind, test.of)...)); !slices.Equal(got, []string{test.want}) {
			t.Errorf("%s of %s is %s, want %s", test.kind, test.of, got, test.want)
		}
	}

	// Once more, nothing changes: no tag, no signature, no attestation.
	before := r.files()
	if again := r.publishes(k, release); again != out {
		t.Errorf("published once more, it printed %s, want %s", again, out)
	}
	if after := r.files(); !slices.Equal(before, after) {
		t.Errorf("published once more, the registry holds %d files, and held %d", len(after), len(before))
	}

	// The next version is published beside it.
	second := first
	second.version, second.appVersion, second.seed = "1.2.4", "1.2.4", 1
	r.publishes(k, second.write(t))
	if r.digest(r.image()+":1.2.3") != image || r.digest(r.image()+":1.2.4") == "" {
		t.Error("the next version does not stand beside the first one")
	}
}

const provenance = `{"buildDefinition":{"buildType":"https://github.com/balena-exporter/balena-exporter/blob/0123456789abcdef0123456789abcdef01234567/Makefile",` +
	`"externalParameters":{"repository":"https://github.com/balena-exporter/balena-exporter","revision":"0123456789abcdef0123456789abcdef01234567","target":"release","version":"1.2.3"},` +
	`"resolvedDependencies":[{"digest":{"gitCommit":"0123456789abcdef0123456789abcdef01234567"},"uri":"git+https://github.com/balena-exporter/balena-exporter"}]},` +
	`"runDetails":{"builder":{"id":"https://github.com/balena-exporter/balena-exporter/blob/0123456789abcdef0123456789abcdef01234567/docs/releasing.md"}}}`

// layoutDigest is the digest of the one entry of a release's image.
func layoutDigest(t *testing.T, release string) string {
	t.Helper()
	index, err := layout.ImageIndexFromPath(filepath.Join(release, "image"))
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	return manifest.Manifests[0].Digest.String()
}

// predicates are what attestations attest to, their fields in alphabetic order.
func predicates(t *testing.T, out []byte) []string {
	t.Helper()
	var all []string
	for line := range bytes.Lines(out) {
		var envelope struct{ Payload string }
		var statement struct{ Predicate any }
		if err := json.Unmarshal(line, &envelope); err != nil {
			t.Fatal(err)
		}
		payload, err := base64.StdEncoding.DecodeString(envelope.Payload)
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(payload, &statement); err != nil {
			t.Fatal(err)
		}
		predicate, err := json.Marshal(statement.Predicate)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, string(predicate))
	}
	return all
}

// A release that is not right is not published: the registry stays as it was.
func TestPublishRefuses(t *testing.T) {
	t.Parallel()
	r, k := startRegistry(t), newKeys(t)
	r.publishes(k, first.write(t))
	before := r.files()
	next := func(change func(*sample)) func(*testing.T) string {
		return func(t *testing.T) string {
			s := first
			s.version, s.appVersion, s.seed = "1.3.0", "1.3.0", 3
			change(&s)
			return s.write(t)
		}
	}
	edited := func(edit func(t *testing.T, directory string)) func(*testing.T) string {
		return func(t *testing.T) string {
			directory := next(func(*sample) {})(t)
			edit(t, directory)
			return directory
		}
	}
	for what, test := range map[string]struct {
		release func(*testing.T) string
		keys    keys
		want    []string
	}{
		"another image of a version": {
			func(t *testing.T) string { s := first; s.seed = 2; return s.write(t) }, k,
			[]string{r.image() + ":1.2.3 is published with other contents", "a version is never replaced"},
		},
		"another chart of a version": {func(t *testing.T) string {
			directory := first.write(t)
			rechart(t, directory, "1.2.3")
			return directory
		}, k, []string{r.chart() + ":1.2.3 is published with other contents"}},
		"a chart of another version of the image": {
			next(func(s *sample) { s.appVersion = "1.2.3" }), k,
			[]string{"the chart installs version 1.2.3", "the image is version 1.3.0"},
		},
		"an image that was built as another version": {
			next(func(s *sample) { s.label = "1.2.3" }), k,
			[]string{`linux/amd64 says that it is version "1.2.3", and the layout says "1.3.0"`},
		},
		"an image without a revision": {next(func(s *sample) { s.revision = "" }), k, []string{"which source and revision"}},
		"a file that was changed": {
			edited(func(t *testing.T, directory string) { tamper(t, layer(t, directory)) }), k,
			[]string{"has changed since make release"},
		},
		"a layer that is not what its digest says": {edited(func(t *testing.T, directory string) {
			tamper(t, layer(t, directory))
			writeSums(t, directory)
		}), k, []string{"the image in", "sha256:"}},
		"no chart": {edited(func(t *testing.T, directory string) {
			remove(t, filepath.Join(directory, "balena-exporter-1.3.0.tgz"))
			writeSums(t, directory)
		}), k, []string{"holds 0 charts"}},
		"no SBOM": {edited(func(t *testing.T, directory string) {
			remove(t, filepath.Join(directory, "sbom", "image.spdx.json"))
			writeSums(t, directory)
		}), k, []string{"the SBOM of the image", "run make release"}},
		"no release":         {func(t *testing.T) string { return t.TempDir() }, k, []string{"there is no release to publish", "run make release"}},
		"no key":             {next(func(*sample) {}), keys{}, []string{"COSIGN_KEY", "GitHub Actions"}},
		"a key that is none": {next(func(*sample) {}), keys{private: k.public}, []string{"cosign public-key"}},
	} {
		t.Run(what, func(t *testing.T) {
			out, err := r.publish(test.keys, test.release(t))
			if err == nil {
				t.Errorf("it is published: %s", out)
			}
			for _, want := range test.want {
				if !strings.Contains(out, want) {
					t.Errorf("the error does not say %q: %s", want, out)
				}
			}
			if strings.Count(out, "\n") != 1 || !strings.HasPrefix(out, "publish: error: ") {
				t.Errorf("that is not one line with the error: %s", out)
			}
			if after := r.files(); !slices.Equal(before, after) {
				t.Errorf("the registry holds %d files, and held %d", len(after), len(before))
			}
		})
	}
}

// rechart packs another chart into a release.
func rechart(t *testing.T, directory, version string) {
	t.Helper()
	other := sample{version: version, appVersion: version, revision: "other"}.write(t)
	file := "balena-exporter-" + version + ".tgz"
	content, err := os.ReadFile(filepath.Join(other, file))
	if err != nil {
		t.Fatal(err)
	}
	// The same chart, compressed by somebody else.
	content = append(content, gzipped(t, nil)...)
	if err := os.WriteFile(filepath.Join(directory, file), content, 0o600); err != nil {
		t.Fatal(err)
	}
	writeSums(t, directory)
}

func gzipped(t *testing.T, content []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	zip := gzip.NewWriter(&b)
	_, err := zip.Write(content)
	if err == nil {
		err = zip.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func remove(t *testing.T, file string) {
	t.Helper()
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
}

// tamper changes the last byte of a file.
func tamper(t *testing.T, file string) {
	t.Helper()
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	content[len(content)-1] ^= 1
	if err := os.WriteFile(file, content, 0o600); err != nil {
		t.Fatal(err)
	}
}

// layer is the largest blob of a release's image: a layer.
func layer(t *testing.T, release string) string {
	t.Helper()
	blobs, err := filepath.Glob(filepath.Join(release, "image", "blobs", "sha256", "*"))
	if err != nil || len(blobs) == 0 {
		t.Fatalf("no blobs: %v", err)
	}
	size := func(file string) int64 {
		info, err := os.Stat(file)
		if err != nil {
			t.Fatal(err)
		}
		return info.Size()
	}
	return slices.MaxFunc(blobs, func(a, b string) int { return int(size(a) - size(b)) })
}

// Verification fails for what somebody else put into the registry.
func TestVerifyRefuses(t *testing.T) {
	t.Parallel()
	r, k := startRegistry(t), newKeys(t)
	r.publishes(k, first.write(t))
	good := r.digest(r.image() + ":1.2.3")
	other := first
	other.seed = 9
	foreign := other.write(t)
	digest := layoutDigest(t, foreign)
	r.push(foreign, r.image()+":1.2.3") // over the tag that was published
	tagged := r.image() + ":1.2.3"

	t.Run("an unsigned image", func(t *testing.T) {
		if out := fails(t, *cosignPath, verify(k, "verify", tagged)...); !strings.Contains(out, "no signatures found") {
			t.Errorf("it fails for another reason: %s", out)
		}
	})
	t.Run("the signature of another image", func(t *testing.T) {
		tag := func(digest string) string { return r.image() + ":" + strings.Replace(digest, ":", "-", 1) }
		r.copy(tag(good), tag(digest)) // where cosign looks for the signatures of an image
		if out := fails(t, *cosignPath, verify(k, "verify", tagged)...); !strings.Contains(out, "digest") {
			t.Errorf("it fails for another reason: %s", out)
		}
		if out := fails(t, *cosignPath, verify(k, "verify-attestation", "--type", "spdxjson", tagged)...); !strings.Contains(out, "digest") {
			t.Errorf("the SBOM fails for another reason: %s", out)
		}
	})
	t.Run("a signature by another key", func(t *testing.T) {
		if out := fails(t, *cosignPath, verify(newKeys(t), "verify", r.image()+"@"+good)...); !strings.Contains(out, "signature") {
			t.Errorf("it fails for another reason: %s", out)
		}
	})
	t.Run("a digest that is not there", func(t *testing.T) {
		wrong := r.image() + "@sha256:" + strings.Repeat("0", 64)
		fails(t, *cosignPath, verify(k, "verify", wrong)...)
	})
	t.Run("what was published still verifies", func(t *testing.T) {
		run(t, *cosignPath, verify(k, "verify", r.image()+"@"+good)...)
	})
}

// push pushes the image of a release as somebody who signs nothing.
func (r *registry) push(release, reference string) {
	r.t.Helper()
	all, err := layout.ImageIndexFromPath(filepath.Join(release, "image"))
	if err != nil {
		r.t.Fatal(err)
	}
	hash, err := v1.NewHash(layoutDigest(r.t, release))
	if err != nil {
		r.t.Fatal(err)
	}
	index, err := all.ImageIndex(hash)
	if err != nil {
		r.t.Fatal(err)
	}
	tag, err := name.NewTag(reference)
	if err != nil {
		r.t.Fatal(err)
	}
	if err := remote.WriteIndex(tag, index); err != nil {
		r.t.Fatal(err)
	}
}

// copy gives what a tag names a second tag.
func (r *registry) copy(from, to string) {
	r.t.Helper()
	source, err := name.NewTag(from)
	if err != nil {
		r.t.Fatal(err)
	}
	target, err := name.NewTag(to)
	if err != nil {
		r.t.Fatal(err)
	}
	descriptor, err := remote.Get(source)
	if err != nil {
		r.t.Fatal(err)
	}
	if err := remote.Tag(target, descriptor); err != nil {
		r.t.Fatal(err)
	}
}

// TestRelease publishes what make release built, and installs it as the README says.
func TestRelease(t *testing.T) {
	t.Parallel()
	if _, err := os.Stat(*built); err != nil {
		t.Fatalf("%v; run make release", err)
	}
	r, k := startRegistry(t), newKeys(t)
	r.publishes(k, *built)
	content, err := os.ReadFile("../../VERSION")
	if err != nil {
		t.Fatal(err)
	}
	version := strings.TrimSpace(string(content))
	image, chart := r.digest(r.image()+":"+version), r.digest(r.chart()+":"+version)

	t.Run("the signatures and the SBOM verify", func(t *testing.T) {
		run(t, *cosignPath, verify(k, "verify", r.image()+"@"+image)...)
		run(t, *cosignPath, verify(k, "verify", r.chart()+"@"+chart)...)
		sbom := predicates(t, run(t, *cosignPath, verify(k, "verify-attestation", "--type", "spdxjson", r.image()+"@"+image)...))
		if len(sbom) != 1 || !strings.Contains(sbom[0], "github.com/prometheus/client_golang") {
			t.Errorf("the SBOM does not name the modules: %.300s", sbom)
		}
	})
	t.Run("the platforms", func(t *testing.T) {
		reference, err := name.NewDigest(r.image() + "@" + image)
		if err != nil {
			t.Fatal(err)
		}
		index, err := remote.Index(reference)
		if err != nil {
			t.Fatal(err)
		}
		manifest, err := index.IndexManifest()
		if err != nil {
			t.Fatal(err)
		}
		platforms := map[string]bool{}
		for _, m := range manifest.Manifests {
			platforms[m.Platform.String()] = true
		}
		if got, want := slices.Sorted(maps.Keys(platforms)), []string{"linux/amd64", "linux/arm/v7", "linux/arm64"}; !slices.Equal(got, want) {
			t.Errorf("the image is for %v, want %v", got, want)
		}
	})
	t.Run("the chart is what was packed", func(t *testing.T) {
		directory := t.TempDir()
		run(t, *helmPath, "pull", "oci://"+r.chart(), "--version", version, "--plain-http", "--destination", directory)
		file := "balena-exporter-" + version + ".tgz"
		got, err := os.ReadFile(filepath.Join(directory, file))
		if err != nil {
			t.Fatal(err)
		}
		want, err := os.ReadFile(filepath.Join(*built, file))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Error("the chart that was pulled is another one")
		}
	})
	t.Run("helm install", func(t *testing.T) {
		install := []string{"install", "balena-exporter", "oci://" + r.chart(), "--plain-http", "--set", "balena.existingSecret=balena-token", "--dry-run=client"}
		if out := string(run(t, *helmPath, install...)); !strings.Contains(out, `image: "ghcr.io/balena-exporter/balena-exporter:`+version+`"`) {
			t.Errorf("the chart does not install the image of its version:\n%s", out)
		}
		out := string(run(t, *helmPath, append(install, "--set", "image.repository="+r.image(), "--set", "image.digest="+image)...))
		if !strings.Contains(out, `image: "`+r.image()+"@"+image+`"`) {
			t.Errorf("the chart does not install the image by its digest:\n%s", out)
		}
	})
	t.Run("a chart that was tampered with in the registry", func(t *testing.T) {
		content, err := os.ReadFile(filepath.Join(*built, "balena-exporter-"+version+".tgz"))
		if err != nil {
			t.Fatal(err)
		}
		sum := fmt.Sprintf("%x", sha256.Sum256(content))
		tamper(t, filepath.Join(r.storage, "docker/registry/v2/blobs/sha256", sum[:2], sum, "data"))
		fails(t, *helmPath, "pull", "oci://"+r.chart(), "--version", version, "--plain-http", "--destination", t.TempDir())
	})
}
