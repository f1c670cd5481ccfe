// SPDX-License-Identifier: Apache-2.0

package refresh

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-kit/log"
	"github.com/go-kit/log/level"
	"github.com/google/go-cmp/cmp"

	"github.com/balena-exporter/balena-exporter/internal/balena"
	"github.com/balena-exporter/balena-exporter/internal/balena/api"
	"github.com/balena-exporter/balena-exporter/internal/exposition"
)

// These tests use the fake clock of synctest. It advances only while all goroutines wait, so times are exact.

const (
	interval  = time.Minute
	staleness = 5 * time.Minute
	timeout   = 10 * time.Minute
)

// A trial is a running loop with records of its refreshes.
type trial struct {
	*Loop
	log    buffer
	starts []time.Duration // of refreshes, since the loop began
	errs   []error         // as observed
	took   []time.Duration // as observed
	began  time.Time
	stop   func() // stops the loop and waits for its end

	handing sync.Mutex
}

// A buffer holds the log, which the loop and a timer of the journal write.
type buffer struct {
	mutex sync.Mutex
	text  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	return b.text.Write(p)
}

func (b *buffer) String() string {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	return b.text.String()
}

func (b *buffer) Reset() {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	b.text.Reset()
}

// try runs a loop until the end of the test. Its n-th refresh, counted from 1, is fetch(n).
func try(t *testing.T, fetch func(ctx context.Context, n int) (*balena.Snapshot, error), change ...func(*Config)) *trial {
	t.Helper()
	tr := &trial{began: time.Now()}
	config := Config{
		Fetch: func(ctx context.Context) (*balena.Snapshot, error) {
			tr.handOver()
			tr.starts = append(tr.starts, time.Since(tr.began))
			return fetch(ctx, len(tr.starts))
		},
		Render: func(*balena.Snapshot) *exposition.Page { return &exposition.Page{} },
		Observe: func(s *balena.Snapshot, err error, took time.Duration) {
			if (s == nil) == (err == nil) {
				t.Errorf("observed the snapshot %v and the error %v", s, err)
			}
			tr.errs = append(tr.errs, err)
			tr.took = append(tr.took, took)
		},
		Interval:     interval,
		MaxStaleness: staleness,
		Timeout:      timeout,
		Logger:       level.NewFilter(log.NewLogfmtLogger(&tr.log), level.AllowInfo()),
	}
	for _, change := range change {
		change(&config)
	}
	tr.Loop = New(config)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		tr.Run(ctx)
	}()
	tr.stop = func() {
		cancel()
		<-done
	}
	t.Cleanup(tr.stop)
	return tr
}

// pass advances the clock by d and waits until all goroutines wait.
func (tr *trial) pass(d time.Duration) {
	tr.handOver()
	time.Sleep(d)
	synctest.Wait()
}

// handOver synchronizes the test with the loop for the race detector. The fake clock lets only one of them run at a time.
func (tr *trial) handOver() {
	tr.handing.Lock()
	tr.handing.Unlock() //nolint:gocritic,staticcheck // the critical section is empty: only the order matters
}

// takeLog returns what was logged since the last call.
func (tr *trial) takeLog() string {
	defer tr.log.Reset()
	return tr.log.String()
}

// waits returns the times between refreshes.
func (tr *trial) waits() []time.Duration {
	var waits []time.Duration
	for i := 1; i < len(tr.starts); i++ {
		waits = append(waits, tr.starts[i]-tr.starts[i-1])
	}
	return waits
}

// now returns a snapshot with one fleet that was read now.
func now() *balena.Snapshot {
	return &balena.Snapshot{Time: time.Now(), Fleets: []balena.Fleet{{ID: 1}}, APIVersion: balena.V7, Reading: balena.Reading{Kind: balena.Full}}
}

func good(context.Context, int) (*balena.Snapshot, error) { return now(), nil }

func unavailable() error {
	return &api.Error{Problem: api.Unavailable, Request: "GET /v7/application", Status: 502, Err: errors.New("answered 502")}
}

func limited(wait time.Duration) error {
	return &api.Error{Problem: api.RateLimited, Request: "GET /v7/application", Status: 429, Wait: wait, Err: errors.New("answered 429")}
}

func unauthorized() error {
	return &api.Error{Problem: api.Unauthorized, Request: "GET /v7/application", Status: 401, Err: errors.New("answered 401")}
}

func badAnswer() error {
	return &api.Error{Problem: api.BadAnswer, Request: "GET /v7/application", Status: 200, Err: errors.New("not JSON")}
}

