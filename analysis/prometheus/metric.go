// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package prometheus

import (
	"errors"
	"fmt"
	"math"
	"regexp"

	"github.com/prometheus/common/model"

	"github.com/headgate/headgate/analysis"
)

// Query is a user's metric.
type Query struct {
	// Name is that of its range in the analysis' settings.
	Name string
	// Expression is PromQL; see Render.
	Expression string
}

// Errors of users' metrics that are not Prometheus' own.
var (
	// ErrEmpty: the query selected nothing.
	ErrEmpty = errors.New("the result is empty")
	// ErrNotOne: the query gave several values, or something that is no number.
	ErrNotOne = errors.New("the result is not one number")
	// ErrNaN: the value is not a finite number, as after a division by zero.
	ErrNaN = errors.New("the value is not a finite number")
)

var variable = regexp.MustCompile(`\{\{\s*(.*?)\s*\}\}`)

// Render puts the names of a rollout into a query: {{.Namespace}}, {{.Workload}}, {{.Revision}} (the
// candidate's hash) and {{.StableRevision}}. It is no template language on purpose: what tenants write
// must not be able to loop or to grow.
func Render(expression string, t Target) (string, error) {
	var unknown error
	out := variable.ReplaceAllStringFunc(expression, func(match string) string {
		switch name := variable.FindStringSubmatch(match)[1]; name {
		case ".Namespace":
			return t.Namespace
		case ".Workload":
			return t.Workload
		case ".Revision":
			return t.Candidate
		case ".StableRevision":
			return t.Stable
		default:
			unknown = fmt.Errorf("unknown variable %q", name)
			return match
		}
	})
	return out, unknown
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

// value is the outcome of a query as the analysis takes it.
func value(name string, n float64, err error) analysis.MetricValue {
	if err != nil {
		return analysis.MetricValue{Name: name, Err: err.Error()}
	}
	return analysis.MetricValue{Name: name, Value: n}
}
