// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"time"

	appsv1 "k8s.io/api/apps/v1"

	"github.com/headgate/headgate/api/v1alpha1"
)

// HoldInput is everything that the decision about an update of a Deployment depends on. Nothing in it
// is ever modified. Whether the request is a dry run is not in it: a dry run shows what would happen.
type HoldInput struct {
	// Old is the stored object, New the one to be admitted. New may already be the webhook's own work:
	// it is called again when another webhook changed the object after it.
	Old, New *appsv1.Deployment
	// Policy is the one that selects the workload; nil when none does. A suspended one counts as none.
	Policy *v1alpha1.RolloutPolicySpec
	// PolicyTrouble says which policy that is and what is wrong with it, for whoever updates; empty: nothing is known to be.
	PolicyTrouble string
	// Record is the workload's Rollout; nil when there is none. One for another Deployment counts as none.
	Record *v1alpha1.Rollout
	// ReplicaSets are those that the Deployment owns.
	ReplicaSets []*appsv1.ReplicaSet
	// Split says whether requests can be split.
	Split SplitState
	// Autoscaled says that a HorizontalPodAutoscaler targets the workload.
	Autoscaled bool
	// StableDownSince is since when no stable pod was available on ready nodes; nil while one is.
	StableDownSince *time.Time
	// Instead says that Split and StableDownSince are about another revision than the recorded stable one, which serves
	// nobody, while that one was let out and does.
	Instead bool
	// ByController says that Headgate's controller asks.
	ByController bool
	// Now is the only clock.
	Now time.Time
}

// Row names the rule that decided: a row of the table in DESIGN.md §4, or one of the three below. It
// labels a metric.
type Row string

// The rows, in the order in which they are tried.
const (
	// RowController: the controller states its wish in the annotation.
	RowController Row = "controller"
	// RowNothing: neither held nor a new template; nothing to decide.
	RowNothing Row = "none"
	// RowForeign: a hold that belongs to no rollout of this Deployment is released.
	RowForeign       Row = "foreign"
	RowUnmanaged     Row = "1"
	RowBypass        Row = "2"
	RowStable        Row = "3"
	RowRejected      Row = "4"
	RowEarlierStable Row = "5"
	RowCannotHold    Row = "6"
	RowStableDown    Row = "6a"
	RowCandidate     Row = "7"
	RowHeld          Row = "8"
)

// Action is what is done with an update.
type Action string

// The actions.
const (
	// ActionLeaveAlone: the update goes out as the user wrote it.
	ActionLeaveAlone Action = "LeaveAlone"
	// ActionHold: gates closed and the three fields, for a new candidate.
	ActionHold Action = "Hold"
	// ActionQuarantine: as ActionHold, with one pod, for a template that was rejected before.
	ActionQuarantine Action = "Quarantine"
	// ActionKeep: the hold in force stays.
	ActionKeep Action = "Keep"
	// ActionReleaseForward ends the hold with the new template, ActionReleaseBack with the stable one.
	ActionReleaseForward Action = "ReleaseForward"
	ActionReleaseBack    Action = "ReleaseBack"
)

// HoldDecision is what to admit, and why.
type HoldDecision struct {
	// Row is the rule that decided, Action what it does.
	Row    Row
	Action Action
	// Deployment is what to admit. It differs from New in Headgate's annotations, the three fields with
	// strategy.type and, for a ReleaseBack that the controller asked for or row 1 decided, the template.
	Deployment *appsv1.Deployment
	// Warnings are shown to whoever asked (kubectl prints them). At most 256 bytes each.
	Warnings []string
	// Reason says in a few words why. For logs.
	Reason string
}

// DecideHold decides about an update of a Deployment: an ordered list of rules, the first that matches
// wins. It is total, has no clock and no I/O, and is a fixed point: given its own result as New, it
// decides the same.
func DecideHold(in HoldInput) HoldDecision {
	r := newRequest(in)
	for _, rule := range rows() {
		if v, ok := rule(r); ok {
			return r.finish(v)
		}
	}
	return r.finish(verdict{row: RowNothing, action: ActionLeaveAlone}) // unreachable: the last row always matches
}

// verdict is what a rule says; finish makes it a Deployment.
type verdict struct {
	row    Row
	action Action
	// k is the number of candidate pods, for Hold, Quarantine and Keep.
	k int32
	// back asks to put the stable template in, for ReleaseBack.
	back bool
	// asIs admits the fields as they were written: they are the webhook's own work already.
	asIs bool
	// warning is shown to the user, without the prefix; empty: none.
	warning string
	// reason is for logs and, of an update that goes out, for the Event: what the warning gives as the reason.
	reason string
}

