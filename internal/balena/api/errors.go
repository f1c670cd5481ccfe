// SPDX-License-Identifier: Apache-2.0

package api

import (
	"errors"
	"fmt"
	"net/http"
	"time"
)

// Problem is the kind of failure of a request. It decides when to retry.
type Problem string

// The kinds of failure.
const (
	// Unavailable is a server that cannot be reached or fails (5xx). A retry soon may succeed.
	Unavailable Problem = "unavailable"
	// RateLimited is a 429. [Error.Wait] is how long to send no request.
	RateLimited Problem = "rate limited"
	// Unauthorized is a 401. It does not prove that the token is bad: a server without its database answers 401 too.
	Unauthorized Problem = "unauthorized"
	// BadAnswer is an answer that cannot be read or cannot be correct.
	BadAnswer Problem = "bad answer"
)

// Error is the error of a request. It never contains a piece of the token, and at most about 300 bytes of the server's
// text.
type Error struct {
	Problem Problem
	// Request names the request, such as "GET /v7/device page 7".
	Request string
	// Status is the status of the answer, 0 if there was none.
	Status int
	// Wait is the pause that the server requested. It is always set for RateLimited, and for Unavailable if the answer
	// had a Retry-After.
	Wait time.Duration
	// Err is the cause.
	Err error
}

func (e *Error) Error() string { return fmt.Sprintf("%s: %v", e.Request, e.Err) }

func (e *Error) Unwrap() error { return e.Err }

// ErrEmptyBody marks a 500 with an empty body. The server answers so if it does not know a selected field, but a failing
// server may answer the same.
var ErrEmptyBody = errors.New("an empty body")

// StatusOf returns the status of the answer that caused an error, or 0 if there was none.
func StatusOf(err error) int { return asError(err).Status }

// ProblemOf returns the kind of failure of an error, or "" if it is not an [*Error].
func ProblemOf(err error) Problem { return asError(err).Problem }

// asError returns the [*Error] that caused an error, or an empty one.
func asError(err error) *Error {
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	return &Error{}
}

// NotUnderstood reports whether an answer means that the server does not understand the query.
func NotUnderstood(err error) bool {
	return errors.Is(err, ErrEmptyBody) || StatusOf(err) == http.StatusBadRequest
}
