// SPDX-License-Identifier: Apache-2.0

package account

import (
	"context"

	"github.com/balena-exporter/balena-exporter/internal/balena"
	"github.com/balena-exporter/balena-exporter/internal/balena/api"
)

// CountFleets asks how many fleets the token may directly access, and which version of the API answers. The fleets are
// not filtered by the options. It takes one small request, or two on a server without API v7.
func (r *Reader) CountFleets(ctx context.Context) (fleets int, version balena.Version, err error) {
	if _, err = r.client.ReadToken(ctx); err != nil {
		return 0, "", err
	}
	versions := []balena.Version{r.config.Version}
	if r.config.Version == "" {
		versions = []balena.Version{balena.V7, balena.V6}
	}
	for _, version = range versions {
		fleets, err = api.Count(ctx, r.client, version, "application", allFleets)
		if !missing(err) {
			break
		}
	}
	if missing(err) && len(versions) > 1 {
		err = noAPI()
	}
	return fleets, version, err
}
