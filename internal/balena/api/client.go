// SPDX-License-Identifier: Apache-2.0

package api

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/klauspost/compress/gzip"

	"github.com/balena-exporter/balena-exporter/internal/balena"
)

// Config says which server to ask, and how.
type Config struct {
	// URL is the server's address, such as https://api.balena-cloud.com.
	URL *url.URL
	// Token is asked for the token to send.
	Token TokenSource
	// CAFile names a file of PEM certificates to trust beside the system's; empty for none.
	CAFile string
	// Timeout bounds each request, the reading of its answer included.
	Timeout time.Duration
	// UserAgent is what the client calls itself.
	UserAgent string
	// Observe is told of each request that was sent; nil for nobody.
	Observe func(Exchange)
	// Now is the clock; nil for time.Now.
	Now func() time.Time
	// MaxAnswer bounds an answer after decompression, in bytes; 0 for 64 MiB. A page of 1,000 devices is about 1 MB.
	MaxAnswer int64
	// Transport sends the requests; nil for one of the client's own.
	Transport http.RoundTripper
}

// An Exchange is a request that was sent and what came back.
type Exchange struct {
	Resource string
	// Status is the answer's status; 0 when there was no answer, or when it could not be read to its end.
	Status   int
	Duration time.Duration
	// Bytes is the size of the answer's body as it was transferred, compressed or not.
	Bytes int64
}

const (
	// IdleTimeout is how long an idle connection is kept. The server closes its end after 5 seconds; a
	// client that keeps it longer meets a reset.
	IdleTimeout = 4 * time.Second
	maxAnswer   = 64 << 20
	// maxErrorBody is how much is read of the body of an error.
	maxErrorBody = 4 << 10
	// maxRedirects is how many redirects within the host are followed.
	maxRedirects = 3
	// defaultWait is how long to leave the server alone when a 429 does not say, and maxWait bounds what
	// it may say, so that a mistake in a header does not silence the exporter for days.
	defaultWait = time.Minute
	maxWait     = time.Hour
)

// Client asks one server. Requests are sent by one goroutine at a time; the methods TokenExpiry and Close may be
// called by any.
type Client struct {
	config Config
	base   string
	http   atomic.Pointer[http.Client]

	secret      secret
	tokenExpiry atomic.Int64 // Unix seconds, 0 when it is not known
	// quietUntil is when the server may be asked again after it wanted to be left alone.
	quietUntil time.Time
	// received is the size of all answers as they were transferred.
	received int64

	words words
	unzip gzip.Reader
}

// New returns a client for the server of config. It fails on a CA file that can't be read or holds no certificate.
func New(config Config) (*Client, error) {
	if config.Now == nil {
		config.Now = time.Now
	}
	if config.Observe == nil {
		config.Observe = func(Exchange) {}
	}
	config.MaxAnswer = cmp.Or(config.MaxAnswer, maxAnswer)
	c := &Client{
		config: config,
		base:   strings.TrimSuffix(config.URL.String(), "/"),
		words:  newWords(),
	}
	if err := c.connect(); err != nil {
		return nil, err
	}
	return c, nil
}

// Now is the time by the client's clock.
func (c *Client) Now() time.Time { return c.config.Now() }

// Received is the size of all answers so far, as they were transferred.
func (c *Client) Received() int64 { return c.received }

// connect makes the HTTP client, reading the CA file.
func (c *Client) connect() error {
	tlsConfig := &tls.Config{MinVersion: tls.VersionTLS12}
	if c.config.CAFile != "" {
		pem, err := os.ReadFile(c.config.CAFile)
		if err != nil {
			return fmt.Errorf("cannot read the CA file: %w", err)
		}
		pool, err := x509.SystemCertPool()
		if err != nil {
			pool = x509.NewCertPool()
		}
		if !pool.AppendCertsFromPEM(pem) {
			return fmt.Errorf("the CA file %s holds no PEM certificate", c.config.CAFile)
		}
		tlsConfig.RootCAs = pool
	}
	transport := c.config.Transport
	if transport == nil {
		transport = &http.Transport{
			Proxy:               http.ProxyFromEnvironment,
			DialContext:         (&net.Dialer{Timeout: c.config.Timeout}).DialContext,
			TLSClientConfig:     tlsConfig,
			TLSHandshakeTimeout: c.config.Timeout,
			IdleConnTimeout:     IdleTimeout,
			ForceAttemptHTTP2:   true,
			DisableCompression:  true, // gzip is asked for and undone in get, which counts what was transferred
		}
	}
	old := c.http.Swap(&http.Client{Transport: transport, CheckRedirect: withinHost})
	if old != nil {
		old.CloseIdleConnections()
	}
	return nil
}

