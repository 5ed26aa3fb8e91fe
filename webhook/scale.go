// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"fmt"
	"time"

	appsv1 "k8s.io/api/apps/v1"

	"github.com/headgate/headgate/api/v1alpha1"
)

// ScaleInput is what the decision about a write to a Deployment's scale depends on.
type ScaleInput struct {
	// From and To are spec.replicas of the old and new scale.
	From, To int32
	// ByAutoscaler says that an autoscaler asks, not a person.
	ByAutoscaler bool
	// Max is the most that the autoscaler may ask for, as a person has said; 0 when that is not known.
	Max int32
	// Deployment is the one that is scaled; nil when it is not known.
	Deployment *appsv1.Deployment
	// Record is its Rollout; nil when there is none. One for another Deployment counts as none.
	Record *v1alpha1.Rollout
	// Now is the only clock.
	Now time.Time
}

// quarantineFloorFor is for how long the floor outlasts the weight. An autoscaler's metrics are about the last minutes, in
// which the candidate did work that is stable's again. That long the HorizontalPodAutoscaler, too, looks back before
// it takes pods away, unless told otherwise.
const quarantineFloorFor = 5 * time.Minute

// ScaleDecision is the number of replicas to admit.
type ScaleDecision struct {
	// Replicas is To, or more.
	Replicas int32
	// Raised: it is more than was asked for.
	Raised bool
	// Reason says why, for the log and as a warning; empty when not raised.
	Reason string
}

// DecideScale keeps an autoscaler from shrinking a held workload below N at the start of the rollout:
// stable looks idle only because the candidate does its work. In quarantine, which lasts for hours, it does none,
// so that the floor ends there. It never raises above what is there now.
// What a person or any other client asks for is honoured, and so is the limit that a person gave the autoscaler.
func DecideScale(in ScaleInput) ScaleDecision {
	asAsked := ScaleDecision{Replicas: in.To}
	if in.To >= in.From || !in.ByAutoscaler || in.Deployment == nil {
		return asAsked
	}
	hold := parseHold(in.Deployment.Annotations[v1alpha1.HoldAnnotation])
	if hold == nil || !recordCounts(in.Record, in.Deployment) || quarantinedLong(&in.Record.Status, in.Now) {
		return asAsked
	}
	floor := min(in.Record.Status.Replicas, in.From)
	if in.Max > 0 {
		floor = min(floor, in.Max)
	}
	if in.To >= floor {
		return asAsked
	}
	return ScaleDecision{
		Replicas: floor, Raised: true,
		Reason: fmt.Sprintf("headgate: a rollout is under way; deployment/%s keeps %d replicas until it ends", in.Deployment.Name, floor),
	}
}

// quarantinedLong: stable has done all the work for so long that an autoscaler has seen it.
func quarantinedLong(s *v1alpha1.RolloutStatus, now time.Time) bool {
	return s.Phase == v1alpha1.PhaseQuarantined && s.PhaseSince != nil && now.Sub(s.PhaseSince.Time) >= quarantineFloorFor
}
