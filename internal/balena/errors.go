package balena

import (
	"fmt"
	"time"
)

// Problem says what kind of trouble a request met, which decides when to ask again.
type Problem int

// The kinds of trouble.
const (
	// Unavailable is a server that can't be reached or fails (5xx): worth asking again soon.
	Unavailable Problem = iota + 1
	// RateLimited is a 429; [Error.Wait] says how long not to ask.
	RateLimited
	// Unauthorized is a 401. It is no proof of a bad token: a server without its database says it too.
	Unauthorized
	// BadAnswer is an answer that can't be true or can't be read.
	BadAnswer
)

func (p Problem) String() string {
	switch p {
	case Unavailable:
		return "unavailable"
	case RateLimited:
		return "rate limited"
	case Unauthorized:
		return "unauthorized"
	case BadAnswer:
		return "bad answer"
	}
	return "unknown problem"
}

// Error is a request that failed. It never holds the token.
type Error struct {
	Problem Problem
	// Request is what was asked, such as "GET /v7/device page 7".
	Request string
	// Status is the answer's status, 0 when there was none.
	Status int
	// Wait is how long the server wants to be left alone, for RateLimited.
	Wait time.Duration
	// Err says what was wrong.
	Err error
}

func (e *Error) Error() string { return fmt.Sprintf("%s: %v", e.Request, e.Err) }

func (e *Error) Unwrap() error { return e.Err }
