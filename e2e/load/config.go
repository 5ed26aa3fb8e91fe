// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package load

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Kind is a way of sending requests.
type Kind string

// Kinds of requests.
const (
	KindHTTP1  Kind = "http1"  // HTTP/1.1, connections kept
	KindNew    Kind = "new"    // HTTP/1.1, a new connection for each request
	KindH2C    Kind = "h2c"    // HTTP/2 without TLS, by prior knowledge
	KindGRPC   Kind = "grpc"   // a unary call
	KindSlow   Kind = "slow"   // HTTP/1.1, connections kept, answered after Config.SlowFor
	KindStream Kind = "stream" // HTTP/1.1, connections kept, a chunked body that takes Config.StreamFor
)

// Kinds are all kinds, in the order of reports.
func Kinds() []Kind {
	return []Kind{KindHTTP1, KindNew, KindH2C, KindGRPC, KindSlow, KindStream}
}

// Limits that keep a forgotten client from running for ever.
const (
	MaxDuration = 2 * time.Hour
	MaxRate     = 5000.0
	MaxInFlight = 20000
)

// Config is what one run sends, and where to.
type Config struct {
	// Host is a Service's name or an address. All its addresses get requests in turn: one for a
	// Service with a cluster IP, the ready pods for a headless one.
	Host string
	// HTTPPort and GRPCPort are where the app listens behind Host.
	HTTPPort, GRPCPort int
	// Authority is sent as the Host header. Empty: Host.
	Authority string
	// Rates are requests per second for each kind; a kind that is missing sends none.
	Rates map[Kind]float64
	// Duration ends the run. Requests, when above 0, ends it earlier: so many of all kinds together.
	Duration time.Duration
	Requests int64
	// Timeout is granted to each request beyond the time it is asked to take.
	Timeout time.Duration
	// SlowFor and StreamFor are how long the app is asked to take for these kinds.
	SlowFor, StreamFor time.Duration
}

// ParseRates reads "http1=50,grpc=10".
func ParseRates(s string) (map[Kind]float64, error) {
	rates := map[Kind]float64{}
	for _, part := range strings.Split(s, ",") {
		name, value, ok := strings.Cut(strings.TrimSpace(part), "=")
		if !ok {
			return nil, fmt.Errorf("parsing rates %q: want kind=rate, separated by commas", s)
		}
		rate, err := strconv.ParseFloat(value, 64)
		if err != nil {
			return nil, fmt.Errorf("parsing the rate of %q: %w", name, err)
		}
		rates[Kind(name)] = rate
	}
	return rates, nil
}

// FormatRates is what ParseRates reads, in the order of Kinds.
func FormatRates(rates map[Kind]float64) string {
	var parts []string
	for _, k := range Kinds() {
		if rates[k] > 0 {
			parts = append(parts, string(k)+"="+strconv.FormatFloat(rates[k], 'g', -1, 64))
		}
	}
	return strings.Join(parts, ",")
}

// Validate says why a run with this configuration can't start.
func (c Config) Validate() error {
	if c.Host == "" {
		return errors.New("the host is missing")
	}
	if c.Duration <= 0 || c.Duration > MaxDuration {
		return fmt.Errorf("the duration is %v, want more than 0 and at most %v", c.Duration, MaxDuration)
	}
	if c.Timeout <= 0 {
		return fmt.Errorf("the timeout is %v, want more than 0", c.Timeout)
	}
	total := 0.0
	for k, rate := range c.Rates {
		if !slices.Contains(Kinds(), k) {
			return fmt.Errorf("unknown kind %q, want one of %v", k, Kinds())
		}
		if !(rate >= 0) { // also catches NaN
			return fmt.Errorf("the rate of %s is %v, want 0 or more", k, rate)
		}
		total += rate
	}
	if !(total > 0 && total <= MaxRate) {
		return fmt.Errorf("the rates add up to %v a second, want more than 0 and at most %v", total, MaxRate)
	}
	return nil
}
