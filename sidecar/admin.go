// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package sidecar

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/headgate/headgate/api/v1alpha1"
	"github.com/headgate/headgate/xds"
)

// admin is Envoy's admin interface, on the pod's loopback. The zero value is not usable.
type admin struct {
	client *http.Client
	base   string
}

func newAdmin() admin {
	return admin{
		client: &http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{Proxy: nil}},
		base:   fmt.Sprintf("http://127.0.0.1:%d", v1alpha1.AdminPort),
	}
}

// Drain makes Envoy end its connections as they become idle: every response says `connection: close`,
// and readiness is withdrawn. New connections are still served, so no request fails; peers that send some after the
// app has ended are told to go elsewhere. It is what `headgate drain` does, and returns at once.
func Drain(ctx context.Context) error {
	if err := errors.Join(newAdmin().leave(ctx), sayLeaving(ctx)); err != nil {
		return fmt.Errorf("draining: %w", err)
	}
	return nil
}

func (a admin) leave(ctx context.Context) error {
	_, err := a.call(ctx, http.MethodPost, "/healthcheck/fail")
	_, err2 := a.call(ctx, http.MethodPost, "/runtime_modify?"+xds.LeavingKey+"=100")
	return errors.Join(err, err2)
}

// drain also tells HTTP/2 clients (GOAWAY), which Drain does not.
func (a admin) drain(ctx context.Context) error {
	err := a.leave(ctx)
	_, err2 := a.call(ctx, http.MethodPost, "/drain_listeners?graceful&skip_exit")
	return errors.Join(err, err2)
}

// closeListeners makes Envoy refuse connections. Those that it has taken stay.
func (a admin) closeListeners(ctx context.Context) error {
	_, err := a.call(ctx, http.MethodPost, "/drain_listeners")
	return err
}

// live tells whether Envoy has finished its initialisation: it has a whole configuration. It stays
// live while it drains.
func (a admin) live(ctx context.Context) (bool, error) {
	body, err := a.call(ctx, http.MethodGet, "/server_info")
	if err != nil {
		return false, err
	}
	var info struct {
		State string `json:"state"`
	}
	if err := json.Unmarshal(body, &info); err != nil {
		return false, fmt.Errorf("reading /server_info: %w", err)
	}
	return info.State == "LIVE" || info.State == "DRAINING", nil
}

// active counts the requests, and TCP connections, that Envoy is forwarding now. (The statistics that
// count them downstream are not kept; hosts always have theirs.)
func (a admin) active(ctx context.Context) (int, error) {
	body, err := a.call(ctx, http.MethodGet, "/clusters?format=json")
	if err != nil {
		return 0, err
	}
	return activeRequests(body)
}

func activeRequests(clusters []byte) (int, error) {
	var all struct {
		Clusters []struct {
			Name  string `json:"name"`
			Hosts []struct {
				Stats []struct {
					Name  string `json:"name"`
					Value int    `json:"value,string"`
				} `json:"stats"`
			} `json:"host_statuses"`
		} `json:"cluster_statuses"`
	}
	if err := json.Unmarshal(clusters, &all); err != nil {
		return 0, fmt.Errorf("reading /clusters: %w", err)
	}
	active := 0
	for _, c := range all.Clusters {
		if strings.HasPrefix(c.Name, "headgate-") {
			continue // Envoy's own: the stream to us, and scrapes
		}
		for _, h := range c.Hosts {
			for _, s := range h.Stats {
				if s.Name == "rq_active" {
					active += s.Value
				}
			}
		}
	}
	return active, nil
}

// peers counts the connections of sidecars of the other revision.
func (a admin) peers(ctx context.Context) (int, error) {
	return a.gauges(ctx, "^"+xds.PeerConnectionsStat+"$")
}

// buffered counts the bytes that Envoy has yet to send to clients, of requests and connections that are over.
func (a admin) buffered(ctx context.Context) (int, error) { return a.gauges(ctx, xds.BufferedStat+"$") }

// gauges is the sum of those whose name matches; none is an error.
func (a admin) gauges(ctx context.Context, name string) (int, error) {
	body, err := a.call(ctx, http.MethodGet, "/stats?filter="+url.QueryEscape(name))
	if err != nil {
		return 0, err
	}
	sum, found := 0, false
	for line := range strings.Lines(string(body)) {
		_, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
		n, err := strconv.Atoi(value)
		if err != nil {
			return 0, fmt.Errorf("reading /stats: %w", err)
		}
		sum, found = sum+n, true
	}
	if !found {
		return 0, fmt.Errorf("reading /stats: no %s", name)
	}
	return sum, nil
}

func (a admin) call(ctx context.Context, method, path string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, a.base+path, nil)
	if err != nil {
		return nil, fmt.Errorf("calling Envoy's %s: %w", path, err)
	}
	resp, err := a.client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("calling Envoy's %s: %w", path, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 16<<20))
	if err != nil {
		return nil, fmt.Errorf("calling Envoy's %s: %w", path, err)
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("calling Envoy's %s: status %d", path, resp.StatusCode)
	}
	return body, nil
}
