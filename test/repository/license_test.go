// SPDX-License-Identifier: Apache-2.0

package repository

import (
	"slices"
	"strings"
	"testing"
)

// Every source file names its license in its first three lines.
func TestSourcesNameTheirLicense(t *testing.T) {
	for _, pattern := range []string{"*.go", "*.js", "*.sh", "Dockerfile"} {
		for _, path := range find(t, pattern) {
			lines := strings.SplitN(read(t, path), "\n", 4)
			if !slices.ContainsFunc(lines[:3], func(line string) bool { return strings.Contains(line, "SPDX-License-Identifier: Apache-2.0") }) {
				t.Errorf("%s does not name its license; begin it with: SPDX-License-Identifier: Apache-2.0", path)
			}
		}
	}
}