// ReadToken takes the token that is valid now, and returns a fingerprint by which it can be told from others.
func (c *Client) ReadToken(ctx context.Context) (fingerprint uint64, err error) {
	token, err := c.config.Token(ctx)
	if ctx.Err() != nil {
		return 0, ctx.Err()
	}
	if err != nil {
		return 0, &Error{Problem: Unavailable, Request: "token", Err: err}
	}
	if c.secret.token != token {
		c.secret = newSecret(token)
	}
	c.tokenExpiry.Store(tokenExpiry(token))
	return c.secret.fingerprint, nil
}

// Close closes idle connections.
func (c *Client) Close() { c.http.Load().CloseIdleConnections() }

// TokenExpiry is when the token in use expires: known of session tokens only, zero otherwise.
func (c *Client) TokenExpiry() time.Time {
	if s := c.tokenExpiry.Load(); s != 0 {
		return time.Unix(s, 0)
	}
	return time.Time{}
}

// withinHost refuses redirects to another host, to another port, where somebody else may listen, and to
// plain HTTP: they would carry the token or the fleets' data away. From plain HTTP to HTTPS, whatever the
// ports, is what a proxy that ends TLS asks for.
func withinHost(to *http.Request, via []*http.Request) error {
	from := via[0].URL
	sameHost := strings.EqualFold(to.URL.Hostname(), from.Hostname())
	samePort := to.URL.Scheme == from.Scheme && port(to.URL) == port(from)
	upgrade := from.Scheme == "http" && to.URL.Scheme == "https"
	if !sameHost || !samePort && !upgrade {
		return fmt.Errorf("%w to %s://%s", errRedirect, to.URL.Scheme, to.URL.Host)
	}
	if len(via) > maxRedirects {
		return fmt.Errorf("%w more than %d times", errRedirect, maxRedirects)
	}
	return nil
}

// port is the port of an address, by its scheme where it names none.
func port(u *url.URL) string {
	if p := u.Port(); p != "" {
		return p
	}
	if u.Scheme == "https" {
		return "443"
	}
	return "80"
}

var (
	errRedirect = errors.New("refused to follow a redirect")
	errNoGzip   = errors.New("the answer claims to be gzip, and is not")
)

// Clock is what two clocks said of one moment.
type Clock struct {
	// Server is the server's clock when it answered, by the header Date, in whole seconds; zero when the server does not
	// tell it.
	Server time.Time
	// By the client's clock, the server answered between Sent, when the request was sent, and Received, when the answer's
	// header was there. The body may have come much later.
	Sent, Received time.Time
}

// request is one question to the server.
type request struct {
	version  balena.Version
	resource string
	path     string // below the resource, if anything
	// options is the query, written as OData has it but for blanks, which become %20.
	options string
	// note tells requests of one resource apart, such as "page 7".
	note string
}

func (r *request) String() string {
	s := "GET /" + string(r.version) + "/" + r.resource + r.path
	if r.note != "" {
		s += " " + r.note
	}
	return s
}

// failed makes the error of a request.
func (r *request) failed(problem Problem, status int, err error) *Error {
	return &Error{Problem: problem, Request: r.String(), Status: status, Err: err}
}

