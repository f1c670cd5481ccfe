package balena_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/balena-exporter/balena-exporter/internal/balena"
)

// account is a server of one fleet that counts so many devices and lists those of the uuids, and nothing else.
func account(counted int, uuids ...string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rows := ""
		switch {
		case strings.HasPrefix(r.URL.Path, "/v7/application"):
			rows = fmt.Sprintf(`{"id":1,"slug":"a/b","is_of__class":"fleet","owns__device":%d}`, counted)
		case r.URL.Path == "/v7/device" && strings.Contains(r.URL.RawQuery, "id%20gt%200&"):
			for i, uuid := range uuids {
				rows += fmt.Sprintf(`,{"id":%d,"uuid":%q,"belongs_to__application":{"__id":1}}`, i+1, uuid)
			}
			rows = strings.TrimPrefix(rows, ",")
		}
		_, _ = fmt.Fprintf(w, `{"d":[%s]}`, rows)
	})
}

func uuids(n int) []string {
	list := make([]string, n)
	for i := range list {
		list[i] = fmt.Sprintf("%032x", i)
	}
	return list
}

// Devices are deleted while pages are read; lists are cut off, too. What is the one and what the other is told by
// how many are missing.
func TestDevicesFewerThanCounted(t *testing.T) {
	for _, test := range []struct {
		counted, listed int
		ok              bool
	}{
		{1, 1, true}, {1, 0, false}, {3, 1, true}, {4, 1, false}, {11, 0, false}, {30, 25, true}, {30, 24, false}, {0, 0, true}, {2, 3, true},
	} {
		t.Run(fmt.Sprintf("%d of %d", test.listed, test.counted), func(t *testing.T) {
			client := newClient(t, serve(t, account(test.counted, uuids(test.listed)...)))
			if test.ok {
				want := test.listed
				if s := fetch(t, client); s.Devices.Len() != want {
					t.Errorf("read %d devices, want %d", s.Devices.Len(), want)
				}
				return
			}
			wantError(t, fetchError(t, client), balena.BadAnswer, 200,
				fmt.Sprintf("GET /v7/device: the server counts %d devices and lists %d", test.counted, test.listed))
		})
	}
}

func TestTwoDevicesOfOneUUID(t *testing.T) {
	client := newClient(t, serve(t, account(3, "aa", "bb", "aa")))
	wantError(t, fetchError(t, client), balena.BadAnswer, 200, "GET /v7/device: two devices have the same uuid")
}

// What has not been asked for is not known to be there.
func TestCloudFieldsOfNoDevices(t *testing.T) {
	if s := fetch(t, newClient(t, serve(t, account(0)))); s.CloudFields {
		t.Error("the server is taken for balenaCloud")
	}
}

// However short it is: what the server says is not shown when the token is in it, and what the exporter says is.
func TestShortTokensAreKeptSecret(t *testing.T) {
	said := func(h http.HandlerFunc) error {
		return fetchError(t, newClient(t, serve(t, h), func(c *balena.Config) { c.Token = balena.StaticToken("t0k") }))
	}
	wantError(t, said(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = fmt.Fprint(w, `{"d":[{"id":1,"slug":"t0k","is_of__class":"app"}]}`)
	}),
		balena.BadAnswer, 200, "GET /v7/application: the server's answer repeats the token, so that it cannot be shown")
	wantError(t, said(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "http://t0k.test/", http.StatusFound)
	}),
		balena.BadAnswer, 0, "GET /v7/application: the server's answer repeats the token, so that it cannot be shown")
	wantError(t, said(func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no t0k", http.StatusBadRequest) }),
		balena.BadAnswer, 400, "GET /v7/application: answered 400: a text that repeats the token")
}
