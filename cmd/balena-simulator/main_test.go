// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// start runs the program. It returns the URL, and a function that stops the program and returns the result of run.
func start(t *testing.T, args ...string) (url string, stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	logs, stderr := io.Pipe()
	done := make(chan error, 1)
	go func() {
		err := run(ctx, append(args, "--listen-address=127.0.0.1:0"), io.Discard, stderr)
		stderr.CloseWithError(io.EOF)
		done <- err
	}()
	lines := bufio.NewScanner(logs)
	for lines.Scan() {
		if m := regexp.MustCompile(`\burl=(\S+)`).FindStringSubmatch(lines.Text()); m != nil {
			url = m[1]
			break
		}
	}
	go io.Copy(io.Discard, logs)
	stop = func() error { cancel(); return <-done }
	if url == "" {
		t.Fatalf("the program ended without logging its address: %v", stop())
	}
	t.Cleanup(func() { cancel() })
	return url, stop
}

func get(t *testing.T, client *http.Client, url, token string) (int, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+token)
	res, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(body)
}

func TestServes(t *testing.T) {
	for _, test := range []struct {
		name   string
		args   []string
		target string
		token  string
		status int
		body   string
	}{
		{"generated devices", []string{"--devices=12", "--fleets=2"}, "/v7/device/$count", "x", 200, `{"d":12}`},
		{"recorded devices", []string{"--dataset=../../internal/simulator/testdata/dataset"}, "/v7/device/$count", "x", 200, `{"d":2004}`},
		{"a valid token", []string{"--token=a", "--token=b", "--devices=1", "--fleets=1"}, "/v7/device/$count", "b", 200, `{"d":1}`},
		{"an invalid token", []string{"--token=a"}, "/v7/device/$count", "x", 401, ""},
		{"a fault", []string{"--fault=status=500", "--fault=status=404"}, "/v7/device/$count", "x", 500, ""},
		{"an old version only", []string{"--api-versions=v6"}, "/v7/device", "x", 404, ""},
		{"balenaCloud", []string{"--edition=cloud", "--devices=1", "--fleets=1"}, "/v7/device?$select=is_frozen", "x", 200, `{"d":[{"is_frozen":false}]}`},
		{"openBalena", []string{"--devices=1", "--fleets=1"}, "/v7/device?$select=is_frozen", "x", 500, ""},
		{"changing devices", []string{"--tick-interval=1ns", "--cache-answers"}, "/ping", "x", 200, "OK"},
	} {
		t.Run(test.name, func(t *testing.T) {
			url, stop := start(t, test.args...)
			if status, body := get(t, http.DefaultClient, url+test.target, test.token); status != test.status || body != test.body {
				t.Errorf("%d %s, want %d %s", status, body, test.status, test.body)
			}
			if err := stop(); err != nil {
				t.Errorf("stopped: %v", err)
			}
		})
	}
}

// TestStopsDuringAResponse checks that the program ends during an endless response.
func TestStopsDuringAResponse(t *testing.T) {
	url, stop := start(t, "--fault=endless,pace=1ms")
	res, err := http.Get(url + "/ping")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if err := stop(); err != nil {
		t.Errorf("stopped: %v", err)
	}
}

func TestServesTLS(t *testing.T) {
	certFile, keyFile, pool := certificate(t)
	url, stop := start(t, "--tls-cert-file="+certFile, "--tls-key-file="+keyFile)
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}}
	defer client.CloseIdleConnections()
	if status, body := get(t, client, url+"/ping", "x"); !strings.HasPrefix(url, "https://") || status != 200 || body != "OK" {
		t.Errorf("%s: %d %s", url, status, body)
	}
	if err := stop(); err != nil {
		t.Errorf("stopped: %v", err)
	}
}

// certificate writes a self-signed certificate for 127.0.0.1.
func certificate(t *testing.T) (certFile, keyFile string, pool *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	write := func(name, kind string, der []byte) string {
		file := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	certFile, keyFile = write("cert.pem", "CERTIFICATE", der), write("key.pem", "PRIVATE KEY", keyDER)
	pool = x509.NewCertPool()
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool.AddCert(cert)
	return certFile, keyFile, pool
}

// TestInvalidFlags checks that each error is one line with the flag or the value.
func TestInvalidFlags(t *testing.T) {
	for _, test := range []struct{ flag, want string }{
		{"--bogus", "--bogus"},
		{"--devices=many", "many"},
		{"--devices=-1", "-1 devices"},
		{"--api-versions=v5", "v5"},
		{"--edition=azure", "azure"},
		{"--tls-cert-file=cert.pem", "--tls-key-file"},
		{"--tls-cert-file=nowhere.pem --tls-key-file=nowhere.pem --listen-address=127.0.0.1:0", "--tls-cert-file: open nowhere.pem"},
		{"--tick-interval=-1s", "--tick-interval"},
		{"--fault=status=lots", `"status=lots"`},
		{"--dataset=/does/not/exist", "--dataset=/does/not/exist"},
		{"--listen-address=127.0.0.1:99999", "--listen-address"},
	} {
		err := run(t.Context(), strings.Fields(test.flag), io.Discard, io.Discard)
		if err == nil || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: error %v, want one line with %s", test.flag, err, test.want)
		}
	}
}

func TestHelpAndVersion(t *testing.T) {
	for flag, want := range map[string]string{"--version": "balena-simulator, version ", "--help": "--listen-address"} {
		var out strings.Builder
		if err := run(t.Context(), []string{flag}, &out, io.Discard); err != nil || !strings.Contains(out.String(), want) {
			t.Errorf("%s: error %v and output %q, want %q", flag, err, out.String(), want)
		}
	}
}
