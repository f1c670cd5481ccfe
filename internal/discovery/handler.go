// SPDX-License-Identifier: Apache-2.0

package discovery

import (
	"net/http"
	"strings"

	"github.com/balena-exporter/balena-exporter/internal/balena"
	"github.com/balena-exporter/balena-exporter/internal/exposition"
)

// HandlerOptions configures a handler.
type HandlerOptions struct {
	Lists *Lists
	// Snapshot returns the current snapshot; nil if there is none or it is stale. It must not block.
	Snapshot func() *balena.Snapshot
	// MaxRequests is the maximum number of concurrent requests; see [exposition.HandlerOptions].
	MaxRequests int
}

// NewHandler returns the handler that serves the lists: all devices, or those that the query selects. It allows only GET
// and HEAD.
func NewHandler(o HandlerOptions) http.Handler {
	sender := exposition.NewSender(o.MaxRequests)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			http.Error(w, "Method not allowed; use GET or HEAD.", http.StatusMethodNotAllowed)
			return
		}
		// Errors are not logged: a client that is disconnected because it is slow gets an incomplete response.
		_ = sender.Send(w, r, func() *exposition.Response { return o.respond(w, r) })
	})
}

// respond returns the response to a request, or nil if it has sent a response without targets.
func (o *HandlerOptions) respond(w http.ResponseWriter, r *http.Request) *exposition.Response {
	options := &o.Lists.options
	w.Header().Set("Cache-Control", "private, no-cache")
	f, err := options.parseFilter(r.URL.RawQuery)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return nil
	}
	s := o.Snapshot()
	if s == nil {
		http.Error(w, "no data: no refresh has succeeded yet, or the data are stale; see the log and the metric balena_up", http.StatusServiceUnavailable)
		return nil
	}
	if options.Address == Public && options.base(s) == "" {
		http.Error(w, "the API does not provide the domain of public device URLs; set --sd.device-urls-base, or use another --sd.address", http.StatusServiceUnavailable)
		return nil
	}
	list, ok := o.Lists.list(f)
	if !ok {
		http.Error(w, "no data: no refresh has succeeded yet", http.StatusServiceUnavailable)
		return nil
	}
	w.Header().Set("ETag", list.tag)
	if matchesTag(r.Header.Values("If-None-Match"), list.tag) {
		w.WriteHeader(http.StatusNotModified)
		return nil
	}
	w.Header().Set("Content-Type", "application/json")
	return &exposition.Response{Page: func() *exposition.Page { return list.page }, Tail: list.tail(), Name: f.key}
}

// matchesTag reports whether a header If-None-Match contains an entity tag.
func matchesTag(header []string, tag string) bool {
	for candidate := range strings.SplitSeq(strings.Join(header, ","), ",") {
		if candidate = strings.TrimSpace(candidate); candidate == "*" || strings.TrimPrefix(candidate, "W/") == strings.TrimPrefix(tag, "W/") {
			return true
		}
	}
	return false
}
