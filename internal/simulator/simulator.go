// SPDX-License-Identifier: Apache-2.0

package simulator

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/klauspost/compress/gzip"
)

const (
	// IdleTimeout is the time after which the real server closes an idle connection.
	IdleTimeout = 5 * time.Second

	// maxTarget is the maximum length of a request target. The status of longer ones is 431.
	maxTarget = 16 << 10

	// The only user, to whom all tokens belong.
	userID    = 2
	userName  = "admin"
	userEmail = "admin@example.test"
)

// Config is the configuration of a simulator. The zero value is an account without fleets.
type Config struct {
	// Dataset is the initial account. If it is nil, the account is generated from Devices, Fleets, Seed and the clock.
	Dataset         *Dataset
	Devices, Fleets int
	Seed            uint64

	// Tokens are the tokens of the user. If there are none, all tokens are accepted. See [Simulator.SetTokens].
	Tokens []string

	// DeviceKeys maps the tokens of devices to device ids. They can read the device and its fleet.
	DeviceKeys map[string]int

	// Versions are the API versions of the server, by default v6 and v7. The status of other versions is 404.
	Versions []string

	// Edition is the simulated server, by default [OpenBalena].
	Edition Edition

	// CloudFields adds the fields of balenaCloud to the openBalena edition. This simulates a balenaCloud with more fields than
	// it declares, such as modified_at of image installs and tags.
	CloudFields bool

	// ModifiedAtIsConstant and ModifiedAtIsNull simulate servers whose modified_at is always the time of creation, or null.
	ModifiedAtIsConstant, ModifiedAtIsNull bool

	// CacheResponses caches responses, including compressed ones, until the data change. It reduces the cost of the server in
	// benchmarks of clients.
	CacheResponses bool

	// Now is the clock of the server, by default [time.Now]. Its time is the header Date of responses.
	Now func() time.Time
}

// A Simulator is a simulated balena API. It is an [http.Handler] and safe for concurrent use.
type Simulator struct {
	cfg   Config
	now   func() Time
	ahead atomic.Int64 // the time by which the clock was advanced, in nanoseconds

	mu       sync.RWMutex // guards the following fields
	database *database
	activity *activity
	cache    sync.Map // responses by request, until the data change

	control struct {
		sync.Mutex
		tokens   []string
		faults   Faults
		requests map[string]int
		fault    faultCounters
	}
}

// New returns a simulator.
func New(cfg Config) (*Simulator, error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Versions == nil {
		cfg.Versions = []string{"v6", "v7"}
	}
	for _, v := range cfg.Versions {
		if v != "v6" && v != "v7" {
			return nil, fmt.Errorf("unknown API version %q: want v6 or v7", v)
		}
	}
	if cfg.Edition == "" {
		cfg.Edition = OpenBalena
	}
	if cfg.Edition != OpenBalena && cfg.Edition != Cloud {
		return nil, fmt.Errorf("unknown edition %q: want %s or %s", cfg.Edition, OpenBalena, Cloud)
	}
	if cfg.Devices < 0 || cfg.Fleets < 0 {
		return nil, fmt.Errorf("%d devices in %d fleets: the numbers must not be negative", cfg.Devices, cfg.Fleets)
	}
	s := &Simulator{}
	clock := cfg.Now
	cfg.Now = func() time.Time { return clock().Add(time.Duration(s.ahead.Load())) }
	s.cfg, s.now = cfg, func() Time { return At(cfg.Now()) }
	if cfg.Dataset != nil {
		s.database = cfg.Dataset.database.clone()
	} else {
		s.database = generate(cfg.Devices, cfg.Fleets, cfg.Seed, s.now())
		addConditions(s.database, cfg.Seed, s.now())
	}
	s.database.Users.insert(&User{Row: Row{ID: userID, CreatedAt: s.now(), ModifiedAt: s.now()}})
	s.activity = &activity{seed: cfg.Seed, cloud: cfg.Edition == Cloud}
	if cfg.Edition == Cloud {
		addCloud(s.database, &cfg, s.now())
	}
	s.SetTokens(cfg.Tokens...)
	s.ResetRequests()
	return s, nil
}

// Update changes the data atomically. As on the real server, it sets modified_at of the rows that change, but not of related
// rows: a new target release of a fleet does not modify its devices, and an image install does not modify its device.
func (s *Simulator) Update(change func(*State)) { s.UpdateSince(s.cfg.Now(), change) }