// about reports whether two waits differ by no more than the jitter.
func about(got, want time.Duration) bool {
	return float64(got) >= float64(want)*(1-jitter) && float64(got) <= float64(want)*(1+jitter)
}

func TestRefreshesAtTheIntervalWithJitter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := try(t, good)
		synctest.Wait()
		if len(tr.starts) != 1 || tr.starts[0] != 0 {
			t.Fatalf("the first refresh began at %v, want 0", tr.starts)
		}
		tr.pass(200 * interval)
		different := map[time.Duration]bool{}
		for _, wait := range tr.waits() {
			different[wait] = true
			if !about(wait, interval) {
				t.Errorf("waited %s, more than %v from %s", wait, jitter, interval)
			}
		}
		if n := len(tr.starts); n < 190 || n > 211 {
			t.Errorf("%d refreshes in 200 intervals", n)
		}
		if len(different) < 100 {
			t.Errorf("only %d different waits: exporters that start together stay together", len(different))
		}
	})
}

// TestOneRefreshAtATime checks that the interval is the time between the beginnings of refreshes, that only one refresh runs at
// a time, and that there is a pause of a tenth of the interval after a slow refresh.
func TestOneRefreshAtATime(t *testing.T) {
	for _, test := range []struct{ took, least, most time.Duration }{
		{30 * time.Second, 57 * time.Second, 63 * time.Second},
		{58 * time.Second, 64 * time.Second, 64 * time.Second},
		{90 * time.Second, 96 * time.Second, 96 * time.Second},
	} {
		t.Run(test.took.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				running := 0
				tr := try(t, func(context.Context, int) (*balena.Snapshot, error) {
					if running++; running > 1 {
						t.Errorf("%d concurrent refreshes", running)
					}
					s := now()
					time.Sleep(test.took)
					running--
					return s, nil
				})
				tr.pass(20 * interval)
				for _, wait := range tr.waits() {
					if wait < test.least || wait > test.most {
						t.Errorf("the next refresh began after %s, want %s to %s", wait, test.least, test.most)
					}
				}
				for _, took := range tr.took {
					if took != test.took {
						t.Errorf("observed a refresh of %s, want %s", took, test.took)
					}
				}
				if len(tr.starts) < 10 {
					t.Errorf("only %d refreshes", len(tr.starts))
				}
			})
		})
	}
}

func TestWaitsAfterFailures(t *testing.T) {
	seconds := func(s ...int) []time.Duration {
		var d []time.Duration
		for _, s := range s {
			d = append(d, time.Duration(s)*time.Second)
		}
		return d
	}
	for _, test := range []struct {
		name string
		errs []error // nil is success; the last one repeats
		want []time.Duration
	}{
		{"unavailable doubles up to the interval", []error{unavailable()}, seconds(5, 10, 20, 40, 60, 60, 60)},
		{"backoff starts again after a success", []error{unavailable(), unavailable(), nil, unavailable()}, seconds(5, 10, 60, 5, 10, 20)},
		{"a token that is not accepted is tried at the interval", []error{unauthorized()}, seconds(60, 60, 60)},
		{"a bad answer is retried at the interval", []error{badAnswer()}, seconds(60, 60, 60)},
		{"another error is retried at the interval", []error{errors.New("unexpected")}, seconds(60, 60, 60)},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tr := try(t, func(_ context.Context, n int) (*balena.Snapshot, error) {
					if err := test.errs[min(n, len(test.errs))-1]; err != nil {
						return nil, err
					}
					return now(), nil
				})
				tr.pass(time.Hour)
				waits := tr.waits()
				for i, want := range test.want {
					if !about(waits[i], want) {
						t.Errorf("wait %d was %s, want about %s", i+1, waits[i], want)
					}
				}
				for i, err := range tr.errs {
					if want := test.errs[min(i+1, len(test.errs))-1]; !errors.Is(err, want) {
						t.Errorf("refresh %d was observed with %v, want %v", i+1, err, want)
					}
				}
			})
		})
	}
}

func TestBackoffNeverExceedsAShortInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := try(t, func(context.Context, int) (*balena.Snapshot, error) { return nil, unavailable() },
			func(c *Config) { c.Interval = 2 * time.Second })
		tr.pass(time.Minute)
		for _, wait := range tr.waits() {
			if !about(wait, 2*time.Second) {
				t.Errorf("waited %s, want the interval of 2s", wait)
			}
		}
	})
}

