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

// Config configures a Client.
type Config struct {
	// URL is the server's address, such as https://api.balena-cloud.com.
	URL *url.URL
	// Token returns the token to send.
	Token TokenSource
	// CAFile names a file of PEM certificates to trust in addition to the system's; empty for none.
	CAFile string
	// Timeout bounds each request, including reading its answer.
	Timeout time.Duration
	// UserAgent is the header User-Agent.
	UserAgent string
	// Observe is called for each request that was sent; may be nil.
	Observe func(Exchange)
	// Now is the clock; nil for time.Now.
	Now func() time.Time
	// MaxAnswer bounds an answer after decompression, in bytes; 0 for 64 MiB. A page of 1,000 devices is about 1 MB.
	MaxAnswer int64
	// Transport sends the requests; nil for a transport that New creates.
	Transport http.RoundTripper
}

// An Exchange is a request that was sent, and its outcome.
type Exchange struct {
	Resource string
	// Status is the status of the answer; 0 if there was no answer, or if it could not be read completely.
	Status   int
	Duration time.Duration
	// Bytes is the size of the answer's body as transferred, compressed or not.
	Bytes int64
}

const (
	// IdleTimeout is how long an idle connection is kept. The server closes idle connections after 5 seconds; a
	// client that keeps one longer gets a reset.
	IdleTimeout = 4 * time.Second
	maxAnswer   = 64 << 20
	// maxErrorBody is the number of bytes read of the body of an error.
	maxErrorBody = 4 << 10
	// maxRedirects is the maximum number of redirects within the host that are followed.
	maxRedirects = 3
	// defaultWait is the wait after a 429 without Retry-After. maxWait bounds Retry-After, so that a mistake in
	// that header does not stop the exporter for days.
	defaultWait = time.Minute
	maxWait     = time.Hour
)

// Client sends requests to one server. Only one goroutine at a time may use it, except for the methods TokenExpiry and
// Close, which are safe for concurrent use.
type Client struct {
	config Config
	base   string
	http   atomic.Pointer[http.Client]

	secret      secret
	tokenExpiry atomic.Int64 // Unix seconds, 0 if unknown
	// quietUntil is the end of the wait that the server requested. No request is sent before.
	quietUntil time.Time
	// received is the size of all answers as transferred, in bytes.
	received int64

	words words
	unzip gzip.Reader
}

// New returns a client for the server of config. It fails if the CA file cannot be read or holds no certificate.
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

// Now returns the time of the client's clock.
func (c *Client) Now() time.Time { return c.config.Now() }

// Received returns the size of all answers so far in bytes, as transferred.
func (c *Client) Received() int64 { return c.received }

// connect creates the HTTP client. It reads the CA file each time.
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
			DisableCompression:  true, // get handles gzip itself, so that it can count the transferred bytes
		}
	}
	old := c.http.Swap(&http.Client{Transport: transport, CheckRedirect: withinHost})
	if old != nil {
		old.CloseIdleConnections()
	}
	return nil
}

// ReadToken reads the current token, which the next requests send. It returns a fingerprint that distinguishes it from
// other tokens.
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

// TokenExpiry returns when the current token expires. It is known for session tokens only, and zero otherwise.
func (c *Client) TokenExpiry() time.Time {
	if s := c.tokenExpiry.Load(); s != 0 {
		return time.Unix(s, 0)
	}
	return time.Time{}
}

// withinHost refuses redirects that would disclose the token or the data of the fleets: to another host, to another
// port, where another program may listen, and from HTTPS to plain HTTP. A redirect from plain HTTP to HTTPS may change
// the port: a proxy that terminates TLS sends such redirects.
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

// port returns the port of an address, or the default port of its scheme.
func port(u *url.URL) string {
	return cmp.Or(u.Port(), map[string]string{"http": "80", "https": "443"}[u.Scheme])
}

var (
	errRedirect = errors.New("refused to follow a redirect")
	errNoGzip   = errors.New("the answer claims to be gzip, and is not")
)

// Clock is the time of one answer on the clocks of the server and the client.
type Clock struct {
	// Server is the header Date of the answer, in whole seconds; zero if the answer has none.
	Server time.Time
	// Sent and Received are times of the client's clock. The server answered between Sent, when the request was sent,
	// and Received, when the header of the answer arrived. The body may have arrived much later.
	Sent, Received time.Time
}

// request is one request to the server.
type request struct {
	version  balena.Version // empty for what is not of the data model
	resource string
	path     string // below the resource; may be empty
	// options is the query in OData's notation. Its blanks are sent as %20, everything else as it is.
	options string
	// note distinguishes requests for one resource in errors, such as "page 7".
	note string
}

// address is the path of the request.
func (r *request) address() string {
	if r.version == "" {
		return "/" + r.resource + r.path
	}
	return "/" + string(r.version) + "/" + r.resource + r.path
}

func (r *request) String() string {
	s := "GET " + r.address()
	if r.note != "" {
		s += " " + r.note
	}
	return s
}

