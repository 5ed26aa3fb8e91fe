// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package xds

import "fmt"

// Translate makes the configuration of the sidecars of w. It depends on nothing else: equal workloads
// have equal resources, versions included. It fails when w is not valid.
func Translate(w Workload) (Resources, error) {
	if err := w.Validate(); err != nil {
		return Resources{}, fmt.Errorf("translating %w", err)
	}
	var r Resources
	for _, c := range clusters(&w) {
		r[Clusters] = append(r[Clusters], newResource(c))
	}
	sortByName(r[Clusters])
	for _, p := range w.Ports {
		if splits(&w, p) {
			e := endpoints(&w, p)
			c, _ := r.Get(Clusters, e.GetClusterName())
			r[Endpoints] = append(r[Endpoints], newEndpoints(e, c))
		}
		if p.Protocol != TCP {
			r[Routes] = append(r[Routes], newResource(captureRouteConfig(&w, p)))
		}
	}
	r[Routes] = append(r[Routes], newResource(peerRouteConfig(&w)))
	r[Listeners] = []Resource{newResource(capture(&w))}
	sortByName(r[Endpoints])
	sortByName(r[Routes])
	if err := r.Consistent(); err != nil {
		return Resources{}, fmt.Errorf("translating workload %s/%s revision %q: %w", w.Namespace, w.Name, w.Revision, err)
	}
	return r, nil
}
