// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/headgate/headgate/api/v1alpha1"
)

// request is an update as the rules see it: who holds, what the user wants, what is stable.
type request struct {
	in HoldInput
	// policy and record are the input's, nil where they count as none.
	policy *v1alpha1.RolloutPolicySpec
	record *v1alpha1.RolloutStatus
	// hold is the hold in force on the old object; nil when it is not held.
	hold *v1alpha1.Hold
	// foreign is a hold on the old object that belongs to no rollout of this Deployment.
	foreign *v1alpha1.Hold
	// arrived is the hold that the new object carries: the webhook's own work if it is called again,
	// the controller's wish, or something that a client brought along.
	arrived *v1alpha1.Hold
	// user is what the user wants the fields to be, this write included.
	user v1alpha1.UserFields
	// changed: the template is not the old one.
	changed bool
	// paused: in the old object or in the new one.
	paused bool
	// stable is the stable revision's ReplicaSet; nil when there is none (any more).
	stable *appsv1.ReplicaSet
	// template is the digest of the new template; computed when first needed.
	template string
}

func newRequest(in HoldInput) *request {
	r := &request{
		in:      in,
		changed: !EqualTemplate(&in.Old.Spec.Template, &in.New.Spec.Template),
		paused:  in.Old.Spec.Paused || in.New.Spec.Paused,
		stable:  StableReplicaSet(in.Old, in.Record, in.ReplicaSets),
	}
	if in.Policy != nil && !in.Policy.Suspend {
		r.policy = in.Policy
	}
	if recordCounts(in.Record, in.Old) {
		r.record = &in.Record.Status
	}
	r.arrived = parseHold(in.New.Annotations[v1alpha1.HoldAnnotation])
	r.findHold()
	r.user = r.wishes()
	return r
}

// parseHold treats what can't be read as nothing: it is dropped, or restored from a better copy.
func parseHold(value string) *v1alpha1.Hold {
	h, err := v1alpha1.ParseHold(value)
	if err != nil {
		return nil
	}
	return h
}

// findHold looks for the hold in force: the old object's annotation if the webhook put it on this very
// Deployment, else the record's copy.
func (r *request) findHold() {
	old := r.in.Old
	if h := parseHold(old.Annotations[v1alpha1.HoldAnnotation]); h != nil {
		if r.isOurs(h) {
			r.hold = h
		} else {
			r.foreign = h
		}
		return
	}
	if r.record == nil || r.record.Hold == "" {
		return
	}
	h := parseHold(r.record.Hold)
	if h == nil || !r.isOurs(h) || h.Release != "" {
		return
	}
	// An open gate says that the hold ended; the record may not know yet.
	if h.Template != TemplateDigest(old.Spec.Template) || GateOfDeployment(old, r.in.ReplicaSets) == v1alpha1.GateOpen {
		return
	}
	if f := FieldsOf(old); !isRendered(f) {
		h.User = f
	}
	r.hold = h
}

// isOurs: the hold was put on this Deployment. One without a mark counts where there is a record.
func (r *request) isOurs(h *v1alpha1.Hold) bool {
	if h.UID == "" {
		return r.record != nil
	}
	return h.UID == r.in.Old.UID
}

// wishes reads the user's fields out of the new object.
func (r *request) wishes() v1alpha1.UserFields {
	written, before := FieldsOf(r.in.New), FieldsOf(r.in.Old)
	if r.hold == nil && r.foreign == nil {
		return r.wishesUnheld(written, before)
	}
	recorded := r.hold
	if recorded == nil {
		recorded = r.foreign
	}
	rendered := []v1alpha1.UserFields{before}
	if r.arrived != nil {
		// A manifest exported at another k, or the webhook's own work.
		rendered = append(rendered, heldFields(r.arrived.K))
		if r.calledAgain() {
			recorded = r.arrived
		}
	} else if isRendered(written) {
		rendered = append(rendered, written) // another k, of which another webhook has dropped the annotation
	}
	return mergeWishes(written, recorded.User, rendered...)
}