func TestRateLimitsAreKept(t *testing.T) {
	for _, wait := range []time.Duration{10 * time.Second, time.Minute, 20 * time.Minute, time.Hour} {
		t.Run(wait.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const took = 2 * time.Second
				tr := try(t, func(context.Context, int) (*balena.Snapshot, error) {
					time.Sleep(took)
					return nil, limited(wait)
				})
				tr.pass(10 * time.Hour)
				for i, got := range tr.waits() {
					least := took + wait
					most := least + wait/10 + time.Second
					if i > 0 || wait < firstRetry { // the backoff applies
						most = max(most, took+interval+interval/10)
					}
					if got < least || got > most {
						t.Errorf("refresh %d began %s after the one before, want %s to %s", i+2, got, least, most)
					}
				}
				if len(tr.starts) < 9 {
					t.Errorf("only %d refreshes", len(tr.starts))
				}
			})
		})
	}
}

// TestRetryAfterOfAnUnavailableServer checks that the Retry-After of a 503 is respected.
func TestRetryAfterOfAnUnavailableServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := try(t, func(context.Context, int) (*balena.Snapshot, error) {
			return nil, &api.Error{Problem: api.Unavailable, Request: "GET /v7/application", Status: 503, Wait: 10 * time.Minute, Err: errors.New("answered 503")}
		})
		tr.pass(time.Hour)
		for _, wait := range tr.waits() {
			if wait < 10*time.Minute || wait > 11*time.Minute {
				t.Errorf("waited %s, want 10 minutes", wait)
			}
		}
	})
}

// TestShortRateLimitsBackOff checks that waits increase if all responses have "Retry-After: 1".
func TestShortRateLimitsBackOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := try(t, func(context.Context, int) (*balena.Snapshot, error) { return nil, limited(time.Second) })
		tr.pass(10 * time.Minute)
		for i, want := range []time.Duration{5, 10, 20, 40, 60, 60} {
			if got := tr.waits()[i]; !about(got, want*time.Second) {
				t.Errorf("wait %d was %s, want about %ds", i+1, got, want)
			}
		}
	})
}

func TestServesTheNewestSnapshot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var snapshots []*balena.Snapshot
		var pages []*exposition.Page
		tr := try(t, func(_ context.Context, n int) (*balena.Snapshot, error) {
			if n == 3 {
				return nil, badAnswer()
			}
			snapshots = append(snapshots, now())
			return snapshots[len(snapshots)-1], nil
		}, func(c *Config) {
			c.Render = func(s *balena.Snapshot) *exposition.Page {
				if s != snapshots[len(snapshots)-1] {
					t.Error("the rendered snapshot is not the one that was fetched")
				}
				pages = append(pages, exposition.NewBuilder(exposition.Layout{}, nil).Page())
				return pages[len(pages)-1]
			}
		})
		if tr.Snapshot() != nil || tr.Page() != nil {
			t.Error("there are data before the first refresh")
		}
		tr.pass(4*interval + interval/2)
		if len(tr.starts) < 4 {
			t.Fatalf("only %d refreshes", len(tr.starts))
		}
		if tr.Snapshot() != snapshots[len(snapshots)-1] || tr.Page() != pages[len(pages)-1] {
			t.Error("the newest snapshot is not served")
		}
		if len(pages) != len(snapshots) {
			t.Errorf("%d pages for %d snapshots", len(pages), len(snapshots))
		}
	})
}

func TestStaleDataAreNotServed(t *testing.T) {
	fails := func(context.Context) error { return unavailable() }
	hangs := func(ctx context.Context) error {
		<-ctx.Done()
		return ctx.Err()
	}
	for name, failure := range map[string]func(context.Context) error{"failing": fails, "hanging": hangs} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tr := try(t, func(ctx context.Context, n int) (*balena.Snapshot, error) {
					if n > 1 {
						return nil, failure(ctx)
					}
					s := now()
					time.Sleep(10 * time.Second) // the age counts from the beginning of the refresh
					return s, nil
				})
				tr.pass(10 * time.Second)
				tr.pass(staleness - 10*time.Second)
				if tr.Snapshot() == nil || tr.Page() == nil {
					t.Errorf("the data are not served before the end of %s", staleness)
				}
				tr.pass(time.Nanosecond)
				if tr.Snapshot() != nil || tr.Page() != nil {
					t.Errorf("the data are still served after %s", staleness)
				}
			})
		})
	}
}

func TestDataReappear(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var works bool
		tr := try(t, func(_ context.Context, n int) (*balena.Snapshot, error) {
			if n == 1 || works {
				return now(), nil
			}
			return nil, unavailable()
		})
		synctest.Wait()
		tr.pass(time.Hour)
		if tr.Snapshot() != nil {
			t.Fatal("the data are still served")
		}
		works = true
		tr.pass(interval * 11 / 10)
		if tr.Snapshot() == nil || tr.Page() == nil {
			t.Error("the data are not served again")
		}
	})
}

