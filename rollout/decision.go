// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package rollout

import (
	"time"

	"github.com/headgate/headgate/api/v1alpha1"
)

// Decision is the state that should be. The zero value of every field but Status asks for nothing.
type Decision struct {
	// Status is the next record. All weights derive from it.
	Status v1alpha1.RolloutStatus
	// Hold is the annotation that the Deployment should carry; nil when it should have none or when
	// what is there must be left alone. With Release set it ends the hold.
	Hold *v1alpha1.Hold
	// OpenGates names revisions whose closed gates are to be opened.
	OpenGates []string
	// CloseGates names revisions whose opened gates are to be closed.
	CloseGates []string
	// Sizes are the sizes that ReplicaSets should have, raises first; nil where native logic alone decides.
	Sizes []Size
	// NoteReplicas are revisions on whose ReplicaSet N is to be noted as the Deployment controller notes it, which waits for
	// that in vain.
	NoteReplicas []string
	// DeletePods are candidate pods without a gate, and, before a retry, those that failed.
	DeletePods []string
	// DeleteRevisions are empty ReplicaSets of rejected, superseded and aborted candidates.
	DeleteRevisions []string
	// Wake are revisions whose ReplicaSet should try at once to create pods, not when its back-off is over.
	Wake []string
	// Failure is the message of the failure condition that the Deployment must show; empty: none.
	Failure string
	// ClearRetry, ClearPromote and ClearApprove say that the wish was taken up, or can't be any more, and
	// must be removed from the spec, so that it does not hit a later rollout of the same revision.
	ClearRetry, ClearPromote, ClearApprove bool
	// Events are what just happened.
	Events []Event
	// Requeue is when to look again even if nothing changes; zero: not needed.
	Requeue time.Duration
	// Reason says in a few words why this is the decision. For logs and scripts.
	Reason string
}

// Size is the number of replicas that one ReplicaSet should have.
type Size struct {
	Revision string
	Replicas int32
}

// Event is something that happened and that a user should find with `kubectl describe`.
type Event struct {
	// Warning or Normal.
	Warning bool
	// Reason is one CamelCase word, Message one sentence.
	Reason, Message string
}