// finish builds the object to admit.
func (r *request) finish(v verdict) HoldDecision {
	out := r.in.New.DeepCopy()
	r.takeOwnAnnotations(out)
	switch v.action {
	case ActionHold, ActionQuarantine, ActionKeep:
		r.renderHeld(out, v)
	case ActionReleaseForward, ActionReleaseBack:
		r.renderReleased(out, v)
	default:
		r.renderLeftAlone(out)
	}
	r.noteReason(out, v)
	if _, held := out.Annotations[v1alpha1.HoldAnnotation]; !held && annotationBytes(out.Annotations) > maxAnnotationBytes {
		// The user's annotations leave no room even for the gate's. Without them the controller opens the gates.
		dropOwnAnnotations(out)
	}
	if (r.hold != nil || v.action != ActionLeaveAlone) && !validFields(r.user, out.Spec.MinReadySeconds) {
		// What the API server refuses must be refused now, with its own message, not at the end of a rollout.
		setFields(out, r.user)
		v.reason = "the API server will refuse the fields"
	}
	return HoldDecision{Row: v.row, Action: v.action, Deployment: out, Warnings: r.warnings(v), Reason: v.reason}
}

// noteReason says why a new template goes out, for the Event. What the webhook wrote itself a moment ago stays.
func (r *request) noteReason(d *appsv1.Deployment, v verdict) {
	goesOut := v.action == ActionLeaveAlone || v.action == ActionReleaseForward
	if !r.changed || r.isStable() || !goesOut || gateOf(d) != v1alpha1.GateOpen {
		return
	}
	why := v.reason
	if v.asIs {
		why = r.in.New.Annotations[v1alpha1.GateReasonAnnotation]
	}
	setReason(d, why)
}

// takeOwnAnnotations removes what others wrote in the annotations that only the webhook writes, and puts
// back what the old object says about the gate.
func (r *request) takeOwnAnnotations(d *appsv1.Deployment) {
	for _, key := range OwnAnnotations() {
		old, ok := r.in.Old.Annotations[key]
		if ok && key != v1alpha1.HoldAnnotation {
			annotate(d, key, old)
			continue
		}
		dropAnnotation(d, key)
	}
}

// renderHeld writes the hold in force.
func (r *request) renderHeld(d *appsv1.Deployment, v verdict) {
	h := v1alpha1.Hold{K: v.k, Template: TemplateDigest(d.Spec.Template), User: r.user, UID: r.in.Old.UID}
	if v.action == ActionKeep && r.hold != nil {
		h.Release = r.hold.Release
	}
	h = r.renderFields(d, h)
	if h.Release != "" {
		renderWaitingRelease(d, h, r.stableTemplate())
		return
	}
	renderHold(d, h, false)
}

// renderReleased ends the hold, or notes that it will end when the user resumes.
func (r *request) renderReleased(d *appsv1.Deployment, v verdict) {
	if v.asIs {
		setGate(d, v1alpha1.GateOpen)
		return
	}
	h := v1alpha1.Hold{Release: v1alpha1.ReleaseForward, User: r.user, UID: r.in.Old.UID}
	stable := r.stableTemplate()
	if v.action == ActionReleaseBack {
		h.Release = v1alpha1.ReleaseBack
	}
	if !v.back {
		stable = nil
	}
	if !r.waits(v.back) {
		renderRelease(d, h, stable)
		return
	}
	h.K, h.Template = r.hold.K, TemplateDigest(d.Spec.Template)
	renderWaitingRelease(d, r.renderFields(d, h), r.stableTemplate())
}

// renderFields writes the fields of a hold that goes on, and completes it.
func (r *request) renderFields(d *appsv1.Deployment, h v1alpha1.Hold) v1alpha1.Hold {
	if r.pauses() {
		h.K = r.room()
	}
	h.From = r.derivedFrom(h)
	switch {
	case r.fieldsStay() && !r.pauses():
		setFields(d, FieldsOf(r.in.Old))
	case d.Spec.Paused && !r.fieldsStay():
		setFields(d, r.user)
	default:
		setFields(d, heldFields(h.K))
	}
	return h
}

// renderLeftAlone admits the user's object. A new template is marked as ungated wherever somebody might
// read that: under a policy, with a record, or where an older decision would otherwise be copied on.
func (r *request) renderLeftAlone(d *appsv1.Deployment) {
	if !equalFields(r.user, FieldsOf(d)) {
		setFields(d, r.user) // a hold came with the manifest
	}
	_, marked := r.in.Old.Annotations[v1alpha1.GateAnnotation]
	if r.in.ByController && GateOf(r.in.New.Annotations, r.digest()) == v1alpha1.GateOpen {
		setGate(d, v1alpha1.GateOpen) // a direct write, or the webhook is called again after a release
		return
	}
	if r.changed && (r.policy != nil || r.record != nil || marked) {
		setGate(d, v1alpha1.GateOpen)
	}
}

// derivedFrom keeps the old mark while the hold says the same, so that a write that changes nothing
// stays one.
func (r *request) derivedFrom(h v1alpha1.Hold) string {
	if r.hold != nil {
		h.From = r.hold.From
		if h.String() == r.hold.String() {
			return r.hold.From
		}
	}
	return r.in.Old.ResourceVersion
}