func TestCancellation(t *testing.T) {
	t.Run("while fetching", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			tr := try(t, func(ctx context.Context, _ int) (*balena.Snapshot, error) {
				<-ctx.Done()
				return nil, fmt.Errorf("GET: %w", ctx.Err())
			})
			synctest.Wait()
			began := time.Now()
			tr.stop()
			if took := time.Since(began); took != 0 {
				t.Errorf("it took %s", took)
			}
			if len(tr.errs) > 0 || tr.log.String() != "" {
				t.Errorf("a canceled refresh was observed: %v %s", tr.errs, &tr.log)
			}
		})
	})
	t.Run("while waiting", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			tr := try(t, good)
			tr.pass(time.Second)
			began := time.Now()
			tr.stop()
			if took := time.Since(began); took != 0 || len(tr.starts) != 1 {
				t.Errorf("it took %s and %d refreshes", took, len(tr.starts))
			}
		})
	})
	t.Run("ignored by fetch", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			tr := try(t, func(context.Context, int) (*balena.Snapshot, error) {
				time.Sleep(time.Second)
				return now(), nil
			})
			tr.stop()
			if tr.Snapshot() != nil || len(tr.errs) > 0 {
				t.Error("a canceled refresh was observed")
			}
		})
	})
}

func TestStatus(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		var announced []time.Time // Next of the status before each refresh
		next := func(s Status) Status {
			announced = append(announced, s.Next)
			s.Next = time.Time{}
			return s
		}
		tr := try(t, func(_ context.Context, n int) (*balena.Snapshot, error) {
			s := now()
			time.Sleep(time.Second)
			if n == 2 {
				return nil, badAnswer()
			}
			return s, nil
		})
		if got := tr.Status(); got != (Status{}) {
			t.Errorf("before the first refresh: %+v", got)
		}
		tr.pass(2 * time.Second)
		if got, want := next(tr.Status()), (Status{Up: true, LastSuccess: start}); got != want {
			t.Errorf("after a success: %+v, want %+v", got, want)
		}
		began := time.Until(announced[0]) + time.Second/2
		tr.pass(began)
		if got := tr.Status().Next; !got.IsZero() {
			t.Errorf("the second refresh is running, but Next is %s", got)
		}
		tr.pass(64*time.Second - began)
		failed := start.Add(tr.starts[1] + time.Second)
		want := Status{LastSuccess: start, LastError: "GET /v7/application: not JSON", LastErrorTime: failed}
		if got := next(tr.Status()); got != want {
			t.Errorf("after a failure: %+v, want %+v", got, want)
		}
		tr.pass(66 * time.Second)
		want.Up, want.LastSuccess = true, start.Add(tr.starts[2])
		if got := next(tr.Status()); got != want {
			t.Errorf("after another success: %+v, want %+v", got, want)
		}
		for i, began := range announced[:2] {
			if want := start.Add(tr.starts[i+1]); !began.Equal(want) {
				t.Errorf("refresh %d: Next was %s, but it began at %s", i+2, began, want)
			}
		}
	})
}

// script runs a loop whose refreshes end with the errors, one after the other, and then succeed. It returns the log.
func script(t *testing.T, errs ...error) (logged string) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		tr := try(t, func(_ context.Context, n int) (*balena.Snapshot, error) {
			if n <= len(errs) && errs[n-1] != nil {
				return nil, errs[n-1]
			}
			return now(), nil
		}, func(c *Config) { c.Interval = firstRetry }) // so that all waits are about the same
		tr.pass(time.Duration(len(errs)+1) * firstRetry * 11 / 10)
		if len(tr.starts) < len(errs)+2 {
			t.Fatalf("only %d refreshes for a script of %d", len(tr.starts), len(errs))
		}
		logged = tr.takeLog()
	})
	return logged
}

