// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"

	"github.com/headgate/headgate/e2e/cluster/internal/plan"
)

// api asks the API server the few things that Up has to know, without a client library.
type api struct {
	base   string
	client *http.Client
}

// newAPI authenticates as the API server does towards kubelets, which is an administrator.
func newAPI(c plan.Cluster) (api, error) {
	ca, err := os.ReadFile(c.Path("pki", "ca.crt"))
	if err != nil {
		return api{}, err
	}
	pair, err := tls.LoadX509KeyPair(c.Path("pki", "apiserver-kubelet-client.crt"), c.Path("pki", "apiserver-kubelet-client.key"))
	if err != nil {
		return api{}, fmt.Errorf("loading the client certificate: %w", err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{pair}}}
	return api{base: c.APIServer(), client: &http.Client{Transport: transport, Timeout: 5 * time.Second}}, nil
}

func (a api) ready(ctx context.Context) error {
	_, err := a.get(ctx, "/readyz")
	return err
}

func (a api) serviceAccountExists(ctx context.Context) error {
	_, err := a.get(ctx, "/api/v1/namespaces/default/serviceaccounts/default")
	return err
}

func (a api) nodeReady(ctx context.Context) error {
	return a.condition(ctx, "/api/v1/nodes/"+plan.Node, "Ready")
}

func (a api) dnsReady(ctx context.Context) error {
	return a.condition(ctx, "/apis/apps/v1/namespaces/kube-system/deployments/coredns", "Available")
}

func (a api) metricsReady(ctx context.Context) error {
	return a.condition(ctx, "/apis/apiregistration.k8s.io/v1/apiservices/v1beta1.metrics.k8s.io", "Available")
}

// condition succeeds when the object has the condition with status True.
func (a api) condition(ctx context.Context, path, want string) error {
	body, err := a.get(ctx, path)
	if err != nil {
		return err
	}
	var object struct {
		Status struct {
			Conditions []struct{ Type, Status, Message string }
		}
	}
	if err := json.Unmarshal(body, &object); err != nil {
		return fmt.Errorf("parsing %s: %w", path, err)
	}
	for _, condition := range object.Status.Conditions {
		if condition.Type != want {
			continue
		}
		if condition.Status == "True" {
			return nil
		}
		return fmt.Errorf("%s is %s=%s: %s", path, want, condition.Status, condition.Message)
	}
	return fmt.Errorf("%s has no condition %s yet", path, want)
}

func (a api) get(ctx context.Context, path string) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, a.base+path, nil)
	if err != nil {
		return nil, err
	}
	response, err := a.client.Do(request)
	if err != nil {
		return nil, err
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return nil, err
	}
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("getting %s: %s", path, response.Status)
	}
	return body, nil
}
