// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/headgate/headgate/analysis/prometheus"
	"github.com/headgate/headgate/api/v1alpha1"
	"github.com/headgate/headgate/policy"
)

const (
	// checkTime is how long a pass may ask about queries. A namespace can have hundreds of them at
	// addresses that never answer, and its pass takes one of the few workers.
	checkTime = 5 * time.Second
	// checkSoon is when a pass that had no time for all queries goes on. It leaves the worker to others
	// for as long as it had it.
	checkSoon = 5 * time.Second
	// checkAgain is when a Prometheus that did not answer is asked again, and whether one that has a certificate, or asks for a
	// Secret, still answers.
	checkAgain = time.Minute
)

// check is a metric's query at an endpoint, or both of a rate's.
type check struct {
	endpoint                Endpoint
	expression, denominator string
}

// checkOf is the one of a metric at an endpoint; false: it asks for nothing, because its template can't be used.
func checkOf(endpoint Endpoint, m *v1alpha1.Metric) (check, bool) {
	if len(m.Queries()) == 0 {
		return check{}, false
	}
	q := policy.Query(m)
	return check{endpoint, q.Expression, q.Denominator}, true
}

// checks are those of one namespace, with what is known about each.
type checks map[check]checkResult

// checkResult is what was said about a query. The zero value: nobody was asked yet.
type checkResult struct {
	answered bool
	wrong    string    // what is wrong with the query; empty: nothing, if answered
	refused  string    // why Prometheus did not let itself be asked; empty: it did, or nobody knows
	asked    time.Time // the last time
}

// greeting is what is asked only to see whether Prometheus can be.
const greeting = "1"

// done: it is not asked again. A query that is good stays good; a Secret can go, and tokens expire.
func (c check) done(r checkResult) bool { return r.answered && c.expression != greeting }

// check asks Prometheus about the queries of these policies, each until it answers. again is when
// the next are due; 0: there are none.
func (p *Policies) check(ctx context.Context, ns string, policies []subject) (known checks, again time.Duration) {
	if p.Check == nil {
		return nil, 0
	}
	known = p.recall(ns, policies)
	defer func() { p.remember(ns, known) }()
	end := time.Now().Add(checkTime)
	ctx, cancel := context.WithDeadline(ctx, end)
	defer cancel()
	for _, c := range known.due(time.Now()) {
		if !time.Now().Before(end) {
			return known, checkSoon
		}
		err := p.Check(ctx, c.endpoint, prometheus.Query{Expression: c.expression, Denominator: c.denominator})
		switch {
		case errors.Is(err, prometheus.ErrBadQuery):
			known[c] = checkResult{answered: true, wrong: err.Error()}
		case errors.Is(err, prometheus.ErrAccess):
			known[c] = checkResult{refused: err.Error(), asked: time.Now()}
		case err == nil:
			known[c] = checkResult{answered: true, asked: time.Now()}
		case ctx.Err() != nil: // it did not have the time that the others had
			return known, checkSoon
		default:
			known[c] = checkResult{refused: known[c].refused, asked: time.Now()}
		}
	}
	for c, r := range known {
		if !c.done(r) {
			again = checkAgain
		}
	}
	return known, again
}

// due are the checks to be asked about, those that never were first, then the longest ago.
func (c checks) due(now time.Time) []check {
	var out []check
	for k, r := range c {
		if !k.done(r) && now.Sub(r.asked) >= checkAgain {
			out = append(out, k)
		}
	}
	slices.SortFunc(out, func(a, b check) int {
		return cmp.Or(c[a].asked.Compare(c[b].asked), cmp.Compare(a.endpoint.URL, b.endpoint.URL), cmp.Compare(a.endpoint.Secret.Name, b.endpoint.Secret.Name), cmp.Compare(a.expression, b.expression), cmp.Compare(a.denominator, b.denominator))
	})
	return out
}

// recall has the checks of these policies, and no others: what is asked about no more is forgotten.
func (p *Policies) recall(ns string, policies []subject) checks {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := checks{}
	for _, s := range policies {
		endpoint, ok := p.endpoint(ns, s.spec)
		if !ok {
			continue
		}
		// Without a certificate and a Secret nothing can be refused.
		if endpoint != p.Prometheus && (endpoint.Secret.Name != "" || strings.HasPrefix(endpoint.URL, "https://")) {
			c := check{endpoint: endpoint, expression: greeting}
			out[c] = p.checked[ns][c]
		}
		for i := range s.spec.Analysis.Metrics {
			if c, asks := checkOf(endpoint, &s.spec.Analysis.Metrics[i]); asks {
				out[c] = p.checked[ns][c]
			}
		}
	}
	return out
}

func (p *Policies) remember(ns string, known checks) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.checked == nil {
		p.checked = map[string]checks{}
	}
	p.checked[ns] = known
	if len(known) == 0 {
		delete(p.checked, ns)
	}
}

// endpoint is the Prometheus to ask about a policy's queries; false: there is none. A policy of the cluster that uses a Secret has another
// one for each namespace, and which of them counts, nobody knows.
func (p *Policies) endpoint(ns string, spec *v1alpha1.RolloutPolicySpec) (Endpoint, bool) {
	e := endpointOf(spec, p.Prometheus, ns)
	foreign := ns == "" && e != p.Prometheus && e.Secret.Name != ""
	return e, e.URL != "" && !foreign
}

// wrongQuery says what is wrong with the first query that is, or why none can be asked; empty: nothing, as far as is known.
func (p *Policies) wrongQuery(ns string, spec *v1alpha1.RolloutPolicySpec, known checks) string {
	endpoint, _ := p.endpoint(ns, spec)
	for i := range spec.Analysis.Metrics {
		m := &spec.Analysis.Metrics[i]
		c, _ := checkOf(endpoint, m)
		if wrong := known[c].wrong; wrong != "" {
			return fmt.Sprintf("the query of metric %q can't be used: %s", m.Name, wrong)
		}
	}
	return known[check{endpoint: endpoint, expression: greeting}].refused
}
