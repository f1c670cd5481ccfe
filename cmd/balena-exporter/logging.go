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

	"github.com/go-kit/log"
	"github.com/go-kit/log/level"
	sloggokit "github.com/tjhop/slog-gokit"
)

// callerDepth is how far log.Caller has to look past the level filter to find who logged.
const callerDepth = 5

// newLoggers returns the logger, and a slog logger that writes the same lines for the libraries that want
// one. The level filter stands outside of the context, or every line would have the filter as its caller;
// and the slog handler is given a logger without time and caller, which it adds itself.
func newLoggers(w io.Writer, logLevel, format string) (log.Logger, *slog.Logger) {
	w = log.NewSyncWriter(escapeWriter{w})
	base := log.NewLogfmtLogger(w)
	if format == "json" {
		base = log.NewJSONLogger(w)
	}

	logger := log.With(base, "ts", log.TimestampFormat(func() time.Time { return time.Now().UTC() }, timeFormat), "caller", log.Caller(callerDepth))
	logger = level.NewFilter(logger, level.Allow(level.ParseDefault(logLevel, level.InfoValue())))

	var slogLevel slog.LevelVar
	_ = slogLevel.UnmarshalText([]byte(logLevel)) // the flag allows only the names that slog has, too
	return logger, slog.New(sloggokit.NewGoKitHandler(timestamped{base}, &slogLevel))
}

// timeFormat is UTC with milliseconds.
const timeFormat = "2006-01-02T15:04:05.000Z07:00"

// timestamped puts slog's time and the caller where and how the other lines have them.
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

// escapeWriter escapes characters that a terminal or an editor obeys instead of showing them, which the encoders
// leave as they are: line separators (U+2028), controls (U+009B) and those that change the direction of the text
// (U+202E). Names of the API's are in the log, and anybody who may name a fleet may choose them.
type escapeWriter struct{ io.Writer }

func (e escapeWriter) Write(line []byte) (int, error) {
	text := strings.TrimSuffix(string(line), "\n")
	if strings.ContainsFunc(text, isHidden) {
		var b strings.Builder
		for _, r := range text {
			if !isHidden(r) {
				b.WriteRune(r)
				continue
			}
			// As JSON and logfmt have it, in UTF-16.
			for _, unit := range utf16.AppendRune(nil, r) {
				fmt.Fprintf(&b, "\\u%04x", unit)
			}
		}
		b.WriteByte('\n')
		if _, err := io.WriteString(e.Writer, b.String()); err != nil {
			return 0, err
		}
		return len(line), nil
	}
	return e.Writer.Write(line)
}

func isHidden(r rune) bool { return unicode.In(r, unicode.Cc, unicode.Cf, unicode.Zl, unicode.Zp) }
