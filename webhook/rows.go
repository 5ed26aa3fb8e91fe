// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/headgate/headgate/api/v1alpha1"
)

// stableDownFor is how long stable must be without any available pod before an update, possibly the fix,
// goes out ungated. Longer than a node's blip or a slow readiness probe.
const stableDownFor = 30 * time.Second

// A row decides, or says that it does not match.
type row func(*request) (verdict, bool)

// rows are tried in this order; the first that matches wins.
func rows() []row {
	return []row{
		controllerReleased, // the webhook is called again after it rendered the controller's release
		controllerReleases, // the controller ends the hold
		controllerHolds,    // the controller wants another k, or a hold where one is missing
		nothingToDecide,    // not held, the template stays
		foreignHold,        // a hold of another Deployment, without any rollout here
		unmanaged,          // row 1
		bypassed,           // row 2
		backToStable,       // row 3
		undone,             // row 3
		rejectedAgain,      // row 4
		earlierStable,      // row 5
		cannotHold,         // row 6
		stableIsDown,       // row 6a
		newCandidate,       // row 7
		held,               // row 8
	}
}

// controllerReleased: the webhook is called again in the admission of the controller's release. The
// annotation is gone because the webhook itself dropped it, which the open gate proves.
func controllerReleased(r *request) (verdict, bool) {
	if !r.in.ByController || r.hold == nil || r.fieldsStay() {
		return verdict{}, false
	}
	_, there := r.in.New.Annotations[v1alpha1.HoldAnnotation]
	opened := GateOf(r.in.New.Annotations, r.digest()) == v1alpha1.GateOpen &&
		GateOf(r.in.Old.Annotations, r.digest()) != v1alpha1.GateOpen
	return verdict{row: RowController, action: ActionReleaseForward, asIs: true, reason: "the controller has released"}, !there && opened
}

// controllerReleases: the hold ends as the controller says. What can't be done now is no wish: nothing is
// released while the user has paused (but at N = 0), nor back to a template that is gone. The controller asks again.
func controllerReleases(r *request) (verdict, bool) {
	if !r.controllerSpeaks() || r.arrived.Release == "" || r.calledAgain() || r.paused && !r.empty() {
		return verdict{}, false
	}
	if r.arrived.Release != v1alpha1.ReleaseBack {
		return verdict{row: RowController, action: ActionReleaseForward, reason: "the controller releases forward"}, true
	}
	return verdict{row: RowController, action: ActionReleaseBack, back: true, reason: "the controller releases back"}, r.stable != nil
}

// controllerSpeaks: there is a wish of the controller's about the template that is there. About another one
// it is stale, and must not let out what nobody judged; together with a new one it is none: the controller
// never writes both.
func (r *request) controllerSpeaks() bool {
	return r.in.ByController && r.arrived != nil && !r.changed && r.arrived.Template == r.digest()
}

// keepsWaiting: the webhook is called again, and kept a release that waits while it took the new k.
func (r *request) keepsWaiting() bool {
	return r.calledAgain() && r.hold != nil && r.hold.Release == r.arrived.Release
}

// controllerHolds: another k, or a hold where an update slipped past the webhook.
func controllerHolds(r *request) (verdict, bool) {
	if !r.controllerSpeaks() || r.arrived.Release != "" && !r.keepsWaiting() {
		return verdict{}, false
	}
	if r.hold != nil {
		return verdict{row: RowController, action: ActionKeep, k: r.arrived.K, reason: "the controller states k"}, r.arrived.K != r.hold.K
	}
	return verdict{row: RowController, action: ActionHold, k: r.arrived.K, reason: "the controller wants a hold"}, r.foreign == nil && r.hasRoom()
}

// nothingToDecide: a write that neither begins nor meets a hold.
func nothingToDecide(r *request) (verdict, bool) {
	return verdict{row: RowNothing, action: ActionLeaveAlone, reason: "not held, the template stays"},
		r.hold == nil && r.foreign == nil && !r.changed
}

// foreignHold: the Deployment was created from a manifest that was exported mid-rollout, or restored.
func foreignHold(r *request) (verdict, bool) {
	return verdict{
		row: RowForeign, action: ActionReleaseForward,
		warning: "a hold that came with the manifest, from another rollout, is removed",
		reason:  "a hold without a rollout",
	}, r.foreign != nil && !r.changed
}

