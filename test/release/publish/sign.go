// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
)

// signer signs with cosign. It uses the private key in COSIGN_KEY; in GitHub Actions without a key, it signs as the workflow
// that runs. A signature by the workflow is entered into Sigstore's public log. A signature by a key is not, so that it works
// without access to the internet.
type signer struct {
	cosign  string
	scratch string
	// signs and verifies are the arguments that say who signs, to sign and to verify.
	signs, verifies []string
	// builder is where the release is built, for the provenance.
	builder string
}

func newSigner(cosign string) (*signer, error) {
	scratch, err := os.MkdirTemp("", "balena-exporter-publish")
	if err != nil {
		return nil, err
	}
	s := &signer{cosign: cosign, scratch: scratch}
	key, workflow := os.Getenv("COSIGN_KEY"), os.Getenv("GITHUB_WORKFLOW_REF")
	switch {
	case key != "":
		err = s.useKey(key)
	case os.Getenv("ACTIONS_ID_TOKEN_REQUEST_URL") != "" && workflow != "":
		server := os.Getenv("GITHUB_SERVER_URL")
		s.builder = server + "/" + workflow
		s.verifies = []string{"--certificate-identity=" + s.builder, "--certificate-oidc-issuer=https://token.actions.githubusercontent.com"}
	default:
		err = errors.New("nothing to sign with: name a private key in COSIGN_KEY (cosign generate-key-pair makes one), or run in GitHub Actions with the permission id-token: write")
	}
	if err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

// useKey prepares signing with a key: its public key, and a configuration without any service.
func (s *signer) useKey(key string) error {
	if _, set := os.LookupEnv("COSIGN_PASSWORD"); !set {
		return errors.New("COSIGN_PASSWORD is missing: the password of the private key in COSIGN_KEY, which may be empty")
	}
	public, signing, root := filepath.Join(s.scratch, "cosign.pub"), filepath.Join(s.scratch, "signing.json"), filepath.Join(s.scratch, "root.json")
	for _, args := range [][]string{
		{"public-key", "--key", key, "--outfile", public},
		{"signing-config", "create", "--out", signing},
		{"trusted-root", "create", "--out", root},
	} {
		if _, err := s.run(context.Background(), args...); err != nil {
			return err
		}
	}
	s.signs = []string{"--key", key, "--signing-config", signing, "--trusted-root", root}
	s.verifies = []string{"--key", public, "--insecure-ignore-tlog=true"}
	return nil
}

func (s *signer) close() { _ = os.RemoveAll(s.scratch) }

// run returns what cosign prints. An error ends with the last line that cosign complained in.
func (s *signer) run(ctx context.Context, args ...string) ([]byte, error) {
	command := exec.CommandContext(ctx, s.cosign, args...)
	var stdout, stderr bytes.Buffer
	command.Stdout, command.Stderr = &stdout, &stderr
	if err := command.Run(); err != nil {
		lines := strings.Split(strings.TrimSpace(stderr.String()), "\n")
		return nil, fmt.Errorf("cosign %s: %w: %s", args[0], err, lines[len(lines)-1])
	}
	return stdout.Bytes(), nil
}

// with joins a command, the arguments that say who signs, and what is signed.
func with(command, who []string, rest ...string) []string {
	return append(append(command, who...), rest...)
}

// sign signs a target, unless it is signed, and verifies the signature.
func (s *signer) sign(ctx context.Context, t *target) error {
	verify := func() error {
		_, err := s.run(ctx, with([]string{"verify"}, s.verifies, t.digest.String())...)
		return err
	}
	if verify() == nil {
		return nil
	}
	if _, err := s.run(ctx, with([]string{"sign", "--yes"}, s.signs, t.digest.String())...); err != nil {
		return fmt.Errorf("cannot sign %s: %w", t.digest, err)
	}
	if err := verify(); err != nil {
		return fmt.Errorf("%s was signed, and its signature does not verify: %w", t.digest, err)
	}
	return nil
}

// attest attests to a predicate of a target, unless that is attested. Another predicate of the same type and signer is an
// error, because nothing tells which of the two is right.
func (s *signer) attest(ctx context.Context, t *target, kind string, predicate []byte) error {
	switch there, err := s.attested(ctx, t, kind, predicate); {
	case err != nil:
		return err
	case there:
		return nil
	}
	file := filepath.Join(s.scratch, kind+".json")
	if err := os.WriteFile(file, predicate, 0o600); err != nil {
		return err
	}
	if _, err := s.run(ctx, with([]string{"attest", "--yes", "--type", kind, "--predicate", file}, s.signs, t.digest.String())...); err != nil {
		return fmt.Errorf("cannot attest %s of %s: %w", kind, t.digest, err)
	}
	switch there, err := s.attested(ctx, t, kind, predicate); {
	case err != nil:
		return err
	case !there:
		return fmt.Errorf("%s of %s was attested, and does not verify", kind, t.digest)
	}
	return nil
}

// attested reports whether a predicate is attested to.
func (s *signer) attested(ctx context.Context, t *target, kind string, predicate []byte) (bool, error) {
	out, err := s.run(ctx, with([]string{"verify-attestation", "--type", kind}, s.verifies, t.digest.String())...)
	if err != nil {
		return false, nil // There is none by this signer. If the registry has failed, the next request to it fails as well.
	}
	var want any
	if err := json.Unmarshal(predicate, &want); err != nil {
		return false, fmt.Errorf("%s of %s: %w", kind, t.digest, err)
	}
	for line := range bytes.Lines(out) {
		var envelope struct{ Payload string }
		var statement struct{ Predicate any }
		if err := json.Unmarshal(line, &envelope); err != nil {
			return false, fmt.Errorf("cosign verify-attestation printed something else than JSON: %w", err)
		}
		payload, err := base64.StdEncoding.DecodeString(envelope.Payload)
		if err == nil {
			err = json.Unmarshal(payload, &statement)
		}
		if err != nil {
			return false, fmt.Errorf("an attestation of %s: %w", t.digest, err)
		}
		if reflect.DeepEqual(statement.Predicate, want) {
			return true, nil
		}
	}
	return false, fmt.Errorf("%s has another attestation of the type %s, by the same signer", t.digest, kind)
}

// provenance is the predicate of SLSA provenance version 1: from which commit the release was built, how and where. It holds
// neither a time nor the number of a run, because publishing the same release again must give the same predicate.
func (s *signer) provenance(r *release) ([]byte, error) {
	type object = map[string]any
	builder := s.builder
	if builder == "" {
		builder = r.source + "/blob/" + r.revision + "/docs/releasing.md"
	}
	return json.Marshal(object{
		"buildDefinition": object{
			"buildType":          r.source + "/blob/" + r.revision + "/Makefile",
			"externalParameters": object{"repository": r.source, "revision": r.revision, "version": r.version, "target": "release"},
			"resolvedDependencies": []object{
				{"uri": "git+" + r.source, "digest": object{"gitCommit": r.revision}},
			},
		},
		"runDetails": object{"builder": object{"id": builder}},
	})
}
