// SPDX-License-Identifier: Apache-2.0

package simulator

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Faults are the faults of a server. If several faults match a request, the first one applies.
type Faults []Fault

// A Fault defines which requests fail and how. The zero value matches all requests and does not change the responses.
type Fault struct {
	// Resource limits the fault to requests for a resource. The names are those of [Simulator.Requests].
	Resource string `json:"resource,omitempty"`
	// Query limits it to requests whose decoded query contains this text, such as "modified_at gt".
	Query string `json:"query,omitempty"`
	// From is the first of the matching requests that fails, counted from 1 after the faults were set.
	From int `json:"from,omitempty"`
	// Every limits it to every n-th matching request, beginning with the first.
	Every int `json:"every,omitempty"`
	// Times is the maximum number of requests that fail.
	Times int `json:"times,omitempty"`
	// Page limits it to the n-th page, counted from 1, of a list that is read by "id gt LAST".
	Page int `json:"page,omitempty"`

	// Latency delays the response.
	Latency Duration `json:"latency,omitzero"`
	// Status replaces the response with an error. Its body is Body, or that of the real server.
	Status int    `json:"status,omitempty"`
	Body   string `json:"body,omitempty"`
	// RetryAfter is the header Retry-After: a number of seconds, or a date if RetryAfterDate is set.
	RetryAfter     Duration `json:"retry_after,omitzero"`
	RetryAfterDate bool     `json:"retry_after_date,omitempty"`
	// Redirect redirects the client to this base URL with the path and query of the request.
	Redirect string `json:"redirect,omitempty"`
	// Guest handles the request as if the token were invalid.
	Guest bool `json:"guest,omitempty"`
	// Spoil changes the body.
	Spoil Spoil `json:"spoil,omitempty"`
	// MaxRows is the maximum number of rows of a list, regardless of $top. It does not apply to counts and expanded rows.
	MaxRows int `json:"max_rows,omitempty"`
	// CutAfter closes the connection after this number of bytes of the body, after compression.
	CutAfter int `json:"cut_after,omitempty"`
	// Endless replaces the end of the body by an endless number of spaces.
	Endless bool `json:"endless,omitempty"`
	// Pace is the pause after every 64 bytes of the body.
	Pace Duration `json:"pace,omitzero"`
}

// Spoil is a kind of invalid body.
type Spoil string

// Kinds of invalid bodies. The status is 200.
const (
	SpoilJSON  Spoil = "json"           // only the first half of the JSON
	SpoilHTML  Spoil = "html"           // an HTML page, as from a captive portal
	SpoilTypes Spoil = "types"          // strings for numbers, numbers for strings, and so on
	SpoilNulls Spoil = "nulls"          // null in all fields except id
	SpoilNoIDs Spoil = "missing-ids"    // the last row has no id
	SpoilTwice Spoil = "repeated-ids"   // the first row is repeated at the end
	SpoilPages Spoil = "repeated-pages" // "id gt LAST" is ignored: all pages are the first page
	SpoilMore  Spoil = "ever-more-rows" // the last row is followed by an endless number of invented rows of 2099
	SpoilEmpty Spoil = "empty"          // no rows, or a count of 0
)

// noRows is the body of an empty list.
var noRows = []byte(`{"d":[]}`)

// spoilFuncs maps each Spoil to the function that changes a body. SpoilPages and SpoilMore need the first page and are
// implemented by serveFault.
var spoilFuncs = map[Spoil]func(body []byte) []byte{
	SpoilJSON: func(body []byte) []byte { return body[:len(body)/2] },
	SpoilHTML: func([]byte) []byte { return []byte("<!DOCTYPE html><html><body><h1>Sign in</h1></body></html>") },
	SpoilTypes: spoilObjects(func(o map[string]any) {
		for key, v := range o {
			switch v := v.(type) {
			case json.Number:
				o[key] = "n" + v.String()
			case string:
				o[key] = len(v)
			case bool:
				o[key] = []any{v}
			case map[string]any, []any:
				o[key] = true
			}
		}
	}),
	SpoilNulls: spoilObjects(func(o map[string]any) {
		for key := range o {
			if key != "id" {
				o[key] = nil
			}
		}
	}),
	SpoilNoIDs: spoilRows(func(rows []any) []any {
		if len(rows) > 0 {
			delete(rows[len(rows)-1].(map[string]any), "id")
		}
		return rows
	}),
	SpoilTwice: spoilRows(func(rows []any) []any { return append(rows, rows[:min(1, len(rows))]...) }),
	SpoilPages: func(body []byte) []byte { return body },
	SpoilMore:  func(body []byte) []byte { return body },
	SpoilEmpty: func(body []byte) []byte {
		if bytes.HasPrefix(body, []byte(`{"d":[`)) {
			return noRows
		}
		return []byte(`{"d":0}`)
	},
}

