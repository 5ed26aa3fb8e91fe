// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package sidecar

import (
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/headgate/headgate/api/v1alpha1"
	"github.com/headgate/headgate/xds"
)

const (
	// defaultEnvoy is where the image headgate-proxy has Envoy.
	defaultEnvoy = "/usr/local/bin/envoy"
	// defaultLogLevel is Envoy's.
	defaultLogLevel = "warning"
	// defaultConcurrency is one worker thread: a second one brought nothing at any load that was
	// measured (ENVOY.md §9), and every worker has its own connections to each upstream.
	defaultConcurrency = 1
	// socket is where Envoy finds its configuration: an abstract unix socket, because the pod has no
	// writable volume for a file. Each pod's network namespace has its own.
	socket = "@headgate/xds"
)

// Config is what `headgate run` depends on. ConfigFromEnv makes one.
type Config struct {
	// Injection is what the Pod webhook decided for this pod.
	Injection v1alpha1.Injection
	// Namespace and Pod name this pod; PodIPs are its addresses, one per family.
	Namespace, Pod string
	PodIPs         []netip.Addr

	// ServerAddress (host:port), ServerName (in its certificate) and CA (PEM, possibly several
	// certificates) are how the xDS server is reached and recognised.
	ServerAddress, ServerName string
	CA                        []byte
	// TokenFile holds the pod's token. It is read anew for each stream, because the kubelet renews it.
	TokenFile string

	// Envoy is the path of the binary, LogLevel its log level, Concurrency its number of workers.
	Envoy, LogLevel string
	Concurrency     int
}

// ConfigFromEnv reads the environment that the Pod webhook gave the container. Beyond that contract,
// HEADGATE_ENVOY (path), HEADGATE_LOG_LEVEL and HEADGATE_CONCURRENCY override defaults. The error names
// every variable that is missing or wrong.
func ConfigFromEnv(getenv func(string) string) (Config, error) {
	var errs []error
	required := func(name string) string {
		v := getenv(name)
		if v == "" {
			errs = append(errs, fmt.Errorf("%s is not set", name))
		}
		return v
	}
	cfg := Config{
		Namespace:     required("POD_NAMESPACE"),
		Pod:           required("POD_NAME"),
		ServerAddress: required("HEADGATE_XDS_ADDRESS"),
		ServerName:    required("HEADGATE_XDS_NAME"),
		CA:            []byte(required("HEADGATE_CA")),
		TokenFile:     filepath.Join(v1alpha1.TokenMountPath, "token"),
		Envoy:         or(getenv("HEADGATE_ENVOY"), defaultEnvoy),
		LogLevel:      or(getenv("HEADGATE_LOG_LEVEL"), defaultLogLevel),
		Concurrency:   defaultConcurrency,
	}
	var err error
	if cfg.Injection, err = InjectionFromEnv(getenv); err != nil {
		errs = append(errs, err)
	}
	if cfg.PodIPs, err = parseIPs(required("POD_IPS")); err != nil {
		errs = append(errs, err)
	}
	if v := getenv("HEADGATE_CONCURRENCY"); v != "" {
		if cfg.Concurrency, err = strconv.Atoi(v); err != nil || cfg.Concurrency < 1 {
			errs = append(errs, fmt.Errorf("HEADGATE_CONCURRENCY is %q, want a number from 1", v))
		}
	}
	if len(errs) > 0 {
		return Config{}, fmt.Errorf("reading environment: %w", errors.Join(errs...))
	}
	return cfg, nil
}

// InjectionFromEnv reads what the Pod webhook decided. It is all that `headgate prepare` needs.
func InjectionFromEnv(getenv func(string) string) (v1alpha1.Injection, error) {
	i, err := v1alpha1.ParseInjection(getenv("HEADGATE_INJECTION"))
	if err != nil {
		return i, fmt.Errorf("reading HEADGATE_INJECTION: %w", err)
	}
	return i, nil
}

func or(value, fallback string) string {
	if value == "" {
		return fallback
	}
	return value
}

// parseIPs reads the downward API's status.podIPs: addresses separated by commas.
func parseIPs(s string) ([]netip.Addr, error) {
	var ips []netip.Addr
	for part := range strings.SplitSeq(s, ",") {
		if part == "" {
			continue
		}
		ip, err := netip.ParseAddr(part)
		if err != nil {
			return nil, fmt.Errorf("POD_IPS is %q: %w", s, err)
		}
		ips = append(ips, ip)
	}
	return ips, nil
}

func (c Config) ipv6() bool { return slices.ContainsFunc(c.PodIPs, netip.Addr.Is6) }

// workload is this pod's workload at rest, as the server would describe it.
func (c Config) workload() xds.Workload {
	w := xds.Workload{
		Namespace: c.Namespace,
		Name:      c.Injection.Workload,
		Revision:  c.Injection.Revision,
		IPv6:      c.ipv6(),
	}
	for _, p := range c.Injection.Ports {
		w.Ports = append(w.Ports, xds.Port{Number: uint32(p.Port), Protocol: protocolOf(p)})
	}
	return w
}

// protocolOf is how the port is handled; what a newer control plane may call it is sniffed.
func protocolOf(p v1alpha1.CapturedPort) xds.Protocol {
	switch p.Protocol {
	case v1alpha1.ProtocolTCP:
		return xds.TCP
	case v1alpha1.ProtocolHTTP:
		return xds.HTTP
	}
	return xds.Auto
}