// UpdateSince changes the data in a transaction that began at a time and is committed now. As on the real server, created_at
// and modified_at of its rows are the time when it began, and its changes become visible when it is committed.
func (s *Simulator) UpdateSince(began time.Time, change func(*State)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	tables := s.database.tables()
	now := At(began)
	for _, t := range tables {
		t.begin(now)
	}
	// Commit even if change panics, for callers that recover.
	defer func() {
		for _, t := range tables {
			t.commit()
		}
		s.cache.Clear()
	}()
	change(&State{database: s.database, now: now})
}

// Tick simulates random changes of the account, which depend on the seed: devices connect, disconnect, update, and report
// hardware figures.
func (s *Simulator) Tick() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.activity.tick(s.database, s.now())
	s.cache.Clear()
}

// Change changes a number of devices, selected by the seed. It is meant for benchmarks.
func (s *Simulator) Change(devices int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.activity.change(s.database, devices, s.now())
	s.cache.Clear()
}

// Requests returns the number of requests by resource, including requests with a fault. Paths below /user and /actor are
// counted as whoami, and paths without a resource as other. Paths below /simulator are not counted.
func (s *Simulator) Requests() map[string]int {
	s.control.Lock()
	defer s.control.Unlock()
	return maps.Clone(s.control.requests)
}

// ResetRequests resets all counts, including those of faults.
func (s *Simulator) ResetRequests() {
	s.control.Lock()
	defer s.control.Unlock()
	s.control.requests = make(map[string]int)
	s.control.fault = newFaultCounters(len(s.control.faults))
}

// SetTokens sets the accepted tokens. Without arguments, all tokens are accepted.
func (s *Simulator) SetTokens(tokens ...string) {
	s.control.Lock()
	defer s.control.Unlock()
	s.control.tokens = slices.Clone(tokens)
}

// Faultless returns a handler for the same data that injects no faults and counts no requests. It is meant for reference
// clients, with whose results tests compare.
func (s *Simulator) Faultless() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), faultless{}, true)))
	})
}

// faultless is the context key of requests without faults.
type faultless struct{}

// ServeHTTP implements [http.Handler].
func (s *Simulator) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Date", s.cfg.Now().UTC().Format(http.TimeFormat))
	if path, ok := strings.CutPrefix(r.URL.Path, "/simulator/"); ok {
		s.serveControl(w, r, path)
		return
	}
	path, _, _ := strings.Cut(r.RequestURI, "?")
	version, target, ok := strings.Cut(strings.TrimPrefix(r.RequestURI, "/"), "/")
	switch {
	case len(r.RequestURI) > maxTarget:
		s.begin("other", "", nil)
		w.WriteHeader(http.StatusRequestHeaderFieldsTooLarge)
	case r.Header.Get("X-Forwarded-Proto") == "http":
		// A proxy that terminates TLS sets this header.
		s.begin("other", "", nil)
		location := "https://" + r.Host + r.RequestURI
		w.Header().Set("Location", location)
		w.Header().Set("Content-Type", contentTypeText)
		w.WriteHeader(http.StatusMovedPermanently)
		io.WriteString(w, "Moved Permanently. Redirecting to "+location) //nolint:errcheck // fails only if the client has disconnected
	case path == "/ping":
		s.serve(w, r, "ping", nil, func(caller) response { return textResponse(contentTypeText, "OK") })
	case path == "/user/v1/whoami" || path == "/actor/v1/whoami":
		s.serve(w, r, "whoami", nil, func(c caller) response { return s.whoami(c, path) })
	case path == "/config" && s.cfg.Edition == Cloud:
		s.serve(w, r, "config", nil, func(caller) response { return textResponse(contentTypeJSON, cloudConfig) })
	case ok && slices.Contains(s.cfg.Versions, version):
		q, err := parse(target, s.now())
		s.serve(w, r, s.resourceOf(target), q, func(c caller) response { return s.query(r, version == "v6", q, err, c) })
	default:
		s.begin("other", "", nil)
		w.WriteHeader(http.StatusNotFound)
	}
}

// resourceOf returns the resource under which a request is counted.
func (s *Simulator) resourceOf(target string) string {
	if r, ok := s.cfg.Edition.schema()[(&parser{s: target}).peekName()]; ok {
		return r.name
	}
	return "other"
}

// begin counts a request and returns its fault, if any.
func (s *Simulator) begin(resource, query string, q *request) (f Fault, faulty bool) {
	s.control.Lock()
	defer s.control.Unlock()
	s.control.requests[resource]++
	return s.control.fault.next(s.control.faults, resource, query, q)
}