func TestFailureIsLoggedOnceAndWhenItEnds(t *testing.T) {
	const (
		first   = `level=info msg="first refresh succeeded"`
		again   = `level=info msg="refresh succeeded again"`
		failed  = `level=error msg="refresh failed" err="GET /v7/application: answered 502"`
		denied  = `level=error msg="refresh failed" err="GET /v7/application: answered 401"`
		unknown = `level=error msg="refresh failed" err=unexpected`
	)
	at := func(page int) error {
		return &api.Error{Problem: api.Unavailable, Request: fmt.Sprintf("GET /v7/device page %d", page), Err: fmt.Errorf("gone after %d s", page)}
	}
	for _, test := range []struct {
		name string
		errs []error
		want []string
	}{
		{"nothing", []error{nil, nil}, []string{first}},
		{"a failure", []error{nil, unavailable(), unavailable(), unavailable(), nil, nil}, []string{first, failed, again}},
		{"a failure at the start", []error{unavailable(), unavailable(), nil, nil, nil}, []string{failed, first}},
		{"two failures", []error{nil, unavailable(), nil, unavailable(), nil}, []string{first, failed, again, failed, again}},
		{"a failure whose error changes", []error{nil, unavailable(), unauthorized(), unauthorized(), nil}, []string{first, failed, denied, again}},
		{"a failure with alternating errors", []error{nil, unavailable(), unauthorized(), unavailable(), unauthorized(), unavailable(), nil}, []string{first, failed, denied, again}},
		{
			"the same error on several pages",
			[]error{nil, at(1), at(7), at(3), at(2), nil},
			[]string{first, `level=error msg="refresh failed" err="GET /v7/device page 1: gone after 1 s"`, again},
		},
		{"an error that is not of the API", []error{nil, errors.New("unexpected"), errors.New("unexpected"), nil}, []string{first, unknown, again}},
	} {
		t.Run(test.name, func(t *testing.T) {
			logged := script(t, test.errs...)
			var got []string
			for line := range strings.Lines(logged) {
				line = strings.TrimSpace(line)
				for _, end := range []string{" failures=", " fleets="} {
					line, _, _ = strings.Cut(line, end)
				}
				got = append(got, line)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("the log (-want +got):\n%s", diff)
			}
		})
	}
}

func TestLogHasTheDurationOfFailuresAndTheSizeOfTheData(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := try(t, func(_ context.Context, n int) (*balena.Snapshot, error) {
			time.Sleep(2 * time.Second)
			if n == 2 {
				return nil, limited(10 * time.Minute)
			}
			return now(), nil
		})
		tr.pass(5 * time.Second)
		if got, want := tr.takeLog(), `level=info msg="first refresh succeeded" fleets=1 devices=0 api=v7 duration=2s kind=full read=0 changed=0`+"\n"; got != want {
			t.Errorf("got %s, want %s", got, want)
		}
		tr.pass(2 * interval)
		if got, want := tr.takeLog(), `level=error msg="refresh failed" err="GET /v7/application: answered 429" failures=1`+"\n"; got != want {
			t.Errorf("got %s, want %s", got, want)
		}
		tr.pass(11 * time.Minute)
		if got := tr.takeLog(); !strings.Contains(got, `msg="refresh succeeded again"`) || !strings.Contains(got, "failed_for=10m") && !strings.Contains(got, "failed_for=11m") {
			t.Errorf("the log does not report that refreshes succeed again, and for how long they failed: %s", got)
		}
	})
}

func TestLogRemindsEveryHour(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := try(t, func(context.Context, int) (*balena.Snapshot, error) { return nil, unavailable() })
		synctest.Wait()
		for hour := range 5 {
			if got := strings.Count(tr.takeLog(), "level=error"); got != 1 {
				t.Errorf("%d lines in hour %d, want 1", got, hour)
			}
			tr.pass(remindEvery + 2*interval) // past the first refresh after the hour
		}
	})
}

func TestLogWarnsThatThereAreNoFleets(t *testing.T) {
	for name, errs := range map[string][]error{"at once": nil, "after a failure": {unavailable()}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tr := try(t, func(_ context.Context, n int) (*balena.Snapshot, error) {
					if n <= len(errs) {
						return nil, errs[n-1]
					}
					return &balena.Snapshot{Time: time.Now()}, nil
				})
				tr.pass(10 * interval)
				if got := strings.Count(tr.takeLog(), `level=warn msg="no fleets: the token has access to none, or the options select none"`); got != 1 {
					t.Errorf("logged %d times, want once", got)
				}
			})
		})
	}
}

func TestLogOfOptionalParts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		releases, keys := error(nil), error(nil)
		tr := try(t, func(context.Context, int) (*balena.Snapshot, error) {
			s := now()
			s.Parts = []balena.Part{{Name: balena.PartReleases, Err: releases}, {Name: balena.PartKeys, Err: keys}}
			return s, nil
		})
		tr.pass(interval / 2)
		step := func(want ...string) {
			t.Helper()
			tr.takeLog()
			tr.pass(10 * interval)
			var got []string
			for line := range strings.Lines(tr.log.String()) {
				line, _, _ = strings.Cut(strings.TrimSpace(line), " failed_for=")
				got = append(got, line)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("the log (-want +got):\n%s", diff)
			}
		}
		step()
		releases = unavailable()
		step(`level=warn msg="a part of the refresh failed" part=release err="GET /v7/application: answered 502"`)
		keys = unauthorized()
		step(`level=warn msg="a part of the refresh failed" part=api_key err="GET /v7/application: answered 401"`)
		releases = nil
		step(`level=info msg="a part of the refresh succeeded again" part=release`)
		step()
		tr.pass(remindEvery - 30*interval)
		step(`level=warn msg="a part of the refresh failed" part=api_key err="GET /v7/application: answered 401"`)
		keys = nil
		step(`level=info msg="a part of the refresh succeeded again" part=api_key`)
		for _, err := range tr.errs {
			if err != nil {
				t.Errorf("the refresh failed because of a part: %v", err)
			}
		}
	})
}

