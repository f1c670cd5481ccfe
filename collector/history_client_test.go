// SPDX-License-Identifier: Apache-2.0

package collector_test

import (
	"context"

	"github.com/balena-exporter/balena-exporter/internal/balena"
	"github.com/balena-exporter/balena-exporter/internal/balena/account"
)

// What histories know of the client of the API: how to make one, and that it reads snapshots.

// A reader reads snapshots from a server. Each may be built on what the one before has read.
type reader interface {
	Fetch(ctx context.Context) (*balena.Snapshot, error)
	Close()
}

func newReader(config account.Config) (reader, error) { return account.New(config) }
