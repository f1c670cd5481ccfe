// SPDX-License-Identifier: Apache-2.0

package api

import (
	"errors"
	"fmt"
	"net/http"
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

// Error is a request that failed. It never holds a piece of the token, and never more of what the server said
// than some 300 bytes.
type Error struct {
	Problem Problem
	// Request is what was asked, such as "GET /v7/device page 7".
	Request string
	// Status is the answer's status, 0 when there was none.
	Status int
	// Wait is how long the server wants to be left alone: always set for RateLimited, and for Unavailable where the
	// server says so.
	Wait time.Duration
	// Err says what was wrong.
	Err error
}

func (e *Error) Error() string { return fmt.Sprintf("%s: %v", e.Request, e.Err) }

func (e *Error) Unwrap() error { return e.Err }

// ErrBlank marks a 500 whose body is empty, which is how the server says that it does not know a field. A server
// in trouble may say the same.
var ErrBlank = errors.New("an empty body")

// StatusOf returns the status of the answer that an error tells of; 0 when it tells of none.
func StatusOf(err error) int {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Status
	}
	return 0
}

// ProblemOf returns the kind of trouble that an error tells of; 0 when it is no [*Error].
func ProblemOf(err error) Problem {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Problem
	}
	return 0
}

// NotUnderstood reports whether an answer says that the server does not understand the question.
func NotUnderstood(err error) bool {
	return errors.Is(err, ErrBlank) || StatusOf(err) == http.StatusBadRequest
}