// TestEachReasonForAMissingResponseIsLogged checks that each reason is logged, so that operators see the next one after they
// fixed the first.
func TestEachReasonForAMissingResponseIsLogged(t *testing.T) {
	gone := func(why error) error {
		return &api.Error{Problem: api.Unavailable, Request: "GET /v7/application", Err: fmt.Errorf("dial tcp: %w", why)}
	}
	refused := &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
	unreachable := &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("connect", syscall.EHOSTUNREACH)}
	unknown := &net.DNSError{Err: "no such host", Name: "api.test"}
	stranger := &tls.CertificateVerificationError{Err: errors.New("a certificate of a stranger")}
	plain := tls.RecordHeaderError{Msg: "first record does not look like a TLS handshake"}
	logged := script(t, nil, gone(refused), gone(unreachable), gone(refused), gone(unknown), gone(stranger), gone(plain), gone(unknown), gone(stranger), nil)
	for _, text := range []string{"connection refused", "no route to host", "no such host", "of a stranger", "TLS handshake", "succeeded again"} {
		if got := strings.Count(logged, text); got != 1 {
			t.Errorf("the log has %q %d times, want once:\n%s", text, got, logged)
		}
	}
}

// TestEachProblemOfTheTokenFileIsLogged checks that each problem of the token file is logged.
func TestEachProblemOfTheTokenFileIsLogged(t *testing.T) {
	bad := func(why string) error {
		return &api.Error{Problem: api.Unavailable, Request: "token", Err: errors.New(why)}
	}
	logged := script(t, nil, bad("the file is gone"), bad("the token is empty"), bad("the file is gone"), bad("the token is empty"), nil)
	for _, text := range []string{"the file is gone", "the token is empty"} {
		if got := strings.Count(logged, text); got != 1 {
			t.Errorf("the log has %q %d times, want once:\n%s", text, got, logged)
		}
	}
}

// TestVaryingTextOfTheServerIsNotLoggedEachTime checks that errors whose text varies are one failure, and that the text is not
// retained.
func TestVaryingTextOfTheServerIsNotLoggedEachTime(t *testing.T) {
	varying := func(problem api.Problem, status, n int) error {
		words := strings.Repeat(string(rune('a'+n%26)), 1000+n)
		return &api.Error{Problem: problem, Request: "GET /v7/device page 7", Status: status, Err: errors.New(words)}
	}
	for name, test := range map[string]struct {
		problem api.Problem
		status  int
	}{
		"a redirect": {api.BadAnswer, 0},
		"no HTTP":    {api.Unavailable, 0},
		"no JSON":    {api.BadAnswer, 200},
		"an error":   {api.Unavailable, 500},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tr := try(t, func(_ context.Context, n int) (*balena.Snapshot, error) {
					return nil, varying(test.problem, test.status, n)
				})
				tr.pass(3*remindEvery - time.Minute)
				if n := len(tr.starts); n < 100 {
					t.Fatalf("only %d refreshes", n)
				}
				if got := strings.Count(tr.takeLog(), "level=error"); got != 3 {
					t.Errorf("%d lines in 3 hours, want 3", got)
				}
				tr.stop()
				for class := range tr.journal.refreshing.logged {
					if len(class) > 100 {
						t.Errorf("the text is kept: %s", class)
					}
				}
			})
		})
	}
}

// TestClassesAreBounded checks that there are at most maxClasses + 1 lines per hour.
func TestClassesAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := try(t, func(_ context.Context, n int) (*balena.Snapshot, error) {
			return nil, fmt.Errorf("unexpected %s", strings.Repeat("x", n))
		}, func(c *Config) { c.Interval = time.Second })
		tr.pass(time.Hour - time.Minute)
		if got := strings.Count(tr.takeLog(), "level=error"); got != maxClasses+1 {
			t.Errorf("%d lines in an hour, want %d", got, maxClasses+1)
		}
		tr.stop()
		if got := len(tr.journal.refreshing.logged); got != maxClasses+1 {
			t.Errorf("%d classes are kept, want %d", got, maxClasses+1)
		}
	})
}

