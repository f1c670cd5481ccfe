// SPDX-License-Identifier: Apache-2.0

package collector_test

import (
	"context"

	"github.com/balena-exporter/balena-exporter/internal/balena"
	"github.com/balena-exporter/balena-exporter/internal/balena/account"
)

// This file is the interface between histories and the client of the API.

// A reader reads snapshots from a server.
type reader interface {
	Fetch(ctx context.Context) (*balena.Snapshot, error)
	Close()
}

func newReader(config account.Config) (reader, error) { return account.New(config) }
