// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package prometheus

import (
	"errors"
	"fmt"
	"math"
	"regexp"
	"strings"
	"time"

	"github.com/prometheus/common/model"
)

// Query is a user's metric.
type Query struct {
	// Name is that of its criterion in the analysis' settings.
	Name string
	// Expression is PromQL; see Render. Of a rate it selects the counters of events.
	Expression string
	// Compared says that stable's value at the same moment is wanted too.
	Compared bool
	// Denominator makes it a rate, and selects the counters of everything.
	Denominator string
	// HigherIsBetter says of a rate that what its Expression does not count are the events to be judged.
	HigherIsBetter bool
	// Interval is how often it is asked; zero: at every look. A rate of which more is better is asked at each, whatever it is.
	Interval time.Duration
	// WarmUp is for how long after the candidate first has a weight nothing is to be told of a rate of which more is better.
	WarmUp time.Duration
	// Unusable says why there is nothing to ask; empty when there is.
	Unusable string
}

// Errors of users' metrics that are not Prometheus' own.
var (
	// ErrEmpty: the query selected nothing.
	ErrEmpty = errors.New("the result is empty")
	// ErrNotOne: the query gave several values, or something that is no number.
	ErrNotOne = errors.New("the result is not one number")
	// errNoCounters: what should select counters gave something else.
	errNoCounters = errors.New("the result is not a list of counters")
	// ErrNaN: the value is not a finite number, as after a division by zero.
	ErrNaN = errors.New("the value is not a finite number")
)

var variable = regexp.MustCompile(`\{\{\s*(.*?)\s*\}\}`)

// Render puts the names of a rollout into a query: {{.Namespace}}, {{.Workload}}, {{.Revision}} (the
// candidate's hash) and {{.StableRevision}}. It is no template language on purpose: what tenants write
// must not be able to loop or to grow.
func Render(expression string, t Target) (string, error) {
	var unknown error
	out := replace(expression, func(name string) (string, bool) {
		switch name {
		case ".Namespace":
			return t.Namespace, true
		case ".Workload":
			return t.Workload, true
		case revisionVariable:
			return t.Candidate, true
		case ".StableRevision":
			return t.Stable, true
		}
		unknown = fmt.Errorf("unknown variable %q", name)
		return "", false
	})
	return out, unknown
}

const revisionVariable = ".Revision"

// NamesRevision says that a query depends on the revision that it is asked about.
func NamesRevision(expression string) bool {
	found := false
	replace(expression, func(name string) (string, bool) {
		found = found || name == revisionVariable
		return "", false
	})
	return found
}

// Substitute puts the arguments of a template into its query, {{.Args.name}}, and leaves everything else. An argument
// that has no value is an error.
func Substitute(expression string, args map[string]string) (string, error) {
	var unknown error
	out := replace(expression, func(name string) (string, bool) {
		arg, is := strings.CutPrefix(name, ".Args.")
		if !is {
			return "", false
		}
		value, ok := args[arg]
		if !ok {
			unknown = fmt.Errorf("unknown argument %q", arg)
		}
		return value, ok
	})
	return out, unknown
}

// replace puts values in place of variables, once; those without one stay.
func replace(expression string, value func(name string) (string, bool)) string {
	return variable.ReplaceAllStringFunc(expression, func(match string) string {
		if v, ok := value(variable.FindStringSubmatch(match)[1]); ok {
			return v
		}
		return match
	})
}

// number is the one number in a result.
func number(v model.Value) (float64, error) {
	var n float64
	switch v := v.(type) {
	case *model.Scalar:
		n = float64(v.Value)
	case model.Vector:
		if len(v) == 0 {
			return 0, ErrEmpty
		}
		if len(v) > 1 || v[0].Histogram != nil {
			return 0, fmt.Errorf("%w: %d values", ErrNotOne, len(v))
		}
		n = float64(v[0].Value)
	default:
		return 0, ErrNotOne
	}
	if math.IsNaN(n) || math.IsInf(n, 0) {
		return 0, ErrNaN
	}
	return n, nil
}
