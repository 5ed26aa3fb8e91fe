// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package export

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/headgate/headgate/analysis/prometheus"
)

const (
	// queryTimeout is longer than in the control plane: somebody waits for one answer, nobody for the next look.
	queryTimeout = time.Minute
	// maxAnswer is what an hour of a thousand pods takes, about.
	maxAnswer = 1 << 30
	// maxCredential is what a whole Secret may have.
	maxCredential = 1 << 20
)

// service is how a Service is named: NAMESPACE/NAME:PORT.
var service = regexp.MustCompile(`^([a-z0-9-]+)/([a-z0-9-]+):([a-z0-9-]+)$`)

// Connect makes a client for the Prometheus at a URL, or for that of a Service, NAMESPACE/NAME:PORT, which the API
// server is asked to reach. credentials are what the URL asks for; nil: nothing.
func Connect(address string, cluster *rest.Config, credentials prometheus.ReadSecret) (*prometheus.Client, error) {
	config := prometheus.Config{URL: address, QueryTimeout: queryTimeout, MaxCounters: maxAnswer}
	if strings.Contains(address, "://") {
		if credentials != nil {
			config.Transport = prometheus.Authenticated(credentials)
		}
	} else {
		parts := service.FindStringSubmatch(address)
		if parts == nil {
			return nil, fmt.Errorf("the Prometheus is %q; expected a URL, or NAMESPACE/SERVICE:PORT of one in the cluster", address)
		}
		if credentials != nil {
			return nil, fmt.Errorf("the Prometheus is %q; credentials need its URL, because the API server passes none on", address)
		}
		base, _, err := rest.DefaultServerUrlFor(cluster)
		if err != nil {
			return nil, fmt.Errorf("finding the API server: %w", err)
		}
		if config.Transport, err = rest.TransportFor(cluster); err != nil {
			return nil, fmt.Errorf("connecting to the API server: %w", err)
		}
		config.Transport = proxied{config.Transport, parts[1], parts[2]}
		config.URL = base.JoinPath("api/v1/namespaces", parts[1], "services", "http:"+url.PathEscape(parts[2])+":"+parts[3], "proxy").String()
	}
	return prometheus.New(config)
}

// proxied reaches a Service through the API server, and says what keeps it from that.
type proxied struct {
	next               http.RoundTripper
	namespace, service string
}

// refusalError is what the API server says instead of a Prometheus.
type refusalError struct{ why string }

func (e refusalError) Error() string { return e.why }

// maxRefusal bounds what the API server says of a refusal.
const maxRefusal = 64 << 10

// RoundTrip implements http.RoundTripper. Who may only get through the proxy may not POST, which is what clients of Prometheus try
// first; they GET where it is not allowed.
func (p proxied) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := p.next.RoundTrip(r)
	if err != nil || resp.StatusCode < http.StatusBadRequest {
		return resp, err
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxRefusal))
	_ = resp.Body.Close() // what comes after it is not read
	if err != nil {
		return nil, fmt.Errorf("reading the API server's answer: %w", err)
	}
	resp.Body, resp.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	resp.Header.Del("Content-Length")
	status := statusIn(body)
	if status.Kind != "Status" {
		return resp, nil // it is Prometheus that says so
	}
	name := p.namespace + "/" + p.service
	switch resp.StatusCode {
	case http.StatusForbidden:
		if r.Method == http.MethodPost {
			resp.StatusCode = http.StatusMethodNotAllowed
			return resp, nil
		}
		return nil, refusalError{fmt.Sprintf("you may not reach Service %s through the API server, which takes the right to get services/proxy in its namespace; "+
			"ask for it, or give --prometheus URL", name)}
	case http.StatusNotFound:
		return nil, refusalError{fmt.Sprintf("there is no Service %s; give --prometheus URL, or NAMESPACE/SERVICE:PORT of the Prometheus that scrapes the sidecars", name)}
	case http.StatusServiceUnavailable:
		return nil, refusalError{fmt.Sprintf("Service %s has no pod that is ready, or not that port (%s); name another with --prometheus", name, status.Message)}
	}
	return nil, refusalError{fmt.Sprintf("the API server can't reach Service %s: %s", name, status.Message)}
}

// statusIn is what the API server says in an answer; the zero value where it is none of its own.
func statusIn(body []byte) (status metav1.Status) {
	if json.Unmarshal(body, &status) != nil {
		return metav1.Status{}
	}
	return status
}

// Secret are the credentials in a Secret of the cluster, NAMESPACE/NAME, with the keys that docs/analysis.md lists.
func Secret(c client.Reader, name string) (prometheus.ReadSecret, error) {
	namespace, secret, ok := strings.Cut(name, "/")
	if !ok || namespace == "" || secret == "" {
		return nil, fmt.Errorf("the Secret is %q; expected NAMESPACE/NAME", name)
	}
	return func(ctx context.Context) (map[string][]byte, error) {
		var s corev1.Secret
		if err := c.Get(ctx, client.ObjectKey{Namespace: namespace, Name: secret}, &s); err != nil {
			return nil, fmt.Errorf("reading Secret %q: %w", name, err)
		}
		return s.Data, nil
	}, nil
}

// Directory are the credentials in files that have the names of such a Secret's keys, as in a volume of one.
func Directory(path string) prometheus.ReadSecret {
	return func(context.Context) (map[string][]byte, error) {
		entries, err := os.ReadDir(path)
		if err != nil {
			return nil, fmt.Errorf("reading the credentials: %w", err)
		}
		data := map[string][]byte{}
		for _, entry := range entries {
			file := filepath.Join(path, entry.Name())
			info, err := os.Stat(file) // a volume has links to its files
			if err != nil || !info.Mode().IsRegular() || info.Size() > maxCredential {
				continue
			}
			text, err := os.ReadFile(file)
			if err != nil {
				return nil, fmt.Errorf("reading the credentials: %w", err)
			}
			data[entry.Name()] = text
		}
		return data, nil
	}
}
