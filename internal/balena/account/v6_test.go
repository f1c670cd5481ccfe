// SPDX-License-Identifier: Apache-2.0

package account

import (
	"testing"

	"github.com/balena-exporter/balena-exporter/internal/balena"
)

func TestWordsOfV7(t *testing.T) {
	for _, test := range []struct {
		v6        string
		online    bool
		heartbeat string
		want      string
	}{
		{"offline", false, "offline", "disconnected"},
		{"idle", true, "online", "operational"},
		{"idle", true, "offline", "reduced-functionality"},
		{"idle", true, "unknown", "reduced-functionality"},
		{"idle", false, "online", "reduced-functionality"},
		{"idle", true, "timeout", "reduced-functionality"},
		{"idle", false, "timeout", "reduced-functionality"},
		{"updating", true, "online", "updating"},
		{"updating", false, "online", "updating"},
		{"updating", true, "timeout", "updating"},
		{"updating", true, "offline", "reduced-functionality"},
		{"updating", true, "unknown", "reduced-functionality"},
		{"configuring", false, "unknown", "configuring"},
		{"inactive", false, "", "inactive"},
		{"something new", true, "online", "something new"},
	} {
		d := balena.Device{Status: test.v6, Online: test.online, HeartbeatState: test.heartbeat}
		if inWordsOfV7(&d); d.Status != test.want {
			t.Errorf("%+v: %s", test, d.Status)
		}
	}
}
