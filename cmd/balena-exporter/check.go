// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"slices"
	"time"

	"github.com/balena-exporter/balena-exporter/internal/balena/account"
)

// subject is a part of the configuration that --config.check prints a line about.
type subject string

const (
	settings         subject = "settings"
	webConfiguration subject = "web configuration"
	caCertificates   subject = "CA certificates"
	tokenSubject     subject = "token"
	apiServer        subject = "API"
)

// report prints the results of --config.check: a line for each valid subject, each mistake and each warning.
type report struct {
	check checker
	out   io.Writer
}

// checkConfig checks the configuration and prints the results. It sends a request to the API, unless the settings, the token
// or the CA have errors. It does not open ports.
func checkConfig(ctx context.Context, c *config, out io.Writer) error {
	r := &report{checker{c.mistakes}, out}
	r.about(settings, "valid")
	for _, warning := range c.warnings {
		r.line("warning", settings, warning)
	}
	r.about(webConfiguration, cmp.Or(*c.web.WebConfigFile, "none: plain HTTP without authentication"))

	c.client.URL = cmp.Or(c.client.URL, &url.URL{}) // nil if the URL is invalid
	reader, err := account.New(c.client)
	if err != nil {
		r.check.failIn(caCertificates, "--balena.ca-file: %w", err)
	}
	trusted := "those of the system"
	if c.client.CAFile != "" {
		trusted += " and of " + c.client.CAFile
	}
	r.about(caCertificates, trusted)

	from := "read from " + cmp.Or(c.tokenFile, tokenVariable)
	if r.wrong(settings) || r.wrong(tokenSubject) || r.wrong(caCertificates) {
		r.about(tokenSubject, from)
		r.line("skipped", apiServer, "not requested because of the errors above")
		return r.err()
	}
	defer reader.Close()
	fleets, version, err := reader.CountFleets(ctx)
	if ctx.Err() != nil {
		return errors.New("the configuration check was interrupted")
	}
	// The expiry is known only for session tokens.
	if expiry := reader.TokenExpiry(); expiry.After(time.Now()) {
		from += ", a session token that expires at " + expiry.UTC().Format(time.RFC3339)
	} else if !expiry.IsZero() {
		r.check.failIn(tokenSubject, "%s, a session token that expired at %s; use a new one, or an API key, which does not expire by default", from, expiry.UTC().Format(time.RFC3339))
	}
	r.about(tokenSubject, from)
	switch answers := fmt.Sprintf("%s answers with version %s", c.client.URL, version); {
	case err != nil:
		r.check.failIn(apiServer, "%s: %w", c.client.URL, err)
		r.about(apiServer, "")
	case fleets == 0:
		r.line("warning", apiServer, answers+", but the token has no access to any fleet: there will be no metrics of fleets and devices")
	case fleets == 1:
		r.about(apiServer, answers+", and the token has access to 1 fleet")
	default:
		r.about(apiServer, fmt.Sprintf("%s, and the token has access to %d fleets", answers, fleets))
	}
	return r.err()
}

// about prints the mistakes in a subject, or a text if there are none.
func (r *report) about(s subject, text string) {
	for _, m := range r.check.mistakes {
		if m.in == s {
			r.line("error", s, m.err.Error())
		}
	}
	if !r.wrong(s) {
		r.line("ok", s, text)
	}
}

func (r *report) line(verdict string, s subject, text string) {
	_, _ = fmt.Fprintf(r.out, "%-8s %s: %s\n", verdict, s, text)
}

// wrong reports whether there is a mistake in a subject.
func (r *report) wrong(s subject) bool {
	return slices.ContainsFunc(r.check.mistakes, func(m mistake) bool { return m.in == s })
}

// err returns an error if there are mistakes.
func (r *report) err() error {
	if len(r.check.mistakes) == 0 {
		return nil
	}
	return errors.New("the configuration check found an error")
}