// A response is a response before faults and compression.
type response struct {
	status      int
	contentType string
	body        []byte
	compressed  bool    // the body is already compressed
	buffer      *[]byte // can be reused after the body is sent
}

func textResponse(contentType, body string) response {
	return response{status: http.StatusOK, contentType: contentType, body: []byte(body)}
}

const (
	contentTypeJSON = "application/json; charset=utf-8"
	contentTypeHTML = "text/html; charset=utf-8"
	contentTypeText = "text/plain; charset=utf-8"
)

// serve serves a request for a resource, possibly with a fault. q is the parsed request, or nil.
func (s *Simulator) serve(w http.ResponseWriter, r *http.Request, resource string, q *request, handler func(caller) response) {
	if r.Context().Value(faultless{}) == nil {
		if f, faulty := s.begin(resource, r.URL.RawQuery, q); faulty {
			s.serveFault(w, r, f, q, handler)
			return
		}
	}
	a := handler(s.caller(r))
	s.send(w, r, a)
	if a.buffer != nil {
		*a.buffer = a.body[:0]
		buffers.Put(a.buffer)
	}
}

// buffers holds buffers for bodies that are not cached.
var buffers = sync.Pool{New: func() any { return new([]byte) }}

func (s *Simulator) send(w http.ResponseWriter, r *http.Request, a response) {
	h := w.Header()
	if strings.HasPrefix(r.URL.Path, "/v") {
		h.Set("Cache-Control", "no-cache")
	}
	if len(a.body) == 0 {
		w.WriteHeader(a.status)
		return
	}
	h.Set("Content-Type", a.contentType)
	h.Set("Vary", "Accept-Encoding")
	if !a.compressed && compressible(r, a.body) {
		a.body, a.compressed = compress(a.body), true
	}
	if a.compressed {
		h.Set("Content-Encoding", "gzip")
	}
	h.Set("Content-Length", strconv.Itoa(len(a.body)))
	w.WriteHeader(a.status)
	w.Write(a.body) //nolint:errcheck // fails only if the client has disconnected
}

// minCompressed is the minimum size in bytes of a body that the real server compresses.
const minCompressed = 1024

func compressible(r *http.Request, body []byte) bool {
	return len(body) >= minCompressed && strings.Contains(r.Header.Get("Accept-Encoding"), "gzip")
}

var gzipWriters = sync.Pool{New: func() any {
	w, err := gzip.NewWriterLevel(nil, gzip.BestSpeed)
	if err != nil {
		panic(err) // the level is a constant of the package
	}
	return w
}}

func compress(body []byte) []byte {
	var b bytes.Buffer
	b.Grow(len(body) / 8)
	w := gzipWriters.Get().(*gzip.Writer)
	defer gzipWriters.Put(w)
	w.Reset(&b)
	w.Write(body) //nolint:errcheck // writing to a buffer does not fail
	w.Close()     //nolint:errcheck // as above
	return b.Bytes()
}

// caller returns the owner of the token of a request. As on the real server, the authorization scheme is case-insensitive, and
// a second space is part of the token.
func (s *Simulator) caller(r *http.Request) caller {
	token := r.URL.Query().Get("apikey")
	if h := r.Header.Get("Authorization"); h != "" {
		scheme, rest, _ := strings.Cut(h, " ")
		if !strings.EqualFold(scheme, "bearer") {
			return caller{}
		}
		token = rest
	}
	if token == "" || strings.ContainsAny(token, " \t") {
		return caller{}
	}
	if id, ok := s.cfg.DeviceKeys[token]; ok {
		return caller{device: id}
	}
	s.control.Lock()
	defer s.control.Unlock()
	return caller{user: len(s.control.tokens) == 0 || slices.Contains(s.control.tokens, token)}
}

func (s *Simulator) whoami(c caller, path string) response {
	if c.device != 0 && path == "/actor/v1/whoami" {
		s.mu.RLock()
		defer s.mu.RUnlock()
		if d, ok := s.database.Devices.find(c.device).(*Device); ok {
			return textResponse(contentTypeJSON, fmt.Sprintf(`{"id":%d,"actorType":"device","actorTypeId":%d,"uuid":%q}`,
				firstDeviceActor+d.ID, d.ID, d.UUID))
		}
	}
	if !c.user {
		return response{status: http.StatusUnauthorized}
	}
	body := fmt.Sprintf(`{"id":%d,"username":%q,"email":%q}`, userID, userName, userEmail)
	if path == "/actor/v1/whoami" {
		body = fmt.Sprintf(`{"id":%d,"actorType":"user","actorTypeId":%d,"username":%q,"email":%q}`, userID, userID, userName, userEmail)
	}
	return textResponse(contentTypeJSON, body)
}