// spoilRows returns a function that applies change to the rows of a body that is a list.
func spoilRows(change func(rows []any) []any) func(body []byte) []byte {
	return func(body []byte) []byte {
		var decoded struct {
			D any `json:"d"`
		}
		d := json.NewDecoder(bytes.NewReader(body))
		d.UseNumber()
		if d.Decode(&decoded) != nil {
			return body
		}
		rows, ok := decoded.D.([]any)
		if !ok {
			return body
		}
		decoded.D = change(rows)
		changed, err := json.Marshal(decoded)
		if err != nil {
			return body
		}
		return changed
	}
}

func spoilObjects(change func(o map[string]any)) func(body []byte) []byte {
	return spoilRows(func(rows []any) []any {
		for _, r := range rows {
			change(r.(map[string]any))
		}
		return rows
	})
}

const (
	// maxInventedRows is the maximum number of rows of inventedPage.
	maxInventedRows = 1000
	// firstInvented is the lowest id of an invented row. It is higher than the ids of other rows, because clients cannot detect
	// invented rows with the ids of existing rows.
	firstInvented = 1_000_000_000
)

// inventedPage returns a page of invented rows with ids after last. The rows are copies of the first page with unique ids,
// uuids and slugs. Their modified_at is in the far future, so that incremental refreshes read them.
func inventedPage(first []byte, last, size int) []byte {
	invent := spoilRows(func(first []any) []any {
		rows := make([]any, 0, size)
		for id := max(last+1, firstInvented); len(first) > 0 && len(rows) < size; id++ {
			row := maps.Clone(first[len(rows)%len(first)].(map[string]any))
			for key, v := range row {
				switch key {
				case "id":
					row[key] = id
				case "uuid", "slug":
					row[key] = fmt.Sprintf("%v-%d", v, id)
				case "modified_at":
					row[key] = "2099-01-01T00:00:00.000Z"
				}
			}
			rows = append(rows, row)
		}
		return rows
	})
	return invent(first)
}

// SetFaults replaces the faults and resets their counters.
func (s *Simulator) SetFaults(f Faults) {
	s.control.Lock()
	defer s.control.Unlock()
	s.control.faults = slices.Clone(f)
	s.control.fault = newFaultCounters(len(f))
}

// Faults returns the faults.
func (s *Simulator) Faults() Faults {
	s.control.Lock()
	defer s.control.Unlock()
	return append(Faults{}, s.control.faults...)
}

// Happened returns the number of failed requests of each fault since the faults were set.
func (s *Simulator) Happened() []int {
	s.control.Lock()
	defer s.control.Unlock()
	return slices.Clone(s.control.fault.happened)
}

// Validate returns an error if the fault is invalid.
func (f Fault) Validate() error {
	if _, ok := spoilFuncs[f.Spoil]; !ok && f.Spoil != "" {
		return fmt.Errorf("unknown spoil %q", f.Spoil)
	}
	if _, ok := openSchema[f.Resource]; !ok && !slices.Contains([]string{"", "whoami", "ping", "config", "other"}, f.Resource) {
		return fmt.Errorf("unknown resource %q", f.Resource)
	}
	if f.Status != 0 && (f.Status < 200 || f.Status > 599) {
		return fmt.Errorf("status %d: want 200 to 599", f.Status)
	}
	if min(f.From, f.Every, f.Times, f.Page, f.CutAfter, f.MaxRows) < 0 || min(f.Latency.Duration, f.RetryAfter.Duration, f.Pace.Duration) < 0 {
		return fmt.Errorf("negative number in fault")
	}
	return nil
}

