// SPDX-License-Identifier: Apache-2.0

package collector_test

import (
	"context"

	"github.com/balena-exporter/balena-exporter/internal/balena"
	"github.com/balena-exporter/balena-exporter/internal/balena/account"
)

// This file is all that histories know about the client of the API: how to create one, and that it reads snapshots.

// A reader reads snapshots from a server. A snapshot may reuse data of the previous one.
type reader interface {
	Fetch(ctx context.Context) (*balena.Snapshot, error)
	Close()
}

func newReader(config account.Config) (reader, error) { return account.New(config) }
