// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics of the edge. Dry runs are timed but not counted as decisions.
type metrics struct {
	decisions  *prometheus.CounterVec
	gates      *prometheus.CounterVec
	injections *prometheus.CounterVec
	raised     prometheus.Counter
	duration   *prometheus.HistogramVec
}

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		decisions: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "headgate_webhook_decisions_total",
			Help: "Updates of Deployments by the rule that decided (a row of the table in the design, or controller, none, foreign, error).",
		}, []string{"row"}),
		gates: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "headgate_webhook_gates_total", Help: "Pods created by the gate they start with: closed or open.",
		}, []string{"gate"}),
		injections: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "headgate_webhook_injections_total", Help: "Pods of managed workloads by what kept the sidecar out; empty: they got it.",
		}, []string{"skip"}),
		raised: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "headgate_webhook_scales_raised_total", Help: "Decreases by an autoscaler that were raised during a rollout.",
		}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "headgate_webhook_duration_seconds", Help: "Time to answer an admission request.",
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, 1, 5},
		}, []string{"webhook"}),
	}
	for _, c := range []prometheus.Collector{m.decisions, m.gates, m.injections, m.raised, m.duration} {
		if err := reg.Register(c); err != nil {
			return nil, fmt.Errorf("registering the webhooks' metrics: %w", err)
		}
	}
	return m, nil
}

// observe is to be deferred with the time of the beginning.
func (m *metrics) observe(webhook string, start, end time.Time) {
	m.duration.WithLabelValues(webhook).Observe(end.Sub(start).Seconds())
}
