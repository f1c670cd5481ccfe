package balena

import "net/http"

// SetTransport has the client send its requests through rt instead of over a network.
func (c *Client) SetTransport(rt http.RoundTripper) {
	c.http.Store(&http.Client{Transport: rt, CheckRedirect: withinHost})
}
