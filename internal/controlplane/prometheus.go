// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package controlplane

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/headgate/headgate/analysis/prometheus"
	"github.com/headgate/headgate/controller"
)

// prometheuses makes clients of Prometheus. Secrets are read from the API server and never cached, so that the right to
// get a single one is enough.
type prometheuses struct {
	reader    client.Reader
	own       controller.Endpoint // the installation's
	namespace string              // Headgate's
}

// own is the Prometheus that the installation was told of.
func (o Options) own() controller.Endpoint {
	e := controller.Endpoint{URL: o.PrometheusURL}
	if o.PrometheusSecret != "" {
		e.Secret = types.NamespacedName{Namespace: o.Namespace, Name: o.PrometheusSecret}
	}
	return e
}

// connect makes a client that lives as long as it has rollouts.
func (p prometheuses) connect(e controller.Endpoint) (controller.Counters, error) {
	c := p.config(e)
	if t := p.transport(e); t != nil {
		c.Transport = t
	}
	return prometheus.New(c)
}

// config is how to ask for counters at an endpoint, which is the installation's own or was named by a policy.
func (p prometheuses) config(e controller.Endpoint) prometheus.Config {
	if e == p.own {
		return prometheus.Config{URL: e.URL}
	}
	return prometheus.Config{URL: e.URL, MaxCounters: prometheus.MaxNamedCounters}
}

// check asks a Prometheus about a query that somebody just wrote.
func (p prometheuses) check(ctx context.Context, e controller.Endpoint, q prometheus.Query) error {
	c := prometheus.Config{URL: e.URL}
	if t := p.transport(e); t != nil {
		c.Transport = t
		defer t.CloseIdleConnections()
	}
	client, err := prometheus.New(c)
	if err != nil {
		return err
	}
	return client.Check(ctx, q)
}

// transport does what an endpoint's Secret says; nil where it has none.
func (p prometheuses) transport(e controller.Endpoint) *prometheus.SecretTransport {
	if e.Secret.Name == "" {
		return nil
	}
	return prometheus.Authenticated(func(ctx context.Context) (map[string][]byte, error) { return p.secret(ctx, e) })
}

// secret reads an endpoint's Secret. Headgate's own namespace has others that are nobody's business, and no workloads.
func (p prometheuses) secret(ctx context.Context, e controller.Endpoint) (map[string][]byte, error) {
	if e.Secret.Namespace == p.namespace && e != p.own {
		return nil, fmt.Errorf("%w: Secrets of namespace %q are not for policies", prometheus.ErrNoSecret, p.namespace)
	}
	var s corev1.Secret
	switch err := p.reader.Get(ctx, e.Secret, &s); {
	case apierrors.IsNotFound(err):
		return nil, fmt.Errorf("%w: there is no Secret %q", prometheus.ErrNoSecret, e.Secret)
	case apierrors.IsForbidden(err):
		return nil, fmt.Errorf("%w: Headgate has no right to get Secret %q", prometheus.ErrNoSecret, e.Secret)
	case err != nil:
		return nil, fmt.Errorf("reading Secret %q: %w", e.Secret, err)
	}
	return s.Data, nil
}
