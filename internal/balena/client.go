package balena

import (
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
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/klauspost/compress/gzip"
)

// Config says which server to ask, how, and for what.
type Config struct {
	// URL is the server's address, such as https://api.balena-cloud.com.
	URL *url.URL
	// Version pins the version of the API; empty means v7, and v6 where there is no v7.
	Version Version
	// Token is asked for the token at the beginning of each Fetch.
	Token TokenSource
	// CAFile names a file of PEM certificates to trust beside the system's; empty for none.
	CAFile string
	// Timeout bounds each request, the reading of its answer included.
	Timeout time.Duration
	// PageSize is how many devices, services or tags are asked for at a time.
	PageSize int
	// UserAgent is what the client calls itself.
	UserAgent string
	// Observe is told of each request that was sent; nil for nobody.
	Observe func(Exchange)
	// Now is the clock; nil for time.Now.
	Now func() time.Time

	Options
}

// Options says what to read beside the fleets.
type Options struct {
	// Devices asks for the fields that only metrics of single devices need.
	Devices bool
	// Releases asks for the newest release of each fleet. Those that run or should run are always read.
	Releases bool
	// Services asks for the services on each device.
	Services bool
	// Keys asks for the caller's API keys that expire.
	Keys bool
	// DeviceTags and FleetTags are the keys of the tags to ask for.
	DeviceTags, FleetTags []string
	// Include and Exclude choose fleets by slug; nil for no choice.
	Include, Exclude *regexp.Regexp
	// ArchivedFleets reads archived fleets, too.
	ArchivedFleets bool
	// Shard is the part of the devices to read.
	Shard Shard
	// SlowInterval is how often to ask for what rarely changes: newest releases, device types, keys.
	SlowInterval time.Duration
	// FullSweepInterval is how often everything is read at least; a refresh between asks for what changed. 0 means
	// that every refresh reads everything.
	FullSweepInterval time.Duration
	// Keep is how long the last data of a part that fails stand in for it.
	Keep time.Duration
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
	// idleTimeout is how long an idle connection is kept. The server closes its end after 5 seconds; a
	// client that keeps it longer meets a reset.
	idleTimeout = 4 * time.Second
	// maxAnswer bounds an answer after decompression. A page of 1,000 devices is about 1 MB.
	maxAnswer = 64 << 20
	// maxRedirects is how many redirects within the host are followed.
	maxRedirects = 3
	// defaultWait is how long to leave the server alone when a 429 does not say, and maxWait bounds what
	// it may say, so that a mistake in a header does not silence the exporter for days.
	defaultWait = time.Minute
	maxWait     = time.Hour
	// relearn is how long to believe what was found out about the server: it may be upgraded meanwhile, or
	// have been in trouble when it was asked.
	relearn = time.Hour
)

// Client reads snapshots from one server. Fetch may be called by one goroutine at a time; the other
// methods by any.
type Client struct {
	config Config
	base   string
	http   atomic.Pointer[http.Client]

	token       string
	tokenExpiry atomic.Int64 // Unix seconds, 0 when it is not known
	// quietUntil is when the server may be asked again after it answered 429.
	quietUntil time.Time

	can capabilities
	// cloudSure is set once the server has answered with the fields that only balenaCloud has.
	cloudSure bool
	learnt    time.Time

	// shortPages is set once the server has answered with fewer rows than were asked for and had more. It stays: of a
	// server that doesn't do so any more, each list costs one request more.
	shortPages bool
	// date is what the server's clock said with the last answer, zero when it did not tell; bytes is the size
	// of the answers of the refresh under way.
	date  time.Time
	bytes int64

	words words
	unzip gzip.Reader
	limit int64 // maxAnswer, but for tests
	memory
}

// NewClient returns a client for the server of config. It fails on a CA file that can't be read or holds
// no certificate.
func NewClient(config Config) (*Client, error) {
	if config.Now == nil {
		config.Now = time.Now
	}
	if config.Observe == nil {
		config.Observe = func(Exchange) {}
	}
	c := &Client{
		config: config,
		base:   strings.TrimSuffix(config.URL.String(), "/"),
		words:  newWords(),
		limit:  maxAnswer,
	}
	if err := c.connect(); err != nil {
		return nil, err
	}
	return c, nil
}

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
	old := c.http.Swap(&http.Client{
		Transport: &http.Transport{
			Proxy:               http.ProxyFromEnvironment,
			DialContext:         (&net.Dialer{Timeout: c.config.Timeout}).DialContext,
			TLSClientConfig:     tlsConfig,
			TLSHandshakeTimeout: c.config.Timeout,
			IdleConnTimeout:     idleTimeout,
			ForceAttemptHTTP2:   true,
			DisableCompression:  true, // gzip is asked for and undone in get, which counts what was transferred
		},
		CheckRedirect: withinHost,
	})
	if old != nil {
		old.CloseIdleConnections()
	}
	return nil
}

