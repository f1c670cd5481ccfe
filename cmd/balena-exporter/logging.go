// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/go-kit/log"
	"github.com/go-kit/log/level"
	sloggokit "github.com/tjhop/slog-gokit"
)

// callerDepth is the number of stack frames between log.Caller and the code that logs, with the level filter.
const callerDepth = 5

// newLoggers returns the logger, and a slog logger for libraries that writes lines of the same form. The level filter
// is outside of the context; otherwise the filter would be the caller of every line. The slog handler gets a logger
// without time and caller, because it adds them itself.
func newLoggers(w io.Writer, logLevel, format string) (log.Logger, *slog.Logger) {
	w = log.NewSyncWriter(escapeWriter{w})
	base := log.NewLogfmtLogger(w)
	if format == "json" {
		base = log.NewJSONLogger(w)
	}

	logger := log.With(base, "ts", log.TimestampFormat(func() time.Time { return time.Now().UTC() }, timeFormat), "caller", log.Caller(callerDepth))
	logger = level.NewFilter(logger, level.Allow(level.ParseDefault(logLevel, level.InfoValue())))

	var slogLevel slog.LevelVar
	_ = slogLevel.UnmarshalText([]byte(logLevel)) // the flag allows only names that slog has too
	return logger, slog.New(sloggokit.NewGoKitHandler(timestamped{base}, &slogLevel))
}

// timeFormat is UTC with milliseconds.
const timeFormat = "2006-01-02T15:04:05.000Z07:00"

// timestamped writes slog's time and caller in the same form and order as in the other lines.
type timestamped struct{ log.Logger }

func (t timestamped) Log(pairs ...any) error {
	var when, caller, rest []any
	for i := 0; i+1 < len(pairs); i += 2 {
		switch at, isTime := pairs[i+1].(time.Time); {
		case when == nil && isTime && pairs[i] == slog.TimeKey:
			when = []any{"ts", at.UTC().Format(timeFormat)}
		case caller == nil && pairs[i] == "caller":
			caller = pairs[i : i+2]
		default:
			rest = append(rest, pairs[i], pairs[i+1])
		}
	}
	return t.Logger.Log(slices.Concat(when, caller, rest)...)
}

// escapeWriter escapes characters that a terminal or an editor interprets instead of showing them, and that the encoders
// do not escape: line separators (U+2028), controls (U+009B) and characters that change the direction of text
// (U+202E). Bytes that are not UTF-8 become U+FFFD. The log contains names from the API, which members of the account can choose.
type escapeWriter struct{ io.Writer }

func (e escapeWriter) Write(line []byte) (int, error) {
	var escaped []byte
	for _, r := range strings.TrimSuffix(string(line), "\n") {
		if !isHidden(r) {
			escaped = utf8.AppendRune(escaped, r)
			continue
		}
		// Escape as in JSON and logfmt, in UTF-16.
		for _, unit := range utf16.AppendRune(nil, r) {
			escaped = fmt.Appendf(escaped, "\\u%04x", unit)
		}
	}
	if _, err := e.Writer.Write(append(escaped, '\n')); err != nil {
		return 0, err
	}
	return len(line), nil
}

func isHidden(r rune) bool { return unicode.In(r, unicode.Cc, unicode.Cf, unicode.Zl, unicode.Zp) }
