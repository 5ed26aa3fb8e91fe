// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Workload is all that the configuration of its sidecars depends on. It is keyed by (namespace, name,
// revision), never by pod, so that pods come and go without a push.
type Workload struct {
	// Namespace and Name are the Deployment's.
	Namespace, Name string
	// Revision is the pod-template-hash of the sidecars that this configuration is for.
	Revision string
	// Ports are the captured ports of that revision, ascending, without duplicates.
	Ports []Port
	// IPv6 says that the pods have an IPv6 address besides, or instead of, an IPv4 one. It must not
	// change while pods of the revision exist. Zero is IPv4 only: binding `::` fails where the
	// kernel runs without IPv6, and would take the whole listener with it.
	IPv6 bool
	// Split is nil at rest: everything local, no endpoints.
	Split *Split
}

// Protocol says how a captured port is handled.
type Protocol int

const (
	// Auto sniffs HTTP/1.x and h2c and splits them; other bytes go to the local app.
	Auto Protocol = iota
	// TCP passes bytes to the local app, without sniffing, so that server-first protocols are not delayed.
	TCP
	// HTTP splits HTTP/1.x and h2c, however long a client is silent at first. TLS goes to the local app, also
	// where the port is called http by mistake; other bytes are answered with 400.
	HTTP
)

// Port is one captured container port.
type Port struct {
	// Number is the container port of this revision, 1 to 65535.
	Number uint32
	// Protocol says how it is handled.
	Protocol Protocol
	// Peer is the corresponding port of the other revision (same Service port); 0 when there is
	// none, and then this port is not split.
	Peer uint32
}

// Split divides requests between this revision and one other.
type Split struct {
	// Peer is the other revision.
	Peer string
	// PeerIsStable says that the other revision is the stable one and this the candidate. It decides
	// only the order inside the route: candidate first, so that a hash of the request (a sticky
	// split, later) means the same revision at every sidecar.
	PeerIsStable bool
	// Endpoints are the addresses of the other revision's pods that may get requests (ready but for
	// the gate), sorted, without duplicates. May be empty: then everything stays local.
	Endpoints []string
	// PeerWeight is the share of requests for the other revision, 0 to 100.
	PeerWeight uint32
	// Over says that this was the candidate, and that nobody's requests are meant for it any more: it was rejected, or
	// another one is tried. A sidecar of stable that is cut off from the control plane has not heard that, and goes on
	// sending its share here: it is handed on to one of stable's pods. That sidecar counts the answers as this
	// revision's, so this must not be so while it is judged. Requires that all requests are for stable.
	Over bool
}

const maxPort = 1<<16 - 1

// Validate says why w can't be translated; nil when it can.
func (w *Workload) Validate() error {
	var errs []error
	for _, n := range []struct{ what, value string }{
		{"namespace", w.Namespace}, {"name", w.Name}, {"revision", w.Revision},
	} {
		errs = append(errs, validateName(n.what, n.value))
	}
	errs = append(errs, validatePorts(w.Ports))
	if w.Split != nil {
		errs = append(errs, w.Split.validate(w.Revision))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("workload %s/%s revision %q: %w", w.Namespace, w.Name, w.Revision, err)
	}
	return nil
}

// validateName refuses what would break out of a cluster or statistics name. Kubernetes names can
// contain none of it.
func validateName(what, value string) error {
	if value == "" || len(value) > 253 || strings.ContainsFunc(value, notNameRune) {
		return fmt.Errorf("%s %q is no Kubernetes name", what, value)
	}
	return nil
}

func notNameRune(r rune) bool {
	return !(r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '-' || r == '.')
}

func validatePorts(ports []Port) error {
	var errs []error
	last := uint32(0)
	for _, p := range ports {
		switch {
		case p.Number == 0 || p.Number > maxPort || p.Peer > maxPort:
			errs = append(errs, fmt.Errorf("port %d (peer %d) is out of range", p.Number, p.Peer))
		case p.Number >= CapturePort && p.Number <= StatsPort:
			errs = append(errs, fmt.Errorf("port %d belongs to the sidecar", p.Number))
		case p.Number <= last:
			errs = append(errs, fmt.Errorf("port %d follows %d, want ascending", p.Number, last))
		case p.Protocol < Auto || p.Protocol > HTTP:
			errs = append(errs, fmt.Errorf("port %d has the unknown protocol %d", p.Number, p.Protocol))
		}
		last = p.Number
	}
	return errors.Join(errs...)
}

func (s *Split) validate(revision string) error {
	// The revision is the last part of a statistics name, which a dot would end early.
	errs := []error{validateName("peer revision", s.Peer)}
	if s.Peer == revision {
		errs = append(errs, fmt.Errorf("peer revision %q is its own peer", s.Peer))
	}
	if strings.Contains(s.Peer, ".") {
		errs = append(errs, fmt.Errorf("peer revision %q contains a dot", s.Peer))
	}
	if s.PeerWeight > 100 {
		errs = append(errs, fmt.Errorf("peer weight %d is over 100", s.PeerWeight))
	}
	if s.Over && (!s.PeerIsStable || s.PeerWeight != fullWeight) {
		errs = append(errs, errors.New("what is over leaves stable less than all requests"))
	}
	errs = append(errs, validateEndpoints(s.Endpoints))
	return errors.Join(errs...)
}

func validateEndpoints(endpoints []string) error {
	var errs []error
	for _, e := range endpoints {
		if a, err := netip.ParseAddr(e); err != nil || a.Zone() != "" || a.IsUnspecified() || a.IsMulticast() || a.IsLoopback() {
			errs = append(errs, fmt.Errorf("endpoint %q is no address of a pod", e))
		}
	}
	if !slices.IsSorted(endpoints) || len(slices.Compact(slices.Clone(endpoints))) != len(endpoints) {
		errs = append(errs, errors.New("endpoints are not sorted without duplicates"))
	}
	return errors.Join(errs...)
}
