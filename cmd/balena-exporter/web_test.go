// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/balena-exporter/balena-exporter/internal/simulator"
)

// An authority issues certificates.
type authority struct {
	t           *testing.T
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
	pem         string
	issued      int64
}

// A pair is a certificate with its key, in PEM format.
type pair struct {
	certificate, key string
	serial           int64
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{t: t, key: newKey(t), issued: 1}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority of the tests"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, a.key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	if a.certificate, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	a.pem = encode("CERTIFICATE", der)
	return a
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func encode(kind string, der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}

// issue returns a certificate for an IP address, for servers and clients.
func (a *authority) issue(ip string) pair {
	a.t.Helper()
	a.issued++
	key := newKey(a.t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(a.issued), Subject: pkix.Name{CommonName: ip}, IPAddresses: []net.IP{net.ParseIP(ip)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.certificate, key.Public(), a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	keyDER, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	return pair{encode("CERTIFICATE", der), encode("EC PRIVATE KEY", keyDER), a.issued}
}

// write writes the pair to the files that tlsConfig names.
func (p pair) write(t *testing.T, dir string) {
	t.Helper()
	write(t, dir, "tls.key", p.key)
	write(t, dir, "tls.crt", p.certificate)
}

const (
	tlsConfig = "tls_server_config: {cert_file: tls.crt, key_file: tls.key}\n"
	// The passwords are s3cret-of-alice and s3cret-of-bob.
	alice = "basic_auth_users: {alice: $2a$04$UeurUvIs60eiGeaarGOwlOieBjzrUW4quzBC9ZLdPinR8ITJRr7rm}\n"
	bob   = "basic_auth_users: {bob: $2a$04$23nflaA4gIcw1b8uLtaFtOXAbCJZCx/.BNSwbzUDOzIx1HdixoMre}\n"
)

// client returns a client that trusts the authority and opens a connection for each request. It presents the certificate, if
// one is given.
func (a *authority) client(own *pair) *http.Client {
	a.t.Helper()
	config := &tls.Config{RootCAs: x509.NewCertPool()}
	config.RootCAs.AddCert(a.certificate)
	if own != nil {
		certificate, err := tls.X509KeyPair([]byte(own.certificate), []byte(own.key))
		if err != nil {
			a.t.Fatal(err)
		}
		config.Certificates = []tls.Certificate{certificate}
	}
	transport := &http.Transport{TLSClientConfig: config, DisableKeepAlives: true, ForceAttemptHTTP2: true}
	a.t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: patience}
}

// withUser returns a function that adds the credentials of a user to a request.
func withUser(user string) func(*http.Request) {
	return func(r *http.Request) { r.SetBasicAuth(user, secret+"-of-"+user) }
}

// checkHealth checks that the health listener serves the health endpoints without TLS and authentication, and nothing else.
func (e *exporter) checkHealth() {
	e.t.Helper()
	for path, want := range map[string]int{healthyPath: 200, readyPath: 200, "/metrics": 404, "/": 404, "/debug/pprof/": 404} {
		if a := e.get(e.health + path); a.status != want {
			e.t.Errorf("%s of the health listener returned %d, want %d", path, a.status, want)
		}
	}
}

func TestTLS(t *testing.T) {
	t.Parallel()
	dir, ca := t.TempDir(), newAuthority(t)
	first := ca.issue("127.0.0.1")
	first.write(t, dir)
	e := start(t, serveAPI(t, smallAccount()).url, "--web.config.file="+write(t, dir, "web.yml", tlsConfig))
	url := "https://" + e.addresses[0]
	serial := func() int64 {
		connection, err := tls.Dial("tcp", e.addresses[0], ca.client(nil).Transport.(*http.Transport).TLSClientConfig)
		if err != nil {
			return 0 // the certificate and the key do not match while they are being replaced
		}
		defer func() { _ = connection.Close() }()
		return connection.ConnectionState().PeerCertificates[0].SerialNumber.Int64()
	}
	if got := serial(); got != first.serial {
		t.Errorf("certificate %d is served, want %d", got, first.serial)
	}
	for _, path := range []string{"/metrics", "/", healthyPath} {
		if a, err := get(ca.client(nil), url+path, nil); err != nil || a.status != http.StatusOK {
			t.Errorf("%s: %v %v", path, a.status, err)
		}
	}
	if a, err := get(e.client, e.url("/metrics"), nil); err == nil && a.status == http.StatusOK {
		t.Error("plain HTTP returned 200")
	}
	e.checkHealth()

	second := ca.issue("127.0.0.1")
	second.write(t, dir)
	eventually(t, "the new certificate is served", func() bool { return serial() == second.serial })
	e.checkHealth()
}

func TestBasicAuth(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	e := start(t, serveAPI(t, smallAccount()).url, "--web.config.file="+write(t, dir, "web.yml", alice), "--web.enable-pprof")
	statuses := func(user string) string {
		var prepare func(*http.Request)
		if user != "" {
			prepare = withUser(user)
		}
		var got []string
		for _, path := range []string{"/metrics", "/", healthyPath, "/debug/pprof/cmdline"} {
			a, err := get(e.client, e.url(path), prepare)
			if err != nil {
				t.Fatal(err)
			}
			if strings.Contains(a.body, secret) {
				t.Errorf("%s returned a secret", path)
			}
			got = append(got, fmt.Sprint(a.status))
		}
		return strings.Join(got, " ")
	}
	const allowed, denied = "200 200 200 200", "401 401 401 401"
	for user, want := range map[string]string{"alice": allowed, "bob": denied, "": denied} {
		if got := statuses(user); got != want {
			t.Errorf("the statuses for user %q are %s, want %s", user, got, want)
		}
	}
	for _, path := range []string{"/fleets", "/problems", "/search?q=a", "/devices/a", "/devices"} {
		for user, want := range map[string]bool{"alice": true, "bob": false, "": false} {
			a, err := get(e.client, e.url(path), func(r *http.Request) {
				if user != "" {
					withUser(user)(r)
				}
			})
			if err != nil {
				t.Fatal(err)
			}
			if allowed := a.status != http.StatusUnauthorized; allowed != want {
				t.Errorf("%s returned %d to user %q", path, a.status, user)
			}
		}
	}
	e.checkHealth()
	write(t, dir, "web.yml", bob)
	for user, want := range map[string]string{"alice": denied, "bob": allowed, "": denied} {
		if got := statuses(user); got != want {
			t.Errorf("after the change the statuses for user %q are %s, want %s", user, got, want)
		}
	}
	e.checkHealth()
}

func TestClientCertificates(t *testing.T) {
	t.Parallel()
	dir, ca, otherCA := t.TempDir(), newAuthority(t), newAuthority(t)
	ca.issue("127.0.0.1").write(t, dir)
	write(t, dir, "ca.crt", ca.pem)
	e := start(t, serveAPI(t, smallAccount()).url, "--web.config.file="+write(t, dir, "web.yml",
		"tls_server_config: {cert_file: tls.crt, key_file: tls.key, client_ca_file: ca.crt, client_auth_type: RequireAndVerifyClientCert}\n"+alice))
	url := "https://" + e.addresses[0] + "/metrics"
	valid, invalid := ca.issue("127.0.0.1"), otherCA.issue("127.0.0.1")
	if a, err := get(ca.client(&valid), url, withUser("alice")); err != nil || a.status != http.StatusOK {
		t.Errorf("with a certificate and a password: %d, %v", a.status, err)
	}
	if a, err := get(ca.client(&valid), url, nil); err != nil || a.status != http.StatusUnauthorized {
		t.Errorf("without a password: %d, %v", a.status, err)
	}
	for name, certificate := range map[string]*pair{"without a certificate": nil, "with a certificate of another CA": &invalid} {
		if a, err := get(ca.client(certificate), url, withUser("alice")); err == nil {
			t.Errorf("%s: %d", name, a.status)
		}
	}
	e.checkHealth()
}

func TestSeveralAddresses(t *testing.T) {
	t.Parallel()
	dir, ca := t.TempDir(), newAuthority(t)
	ca.issue("127.0.0.1").write(t, dir)
	e := start(t, serveAPI(t, smallAccount()).url, "--web.listen-address=127.0.0.1:0", "--web.listen-address=127.0.0.1:0",
		"--web.config.file="+write(t, dir, "web.yml", tlsConfig+alice))
	if len(e.addresses) != 2 {
		t.Fatalf("the exporter listens on %q", e.addresses)
	}
	for _, address := range e.addresses {
		if a, err := get(ca.client(nil), "https://"+address+"/metrics", withUser("alice")); err != nil || a.status != http.StatusOK {
			t.Errorf("%s: %d, %v", address, a.status, err)
		}
	}
}

func TestPages(t *testing.T) {
	t.Parallel()
	url := serveAPI(t, smallAccount()).url
	const landing, metrics = "<!doctype html>", "# HELP"
	type pages map[string]string // the beginning of the body by path. Empty if the path does not exist.
	for _, test := range []struct {
		name string
		args []string
		want pages
	}{
		{"by default", nil, pages{
			"/": landing, "/metrics": metrics, healthyPath: "OK", readyPath: "OK",
			"/unknown": "", "/favicon.ico": "", "/metrics/": "", "/debug/pprof/": "", "/debug/pprof/cmdline": "", "/debug/pprof/heap": "",
		}},
		{"with profiles", []string{"--web.enable-pprof"}, pages{
			"/": landing, "/metrics": metrics, "/debug/pprof/": "<html>", "/debug/pprof/cmdline": "", "/debug/pprof/goroutine?debug=1": "goroutine profile",
		}},
		{"with another path", []string{"--web.telemetry-path=/fleet/metrics"}, pages{"/": landing, "/fleet/metrics": metrics, "/metrics": "", healthyPath: "OK"}},
		{"with the shortest path", []string{"--web.telemetry-path=/"}, pages{
			"/": metrics, healthyPath: "OK", "/favicon.ico": "", "/unknown/": "", "/metrics": "",
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			e := start(t, url, test.args...)
			for path, want := range test.want {
				a := e.get(e.url(path))
				exists := want != "" || strings.Contains(path, "cmdline") && len(test.args) > 0
				if exists != (a.status == http.StatusOK) || !exists && a.status != http.StatusNotFound {
					t.Errorf("%s returned %d", path, a.status)
				}
				if exists && !strings.HasPrefix(strings.TrimSpace(a.body), want) {
					t.Errorf("%s is %.100q, want %q", path, a.body, want)
				}
				if path == "/" && want == landing {
					for _, link := range []string{"./fleets", "." + pathOf(test.args), "./-/healthy", "./-/ready", "./problems", repository + "#readme", documents() + "metrics.md"} {
						if !strings.Contains(a.body, `<a href="`+link+`">`) {
							t.Errorf("the landing page has no link to %s", link)
						}
					}
					if profiles := strings.Contains(a.body, `<a href="./debug/pprof/">`); profiles != (len(test.args) > 0 && test.args[0] == "--web.enable-pprof") {
						t.Errorf("the landing page has a link to profiles: %v", profiles)
					}
				}
			}
			e.checkHealth()
		})
	}
}

func TestPagesOfData(t *testing.T) {
	t.Parallel()
	e := start(t, serveAPI(t, smallAccount()).url, "--web.grafana-url=https://grafana.example.com", "--web.problem-thresholds=temperatureCelsius=1")
	e.waitForUp(1)
	var found struct {
		List []struct {
			UUID      string `json:"uuid"`
			Dashboard string `json:"dashboard_url"`
		} `json:"device_list"`
	}
	if err := json.Unmarshal([]byte(e.get(e.url("/problems?problem=BalenaDeviceOverheating&format=json")).body), &found); err != nil {
		t.Fatal(err)
	}
	if len(found.List) == 0 || !strings.HasPrefix(found.List[0].Dashboard, "https://grafana.example.com/d/balena-device?var-device="+found.List[0].UUID) {
		t.Fatalf("with a threshold of 1 °C, the devices that overheat are %+v", found.List)
	}
	uuid := found.List[0].UUID
	for path, status := range map[string]int{
		"/fleets": 200, "/problems": 200, "/search": 200, "/search?q=" + uuid: 200, "/devices/" + uuid: 200, "/devices/unknown": 404, "/devices": 200,
	} {
		if a := e.get(e.url(path)); a.status != status || !strings.HasPrefix(strings.TrimSpace(a.body), "<!doctype html>") {
			t.Errorf("%s returned %d, want %d: %.100q", path, a.status, status, a.body)
		}
	}
}

func TestLandingPageShowsTheState(t *testing.T) {
	t.Parallel()
	api := serveAPI(t, smallAccount())
	e := start(t, api.url, "--balena.refresh-interval=1s")
	e.waitForUp(1)
	contains := func(words ...string) func() bool {
		return func() bool {
			a := e.get(e.url("/"))
			body := strings.Join(strings.Fields(a.body), " ")
			for _, word := range words {
				if !strings.Contains(body, word) {
					return false
				}
			}
			return a.status == http.StatusOK
		}
	}
	number := func(name string, n int) string { return fmt.Sprintf("<dt>%s</dt><dd>%d</dd>", name, n) }
	eventually(t, "the landing page shows the state up", contains("<dt>State</dt><dd>up</dd>",
		number("Fleets", smallAccount().Fleets), number("Devices", smallAccount().Devices), " s old, refreshed every "))
	api.down.Store(true)
	eventually(t, "the landing page shows that refreshes fail", contains("<dt>State</dt><dd>down</dd>", "The last refresh failed."))

	response, err := e.client.Get(e.url("/"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	for header, want := range map[string]string{"Content-Security-Policy": "frame-ancestors 'none'", "X-Content-Type-Options": "nosniff"} {
		if got := response.Header.Get(header); !strings.Contains(got, want) {
			t.Errorf("the header %s of the landing page is %q, want %s", header, got, want)
		}
	}
}

// TestPagesEqualMetrics compares the values of the pages with the metrics of the same names.
func TestPagesEqualMetrics(t *testing.T) {
	t.Parallel()
	e := start(t, serveAPI(t, simulator.Config{Devices: 500, Fleets: 3, Seed: 1, CloudFields: true}).url)
	metrics := e.waitForUp(1)
	var page struct {
		Fleets []map[string]any `json:"fleets"`
	}
	if err := json.Unmarshal([]byte(e.get(e.url("/fleets?format=json")).body), &page); err != nil {
		t.Fatal(err)
	}
	if len(page.Fleets) != 3 {
		t.Fatalf("%d fleets, want 3", len(page.Fleets))
	}
	compared := map[string]bool{}
	for _, fleet := range page.Fleets {
		slug := fleet["fleet"].(string)
		for name, value := range fleet {
			family := "balena_fleet_" + name
			if !metrics.has(family) {
				continue
			}
			switch value := value.(type) {
			case float64:
				compared[name] = true
				if want := metrics.value(family, "fleet", slug); value != want {
					t.Errorf("%s: %s is %v on the page, and %v in the metrics", slug, name, value, want)
				}
			case map[string]any: // devices by status
				compared[name] = true
				for _, m := range metrics[family].GetMetric() {
					if labelOf(m, "fleet") != slug {
						continue
					}
					status, want := labelOf(m, "status"), m.GetGauge().GetValue()
					if got, _ := value[status].(float64); got != want {
						t.Errorf("%s: %s %s is %v on the page, and %v in the metrics", slug, name, status, got, want)
					}
					delete(value, status)
				}
				if len(value) > 0 {
					t.Errorf("%s: %s has %v on the page only", slug, name, value)
				}
			}
		}
	}
	for _, name := range []string{"devices", "devices_online", "devices_connected", "devices_by_status", "devices_on_target_release", "devices_pinned"} {
		if !compared[name] {
			t.Errorf("%s is not on the page, or not a metric", name)
		}
	}
}

func pathOf(args []string) string {
	for _, arg := range args {
		if path, ok := strings.CutPrefix(arg, "--web.telemetry-path="); ok {
			return path
		}
	}
	return "/metrics"
}

func TestDisabledExporterMetrics(t *testing.T) {
	t.Parallel()
	url := serveAPI(t, smallAccount()).url
	for arg, want := range map[string]bool{"--no-web.disable-exporter-metrics": true, "--web.disable-exporter-metrics": false} {
		e := start(t, url, arg)
		f := e.waitForUp(1)
		got := map[string]bool{}
		for name := range f {
			prefix, _, _ := strings.Cut(name, "_")
			got[prefix] = true
		}
		for _, prefix := range []string{"go", "process", "promhttp"} {
			if got[prefix] != want {
				t.Errorf("%s: metrics %s_* are exported: %v, want %v", arg, prefix, got[prefix], want)
			}
		}
		if !f.has("balena_exporter_build_info") || !f.has("balena_exporter_refreshes_total") || !f.has("balena_fleet_info") {
			t.Errorf("%s: metrics of the exporter or of fleets are missing", arg)
		}
	}
}

// TestDisabledHealthListener checks that the metrics port serves the health endpoints if the health listener is disabled.
func TestDisabledHealthListener(t *testing.T) {
	t.Parallel()
	e := start(t, serveAPI(t, smallAccount()).url, "--web.health-listen-address=")
	if a := e.get(e.url(readyPath)); a.status != http.StatusOK {
		t.Errorf("%s returned %d", readyPath, a.status)
	}
	e.checkLog(0, "health endpoints listen")
}

// A stuckScrape is a scrape whose client reads only the header. The rest does not fit into the buffers of the connection.
type stuckScrape struct {
	*http.Response
	t          *testing.T
	connection *net.TCPConn
}

// serveLarge serves an account whose exposition is larger than the buffers of a connection: on Linux up to 4 MB at the sender,
// and up to 6 MB at the receiver unless it sets a size, like startStuckScrape.
func serveLarge(t *testing.T) *simulatedAPI {
	t.Helper()
	sim := serveAPI(t, simulator.Config{Devices: longNames, Fleets: 1, Seed: 1})
	sim.Update(func(st *simulator.State) {
		for _, device := range st.Devices.All() {
			device.Name = strings.Repeat("long ", 4000)
		}
	})
	return sim
}

const longNames = 320

// startStuckScrape begins a scrape and reads only the header.
func (e *exporter) startStuckScrape() *stuckScrape {
	e.t.Helper()
	s := &stuckScrape{t: e.t}
	transport := &http.Transport{DisableCompression: true, DisableKeepAlives: true, DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
		connection, err := new(net.Dialer).DialContext(ctx, network, address)
		if err == nil {
			s.connection = connection.(*net.TCPConn)
			err = s.connection.SetReadBuffer(16 << 10)
		}
		return connection, err
	}}
	response, err := (&http.Client{Transport: transport}).Get(e.url("/metrics"))
	if err != nil {
		e.t.Fatal(err)
	}
	s.Response = response
	e.t.Cleanup(func() { _ = response.Body.Close() })
	if response.ContentLength < 6<<20 {
		e.t.Fatalf("a scrape of %d bytes fits into the buffers", response.ContentLength)
	}
	return s
}

// finish reads the rest of the scrape and checks that it is complete.
func (s *stuckScrape) finish() {
	s.t.Helper()
	if err := s.connection.SetReadBuffer(1 << 20); err != nil { // a large buffer is faster
		s.t.Fatal(err)
	}
	var body bytes.Buffer
	n, err := body.ReadFrom(s.Body)
	if err != nil || n != s.ContentLength {
		s.t.Errorf("the body has %d of %d bytes: %v", n, s.ContentLength, err)
	}
	_ = s.Body.Close()
	if !strings.HasSuffix(body.String(), "\n") || strings.Count(body.String(), "\nbalena_device_info{") != longNames {
		s.t.Errorf("the scrape is not complete")
	}
	if up, _ := valueIn(body.String(), "balena_up"); up != 1 {
		s.t.Error("the scrape is not complete: no balena_up")
	}
}

// TestStuckScrapeIsAborted checks that a stuck scrape is aborted if another scrape needs its slot.
func TestStuckScrapeIsAborted(t *testing.T) {
	t.Parallel()
	e := start(t, serveLarge(t).url, "--web.max-requests=1")
	e.waitForSample("balena_up", func(v float64) bool { return v == 1 })
	_ = e.startStuckScrape()
	if a := e.get(e.url(healthyPath)); a.status != http.StatusOK {
		t.Errorf("the health endpoint returned %d", a.status)
	}
	e.waitForSample(`promhttp_metric_handler_errors_total{cause="sending"}`, func(v float64) bool { return v == 1 })
	e.checkLog(1, "level=error", "scrapers waited for a slot")
}

// TestSystemdSockets passes listening sockets to the exporter like systemd.
func TestSystemdSockets(t *testing.T) {
	t.Parallel()
	var addresses []string
	var files []*os.File
	for range 2 {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		file, err := listener.(*net.TCPListener).File()
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = file.Close() }()
		_ = listener.Close() // the file is another descriptor of the same socket
		addresses, files = append(addresses, listener.Addr().String()), append(files, file)
	}
	url := serveAPI(t, smallAccount()).url
	args := append(defaults(t, url, nil), "--web.systemd-socket")
	e := startCommand(t, func(c *exec.Cmd) {
		// LISTEN_PID must be the id of the process.
		c.Args = append([]string{"sh", "-c", `LISTEN_PID=$$ exec "$0" "$@"`, c.Path}, c.Args[1:]...)
		c.Path = "/bin/sh"
		c.Env = append(c.Env, "LISTEN_FDS=2")
		c.ExtraFiles = files
	}, args)
	for _, address := range addresses {
		if a := e.get("http://" + address + "/metrics"); a.status != http.StatusOK {
			t.Errorf("%s returned %d", address, a.status)
		}
	}
	e.checkHealth()
}
