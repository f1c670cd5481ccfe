// SPDX-License-Identifier: Apache-2.0

package discovery

import (
	"net/http"
	"strings"

	"github.com/balena-exporter/balena-exporter/internal/balena"
	"github.com/balena-exporter/balena-exporter/internal/exposition"
)

// HandlerOptions says what is served.
type HandlerOptions struct {
	Lists *Lists
	// Snapshot returns the newest snapshot; nil when there is none or it is stale. It must not block.
	Snapshot func() *balena.Snapshot
	// MaxRequests is how many requests are answered at once; see [exposition.HandlerOptions].
	MaxRequests int
}

// NewHandler returns the handler that serves the lists: all devices, or those that the parameters of the
// query choose. It answers GET and HEAD requests only.
func NewHandler(o HandlerOptions) http.Handler {
	sender := exposition.NewSender(o.MaxRequests)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			http.Error(w, "Targets are read with GET or HEAD.", http.StatusMethodNotAllowed)
			return
		}
		// A client that is too slow is cut off, and notices that.
		_ = sender.Send(w, r, func() *exposition.Answer { return o.answer(w, r) })
	})
}

// answer returns the answer to a request, or nil if there was none but a status.
func (o *HandlerOptions) answer(w http.ResponseWriter, r *http.Request) *exposition.Answer {
	options := &o.Lists.writer.Options
	w.Header().Set("Cache-Control", "private, no-cache")
	f, err := options.parseFilter(r.URL.RawQuery)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return nil
	}
	s := o.Snapshot()
	if s == nil {
		http.Error(w, "there are no data yet, or they are stale; see the log and the metric balena_up", http.StatusServiceUnavailable)
		return nil
	}
	if options.Address == Public && options.base(s) == "" {
		http.Error(w, "the API does not tell the domain of public device URLs; name it with --sd.device-urls-base, or choose another --sd.address", http.StatusServiceUnavailable)
		return nil
	}
	list, ok := o.Lists.list(f)
	if !ok {
		http.Error(w, "there are no data yet", http.StatusServiceUnavailable)
		return nil
	}
	w.Header().Set("ETag", list.tag)
	if matches(r.Header.Values("If-None-Match"), list.tag) {
		w.WriteHeader(http.StatusNotModified)
		return nil
	}
	w.Header().Set("Content-Type", "application/json")
	return &exposition.Answer{Page: func() *exposition.Page { return list.page }, Tail: list.tail(), Of: f.key()}
}

// matches tells whether a header If-None-Match names a list.
func matches(header []string, tag string) bool {
	for _, line := range header {
		for one := range strings.SplitSeq(line, ",") {
			if one = strings.TrimSpace(one); one == "*" || strings.TrimPrefix(one, "W/") == strings.TrimPrefix(tag, "W/") {
				return true
			}
		}
	}
	return false
}
