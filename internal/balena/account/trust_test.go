// SPDX-License-Identifier: Apache-2.0

package account

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/balena-exporter/balena-exporter/internal/balena"
	"github.com/balena-exporter/balena-exporter/internal/balena/api"
)

// The first observation is accepted, and another value after three observations in a row.
func TestBelief(t *testing.T) {
	for _, test := range []struct{ seen, want string }{
		{"a", "a"}, {"ab", "a"}, {"abb", "a"}, {"abbb", "b"}, {"abbabb", "a"}, {"abcb", "b"}, {"abbba", "b"}, {"abbbaaa", "a"},
	} {
		var b belief[string]
		if b.holds("") {
			t.Error("nothing was seen, and something is believed")
		}
		for _, r := range test.seen {
			b.saw(string(r))
		}
		if !b.holds(test.want) {
			t.Errorf("after %s: %q is believed, want %q", test.seen, b.value, test.want)
		}
	}
}

// Each step has a minute. After the query is given up, it is tried again ten minutes later.
func TestTrustInChanges(t *testing.T) {
	trouble := errors.New("trouble")
	start := time.Date(2026, time.November, 22, 12, 0, 0, 0, time.UTC)
	at := func(minute int) time.Time { return start.Add(time.Duration(minute) * time.Minute) }
	moved, still, nothing := &proof{moved: true}, &proof{wrong: errors.New("still")}, &proof{}
	type step struct {
		minute int
		what   any // error: the query failed; nil: it was answered; *proof: the result of a full refresh
	}
	for name, test := range map[string]struct {
		steps  []step
		asks   map[int]bool // by minute
		reason string
	}{
		"nothing yet":                {nil, map[int]bool{0: true}, ""},
		"failed once":                {[]step{{1, trouble}}, map[int]bool{1: true, 2: true}, ""},
		"failed twice":               {[]step{{1, trouble}, {2, trouble}}, map[int]bool{2: false, 11: false, 12: true}, "trouble"},
		"failed, answered, failed":   {[]step{{1, trouble}, {2, nil}, {3, trouble}}, map[int]bool{3: true}, ""},
		"failed again when asked":    {[]step{{1, trouble}, {2, trouble}, {12, trouble}}, map[int]bool{13: false, 21: false, 22: true}, "trouble"},
		"answered when asked again":  {[]step{{1, trouble}, {2, trouble}, {12, nil}}, map[int]bool{12: true}, ""},
		"stands still":               {[]step{{1, still}}, map[int]bool{1: false, 60: false, 61: false, 1000: false}, "still"},
		"stands still, moves early":  {[]step{{1, still}, {2, moved}}, map[int]bool{2: false, 1000: false}, "still"},
		"stands still, moves":        {[]step{{1, still}, {61, moved}}, map[int]bool{61: true}, ""},
		"stands still, nothing":      {[]step{{1, still}, {61, nothing}}, map[int]bool{61: false}, "still"},
		"stands still again":         {[]step{{1, still}, {60, still}, {61, moved}}, map[int]bool{61: false, 120: false}, "still"},
		"a full refresh proves less": {[]step{{1, trouble}, {2, trouble}, {3, moved}}, map[int]bool{3: false, 12: true}, "trouble"},
	} {
		t.Run(name, func(t *testing.T) {
			var trust trust
			for _, s := range test.steps {
				switch what := s.what.(type) {
				case nil:
					trust.consistency.answered()
				case error:
					trust.consistency.failed(what, at(s.minute+10))
				case *proof:
					trust.proved(what, at(s.minute))
				}
			}
			for minute, want := range test.asks {
				if got := trust.modifiedAtErr == nil && trust.consistency.usable(at(minute)); got != want {
					t.Errorf("minute %d: asks %t, want %t", minute, got, want)
				}
			}
			reason := cmp.Or(trust.modifiedAtErr, trust.consistency.reason)
			if got := fmt.Sprint(reason); test.reason != "" && got != test.reason || test.reason == "" && reason != nil {
				t.Errorf("the reason is %v, want %q", reason, test.reason)
			}
		})
	}
}

// The rung of a ladder depends on which of its queries are considered refused.
func TestLadderOfQueries(t *testing.T) {
	now := time.Date(2026, time.November, 22, 12, 0, 0, 0, time.UTC)
	first, second := errors.New("first"), errors.New("second")
	for _, test := range []struct {
		refused []error
		mode    balena.Mode
		reason  error
		asks    bool
	}{
		{[]error{nil, nil}, balena.DevicesAndInstalls, nil, true},
		{[]error{first, nil}, balena.DevicesOnly, first, true},
		{[]error{first, second}, balena.Everything, second, false},
		{[]error{nil, second}, balena.DevicesAndInstalls, nil, true},
	} {
		f := refresh{config: &Config{Options: Options{FullRefreshInterval: time.Minute}}}
		for i, err := range test.refused {
			for range 2 {
				if err != nil {
					f.trust.devices[i].failed(err, now.Add(time.Minute))
				}
			}
		}
		mode, reason := f.mode()
		if asks := f.trust.devices.usable(now); mode != test.mode || !errors.Is(reason, test.reason) || asks != test.asks {
			t.Errorf("%v: mode %s, reason %v, asks %t; want %s, %v, %t", test.refused, mode, reason, asks, test.mode, test.reason, test.asks)
		}
		if !f.trust.devices.usable(now.Add(time.Minute)) {
			t.Errorf("%v: no query is tried again", test.refused)
		}
	}
}

