// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package export

import (
	"fmt"
	"net/url"
	"regexp"
	"strings"
	"time"

	"k8s.io/client-go/rest"

	"github.com/headgate/headgate/analysis/prometheus"
)

const (
	// queryTimeout is longer than in the control plane: somebody waits for one answer, nobody for the next look.
	queryTimeout = time.Minute
	// maxAnswer is what an hour of a thousand pods takes, about.
	maxAnswer = 1 << 30
)

// service is how a Service is named: NAMESPACE/NAME:PORT.
var service = regexp.MustCompile(`^([a-z0-9-]+)/([a-z0-9-]+):([a-z0-9-]+)$`)

// Connect makes a client for the Prometheus at a URL, or for that of a Service, NAMESPACE/NAME:PORT, which the API
// server is asked to reach.
func Connect(address string, cluster *rest.Config) (*prometheus.Client, error) {
	config := prometheus.Config{URL: address, QueryTimeout: queryTimeout, MaxCounters: maxAnswer}
	if !strings.Contains(address, "://") {
		parts := service.FindStringSubmatch(address)
		if parts == nil {
			return nil, fmt.Errorf("the Prometheus is %q; expected a URL, or NAMESPACE/SERVICE:PORT of one in the cluster", address)
		}
		base, _, err := rest.DefaultServerUrlFor(cluster)
		if err != nil {
			return nil, fmt.Errorf("finding the API server: %w", err)
		}
		if config.Transport, err = rest.TransportFor(cluster); err != nil {
			return nil, fmt.Errorf("connecting to the API server: %w", err)
		}
		config.URL = base.JoinPath("api/v1/namespaces", parts[1], "services", "http:"+url.PathEscape(parts[2])+":"+parts[3], "proxy").String()
	}
	return prometheus.New(config)
}