// failed returns the error of a request.
func (r *request) failed(problem Problem, status int, err error) *Error {
	return &Error{Problem: problem, Request: r.String(), Status: status, Err: err}
}

// get sends a request, and decodes the answer while it arrives. All its errors are of type *Error, except when the
// context was canceled.
func (c *Client) get(ctx context.Context, r *request, decode func(*Decoder) error) (Clock, error) {
	var clock Clock
	if wait := c.quietUntil.Sub(c.config.Now()); wait > 0 {
		e := r.failed(RateLimited, 0, fmt.Errorf("not sent: the server requested a pause of another %s", wait.Round(time.Second)))
		e.Wait = wait
		return clock, e
	}

	bounded, cancel := context.WithTimeout(ctx, c.config.Timeout)
	defer cancel()
	address := c.base + r.address()
	if r.options != "" {
		address += "?" + strings.ReplaceAll(r.options, " ", "%20")
	}
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

// noAnswer returns the error of a request whose connection failed or timed out.
func (c *Client) noAnswer(r *request, err error) error {
	// Leave out the URL with its long query: the error names the request already.
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
		// The CA file may have been replaced together with the server's certificate, so the next request reads it again.
		if c.config.CAFile != "" {
			_ = c.connect()
		}
		return r.failed(Unavailable, 0, fmt.Errorf("%w: if the server has a private CA, name its certificate with --balena.ca-file", c.secret.showable(err)))
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return r.failed(Unavailable, 0, errors.New("the connection was closed in the middle of the answer"))
	}
	if _, ok := errors.AsType[*net.OpError](err); !ok { // a *net.OpError holds only text of the system
		err = c.secret.showable(err)
	}
	return r.failed(Unavailable, 0, err)
}

// refused returns the error of an answer whose status is not 200.
func (c *Client) refused(r *request, resp *http.Response, body io.Reader) error {
	// The body of an error is empty, a JSON string or an HTML page. Its beginning is enough.
	start, cut := io.ReadAll(io.LimitReader(body, maxErrorBody))
	message := strings.Join(strings.Fields(strings.ToValidUTF8(string(start), "")), " ")
	switch {
	case strings.HasPrefix(message, "<"):
		message = "a page of HTML"
	case c.secret.isIn(string(start)):
		message = "a text that repeats the token"
	default:
		message = shortened(message)
	}
	status := fmt.Sprintf("answered %d", resp.StatusCode)
	if message != "" {
		status += ": " + message
	}
	switch code, wait := resp.StatusCode, resp.Header.Get("Retry-After"); {
	case code == http.StatusTooManyRequests, code == http.StatusServiceUnavailable && wait != "":
		e := r.failed(Unavailable, code, nil)
		if code == http.StatusTooManyRequests {
			e.Problem = RateLimited
		}
		e.Wait = retryAfter(wait, c.config.Now())
		e.Err = fmt.Errorf("%s, not asking again for %s", status, e.Wait)
		c.quietUntil = c.config.Now().Add(e.Wait)
		return e
	case code == http.StatusUnauthorized:
		return r.failed(Unauthorized, code, errors.New(status+": the token was not accepted, or the server's database is down"))
	case code >= http.StatusInternalServerError:
		if code == http.StatusInternalServerError && message == "" && cut == nil {
			return r.failed(Unavailable, code, fmt.Errorf("%s: %w", status, ErrEmptyBody))
		}
		return r.failed(Unavailable, code, errors.New(status))
	default:
		return r.failed(BadAnswer, code, errors.New(status))
	}
}

// retryAfter reads the header Retry-After: seconds, or a date.
func retryAfter(header string, now time.Time) time.Duration {
	header = strings.TrimSpace(header)
	wait := defaultWait
	if seconds, err := strconv.ParseInt(header, 10, 64); err == nil {
		wait = time.Duration(min(max(seconds, 0), int64(maxWait/time.Second))) * time.Second
	} else if errors.Is(err, strconv.ErrRange) { // longer than any bound
		wait = maxWait
	} else if date, err := http.ParseTime(header); err == nil {
		wait = date.Sub(now)
	}
	return min(max(wait, time.Second), maxWait)
}

// body is an answer's body: counted as transferred, decompressed, and bounded.
type body struct {
	wire  wire
	plain io.Reader // wire, or unzip after that has read the gzip header
	unzip *gzip.Reader
	limit int64
	n     int64 // bytes read from plain
	// err is the error that ended reading; nil at the end of the body.
	err error
}

// newBody returns the body of an answer. It is valid until the next call, because all bodies share one decompressor.
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
		// An empty body is not gzip, but valid: Reset returns io.EOF.
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
	err error // the error that interrupted the transfer, if any
}

func (w *wire) Read(p []byte) (int, error) {
	n, err := w.Reader.Read(p)
	w.n += int64(n)
	if err != nil && !errors.Is(err, io.EOF) {
		w.err = err
	}
	return n, err
}