// TestRefreshTimeout checks that a refresh that exceeds its timeout fails with an error that states the remedy.
func TestRefreshTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := try(t, func(ctx context.Context, _ int) (*balena.Snapshot, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		})
		tr.pass(timeout)
		const want = "the refresh was stopped because it took longer than 10m0s: raise --balena.max-staleness, or divide the fleets with --balena.shard"
		if len(tr.errs) != 1 || tr.errs[0].Error() != want {
			t.Errorf("refreshes ended in %v, want %s", tr.errs, want)
		}
		if got := tr.Status(); got.Up || got.LastError != want {
			t.Errorf("the status is %+v", got)
		}
		if got := tr.takeLog(); strings.Count(got, "level=error") != 1 || !strings.Contains(got, want) {
			t.Errorf("the log is %s", got)
		}
		tr.pass(timeout)
		if wait := tr.waits()[0] - timeout; wait < firstRetry*9/10 {
			t.Errorf("the next refresh began after %s", wait)
		}
	})
}

// TestRefreshThatSucceedsAtItsTimeout checks that a refresh is successful if it succeeds at its timeout.
func TestRefreshThatSucceedsAtItsTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := try(t, func(ctx context.Context, _ int) (*balena.Snapshot, error) {
			<-ctx.Done()
			return now(), nil
		})
		tr.pass(timeout)
		if len(tr.errs) != 1 || tr.errs[0] != nil || tr.Snapshot() == nil {
			t.Errorf("refreshes ended in %v", tr.errs)
		}
	})
}

func TestLogOfIncrementalRefreshModes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var distrust func(n int) error
		mode := balena.DevicesAndInstalls
		tr := try(t, func(_ context.Context, n int) (*balena.Snapshot, error) {
			s := now()
			s.Reading.Mode = mode
			if distrust != nil {
				s.Reading.Reason = distrust(n)
			}
			if mode == balena.Everything {
				s.Reading.Disabled = balena.Inconsistent
			}
			return s, nil
		})
		tr.pass(interval / 2)
		step := func(want ...string) {
			t.Helper()
			tr.takeLog()
			tr.pass(10 * interval)
			var got []string
			for line := range strings.Lines(tr.log.String()) {
				line, _, _ = strings.Cut(strings.TrimSpace(line), " disabled_for=")
				got = append(got, withoutDigits(line))
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("the log (-want +got):\n%s", diff)
			}
		}
		const (
			everything = `level=warn msg="incremental refreshes are disabled: every refresh reads all devices" reason=inconsistent err=`
			again      = `level=info msg="incremental refreshes are enabled again" mode=`
			next       = `level=info msg="the server rejects a query for changes, so a simpler query is used" mode=devices err=`
		)
		step()
		mode, distrust = balena.DevicesOnly, func(int) error { return errors.New("an empty body") }
		step(next + `"an empty body"`)
		step()
		mode, distrust = balena.DevicesAndInstalls, nil
		step(`level=info msg="the server accepts the first query for changes again" mode=devices_and_installs`)
		step()
		mode = balena.Everything
		distrust = func(n int) error { return fmt.Errorf("its clock jumped by %d s", n) }
		step(everything + `"its clock jumped by  s"`)
		step()
		distrust = func(int) error { return errors.New("devices are missing") }
		step(everything + `"devices are missing"`)
		tr.pass(remindEvery - 15*interval)
		step(everything + `"devices are missing"`)
		mode, distrust = balena.DevicesOnly, func(int) error { return errors.New("an empty body") }
		step(again + "devices")
		step()
		mode, distrust = balena.Everything, func(int) error { return errors.New("devices are missing") }
		step(everything + `"devices are missing"`)
		mode, distrust = balena.DevicesAndInstalls, nil
		step(again + "devices_and_installs")
		step()
		for _, err := range tr.errs {
			if err != nil {
				t.Errorf("a refresh failed because the server is not trusted: %v", err)
			}
		}
	})
}

