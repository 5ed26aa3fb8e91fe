// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"
)

// Behaviour is how the app behaves. Each field is set by the environment variable named in its
// comment; what is not set follows from BEHAVIOUR, the image's name for a set of them.
type Behaviour struct {
	// Version (VERSION) is what answers say; BEHAVIOUR's value unless set.
	Version string
	// Pod (POD_NAME) and Revision (REVISION) are what answers say beside it.
	Pod, Revision string
	// ErrorRate (ERROR_RATE) is the share of requests, 0 to 1, answered with 500 or INTERNAL.
	ErrorRate float64
	// Dependency (DEPENDENCY) is a URL that every request asks first, and fails where it does not answer
	// with 200 within a second; empty: none.
	Dependency string
	// Latency (LATENCY) is added to every answer.
	Latency time.Duration
	// CrashAfter (CRASH_AFTER) ends the process with code 1 so long after its start; 0: never.
	CrashAfter time.Duration
	// ReadyDelay (READY_DELAY) is how long /readyz says 503 after the start.
	ReadyDelay time.Duration
	// NeverReady (NEVER_READY) makes it say so for ever.
	NeverReady bool
	// Hang (HANG) accepts connections and never answers, probes included.
	Hang bool
	// Deaf (DEAF) runs, but never listens.
	Deaf bool
	// Drain (DRAIN) is how long new requests are still served after SIGTERM; 5s unless set.
	Drain time.Duration
}

// presets are the values of BEHAVIOUR, as the environment variables they stand for.
func presets() map[string]map[string]string {
	return map[string]map[string]string{
		"":            {"VERSION": "dev"},
		"v1":          {},
		"v2":          {},
		"v3":          {},
		"v4":          {},
		"v5":          {},
		"errors":      {"ERROR_RATE": "0.05"},
		"slow":        {"LATENCY": "300ms"},
		"crash":       {"CRASH_AFTER": "1s", "NEVER_READY": "true"},
		"hang":        {"HANG": "true"},
		"deaf":        {"DEAF": "true"},
		"never-ready": {"NEVER_READY": "true"},
	}
}

// parseBehaviour reads the environment.
func parseBehaviour(getenv func(string) string) (Behaviour, error) {
	name := getenv("BEHAVIOUR")
	preset, ok := presets()[name]
	if !ok {
		known := slices.Sorted(maps.Keys(presets()))
		return Behaviour{}, fmt.Errorf("unknown BEHAVIOUR %q, want one of %q", name, known)
	}
	e := environment{get: func(key string) string {
		if v := getenv(key); v != "" {
			return v
		}
		return preset[key]
	}}
	b := Behaviour{
		Version:    e.text("VERSION", name),
		Pod:        e.text("POD_NAME", ""),
		Revision:   e.text("REVISION", ""),
		ErrorRate:  e.share("ERROR_RATE"),
		Dependency: e.text("DEPENDENCY", ""),
		Latency:    e.duration("LATENCY", 0),
		CrashAfter: e.duration("CRASH_AFTER", 0),
		ReadyDelay: e.duration("READY_DELAY", 0),
		NeverReady: e.flag("NEVER_READY"),
		Hang:       e.flag("HANG"),
		Deaf:       e.flag("DEAF"),
		Drain:      e.duration("DRAIN", 5*time.Second),
	}
	return b, e.err
}

// environment reads values and keeps the first error.
type environment struct {
	get func(string) string
	err error
}

func (e *environment) text(key, otherwise string) string {
	if v := e.get(key); v != "" {
		return v
	}
	return otherwise
}

func (e *environment) duration(key string, otherwise time.Duration) time.Duration {
	v := e.get(key)
	if v == "" {
		return otherwise
	}
	d, err := time.ParseDuration(v)
	if err == nil && d < 0 {
		err = fmt.Errorf("%v is negative", d)
	}
	e.note(key, err)
	return d
}

func (e *environment) share(key string) float64 {
	v := e.get(key)
	if v == "" {
		return 0
	}
	f, err := strconv.ParseFloat(v, 64)
	if err == nil && !(f >= 0 && f <= 1) {
		err = fmt.Errorf("%v is not between 0 and 1", f)
	}
	e.note(key, err)
	return f
}

func (e *environment) flag(key string) bool {
	v := e.get(key)
	if v == "" {
		return false
	}
	b, err := strconv.ParseBool(v)
	e.note(key, err)
	return b
}

func (e *environment) note(key string, err error) {
	if err != nil && e.err == nil {
		e.err = fmt.Errorf("reading %s: %w", key, err)
	}
}
