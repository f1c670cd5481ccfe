// SPDX-License-Identifier: Apache-2.0

package collector_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"

	"github.com/balena-exporter/balena-exporter/internal/balena"
	"github.com/balena-exporter/balena-exporter/internal/discovery"
)

// targets are the lists of targets of a history.
type targets struct {
	options discovery.Options
	lists   *discovery.Lists
}

func newTargets(deviceTags []string) *targets {
	t := &targets{options: discovery.Options{Address: discovery.None, DeviceNames: true, DeviceTags: deviceTags, Ports: []int{9100, 8080}}}
	t.lists = discovery.New(t.options)
	return t
}

// follow updates the lists with a snapshot, and returns an error if they differ from new lists.
func (t *targets) follow(s *balena.Snapshot) error {
	t.lists.Refresh(s)
	fresh := discovery.New(t.options)
	fresh.Refresh(s)
	for _, query := range []string{"", "connected=true", "port=8080&connected=false"} {
		got, want := listOf(t.lists, s, query), listOf(fresh, s, query)
		if got != want {
			return fmt.Errorf("the list of targets with %q (- new, + updated):\n%s", query, lineDiff(want, got))
		}
	}
	return nil
}

func listOf(lists *discovery.Lists, s *balena.Snapshot, query string) string {
	w := httptest.NewRecorder()
	discovery.NewHandler(discovery.HandlerOptions{Lists: lists, Snapshot: func() *balena.Snapshot { return s }}).
		ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/sd/devices?"+query, nil))
	return fmt.Sprint(w.Code, " ", w.Body)
}
