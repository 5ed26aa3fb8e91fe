// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/headgate/headgate/api/v1alpha1"
	"github.com/headgate/headgate/rollout"
)

// acknowledged is what sidecars acknowledged, by revision.
type acknowledged map[string][]Ack

func (a acknowledged) Unheard() string { return "" }

func (a acknowledged) Acks(_ types.NamespacedName, revision string) []Ack { return a[revision] }

func TestSidecarsSpeakOfTheCandidate(t *testing.T) {
	pending := func(pod *corev1.Pod) { pod.Status.Phase = corev1.PodPending }
	pods := []*corev1.Pod{
		podOf(stableHash, "s1", "10.0.0.1"), podOf(stableHash, "s2", "10.0.0.2"), podOf(candidateHash, "c1", "10.0.0.3"),
		// None of these has a sidecar that matters.
		podOf(stableHash, "plain", "10.0.0.4", uninjected), podOf(stableHash, "leaving", "10.0.0.5", terminating),
		podOf(candidateHash, "new", "", pending), podOf("ccc", "third", "10.0.0.6"),
	}
	silent := func(name, hash string) rollout.Sidecar { return rollout.Sidecar{Pod: name, Revision: hash} }
	for name, tc := range map[string]struct {
		acks   acknowledged
		change func(*v1alpha1.RolloutStatus)
		want   []rollout.Sidecar
	}{
		"nobody is connected": {want: []rollout.Sidecar{silent("s1", stableHash), silent("s2", stableHash), silent("c1", candidateHash)}},
		"both arms say the candidate's weight": {
			acks: acknowledged{
				stableHash:    {{Pod: "s1", Peer: candidateHash, PeerWeight: 10}, {Pod: "gone", Peer: candidateHash, PeerWeight: 10}},
				candidateHash: {{Pod: "c1", Peer: stableHash, PeerWeight: 90}},
			},
			want: []rollout.Sidecar{
				{Pod: "s1", Revision: stableHash, Connected: true, Candidate: candidateHash, Weight: 10},
				silent("s2", stableHash),
				{Pod: "c1", Revision: candidateHash, Connected: true, Candidate: candidateHash, Weight: 10},
			},
		},
		"at rest they name no candidate; what was refused is told": {
			acks: acknowledged{stableHash: {{Pod: "s1"}, {Pod: "s2", Rejected: "no such cluster"}}, candidateHash: {{Pod: "c1"}}},
			want: []rollout.Sidecar{
				{Pod: "s1", Revision: stableHash, Connected: true},
				{Pod: "s2", Revision: stableHash, Connected: true, Rejected: "no such cluster"},
				{Pod: "c1", Revision: candidateHash, Connected: true},
			},
		},
		"what is left of an earlier rollout is no word about this one": {
			acks: acknowledged{stableHash: {{Pod: "s1", Peer: "old", PeerWeight: 50}}, candidateHash: {{Pod: "c1", Peer: "old", PeerWeight: 90}}},
			want: []rollout.Sidecar{
				{Pod: "s1", Revision: stableHash, Connected: true, Candidate: "old", Weight: 50},
				silent("s2", stableHash),
				{Pod: "c1", Revision: candidateHash, Connected: true},
			},
		},
		"a candidate that hands requests to stable says so": {
			acks: acknowledged{candidateHash: {{Pod: "c1", Peer: stableHash, PeerWeight: 100, Over: true}}},
			want: []rollout.Sidecar{
				silent("s1", stableHash), silent("s2", stableHash),
				{Pod: "c1", Revision: candidateHash, Connected: true, Candidate: candidateHash, HandsOn: true},
			},
		},
		"without a candidate only stable's are looked at": {
			change: func(s *v1alpha1.RolloutStatus) { s.Candidate = v1alpha1.Revision{} },
			acks:   acknowledged{stableHash: {{Pod: "s1", Peer: candidateHash}}},
			want: []rollout.Sidecar{
				{Pod: "s1", Revision: stableHash, Connected: true, Candidate: candidateHash},
				silent("s2", stableHash),
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := view(pods...)
			if tc.change != nil {
				tc.change(&w.record.Status)
			}
			got := (&Reconciler{Sidecars: tc.acks}).sidecars(w, webKey)
			if d := cmp.Diff(tc.want, got); d != "" {
				t.Errorf("sidecars (-want +got):\n%s", d)
			}
		})
	}
}