// wishesUnheld: the fields are the user's, unless a hold came with them. An undo brings the annotation
// of an old ReplicaSet along, but no fields. A hold's fields without its annotation are the webhook's own work
// of a moment ago, of which another webhook has dropped the annotation.
func (r *request) wishesUnheld(written, before v1alpha1.UserFields) v1alpha1.UserFields {
	if r.arrived == nil && isRendered(written) {
		return before
	}
	if r.arrived == nil || equalFields(written, before) && !isRendered(before) {
		return written
	}
	if !isRendered(written) {
		return written
	}
	if r.in.ByController {
		return copyFields(r.arrived.User) // a hold that was lost: the controller has the copy
	}
	return mergeWishes(written, r.arrived.User, heldFields(r.arrived.K))
}

// calledAgain: the hold in the new object was derived from the very object that is stored, so it is the
// webhook's own work of a moment ago.
func (r *request) calledAgain() bool {
	return r.arrived != nil && r.arrived.From != "" && r.arrived.From == r.in.Old.ResourceVersion
}

// fieldsStay: nothing may change while the user has paused, or stable loses pods (DESIGN.md §3). Fields
// that were never rendered, because he paused before the hold came, are the exception: they are rendered
// in the write that resumes, or the native rolling update would begin with them.
func (r *request) fieldsStay() bool {
	return r.paused && !r.empty() && r.hold != nil && isRendered(FieldsOf(r.in.Old))
}

// pauses: the fields are a hold's, and this is the write that pauses. They get room for the pods that there are: k may
// have been lowered a moment ago, with its pods still there, and the Deployment controller, which while paused does
// nothing but share out N + k, would take the difference from stable too.
func (r *request) pauses() bool {
	return r.fieldsStay() && !r.in.Old.Spec.Paused && r.in.New.Spec.Paused
}

// room is k, or more where there are more pods than N + k: those of the candidate, and of one that was superseded.
// What stable has too many, after a user's own scale, is not counted.
func (r *request) room() int32 {
	all, others := int32(0), int32(0)
	for _, rs := range r.in.ReplicaSets {
		n := int32(1)
		if rs.Spec.Replicas != nil {
			n = *rs.Spec.Replicas
		}
		if all += n; r.stable == nil || hashOf(rs) != hashOf(r.stable) {
			others += n
		}
	}
	return max(r.hold.K, min(all-replicasOf(r.in.Old), others))
}

// waits: a release has to wait for the user to resume, for the fields' sake or, when the stable template is
// to be rendered, for the template's.
func (r *request) waits(back bool) bool {
	return r.fieldsStay() || r.hold != nil && back && r.in.New.Spec.Paused && !r.empty()
}

// empty: at N = 0 there is no pod that a change could cost, paused or not. What must not wait there is the
// release back: growing again, the native controller would make nothing but candidates.
func (r *request) empty() bool {
	return replicasOf(r.in.Old) == 0 && replicasOf(r.in.New) == 0
}

// stableTemplate is the template to go back to; nil when it is not known.
func (r *request) stableTemplate() *corev1.PodTemplateSpec {
	if r.stable == nil {
		return nil
	}
	return &r.stable.Spec.Template
}

// isStable: the new template is the stable revision's.
func (r *request) isStable() bool {
	if r.stable != nil {
		return EqualTemplate(&r.in.New.Spec.Template, &r.stable.Spec.Template)
	}
	return r.record != nil && r.record.Stable.Template != "" && r.record.Stable.Template == r.digest()
}

// digest is the new template's.
func (r *request) digest() string {
	if r.template == "" {
		r.template = TemplateDigest(r.in.New.Spec.Template)
	}
	return r.template
}

// failing: there is evidence against the new template. A verdict about another candidate says nothing
// about this one.
func (r *request) failing() bool {
	if r.record == nil {
		return false
	}
	if rej := r.record.Rejected; rej != nil && rej.Template == r.digest() {
		return true
	}
	if r.record.Candidate.Template != r.digest() {
		return false
	}
	switch r.record.Phase {
	case v1alpha1.PhaseRollingBack, v1alpha1.PhaseQuarantined:
		return true
	}
	return r.record.Verdict != nil && r.record.Verdict.Result == v1alpha1.ResultFail
}
