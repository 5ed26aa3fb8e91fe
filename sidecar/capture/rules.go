// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package capture

import (
	"slices"

	"github.com/headgate/headgate/api/v1alpha1"
)

// Redirect sends TCP connections that arrive for one port to another port of the same pod, over IPv4
// and IPv6. Ports are 1 to 65535.
type Redirect struct {
	From, To uint16
}

// Rules are the redirects that an injection needs: ascending by From, each From at most once. They
// depend on nothing else, so that a restarted container finds the same rules again.
func Rules(injection v1alpha1.Injection) []Redirect {
	rules := []Redirect{{From: uint16(v1alpha1.PeerPort), To: uint16(v1alpha1.CapturePort)}}
	for _, p := range injection.Ports {
		if !isPort(p.Port) || reserved(p.Port) {
			// The Pod webhook never captures these. Redirecting one of them, from an annotation that
			// somebody wrote by hand, could make Envoy's own ports unreachable.
			continue
		}
		rules = append(rules, Redirect{From: uint16(p.Port), To: uint16(v1alpha1.CapturePort)})
		if isPort(p.Alias) {
			rules = append(rules, Redirect{From: uint16(p.Alias), To: uint16(p.Port)})
		}
	}
	slices.SortStableFunc(rules, func(a, b Redirect) int { return int(a.From) - int(b.From) })
	return slices.CompactFunc(rules, func(a, b Redirect) bool { return a.From == b.From })
}

func isPort(n int32) bool { return n > 0 && n <= 65535 }

// reserved tells the ports that the data plane uses itself; see the table in DESIGN.md §6.
func reserved(n int32) bool { return n >= v1alpha1.CapturePort && n < v1alpha1.CapturePort+100 }