// ParseFault parses a fault with the keys of its JSON, such as "resource=device,status=429,retry_after=7s".
func ParseFault(s string) (Fault, error) {
	fields := make(map[string]any)
	for pair := range strings.SplitSeq(s, ",") {
		key, text, ok := strings.Cut(pair, "=")
		if !ok {
			text = "true"
		}
		var v any = text
		if n, err := strconv.Atoi(text); err == nil {
			v = n
		} else if b, err := strconv.ParseBool(text); err == nil {
			v = b
		}
		fields[key] = v
	}
	b, err := json.Marshal(fields)
	if err != nil {
		return Fault{}, err
	}
	var f Fault
	if err = decode(bytes.NewReader(b), &f); err == nil {
		err = f.Validate()
	}
	if err != nil {
		return Fault{}, fmt.Errorf("fault %q: %w", s, err)
	}
	return f, nil
}

// Duration is a [time.Duration] with the JSON format "1.5s".
type Duration struct{ time.Duration }

// MarshalText implements [encoding.TextMarshaler].
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalJSON accepts strings such as "1.5s", and numbers of seconds.
func (d *Duration) UnmarshalJSON(b []byte) (err error) {
	text := strings.Trim(string(b), `"`)
	if seconds, e := strconv.ParseFloat(text, 64); e == nil {
		d.Duration = time.Duration(seconds * float64(time.Second))
		return nil
	}
	d.Duration, err = time.ParseDuration(text)
	return err
}

// faultCounters counts requests for the conditions of faults.
type faultCounters struct {
	page     map[string]int // current page of the list, by resource
	matched  []int          // requests that match a fault, by the index of the fault
	happened []int          // requests that failed, by the index of the fault
}

func newFaultCounters(faults int) faultCounters {
	return faultCounters{page: make(map[string]int), matched: make([]int, faults), happened: make([]int, faults)}
}

// next returns the fault of a request for the resource with the raw query. q is the parsed request, or nil.
func (n *faultCounters) next(faults Faults, resource, query string, q *request) (Fault, bool) {
	if start := q.pageStart(); start == nil || start.n == 0 {
		n.page[resource] = 0
	}
	n.page[resource]++
	// Query does not match a query that cannot be decoded.
	decoded, err := url.QueryUnescape(query)
	if err != nil {
		decoded = ""
	}
	for i, f := range faults {
		if f.Resource != "" && f.Resource != resource || f.Page != 0 && f.Page != n.page[resource] ||
			!strings.Contains(decoded, f.Query) {
			continue
		}
		n.matched[i]++
		since := n.matched[i] - max(f.From, 1)
		if since < 0 || f.Every > 0 && since%f.Every != 0 || f.Times > 0 && n.happened[i] >= f.Times {
			continue
		}
		n.happened[i]++
		return f, true
	}
	return Fault{}, false
}

// bodies are the bodies of error responses of the real server, or of a proxy in front of it, by status.
var bodies = map[int]struct{ contentType, body string }{
	http.StatusTooManyRequests:    {contentTypeJSON, `"Too Many Requests"`},
	http.StatusBadGateway:         {contentTypeHTML, "<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body>\r\n<center><h1>502 Bad Gateway</h1></center>\r\n</body>\r\n</html>\r\n"},
	http.StatusServiceUnavailable: {contentTypeHTML, "<html><body><h1>503 Service Unavailable</h1>\nNo server is available to handle this request.\n</body></html>\n"},
	http.StatusGatewayTimeout:     {contentTypeHTML, "<html><body><h1>504 Gateway Time-out</h1>\nThe server didn't respond in time.\n</body></html>\n"},
}