// Each error has a reason for disabling incremental refreshes.
func TestDisabledBy(t *testing.T) {
	refusal := func(status int, err error) error {
		return &api.Error{Problem: api.Unavailable, Request: "GET /v7/device", Status: status, Err: err}
	}
	still := &proof{wrong: errors.New("still")}
	for want, errs := range map[balena.Disabled][]error{
		balena.Refused:      {refusal(500, api.ErrEmptyBody), refusal(400, errors.New("malformed"))},
		balena.Failing:      {refusal(502, errors.New("bad gateway")), refusal(500, errors.New("a page of HTML")), refusal(0, errors.New("no complete answer"))},
		balena.Inconsistent: {inconsistencyError("a device is missing"), refusal(200, inconsistencyError("another uuid"))},
		balena.ModifiedAt:   {still.verdict()},
		balena.NoDate:       {errNoDate},
	} {
		for _, err := range errs {
			if got := disabledBy(err); got != want || !slices.Contains(balena.DisabledReasons(), got) {
				t.Errorf("%v: %q, want %q", err, got, want)
			}
		}
	}
}

// The conclusions of a full refresh about modified_at.
func TestProof(t *testing.T) {
	device := func(change func(*balena.Device)) *balena.Device {
		d := nullDevice
		d.ID, d.UUID, d.Modified = 1, "u", 100
		change(&d)
		return &d
	}
	same := device(func(*balena.Device) {})
	for name, test := range map[string]struct {
		was, is      *balena.Device
		moved, wrong bool
	}{
		"unchanged":                         {same, same, false, false},
		"new":                               {nil, same, false, false},
		"no modified_at":                    {nil, device(func(d *balena.Device) { d.Modified = 0 }), false, true},
		"changed and told":                  {same, device(func(d *balena.Device) { d.Name, d.Modified = "x", 101 }), true, false},
		"changed and not told":              {same, device(func(d *balena.Device) { d.Name = "x" }), false, true},
		"changed after what has been asked": {device(func(d *balena.Device) { d.Modified = 5000 }), device(func(d *balena.Device) { d.Name, d.Modified = "x", 5000 }), false, false},
		"computed, not told":                {same, device(func(d *balena.Device) { d.Status = "operational" }), false, false},
		"written without a change":          {same, device(func(d *balena.Device) { d.Modified = 101 }), false, false},
		"put back to an older state":        {same, device(func(d *balena.Device) { d.Name, d.Modified = "x", 99 }), false, false},
		"something happened much later":     {nil, device(func(d *balena.Device) { d.LastConnectivity = 100 + overlap + 1 }), false, true},
		"something happened a little later": {nil, device(func(d *balena.Device) { d.LastConnectivity = 100 + overlap }), false, false},
		"something happens in the future":   {nil, device(func(d *balena.Device) { d.LastConnectivity = 1e9 }), false, false},
	} {
		t.Run(name, func(t *testing.T) {
			p := proof{since: 1000, now: 1e6}
			p.see(test.was, test.is)
			if p.moved != test.moved || (p.verdict() != nil) != test.wrong {
				t.Errorf("moved %t, verdict %v; want %t, and an error: %t", p.moved, p.verdict(), test.moved, test.wrong)
			}
		})
	}
}

// A change of any field that is stored in the row of a device is a proof, but a change of a computed field is not.
func TestFieldsKnowWhoWritesThem(t *testing.T) {
	for _, field := range deviceFields {
		a, b := nullDevice, nullDevice
		for _, value := range []string{
			`"x"`, `"7.5"`, `7`, `true`, `false`, `{"__id":7}`, `"2026-11-22T14:09:34.280Z"`, `[{"status":"Running","is_provided_by__release":{"__id":7}}]`,
		} {
			if b = nullDevice; field.Set(api.ValueDecoder(), jsontext.Value(value), &b) == nil && !field.Same(&a, &b) {
				break
			}
		}
		if field.Same(&a, &b) {
			t.Errorf("%s takes no value, or Same does not see it", field.Name)
		}
		if sameRow(&a, &b) != field.computed {
			t.Errorf("%s: a change of it is proof of a change of the row: %t, want %t", field.Name, !sameRow(&a, &b), !field.computed)
		}
		if a.Equal(&b) {
			t.Errorf("%s: devices that differ in it are equal", field.Name)
		}
	}
}
