// SPDX-License-Identifier: Apache-2.0

package exposition

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

// TestMain looks for leaked goroutines, and lets the test binary be the scraper of
// the benchmarks, in a process of its own.
func TestMain(m *testing.M) {
	if os.Getenv(scraperVariable) != "" {
		os.Exit(scraper(os.Stdin, os.Stdout))
	}
	goleak.VerifyTestMain(m)
}

const scraperVariable = "EXPOSITION_TEST_SCRAPER"

// startScraper starts another process and returns a function that makes it scrape
// and returns the number of bytes it got.
func startScraper(tb testing.TB) func(url, acceptEncoding string) int64 {
	tb.Helper()
	executable, err := os.Executable()
	if err != nil {
		tb.Fatal(err)
	}
	command := exec.Command(executable)
	command.Env = append(os.Environ(), scraperVariable+"=1")
	command.Stderr = os.Stderr
	orders, err := command.StdinPipe()
	if err != nil {
		tb.Fatal(err)
	}
	reports, err := command.StdoutPipe()
	if err != nil {
		tb.Fatal(err)
	}
	if err := command.Start(); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		orders.Close()
		if err := command.Wait(); err != nil {
			tb.Errorf("the scraper failed: %v", err)
		}
	})
	return func(url, acceptEncoding string) int64 {
		var n int64
		fmt.Fprintln(orders, url, acceptEncoding)
		if _, err := fmt.Fscanln(reports, &n); err != nil {
			tb.Fatalf("the scraper gave no answer: %v", err)
		}
		return n
	}
}

// scraper is the other process: it reads orders and writes reports, line by line.
func scraper(orders io.Reader, reports io.Writer) int {
	transport := &http.Transport{DisableCompression: true, ReadBufferSize: 64 << 10}
	lines := bufio.NewScanner(orders)
	for lines.Scan() {
		url, acceptEncoding, _ := strings.Cut(lines.Text(), " ")
		request, err := http.NewRequest("GET", url, nil)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		request.Header.Set("Accept-Encoding", acceptEncoding)
		response, err := transport.RoundTrip(request)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		n, err := io.Copy(io.Discard, response.Body)
		response.Body.Close()
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		fmt.Fprintln(reports, n)
	}
	return 0
}
