// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/headgate/headgate/e2e/cluster/internal/config"
	"github.com/headgate/headgate/e2e/cluster/internal/network"
	"github.com/headgate/headgate/e2e/cluster/internal/plan"
)

// healthURLs are where components say that they work, inside the cluster's network. What the API
// says of the node doesn't do: it is still ready for a while after its kubelet has died.
var healthURLs = map[string]string{
	config.ControllerManager: "https://127.0.0.1:10257/healthz",
	config.Scheduler:         "https://127.0.0.1:10259/healthz",
	config.Kubelet:           "http://127.0.0.1:10248/healthz",
	config.Proxy:             "http://127.0.0.1:10256/livez",
}

// healthy succeeds when the component says that it works.
func healthy(ctx context.Context, c plan.Cluster, component string) error {
	transport := &http.Transport{
		DialContext: func(ctx context.Context, protocol, address string) (net.Conn, error) {
			return dialInside(ctx, c, protocol, address)
		},
		DisableKeepAlives: true,
		// They made their certificates themselves, and nothing secret is sent.
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, //nolint:gosec // see above
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, healthURLs[component], nil)
	if err != nil {
		return err
	}
	response, err := (&http.Client{Transport: transport, Timeout: 5 * time.Second}).Do(request)
	if err != nil {
		return err
	}
	_ = response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("asking %s for its health: %s", component, response.Status)
	}
	return nil
}

// resolve looks a name up as clients do: at the address of the DNS Service, by way of kube-proxy.
func resolve(ctx context.Context, c plan.Cluster) error {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	resolver := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, protocol, _ string) (net.Conn, error) {
		return dialInside(ctx, c, protocol, net.JoinHostPort(plan.DNSServiceIP, "53"))
	}}
	_, err := resolver.LookupHost(ctx, "kubernetes.default.svc."+plan.Domain+".")
	return err
}

// dialInside connects from within the cluster's network. The address must be numeric: it is the socket
// that has to be made on the thread in the namespace, by no other goroutine.
func dialInside(ctx context.Context, c plan.Cluster, protocol, address string) (connection net.Conn, err error) {
	err = network.Do(c, func() error {
		connection, err = new(net.Dialer).DialContext(ctx, protocol, address)
		return err
	})
	return connection, err
}
