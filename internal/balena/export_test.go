package balena

import (
	"net/http"

	"github.com/go-json-experiment/json/jsontext"
)

// What the fuzz tests and benchmarks need that is nobody else's.
var (
	Literal    = literal
	RetryAfter = retryAfter
	// ProblemOf returns the kind of trouble that an error tells of, and 0 when it is no [*Error].
	ProblemOf = problemOf
)

// IdleTimeout is how long the client keeps an idle connection.
const IdleTimeout = idleTimeout

// ParseInstant reads a date as it stands in an answer, quotes included.
func ParseInstant(v jsontext.Value) (Instant, error) { return new(decoder).instant(v) }

// SetTransport has the client send its requests through rt instead of over a network.
func (c *Client) SetTransport(rt http.RoundTripper) {
	c.http.Store(&http.Client{Transport: rt, CheckRedirect: withinHost})
}

// SetLimit bounds answers by so many bytes.
func (c *Client) SetLimit(n int64) { c.limit = n }