// serveFault serves a request with a fault. q is the parsed request, or nil. serveFault changes it before it calls the handler,
// which answers it.
func (s *Simulator) serveFault(w http.ResponseWriter, r *http.Request, f Fault, q *request, handler func(caller) response) {
	if f.Latency.Duration > 0 && !pause(r, f.Latency) {
		return
	}
	if f.RetryAfter.Duration > 0 {
		after := strconv.Itoa(int(f.RetryAfter.Seconds()))
		if f.RetryAfterDate {
			after = s.cfg.Now().Add(f.RetryAfter.Duration).UTC().Format(http.TimeFormat)
		}
		w.Header().Set("Retry-After", after)
	}
	if f.Redirect != "" {
		w.Header().Set("Location", strings.TrimSuffix(f.Redirect, "/")+r.RequestURI)
		if f.Status == 0 {
			f.Status = http.StatusFound
		}
	}
	var a response
	if f.Status != 0 {
		a = response{status: f.Status, contentType: bodies[f.Status].contentType, body: []byte(bodies[f.Status].body)}
		if f.Body != "" {
			a.contentType, a.body = contentTypeText, []byte(f.Body)
		}
	} else {
		start := q.pageStart()
		if f.Spoil == SpoilPages && start != nil {
			start.n = 0
		}
		if q != nil {
			q.uncached = true
			if f.MaxRows > 0 && !q.count && (q.options.top < 0 || q.options.top > f.MaxRows) {
				q.options.top = f.MaxRows
			}
		}
		client := s.caller(r)
		if f.Guest {
			client = caller{}
		}
		a = handler(client)
		if spoil, ok := spoilFuncs[f.Spoil]; ok && a.status == http.StatusOK {
			a.body = spoil(a.body)
			switch f.Spoil {
			case SpoilHTML:
				a.contentType = contentTypeHTML
			case SpoilMore:
				if start != nil && q.options.top >= 0 && bytes.Equal(a.body, noRows) {
					last := int(start.n)
					start.n = 0
					a.body = inventedPage(handler(client).body, last, min(q.options.top, maxInventedRows))
				}
			}
		}
	}
	switch {
	case f.CutAfter > 0:
		s.send(&cutWriter{w, f.CutAfter}, r, a)
	case f.Endless || f.Pace.Duration > 0:
		sendSlowly(w, r, f, a)
	default:
		s.send(w, r, a)
	}
}

// pause waits and reports whether the client is still connected.
func pause(r *http.Request, d Duration) bool {
	t := time.NewTimer(d.Duration)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-r.Context().Done():
		return false
	}
}

// A cutWriter closes the connection after a number of bytes of the body.
type cutWriter struct {
	http.ResponseWriter
	left int
}

func (w *cutWriter) Write(b []byte) (int, error) {
	if len(b) <= w.left {
		w.left -= len(b)
		return w.ResponseWriter.Write(b)
	}
	w.ResponseWriter.Write(b[:w.left])                   //nolint:errcheck // the connection is closed anyway
	http.NewResponseController(w.ResponseWriter).Flush() //nolint:errcheck // as above
	panic(http.ErrAbortHandler)
}

// chunk is the number of bytes between two pauses. A body without pauses is sent in pieces of a thousand chunks.
const chunk = 64

// sendSlowly sends a body without compression, with pauses, endlessly, or both.
func sendSlowly(w http.ResponseWriter, r *http.Request, f Fault, a response) {
	w.Header().Set("Content-Type", a.contentType)
	w.WriteHeader(a.status)
	size := chunk
	if f.Pace.Duration == 0 {
		size *= 1000
	}
	body := a.body
	if f.Endless {
		body = bytes.TrimRight(body, "]}")
	}
	blanks := bytes.Repeat([]byte(" "), size)
	for {
		next := body[:min(size, len(body))]
		body = body[len(next):]
		if len(next) == 0 {
			if !f.Endless {
				return
			}
			next = blanks
		}
		if _, err := w.Write(next); err != nil {
			return
		}
		if http.NewResponseController(w).Flush() != nil || r.Context().Err() != nil {
			return
		}
		if f.Pace.Duration > 0 && !pause(r, f.Pace) {
			return
		}
	}
}