// unmanaged is row 1: no policy selects the workload, or it is suspended.
func unmanaged(r *request) (verdict, bool) {
	if r.policy != nil {
		return verdict{}, false
	}
	why := "no policy selects " + r.name()
	if r.in.Policy != nil {
		why = "the policy of " + r.name() + " is suspended"
	}
	v := verdict{row: RowUnmanaged, reason: why}
	switch {
	case r.hold == nil:
		v.action, v.warning = ActionLeaveAlone, "goes out at once: "+why
	case !r.failing():
		v.action, v.warning = ActionReleaseForward, why+": the hold ends, the new version goes out by a rolling update"+r.whenResumed()
	case r.stable != nil:
		v.action, v.back, v.warning = ActionReleaseBack, true, why+": the hold ends; the new version had failed, the stable one is put back"+r.whenResumed()
	default:
		v.action, v.k, v.warning = ActionKeep, r.hold.K, why+"; still held: the new version had failed and there is no stable one to put back"
	}
	return v, true
}

// bypassed is row 2: a reason that was not given before lets this whole update out.
func bypassed(r *request) (verdict, bool) {
	reason := r.bypass()
	if reason == "" || r.bypassUsed() {
		return verdict{}, false
	}
	v := verdict{row: RowBypass, action: ActionLeaveAlone, reason: "bypassed (" + shorten(reason, 60) + ")"}
	v.warning = v.reason + ": goes out at once, without a verdict"
	if r.hold != nil {
		v.action, v.warning = ActionReleaseForward, v.warning+r.whenResumed()
	}
	return v, true
}

// backToStable is row 3: abort, undo, or the old version applied again. It also undoes a hold that was
// put on earlier in the same request.
func backToStable(r *request) (verdict, bool) {
	v := verdict{row: RowStable, action: ActionLeaveAlone, reason: "the template is stable's"}
	if r.hold != nil {
		v.action, v.warning = ActionReleaseBack, "back to the stable version: the rollout ends"+r.whenResumed()
	}
	return v, r.isStable()
}

// undone is row 3 too: for a second or two the version that was superseded is the one before in the native history, and `rollout
// undo` names it. It brings along what that version's ReplicaSet has noted of its own hold; whoever means this version itself, by
// its image or a manifest, leaves the annotation as it is.
func undone(r *request) (verdict, bool) {
	if !r.changed || r.paused || r.hold == nil || r.stable == nil || !r.bringsHoldOfAnother() || slices.ContainsFunc(r.in.ReplicaSets, r.isEarlierStable) {
		return verdict{}, false
	}
	return verdict{
			row: RowStable, action: ActionReleaseBack, back: true,
			warning: "back to the stable version, not to the one before that was superseded: the rollout ends",
			reason:  "an undo to a version that was superseded",
		}, slices.ContainsFunc(r.in.ReplicaSets, func(rs *appsv1.ReplicaSet) bool {
			return EqualTemplate(&rs.Spec.Template, &r.in.New.Spec.Template)
		})
}

// bringsHoldOfAnother: the new object has the annotation of a hold that was on its template, and not on the old object's.
func (r *request) bringsHoldOfAnother() bool {
	return r.arrived != nil && !r.calledAgain() && r.arrived.Template == r.digest() && r.arrived.Template != r.hold.Template
}

// rejectedAgain is row 4: a tool puts the version that failed back again and again. It is kept, never
// reverted, so that the tool has nothing to heal, and never tried before its back-off is over.
func rejectedAgain(r *request) (verdict, bool) {
	if !r.changed || r.record == nil || r.record.Rejected == nil || !r.hasRoom() {
		return verdict{}, false
	}
	rejected := r.record.Rejected
	if rejected.Template != r.digest() || !r.in.Now.Before(rejected.Until.Time) || r.retryWanted(rejected) {
		return verdict{}, false
	}
	return verdict{
		row: RowRejected, action: ActionQuarantine, k: 1,
		warning: "this version failed before; one pod, no requests, until " + rejected.Until.UTC().Format("15:04 UTC") + failedBecause(rejected),
		reason:  "rejected before",
	}, true
}

// earlierStable is row 5: an emergency undo must not wait.
func earlierStable(r *request) (verdict, bool) {
	if !r.changed || r.policy.Rollback == v1alpha1.RollbackManaged || !slices.ContainsFunc(r.in.ReplicaSets, r.isEarlierStable) {
		return verdict{}, false
	}
	v := verdict{
		row: RowEarlierStable, action: ActionLeaveAlone,
		warning: "goes out at once: this version was stable before (rollback: Managed in the policy makes it a rollout)",
		reason:  "this version was stable before",
	}
	if r.hold != nil {
		v.action, v.warning = ActionReleaseForward, v.warning+r.whenResumed()
	}
	return v, true
}

