// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package prometheus

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	v1 "github.com/prometheus/client_golang/api/prometheus/v1"
	"github.com/prometheus/common/model"

	"github.com/headgate/headgate/analysis"
)

// Span are moments in the past: from From to To, one every Every, in whole seconds. There is at least a second between two
// moments.
type Span struct {
	From, To time.Time
	Every    time.Duration
}

// beforeEvery is how far the looks before a rollout are apart: the judge keeps minutes.
const beforeEvery = time.Minute

// Before is the time up to a moment, minute by minute, in which a revision was stable: as far back as most, and no further than
// since, when it became that; the zero time: it was so all the time.
func Before(to, since time.Time, most time.Duration) Span {
	from := to.Add(-most)
	if since.After(from) {
		from = since
	}
	return Span{From: from, To: to, Every: beforeEvery}
}

// moments are whole seconds, because what is finer may come back as the millisecond before.
func (s Span) moments() (out []time.Time) {
	every := max(s.Every.Truncate(time.Second), time.Second)
	for at := s.From.Truncate(time.Second); !at.After(s.To); at = at.Add(every) {
		out = append(out, at)
	}
	return out
}

// maxMoments is how many moments a query is about. A Prometheus takes at most 11,000, and has all their values in memory at once, as
// we have.
const maxMoments = 1000

// Past makes the looks that would have been made at a target in a span, the oldest first, from as few range queries as take
// maxMoments each. Their Step and Weight are the target's, CandidatePods those whose sidecars were scraped; the users' metrics
// are not part of them. The first has no counts: it is where counting starts. It differs from what Looks has found at the time by
// what was scraped then and known a moment later. What Looks remembers does not change.
func (c *Client) Past(ctx context.Context, t Target, s Span) ([]analysis.Look, error) {
	moments := s.moments()
	if len(moments) < 2 {
		return nil, nil
	}
	targets := []Target{t}
	var out []analysis.Look
	var m memory
	for some := range slices.Chunk(moments, maxMoments) {
		matrix, err := c.rangeOf(ctx, expression(targets), v1.Range{Start: some[0], End: some[len(some)-1], Step: moments[1].Sub(moments[0])})
		if err != nil {
			return nil, fmt.Errorf("querying past request counters: %w", err)
		}
		for i, answer := range byMoment(some, matrix) {
			var at []analysis.Look
			a := parse(answer)
			m, at = m.look(some[i], targets, a, c.config.StaleAfter)
			at[0].CandidatePods = a.candidatePods(t)
			out = append(out, at...)
		}
	}
	return out, nil
}

// candidatePods is how many of the candidate's sidecars the answer has counters of: those that an app's own requests are
// counted by, because whatever goes elsewhere is counted by stable's too.
func (a answer) candidatePods(t Target) int {
	pods := map[string]bool{}
	for _, s := range a.samples {
		if s.workload == t.key() && s.Hop == hopLocal && s.Revision == t.Candidate {
			pods[s.Pod] = true
		}
	}
	return len(pods)
}

// rangeOf sends a range query. Several may be under way at once, so each may have a share of the bytes; what takes more comes
// alone.
func (c *Client) rangeOf(ctx context.Context, query string, r v1.Range) (model.Matrix, error) {
	ctx, cancel := context.WithTimeout(ctx, c.config.QueryTimeout)
	defer cancel()
	v, warnings, err := c.share.QueryRange(ctx, query, r, v1.WithTimeout(c.config.QueryTimeout))
	if errors.Is(err, errTooLarge) {
		c.large.Lock()
		defer c.large.Unlock()
		v, warnings, err = c.counters.QueryRange(ctx, query, r, v1.WithTimeout(c.config.QueryTimeout))
	}
	if err != nil {
		return nil, err
	}
	matrix, err := whole[model.Matrix](v, warnings)
	if err != nil {
		return nil, err
	}
	if slices.Contains(matrix, nil) {
		return nil, errNull
	}
	return matrix, nil
}

// byMoment turns the answer of a range query into what an instant query would have answered at each moment. A moment without a
// value has none of the series, as in an instant query.
func byMoment(moments []time.Time, matrix model.Matrix) []model.Vector {
	out := make([]model.Vector, len(moments))
	put := func(s model.Sample) {
		if i, found := slices.BinarySearchFunc(moments, s.Timestamp.Time(), time.Time.Compare); found {
			out[i] = append(out[i], &s)
		}
	}
	for _, stream := range matrix {
		for _, v := range stream.Values {
			put(model.Sample{Metric: stream.Metric, Value: v.Value, Timestamp: v.Timestamp})
		}
		for _, h := range stream.Histograms {
			if h.Histogram != nil {
				put(model.Sample{Metric: stream.Metric, Histogram: h.Histogram, Timestamp: h.Timestamp})
			}
		}
	}
	return out
}
