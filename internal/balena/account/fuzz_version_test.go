// SPDX-License-Identifier: Apache-2.0

package account_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/balena-exporter/balena-exporter/internal/balena"
)

// Whatever the sequence of answers of both versions, the version changes only if the current one was missing, or the other
// one existed, in three refreshes in a row. A refresh needs only a few requests to determine the version.
func FuzzVersion(f *testing.F) {
	for _, history := range []string{"", "7", "6", "b", "n", "7666", "7676767", "6777", "677b777", "bbbb6666bbbb", "7nnnn6", "6e7e6", "777e666"} {
		f.Add(history)
	}
	f.Fuzz(func(t *testing.T, history string) {
		if len(history) > 40 {
			return
		}
		// The server in a refresh: it has only v7, only v6, both, neither, or it fails.
		var state rune
		requests := 0
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			requests++
			version := r.URL.Path[1:3]
			switch {
			case state == 'e':
				w.WriteHeader(http.StatusBadGateway)
			case state == 'n', state == '7' && version == "v6", state == '6' && version == "v7":
				w.WriteHeader(http.StatusNotFound)
			default:
				r.URL.Path = "/v7" + strings.TrimPrefix(r.URL.Path, "/"+version)
				listing(1, "a").ServeHTTP(w, r)
			}
		}))
		defer server.Close()
		client := newClient(t, server.URL, fewer)
		var used balena.Version
		var seen []rune
		for _, state = range history {
			if !strings.ContainsRune("76bne", state) {
				return
			}
			seen = append(seen, state)
			requests = 0
			s, err := client.Fetch(t.Context())
			if requests > 20 {
				t.Fatalf("%s: %d requests in one refresh", string(seen), requests)
			}
			if err != nil {
				continue
			}
			if used != "" && s.APIVersion != used {
				// Only refreshes with an observation count, and the last three had the same one.
				told := slices.DeleteFunc(slices.Clone(seen), func(r rune) bool { return r == 'e' || r == 'n' })
				last := string(told[max(0, len(told)-3):])
				if against := map[balena.Version]string{balena.V6: "6", balena.V7: "7b"}[s.APIVersion]; len(last) < 3 || strings.Trim(last, against) != "" {
					t.Errorf("%s: v%c is used after %s, and %s was before", string(seen), s.APIVersion[1], fmt.Sprintf("%q", last), used)
				}
			}
			used = s.APIVersion
		}
	})
}
