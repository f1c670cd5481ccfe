// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
)

// artifact is what is pushed: the index of an image, or a chart.
type artifact interface {
	remote.Taggable
	Digest() (v1.Hash, error)
}

// target is an artifact and its place in the registry.
type target struct {
	artifact artifact
	tag      name.Tag
	digest   name.Digest
	options  []remote.Option
	// tagged reports whether the tag names the artifact already.
	tagged bool
}

// newTarget looks up what the registry has. It is an error if the tag names something else.
func newTarget(ctx context.Context, repository, tag string, a artifact) (*target, error) {
	t := &target{artifact: a, options: []remote.Option{
		remote.WithContext(ctx),
		remote.WithAuthFromKeychain(authn.DefaultKeychain),
		remote.WithTransport(encrypted{remote.DefaultTransport}),
	}}
	var err error
	if t.tag, err = name.NewTag(repository+":"+tag, name.StrictValidation); err != nil {
		return nil, fmt.Errorf("REGISTRY must be a registry and a namespace such as ghcr.io/balena-exporter: %w", err)
	}
	digest, err := a.Digest()
	if err != nil {
		return nil, err
	}
	t.digest = t.tag.Digest(digest.String())
	head, err := remote.Head(t.tag, t.options...)
	switch answer := (*transport.Error)(nil); {
	case err == nil && head.Digest != digest:
		return nil, fmt.Errorf("%s is published with other contents (%s, and this is %s); a version is never replaced, so raise it", t.tag, head.Digest, digest)
	case err == nil:
		t.tagged = true
	case errors.As(err, &answer) && answer.StatusCode == http.StatusNotFound:
	case errors.As(err, &answer) && (answer.StatusCode == http.StatusUnauthorized || answer.StatusCode == http.StatusForbidden):
		return nil, fmt.Errorf("cannot look up %s: %w; log in with cosign login %s", t.tag, err, t.tag.RegistryStr())
	default:
		return nil, fmt.Errorf("cannot look up %s: %w", t.tag, err)
	}
	return t, nil
}

// push pushes the artifact without its tag.
func (t *target) push() error {
	if t.tagged {
		return nil
	}
	if err := remote.Push(t.digest, t.artifact, t.options...); err != nil {
		return fmt.Errorf("cannot push %s: %w", t.digest, err)
	}
	return nil
}

// name gives the artifact its tag.
func (t *target) name() error {
	if !t.tagged {
		if err := remote.Tag(t.tag, t.artifact, t.options...); err != nil {
			return fmt.Errorf("cannot tag %s: %w", t.tag, err)
		}
	}
	fmt.Printf("published %s@%s\n", t.tag, t.digest.DigestStr())
	return nil
}

// encrypted refuses plain HTTP to other hosts, which the library uses for hosts in private networks.
type encrypted struct{ http.RoundTripper }

func (e encrypted) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Scheme != "https" && !isLoopback(r.URL.Hostname()) {
		return nil, fmt.Errorf("refused to send %s over plain HTTP", r.URL.Host)
	}
	return e.RoundTripper.RoundTrip(r)
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}