func (r *request) isEarlierStable(rs *appsv1.ReplicaSet) bool {
	if !EqualTemplate(&rs.Spec.Template, &r.in.New.Spec.Template) {
		return false
	}
	if r.record == nil {
		return wasStable(rs, &r.in, &v1alpha1.Rollout{})
	}
	hash := hashOf(rs)
	candidate := r.record.Candidate.Hash == hash || r.record.Candidate.Template == r.digest() // its hash may not be known yet
	rejected := r.record.Rejected != nil && (r.record.Rejected.Revision == hash || r.record.Rejected.Template == r.digest())
	return !candidate && !rejected && wasStable(rs, &r.in, r.in.Record)
}

// cannotHold is row 6: a hold would not work. The user learns why, and what would change it.
func cannotHold(r *request) (verdict, bool) {
	if r.hold != nil || !r.changed {
		return verdict{}, false
	}
	why := CannotHold(r.in.New, r.user, r.in.Split)
	if why == "" {
		return verdict{}, false
	}
	return verdict{row: RowCannotHold, action: ActionLeaveAlone, warning: "goes out at once, not as a rollout: " + why, reason: why}, true
}

// hasRoom: a hold in force stays, whatever else is written. If the API server refuses that, the user reads why.
func (r *request) hasRoom() bool { return r.hold != nil || NoRoomToHold(r.in.New) == "" }

// CannotHold is why an update of a Deployment would not be held, and what would change that; empty when it can be.
// user are the three fields as its author wants them.
func CannotHold(d *appsv1.Deployment, user v1alpha1.UserFields, split SplitState) string {
	switch {
	case user.StrategyType == string(appsv1.RecreateDeploymentStrategyType):
		return "strategy.type is Recreate; it needs RollingUpdate"
	case replicasOf(d) == 0:
		return "replicas is 0; it needs at least 1"
	case surgeIsZero(d, user):
		return "maxSurge is 0; it needs room for at least one more pod"
	case NoRoomToHold(d) != "":
		return NoRoomToHold(d)
	case !split.Possible:
		return joinNonEmpty("; ", split.Reason, split.Remedy)
	}
	return ""
}

func surgeIsZero(d *appsv1.Deployment, user v1alpha1.UserFields) bool {
	if user.MaxSurge == nil {
		return false // the API's default, 25%
	}
	n, err := intstr.GetScaledValueFromIntOrPercent(user.MaxSurge, int(replicasOf(d)), true)
	return err == nil && n == 0
}

// stableIsDown is row 6a: nobody serves, so that the update can only help.
func stableIsDown(r *request) (verdict, bool) {
	since := r.in.StableDownSince
	if !r.changed || !stableIsDownSince(since, r.in.Now) {
		return verdict{}, false
	}
	v := verdict{
		row: RowStableDown, action: ActionLeaveAlone,
		warning: "goes out at once: no pod of the stable version was available for " + formatDuration(r.in.Now.Sub(*since)),
		reason:  "no pod of the stable version was available", // no time: called again, the webhook must write the same
	}
	if r.hold != nil {
		v.action, v.warning = ActionReleaseForward, v.warning+r.whenResumed()
	}
	return v, true
}

func stableIsDownSince(since *time.Time, now time.Time) bool {
	return since != nil && now.Sub(*since) >= stableDownFor
}

// newCandidate is row 7. Mid-rollout it replaces the candidate, from step 0; while that one is being
// promoted, opened pods are kept by native logic alone and the new one gets a single pod on top. So it is on top of
// what was let out and has taken stable's place before it was complete.
func newCandidate(r *request) (verdict, bool) {
	if !r.changed {
		return verdict{}, false
	}
	k := r.steps()[0].CandidateReplicas(replicasOf(r.in.New), r.in.Autoscaled)
	if r.in.Instead || r.record != nil && r.record.Phase == v1alpha1.PhasePromoting {
		k = 1
	}
	return verdict{row: RowCandidate, action: ActionHold, k: k, warning: r.heldWarning(), reason: "a new candidate"}, true
}

// held is row 8: everything of the write goes through but the fields, which are recorded. A release that
// waited for the user to resume is rendered now.
func held(r *request) (verdict, bool) {
	v := verdict{row: RowHeld, action: ActionKeep, reason: "held, the template stays"}
	if r.hold == nil {
		return v, false
	}
	v.k = r.hold.K
	switch {
	case r.waits(r.hold.Release == v1alpha1.ReleaseBack):
	case r.hold.Release == v1alpha1.ReleaseForward:
		v.action, v.reason = ActionReleaseForward, "resumed: the release that waited"
	case r.hold.Release == v1alpha1.ReleaseBack && r.stable != nil:
		v.action, v.back, v.reason = ActionReleaseBack, true, "resumed: the release that waited"
	}
	if v.action == ActionKeep && !r.in.ByController {
		v.warning = r.notedWarning()
	}
	return v, true
}