// TestLogHasTheNumberOfDevicesRead checks the lines at level debug.
func TestLogHasTheNumberOfDevicesRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var logged bytes.Buffer
		tr := try(t, func(_ context.Context, n int) (*balena.Snapshot, error) {
			s := now()
			s.Reading = balena.Reading{Kind: balena.Full, Devices: 2004, Changed: 2004}
			if n > 1 {
				s.Reading = balena.Reading{Kind: balena.Incremental, Devices: 30, Changed: 20}
			}
			return s, nil
		}, func(c *Config) { c.Logger = log.NewLogfmtLogger(&logged) })
		tr.pass(interval * 11 / 10)
		want := `level=info msg="first refresh succeeded" fleets=1 devices=0 api=v7 duration=0s kind=full read=2004 changed=2004` + "\n" +
			`level=debug msg="refresh succeeded" fleets=1 devices=0 api=v7 duration=0s kind=incremental read=30 changed=20` + "\n"
		if diff := cmp.Diff(want, logged.String()); diff != "" {
			t.Errorf("the log (-want +got):\n%s", diff)
		}
	})
}

func TestStaleDataAreLoggedOnce(t *testing.T) {
	const line = "the data are stale"
	synctest.Test(t, func(t *testing.T) {
		broken := false
		tr := try(t, func(context.Context, int) (*balena.Snapshot, error) {
			if broken {
				return nil, unauthorized()
			}
			return now(), nil
		})
		for range 2 { // once in each failure
			tr.pass(4 * interval) // the data do not become stale
			broken = true
			tr.takeLog()
			tr.pass(staleness - 2*interval) // the last refresh that succeeded was up to an interval and its jitter ago
			if got := tr.takeLog(); strings.Contains(got, line) {
				t.Errorf("the data become stale too early: %s", got)
			}
			tr.pass(10 * interval)
			if got := tr.takeLog(); strings.Count(got, line) != 1 {
				t.Errorf("want one line about stale data: %s", got)
			}
			broken = false // takes effect after the first refresh, which has already begun
		}
	})
}

// TestStaleDataAreLoggedAtOnce checks that stale data are logged before the end of a refresh.
func TestStaleDataAreLoggedAtOnce(t *testing.T) {
	for name, last := range map[string]error{"while a refresh hangs": nil, "while the server limits requests": limited(time.Hour)} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tr := try(t, func(ctx context.Context, n int) (*balena.Snapshot, error) {
					switch {
					case n == 1:
						return now(), nil
					case last != nil:
						return nil, last
					}
					<-ctx.Done()
					return nil, ctx.Err()
				})
				tr.pass(staleness)
				tr.takeLog()
				tr.pass(time.Nanosecond)
				const want = `level=warn msg="the data are stale: fleets and devices are not served until a refresh succeeds" age=5m0s max_staleness=5m0s` + "\n"
				if got := tr.takeLog(); got != want {
					t.Errorf("the log says %swant %s", got, want)
				}
				tr.stop()
			})
		})
	}
}

// TestStaleDataBetweenSlowRefreshes checks that data that become stale before each successful refresh are logged as one failure.
func TestStaleDataBetweenSlowRefreshes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := try(t, func(context.Context, int) (*balena.Snapshot, error) {
			s := now()
			time.Sleep(50 * time.Second)
			return s, nil
		}, func(c *Config) { c.MaxStaleness = interval })
		tr.pass(3*time.Hour - time.Minute)
		if got := tr.takeLog(); strings.Count(got, "the data are stale") != 3 || strings.Contains(got, "takes so long") {
			t.Errorf("want one line an hour: %s", got)
		}
	})
}

// TestEndedLoopDoesNotLog checks that a loop does not log after its end.
func TestEndedLoopDoesNotLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := try(t, good)
		tr.pass(time.Second)
		tr.stop()
		tr.takeLog()
		tr.pass(2 * staleness)
		if got := tr.takeLog(); got != "" {
			t.Errorf("the log is %s", got)
		}
	})
}

func TestRefreshesThatAreTooSlowAreLogged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := try(t, func(context.Context, int) (*balena.Snapshot, error) {
			s := now()
			time.Sleep(staleness + time.Second)
			return s, nil
		})
		tr.pass(5 * staleness)
		if got := tr.takeLog(); strings.Count(got, "a refresh takes so long that its data are stale") != 1 || !strings.Contains(got, "--balena.max-staleness") {
			t.Errorf("want one line that refreshes are too slow, with the remedy: %s", got)
		}
		if tr.Snapshot() != nil {
			t.Error("stale data are served")
		}
	})
}

func TestAChangeOfTheAPIVersionIsLogged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := try(t, func(_ context.Context, n int) (*balena.Snapshot, error) {
			s := now()
			if n > 2 {
				s.APIVersion = balena.V6
			}
			return s, nil
		})
		tr.pass(10 * interval)
		if got := tr.takeLog(); strings.Count(got, "level=warn msg=\"the API version of the server has changed") != 1 || !strings.Contains(got, "from=v7 to=v6") {
			t.Errorf("want one line: %s", got)
		}
	})
}