// readToken takes the token that is valid now.
func (c *Client) readToken() error {
	token, err := c.config.Token()
	if err != nil {
		return &Error{Problem: Unavailable, Request: "token", Err: err}
	}
	c.token = token
	c.tokenExpiry.Store(tokenExpiry(token))
	return nil
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

// request is one question to the server.
type request struct {
	resource string
	path     string // below the resource, if anything
	// options is the query, written as OData has it but for blanks, which become %20.
	options string
	// note tells requests of one resource apart, such as "page 7".
	note string
}

// get asks, and hands the answer to decode as it arrives. All its errors are of type *Error, but for that
// of a context that was cancelled.
func (c *Client) get(ctx context.Context, r request, decode func(*decoder) error) error {
	path := "/" + string(c.can.version) + "/" + r.resource + r.path
	failed := func(problem Problem, status int, err error) *Error {
		what := "GET " + path
		if r.note != "" {
			what += " " + r.note
		}
		return &Error{Problem: problem, Request: what, Status: status, Err: err}
	}

	if wait := c.quietUntil.Sub(c.config.Now()); wait > 0 {
		e := failed(RateLimited, 0, fmt.Errorf("not asked, the server wants to be left alone for another %s", wait.Round(time.Second)))
		e.Wait = wait
		return e
	}

	bounded, cancel := context.WithTimeout(ctx, c.config.Timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(bounded, http.MethodGet, c.base+path+"?"+strings.ReplaceAll(r.options, " ", "%20"), nil)
	if err != nil {
		return failed(BadAnswer, 0, err)
	}
	req.Header.Set("Authorization", "Bearer "+c.token)
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
			return ctx.Err()
		}
		return c.noAnswer(failed, err)
	}
	defer func() { _ = resp.Body.Close() }()
	exchange.Status = resp.StatusCode
	c.date, _ = http.ParseTime(resp.Header.Get("Date"))

	body := c.newBody(resp)
	defer func() {
		exchange.Bytes = body.wire.n
		c.bytes += body.wire.n
	}()
	if resp.StatusCode != http.StatusOK {
		return c.refused(failed, resp, body)
	}
	if err := decode(newDecoder(body, c.words)); err != nil {
		exchange.Status = 0
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case body.wire.err != nil:
			return c.noAnswer(failed, body.wire.err)
		case body.err != nil:
			err = unreadable(body.err)
		}
		return failed(BadAnswer, resp.StatusCode, c.showable(err))
	}
	return nil
}

// holdsToken tells whether a text of the server must not be shown to anybody.
func (c *Client) holdsToken(s string) bool { return strings.Contains(s, c.token) }

// showable returns an error that holds words of the server, unless the token is among them. Sentences of our
// own need no such care, and a token as short as a word would hide them.
func (c *Client) showable(err error) error {
	if c.holdsToken(err.Error()) {
		return errors.New("the server's answer repeats the token, so that it cannot be shown")
	}
	return err
}

// noAnswer makes an error of a connection that failed or timed out.
func (c *Client) noAnswer(failed func(Problem, int, error) *Error, err error) error {
	// The URL, a long query in it, says nothing that the request does not say shorter.
	if u, ok := errors.AsType[*url.Error](err); ok {
		err = u.Err
	}
	if errors.Is(err, errRedirect) {
		return failed(BadAnswer, 0, c.showable(fmt.Errorf("%w: check --balena.api-url", err)))
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return failed(Unavailable, 0, fmt.Errorf("no complete answer within %s", c.config.Timeout))
	}
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		// The CA file may have been replaced, along with the server's certificate: the next request tries it.
		if c.config.CAFile != "" {
			_ = c.connect()
		}
		return failed(Unavailable, 0, fmt.Errorf("%w: if the server has a private CA, name its certificate with --balena.ca-file", err))
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return failed(Unavailable, 0, errors.New("the connection was closed in the middle of the answer"))
	}
	if _, ok := errors.AsType[*net.OpError](err); !ok { // the system's own words
		err = c.showable(err)
	}
	return failed(Unavailable, 0, err)
}

// refused makes an error of an answer whose status is not 200.
func (c *Client) refused(failed func(Problem, int, error) *Error, resp *http.Response, body io.Reader) error {
	// An error's body is empty, a JSON string or a page of HTML. Its beginning is enough, read as far as a
	// token that begins there would go.
	const enough = 200
	start, cut := io.ReadAll(io.LimitReader(body, int64(enough+len(c.token))))
	said := strings.Join(strings.Fields(strings.ToValidUTF8(string(start), "")), " ")
	switch {
	case strings.HasPrefix(said, "<"):
		said = "a page of HTML"
	case c.holdsToken(said):
		said = "a text that repeats the token"
	case len(said) > enough:
		said = strings.ToValidUTF8(said[:enough], "") + "…"
	}
	status := fmt.Sprintf("answered %d", resp.StatusCode)
	if said != "" {
		status += ": " + said
	}
	switch code := resp.StatusCode; {
	case code == http.StatusTooManyRequests:
		wait := retryAfter(resp.Header.Get("Retry-After"), c.config.Now())
		c.quietUntil = c.config.Now().Add(wait)
		e := failed(RateLimited, code, fmt.Errorf("%s, not asking again for %s", status, wait))
		e.Wait = wait
		return e
	case code == http.StatusUnauthorized:
		return failed(Unauthorized, code, errors.New(status+": the token was not accepted, or the server's database is down"))
	case code >= http.StatusInternalServerError:
		if code == http.StatusInternalServerError && said == "" && cut == nil {
			return failed(Unavailable, code, fmt.Errorf("%s: %w", status, errBlank))
		}
		return failed(Unavailable, code, errors.New(status))
	default:
		return failed(BadAnswer, code, errors.New(status))
	}
}

// errBlank marks a 500 whose body is empty, which is how the server says that it does not know a field.
var errBlank = errors.New("an empty body")

// retryAfter reads the header Retry-After: seconds, or a date.
func retryAfter(header string, now time.Time) time.Duration {
	wait := defaultWait
	if seconds, err := strconv.ParseInt(strings.TrimSpace(header), 10, 32); err == nil {
		wait = time.Duration(seconds) * time.Second
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
	b := &body{wire: wire{Reader: resp.Body}, limit: c.limit}
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