// get asks, and hands the answer to decode as it arrives. All its errors are of type *Error, but for that
// of a context that was cancelled.
func (c *Client) get(ctx context.Context, r *request, decode func(*Decoder) error) (Clock, error) {
	var clock Clock
	if wait := c.quietUntil.Sub(c.config.Now()); wait > 0 {
		e := r.failed(RateLimited, 0, fmt.Errorf("not asked, the server wants to be left alone for another %s", wait.Round(time.Second)))
		e.Wait = wait
		return clock, e
	}

	bounded, cancel := context.WithTimeout(ctx, c.config.Timeout)
	defer cancel()
	address := c.base + "/" + string(r.version) + "/" + r.resource + r.path + "?" + strings.ReplaceAll(r.options, " ", "%20")
	req, err := http.NewRequestWithContext(bounded, http.MethodGet, address, nil)
	if err != nil {
		return clock, r.failed(BadAnswer, 0, err)
	}
	req.Header.Set("Authorization", "Bearer "+c.secret.token)
	req.Header.Set("Accept", "application/json")
	req.Header.Set("Accept-Encoding", "gzip")
	req.Header.Set("User-Agent", c.config.UserAgent)

	exchange := Exchange{Resource: r.resource}
	began := c.config.Now()
	defer func() {
		exchange.Duration = c.config.Now().Sub(began)
		c.config.Observe(exchange)
	}()

	resp, err := c.http.Load().Do(req)
	if err != nil {
		if ctx.Err() != nil {
			return clock, ctx.Err()
		}
		return clock, c.noAnswer(r, err)
	}
	defer func() { _ = resp.Body.Close() }()
	exchange.Status = resp.StatusCode
	clock.Server, _ = http.ParseTime(resp.Header.Get("Date"))
	clock.Sent, clock.Received = began, c.config.Now()

	body := c.newBody(resp)
	defer func() {
		exchange.Bytes = body.wire.n
		c.received += body.wire.n
	}()
	if resp.StatusCode != http.StatusOK {
		return clock, c.refused(r, resp, body)
	}
	if err := decode(newDecoder(body, &c.words)); err != nil {
		exchange.Status = 0
		switch {
		case ctx.Err() != nil:
			return clock, ctx.Err()
		case body.wire.err != nil:
			return clock, c.noAnswer(r, body.wire.err)
		case body.err != nil:
			err = unreadable(body.err)
		}
		return clock, r.failed(BadAnswer, resp.StatusCode, c.secret.showable(err))
	}
	return clock, nil
}

// noAnswer makes an error of a connection that failed or timed out.
func (c *Client) noAnswer(r *request, err error) error {
	// The URL, a long query in it, says nothing that the request does not say shorter.
	if u, ok := errors.AsType[*url.Error](err); ok {
		err = u.Err
	}
	if errors.Is(err, errRedirect) {
		return r.failed(BadAnswer, 0, fmt.Errorf("%w: check --balena.api-url", c.secret.showable(err)))
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return r.failed(Unavailable, 0, fmt.Errorf("no complete answer within %s", c.config.Timeout))
	}
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		// The CA file may have been replaced, along with the server's certificate: the next request tries it.
		if c.config.CAFile != "" {
			_ = c.connect()
		}
		return r.failed(Unavailable, 0, fmt.Errorf("%w: if the server has a private CA, name its certificate with --balena.ca-file", c.secret.showable(err)))
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return r.failed(Unavailable, 0, errors.New("the connection was closed in the middle of the answer"))
	}
	if _, ok := errors.AsType[*net.OpError](err); !ok { // the system's own words
		err = c.secret.showable(err)
	}
	return r.failed(Unavailable, 0, err)
}

