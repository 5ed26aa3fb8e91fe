// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package controlplane

import (
	"cmp"
	"encoding/json"
	"errors"
	"net/http"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/headgate/headgate/api/v1alpha1"
	"github.com/headgate/headgate/controller"
)

// TargetsPath is where the metrics server tells a Prometheus, by its HTTP service discovery, which
// sidecars there are. So a Prometheus needs no rights in the cluster, and one that was built without
// Kubernetes discovery (that of Debian) works too.
const TargetsPath = "/targets"

// targetGroup is one element of the answer; the format is that of Prometheus' http_sd.
type targetGroup struct {
	Targets []string          `json:"targets"`
	Labels  map[string]string `json:"labels"`
}

// Targets serves the statistics ports of all sidecars. reader must be the cache: it is asked every few seconds.
func Targets(reader client.Reader) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var pods corev1.PodList
		var enabled corev1.NamespaceList
		err := errors.Join(
			reader.List(r.Context(), &pods, client.MatchingLabels{v1alpha1.InjectedLabel: "true"}),
			reader.List(r.Context(), &enabled, client.MatchingLabels{v1alpha1.EnabledLabel: "true"}))
		if err != nil {
			// Prometheus keeps the targets it has.
			http.Error(w, "the cache of pods has not synced yet", http.StatusServiceUnavailable)
			return
		}
		namespaces := map[string]bool{}
		for _, ns := range enabled.Items {
			namespaces[ns.Name] = true
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(targets(pods.Items, namespaces)) // the only error is a client that went away
	})
}

// targets are those of sidecars that have an address and can still answer, in the order of namespace and name.
func targets(pods []corev1.Pod, enabled map[string]bool) []targetGroup {
	groups := []targetGroup{}
	for i := range pods {
		pod := &pods[i]
		address := controller.StatsAddress(pod)
		if address == "" || !enabled[pod.Namespace] {
			continue
		}
		groups = append(groups, targetGroup{
			Targets: []string{address},
			Labels:  map[string]string{"namespace": pod.Namespace, "pod": pod.Name},
		})
	}
	slices.SortFunc(groups, func(a, b targetGroup) int {
		return cmp.Or(cmp.Compare(a.Labels["namespace"], b.Labels["namespace"]), cmp.Compare(a.Labels["pod"], b.Labels["pod"]))
	})
	return groups
}