// query returns the response to a request for a resource. err is the error of parsing it.
func (s *Simulator) query(r *http.Request, v6 bool, q *request, err error, client caller) response {
	if r.Method == http.MethodHead {
		return response{status: http.StatusInternalServerError}
	}
	if err != nil {
		return errorResponse(r, err)
	}
	if r.Method != http.MethodGet {
		// The simulator is read-only. On the real server, writing without a valid token returns 401.
		if client.guest() {
			return response{status: http.StatusUnauthorized}
		}
		return response{status: http.StatusInternalServerError}
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	cacheable := s.cfg.CacheResponses && client.user && !q.uncached
	key := r.Header.Get("Accept-Encoding") + " " + r.RequestURI
	var body []byte
	var buffer *[]byte
	if cacheable {
		if a, ok := s.cache.Load(key); ok {
			return a.(response)
		}
	} else {
		buffer = buffers.Get().(*[]byte)
		body = *buffer
	}
	c := &compiler{view: &view{db: s.database, cfg: &s.cfg, schema: s.cfg.Edition.schema(), v6: v6}, caller: client}
	if body, err = s.database.execute(body, c, q); err != nil {
		return errorResponse(r, err)
	}
	a := response{status: http.StatusOK, contentType: contentTypeJSON, body: body, buffer: buffer}
	if cacheable {
		if compressible(r, body) {
			a.body, a.compressed = compress(body), true
		}
		s.cache.Store(key, a)
	}
	return a
}

// errorResponse returns the response to a query that failed.
func errorResponse(r *http.Request, err error) response {
	if _, ok := errors.AsType[syntaxError](err); ok {
		body := appendString(nil, "Malformed url: '"+r.RequestURI+"'")
		return response{status: http.StatusBadRequest, contentType: contentTypeJSON, body: body}
	}
	if _, ok := errors.AsType[forbidden](err); ok {
		return response{status: http.StatusUnauthorized}
	}
	return response{status: http.StatusInternalServerError}
}

// serveControl serves the paths below /simulator/, which control a simulator in another process.
func (s *Simulator) serveControl(w http.ResponseWriter, r *http.Request, path string) {
	var got any
	var err error
	switch r.Method + " " + path {
	case "GET requests":
		got = s.Requests()
	case "DELETE requests":
		s.ResetRequests()
	case "GET model":
		got = s.cfg.Edition.model()
	case "GET faults":
		got = s.Faults()
	case "PUT faults":
		err = control(r, func(f Faults) error {
			for _, fault := range f {
				if err := fault.Validate(); err != nil {
					return err
				}
			}
			s.SetFaults(f)
			return nil
		})
	case "PUT tokens":
		err = control(r, func(tokens []string) error { s.SetTokens(tokens...); return nil })
	case "POST tick":
		s.Tick()
	case "POST clock":
		err = control(r, func(d Duration) error { s.ahead.Add(int64(d.Duration)); return nil })
	case "POST change":
		err = control(r, func(devices int) error { s.Change(devices); return nil })
	default:
		http.Error(w, "want GET /simulator/model, GET or PUT /simulator/faults, GET or DELETE /simulator/requests, PUT /simulator/tokens, POST /simulator/tick, /simulator/change or /simulator/clock", http.StatusNotFound)
		return
	}
	switch {
	case err != nil:
		http.Error(w, err.Error(), http.StatusBadRequest)
	case got == nil:
		w.WriteHeader(http.StatusNoContent)
	default:
		w.Header().Set("Content-Type", contentTypeJSON)
		json.NewEncoder(w).Encode(got) //nolint:errcheck // fails only if the client has disconnected
	}
}

// control calls set with the body of a request.
func control[T any](r *http.Request, set func(T) error) error {
	var v T
	if err := decode(r.Body, &v); err != nil {
		return fmt.Errorf("invalid request body: %w", err)
	}
	return set(v)
}

// decode decodes JSON and returns an error for unknown fields, such as misspelled fields of a fault.
func decode(r io.Reader, v any) error {
	d := json.NewDecoder(r)
	d.DisallowUnknownFields()
	return d.Decode(v)
}