// refused makes an error of an answer whose status is not 200.
func (c *Client) refused(r *request, resp *http.Response, body io.Reader) error {
	// An error's body is empty, a JSON string or a page of HTML. Its beginning is enough.
	start, cut := io.ReadAll(io.LimitReader(body, maxErrorBody))
	said := strings.Join(strings.Fields(strings.ToValidUTF8(string(start), "")), " ")
	switch {
	case strings.HasPrefix(said, "<"):
		said = "a page of HTML"
	case c.secret.isIn(string(start)):
		said = "a text that repeats the token"
	default:
		said = shortened(said)
	}
	status := fmt.Sprintf("answered %d", resp.StatusCode)
	if said != "" {
		status += ": " + said
	}
	switch code := resp.StatusCode; {
	case code == http.StatusTooManyRequests:
		e := r.failed(RateLimited, code, nil)
		e.Wait = c.leaveAlone(resp.Header.Get("Retry-After"))
		e.Err = fmt.Errorf("%s, not asking again for %s", status, e.Wait)
		return e
	case code == http.StatusServiceUnavailable && resp.Header.Get("Retry-After") != "":
		e := r.failed(Unavailable, code, nil)
		e.Wait = c.leaveAlone(resp.Header.Get("Retry-After"))
		e.Err = fmt.Errorf("%s, not asking again for %s", status, e.Wait)
		return e
	case code == http.StatusUnauthorized:
		return r.failed(Unauthorized, code, errors.New(status+": the token was not accepted, or the server's database is down"))
	case code >= http.StatusInternalServerError:
		if code == http.StatusInternalServerError && said == "" && cut == nil {
			return r.failed(Unavailable, code, fmt.Errorf("%s: %w", status, ErrBlank))
		}
		return r.failed(Unavailable, code, errors.New(status))
	default:
		return r.failed(BadAnswer, code, errors.New(status))
	}
}

// leaveAlone asks nothing for as long as the header Retry-After says, and returns how long that is.
func (c *Client) leaveAlone(header string) time.Duration {
	wait := retryAfter(header, c.config.Now())
	c.quietUntil = c.config.Now().Add(wait)
	return wait
}

// retryAfter reads the header Retry-After: seconds, or a date.
func retryAfter(header string, now time.Time) time.Duration {
	header = strings.TrimSpace(header)
	wait := defaultWait
	if seconds, err := strconv.ParseInt(header, 10, 64); err == nil {
		wait = time.Duration(min(max(seconds, 0), int64(maxWait/time.Second))) * time.Second
	} else if errors.Is(err, strconv.ErrRange) { // more than anybody waits
		wait = maxWait
	} else if date, err := http.ParseTime(header); err == nil {
		wait = date.Sub(now)
	}
	return min(max(wait, time.Second), maxWait)
}

// body is an answer's body: counted as transferred, decompressed, and bounded.
type body struct {
	wire  wire
	plain io.Reader // wire, or unzip once that has read the header
	unzip *gzip.Reader
	limit int64
	n     int64 // what was read of plain
	// err is the error that ended the reading, unless that was the end of the body.
	err error
}

// newBody makes a body of an answer, valid until the next is made: they share the decompressor.
func (c *Client) newBody(resp *http.Response) *body {
	b := &body{wire: wire{Reader: resp.Body}, limit: c.config.MaxAnswer}
	if strings.EqualFold(resp.Header.Get("Content-Encoding"), "gzip") {
		b.unzip = &c.unzip
	} else {
		b.plain = &b.wire
	}
	return b
}

func (b *body) Read(p []byte) (n int, err error) {
	defer func() {
		if err != nil && !errors.Is(err, io.EOF) {
			b.err = err
		}
	}()
	if b.n >= b.limit {
		return 0, fmt.Errorf("the answer is larger than %d MiB", b.limit>>20)
	}
	if b.plain == nil {
		// An empty body is no gzip and yet all right: io.EOF.
		if err := b.unzip.Reset(&b.wire); errors.Is(err, gzip.ErrHeader) {
			return 0, errNoGzip
		} else if err != nil {
			return 0, err
		}
		b.plain = b.unzip
	}
	n, err = b.plain.Read(p[:min(int64(len(p)), b.limit-b.n)])
	b.n += int64(n)
	return n, err
}

// wire is a body as it is transferred.
type wire struct {
	io.Reader
	n   int64
	err error // what cut the transfer short, if anything
}

func (w *wire) Read(p []byte) (int, error) {
	n, err := w.Reader.Read(p)
	w.n += int64(n)
	if err != nil && !errors.Is(err, io.EOF) {
		w.err = err
	}
	return n, err
}
