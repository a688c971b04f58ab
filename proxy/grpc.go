package proxy

import (
	"net/http"
	"strconv"
	"time"
)

// grpcTimeout reads grpc-timeout: at most eight digits and a unit. ok is
// false where there is none or it cannot be read.
func grpcTimeout(h http.Header) (d time.Duration, ok bool) {
	v := h.Get("Grpc-Timeout")
	if len(v) < 2 || len(v) > 9 {
		return 0, false
	}
	n, err := strconv.ParseUint(v[:len(v)-1], 10, 32)
	if err != nil {
		return 0, false
	}
	var unit time.Duration
	switch v[len(v)-1] {
	case 'H':
		unit = time.Hour
	case 'M':
		unit = time.Minute
	case 'S':
		unit = time.Second
	case 'm':
		unit = time.Millisecond
	case 'u':
		unit = time.Microsecond
	case 'n':
		unit = time.Nanosecond
	default:
		return 0, false
	}
	const longest = time.Duration(1<<63 - 1)
	if time.Duration(n) > longest/unit {
		return longest, true
	}
	return time.Duration(n) * unit, true
}

// grpcTimeoutText writes d for grpc-timeout: at most eight digits, in the
// finest unit that has room, rounded up: the instance must not be out of time
// before the gateway is. What is over already is the shortest there is.
func grpcTimeoutText(d time.Duration) string {
	const most = 99_999_999
	n, i := max(int64(d), 1), 0
	units := [...]struct {
		letter byte
		next   int64 // how many make one of the next unit
	}{{'n', 1000}, {'u', 1000}, {'m', 1000}, {'S', 60}, {'M', 60}, {'H', 0}}
	for n > most {
		up := min(n%units[i].next, 1)
		n = n/units[i].next + up
		i++
	}
	return strconv.FormatInt(n, 10) + string(units[i].letter)
}

// grpcFailed reports whether the status of a gRPC response speaks against the
// instance: unknown, internal, unavailable, data loss. The HTTP status is 200
// whatever happened.
func grpcFailed(header, trailer http.Header) bool {
	status := trailer.Get("Grpc-Status")
	if status == "" {
		status = header.Get("Grpc-Status")
	}
	switch status {
	case "2", "13", "14", "15":
		return true
	}
	return false
}
