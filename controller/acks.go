// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package controller

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/headgate/headgate/api/v1alpha1"
	"github.com/headgate/headgate/rollout"
)

// Ack is what one sidecar has fully acknowledged, if nothing else may be in force there.
type Ack struct {
	// Pod is the pod's name.
	Pod string
	// Peer is the other revision that its configuration names; empty at rest, and while that is not known: it is
	// new, or another weight was on its way to it since.
	Peer string
	// PeerWeight is that revision's share, 0 to 100.
	PeerWeight int32
	// Over says that it hands on to that revision what peers still send; see xds.Split.
	Over bool
	// Rejected is Envoy's own words when it refused its configuration; empty otherwise.
	Rejected string
}

// Sidecars tells, across all replicas of the xDS server, which sidecars of a revision are connected
// and what they acknowledged.
type Sidecars interface {
	Acks(workload types.NamespacedName, revision string) []Ack
	// Unheard says which replicas can't be asked, and why; empty: all can. Their sidecars are not among the Acks.
	Unheard() string
}

// sidecars are the injected pods of the stable and candidate revisions with their acknowledgements.
func (r *Reconciler) sidecars(w *workload, key types.NamespacedName) []rollout.Sidecar {
	s := w.status()
	var out []rollout.Sidecar
	for _, hash := range []string{s.Stable.Hash, s.Candidate.Hash} {
		if hash == "" {
			continue
		}
		acks := map[string]Ack{}
		for _, a := range r.Sidecars.Acks(key, hash) {
			acks[a.Pod] = a
		}
		for _, pod := range w.pods[hash] {
			if pod.Labels[v1alpha1.InjectedLabel] != "true" || pod.DeletionTimestamp != nil || !running(pod) {
				continue
			}
			a, connected := acks[pod.Name]
			sc := sidecar(&s, hash, a)
			sc.Pod, sc.Connected = pod.Name, connected
			out = append(out, sc)
		}
	}
	return out
}

// sidecar turns an acknowledgement, which speaks of the other revision, into one that speaks of the
// candidate. A candidate that still splits with an earlier stable revision has acknowledged nothing of this rollout.
func sidecar(s *v1alpha1.RolloutStatus, revision string, a Ack) rollout.Sidecar {
	sc := rollout.Sidecar{Revision: revision, Rejected: a.Rejected}
	switch {
	case a.Peer == "":
	case revision == s.Candidate.Hash && a.Peer == s.Stable.Hash:
		sc.Candidate, sc.Weight, sc.HandsOn = s.Candidate.Hash, 100-a.PeerWeight, a.Over
	case revision == s.Candidate.Hash:
	default:
		sc.Candidate, sc.Weight = a.Peer, a.PeerWeight
	}
	return sc
}

func running(pod *corev1.Pod) bool {
	return pod.Status.Phase == corev1.PodRunning
}
