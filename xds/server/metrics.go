// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package server

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/codes"

	"github.com/headgate/headgate/xds"
)

// Metrics are the server's own. A nil *Metrics counts nothing.
type Metrics struct {
	// Streams is the number of connected sidecars.
	Streams prometheus.Gauge
	// Pushes counts responses, by type.
	Pushes *prometheus.CounterVec
	// Refusals counts configurations that a sidecar refused (NACK), by type.
	Refusals *prometheus.CounterVec
	// Rejected counts streams that were not let in, or were ended for newer ones of their pod, by gRPC code.
	Rejected *prometheus.CounterVec
	// StageSeconds is how long a sidecar spent in one stage.
	StageSeconds prometheus.Histogram
	// AcknowledgeSeconds is how long it took from a wish to a sidecar's complete acknowledgement.
	AcknowledgeSeconds prometheus.Histogram
}

// NewMetrics makes and registers the metrics. It fails when they are registered already.
func NewMetrics(r prometheus.Registerer) (*Metrics, error) {
	buckets := []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10}
	m := &Metrics{
		Streams:  prometheus.NewGauge(prometheus.GaugeOpts{Name: "headgate_xds_streams", Help: "Connected sidecars."}),
		Pushes:   prometheus.NewCounterVec(prometheus.CounterOpts{Name: "headgate_xds_pushes_total", Help: "Responses sent to sidecars."}, []string{"type"}),
		Refusals: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "headgate_xds_refusals_total", Help: "Configurations refused by sidecars."}, []string{"type"}),
		Rejected: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "headgate_xds_rejected_streams_total", Help: "Streams that were not let in, or were ended for newer ones of their pod."}, []string{"code"}),
		StageSeconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "headgate_xds_stage_seconds", Help: "Time from one stage of a change to the next, per sidecar.", Buckets: buckets}),
		AcknowledgeSeconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "headgate_xds_acknowledge_seconds", Help: "Time from a wanted configuration to its acknowledgement, per sidecar.", Buckets: buckets}),
	}
	for _, c := range []prometheus.Collector{m.Streams, m.Pushes, m.Refusals, m.Rejected, m.StageSeconds, m.AcknowledgeSeconds} {
		if err := r.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

func (m *Metrics) connected(n int) {
	if m != nil {
		m.Streams.Set(float64(n))
	}
}

func (m *Metrics) pushed(t xds.Type) {
	if m != nil {
		m.Pushes.WithLabelValues(t.String()).Inc()
	}
}

func (m *Metrics) refused(t xds.Type) {
	if m != nil {
		m.Refusals.WithLabelValues(t.String()).Inc()
	}
}

func (m *Metrics) rejected(c codes.Code) {
	if m != nil {
		m.Rejected.WithLabelValues(c.String()).Inc()
	}
}

func (m *Metrics) stage(d time.Duration) {
	if m != nil {
		m.StageSeconds.Observe(d.Seconds())
	}
}

func (m *Metrics) acknowledged(d time.Duration) {
	if m != nil {
		m.AcknowledgeSeconds.Observe(d.Seconds())
	}
}
