// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package xds

// Stages is the way from one configuration to another, make before break. Each stage is consistent if
// both ends are, and is a whole configuration:
//
//  1. the clusters and endpoints of both, the old listeners and routes,
//  2. the same, with the new listeners and routes,
//  3. only the new.
//
// What both ends have under one name is new from stage 1 on: endpoints that are gone, are gone at once.
// Stages that change nothing are left out; equal ends have none.
func Stages(from, to Resources) []Resources {
	both := Resources{
		Clusters:  union(from[Clusters], to[Clusters]),
		Endpoints: union(from[Endpoints], to[Endpoints]),
		Listeners: from[Listeners],
		Routes:    from[Routes],
	}
	switched := both
	switched[Listeners], switched[Routes] = to[Listeners], to[Routes]

	var out []Resources
	last := from
	for _, next := range []Resources{both, switched, to} {
		if !next.Equal(&last) {
			out = append(out, next)
			last = next
		}
	}
	return out
}

// union is all of to, and what only from has. Both are sorted by name, and so is the result.
func union(from, to []Resource) []Resource {
	out := make([]Resource, 0, len(from)+len(to))
	for len(from) > 0 && len(to) > 0 {
		switch {
		case from[0].Name < to[0].Name:
			out, from = append(out, from[0]), from[1:]
		case from[0].Name == to[0].Name:
			from = from[1:]
		default:
			out, to = append(out, to[0]), to[1:]
		}
	}
	return append(append(out, from...), to...)
}

// Versions are the versions that one sidecar has, by type and name.
type Versions [typeCount]map[string]string

// Has says that every resource of r is there in r's version.
func (v *Versions) Has(r *Resources) bool {
	for _, t := range Types() {
		if !v.hasAll(t, r[t]) {
			return false
		}
	}
	return true
}

func (v *Versions) hasAll(t Type, rs []Resource) bool {
	for _, x := range rs {
		if v[t][x.Name] != x.Version {
			return false
		}
	}
	return true
}

// SafeFor says that a sidecar may be sent r without losing a request. sent is all it was sent,
// acknowledged the part that it confirmed.
//
//   - Whatever cluster r's routes and listeners name, the sidecar has it, endpoints included. A route
//     to a cluster that it does not know, or that still waits for its endpoints, answers 503.
//   - If r takes clusters away, the sidecar has confirmed all of r's routes and listeners. A route that
//     it may still use could name them.
//
// So a lower weight never waits: its routes name only what the sidecar has.
func (r *Resources) SafeFor(sent, acknowledged *Versions) bool {
	for _, t := range []Type{Listeners, Routes} {
		for _, x := range r[t] {
			if !r.warm(x.Clusters, acknowledged) {
				return false
			}
		}
	}
	return !r.Removes(sent) || acknowledged.hasAll(Listeners, r[Listeners]) && acknowledged.hasAll(Routes, r[Routes])
}

// warm says that all these clusters, and those they are made of, are there, with endpoints.
func (r *Resources) warm(clusters []string, acknowledged *Versions) bool {
	for _, name := range clusters {
		c, _ := r.Get(Clusters, name)
		_, known := acknowledged[Clusters][name]
		_, filled := acknowledged[Endpoints][name]
		if !known || c.eds && !filled || !r.warm(c.Clusters, acknowledged) {
			return false
		}
	}
	return true
}

// Removes says that r lacks clusters that a sidecar has.
func (r *Resources) Removes(sent *Versions) bool {
	for name := range sent[Clusters] {
		if _, kept := r.Get(Clusters, name); !kept {
			return true
		}
	}
	return false
}
