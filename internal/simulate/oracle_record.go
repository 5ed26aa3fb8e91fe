// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package simulate

import (
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/headgate/headgate/api/v1alpha1"
)

func (o *oracle) recordWritten(before, after *v1alpha1.RolloutStatus) {
	d := o.w.deployment()
	if d == nil || after.DeploymentUID != d.UID {
		return
	}
	o.stepTaken(before, after)
	if s := after.Stable.Hash; s != "" && s != before.Stable.Hash {
		o.stableIs(s)
	}
	if after.Weight > before.Weight {
		o.weightRises(after)
	}
	if isRejected(after) && after.Weight != 0 {
		o.violated(FailMeansZero, "%s with weight %d", after.Phase, after.Weight)
	}
	if after.Phase == v1alpha1.PhasePromoting && before.Phase != v1alpha1.PhasePromoting {
		o.promoted(after)
	}
	if rescued(after) && o.servingStable() == 0 {
		o.trust(o.versionOf(after.Candidate), "stable serves nobody")
	}
}

func (o *oracle) stableIs(version string) {
	if o.trusted[version] == "" && o.servesAlone(version) {
		o.trust(version, "nothing else serves, since before it was held")
	}
	if o.trusted[version] == "" {
		o.violated(OnlyJudgedServes, "%s was recorded as stable, and nobody has judged it", version)
	}
	o.wasStable[version] = true
}

// servesAlone: all that serves is of this version, and did so before it was held, or came while nobody could close its gate.
func (o *oracle) servesAlone(version string) bool {
	serving := 0
	for _, x := range o.w.api.all(pods) {
		switch pod := x.(*corev1.Pod); {
		case !isReady(pod) || pod.DeletionTimestamp != nil:
		case hashOf(pod) != version || !o.ungated[pod.Name]:
			return false
		default:
			serving++
		}
	}
	return serving > 0
}

// isRejected: rolled back, and its promotion had not begun.
func isRejected(s *v1alpha1.RolloutStatus) bool {
	return s.Phase == v1alpha1.PhaseQuarantined || (s.Phase == v1alpha1.PhaseRollingBack && s.ResumePhase != v1alpha1.PhasePromoting)
}

func (o *oracle) versionOf(r v1alpha1.Revision) string {
	if r.Hash != "" {
		return r.Hash
	}
	return o.versions[r.Template]
}

func (o *oracle) weightRises(after *v1alpha1.RolloutStatus) {
	if !o.peers()[after.Candidate.Hash] && !o.w.acting.client.arriving.peers[after.Candidate.Hash] {
		o.violated(WeightNeedsPeers, "weight goes to %d, and %s has no pod that is ready but for the gate", after.Weight, after.Candidate.Hash)
	}
}

// peers are the versions of which the controller that acts sees a pod that is ready but for the gate.
func (o *oracle) peers() map[string]bool {
	out := map[string]bool{}
	for _, x := range o.w.acting.view.memory.all(pods) {
		if pod := x.(*corev1.Pod); pod.DeletionTimestamp == nil && isTrue(pod, corev1.ContainersReady) {
			out[hashOf(pod)] = true
		}
	}
	return out
}

// known is what counts of this moment for a write that is sent now.
func (o *oracle) known() whenSent { return whenSent{mayGoOut: o.mayGoOut(), peers: o.peers()} }

// promoted: after a Pass or what the policy takes for one, or because the user said so, or because the
// hold was ended for a reason of its own.
func (o *oracle) promoted(s *v1alpha1.RolloutStatus) {
	version := o.versionOf(s.Candidate)
	told := o.w.analysis.told
	wishes := o.w.api.memory[records][webKey].(*v1alpha1.Rollout).Spec
	switch {
	case s.Verdict != nil && s.Verdict.Cause == "Released":
		if o.trusted[version] == "" {
			o.violated(OnlyJudgedServes, "%s counts as released, and nobody has released it", version)
		}
		return
	case wishes.Promote != nil && wishes.Promote.Revision == version:
		o.trust(version, "the user promotes it")
	case o.verdictCounts(told.Result):
		if missing := o.unwalked(); missing != "" {
			o.violated(JudgedInForce, "%s is promoted, and %s", version, missing)
		}
		o.trust(version, "promoted after "+string(told.Result))
	default:
		o.violated(OnlyJudgedServes, "%s is promoted with the verdict %q", version, told.Result)
	}
}

// passed is told each pass of a controller.
func (o *oracle) passed(r *replica, faulted bool) {
	if !r.clean || faulted {
		return
	}
	s := o.w.record()
	o.starves(s)
	told := o.w.analysis.told
	o.fails++
	if told.Result != v1alpha1.ResultFail || s.Candidate.Hash != o.w.analysis.toldFor || !atWork(s) || rescued(s) {
		o.fails = 0
	}
	if o.fails > maxFailPasses {
		o.violated(FailMeansZero, "told Fail in %d passes, and %s is %s with weight %d", o.fails, s.Candidate.Hash, s.Phase, s.Weight)
	}
	for name, passes := range o.exempt {
		if !o.servesUngated(name, s) {
			delete(o.exempt, name)
			continue
		}
		if o.exempt[name] = passes + 1; passes > maxUngatedPasses {
			o.violated(OnlyJudgedServes, "pod %s came without a gate and still serves after %d passes", name, passes)
		}
	}
}

// atWork: the candidate has a weight that a verdict can take away.
func atWork(s *v1alpha1.RolloutStatus) bool {
	switch s.Phase {
	case v1alpha1.PhaseStepping, v1alpha1.PhasePaused:
		return s.Weight > 0
	case v1alpha1.PhasePromoting:
		return s.Weight > 0 && !releasedStatus(s)
	}
	return false
}

// servesUngated: a pod of the candidate that came without a gate is still there and ready. It has to be, as long as stable
// has too few: then the stable template is back, and native logic takes it away.
func (o *oracle) servesUngated(name string, s *v1alpha1.RolloutStatus) bool {
	pod, ok := o.w.api.memory[pods][keyOf("shop", name)].(*corev1.Pod)
	if !ok || pod.DeletionTimestamp != nil || !isReady(pod) {
		return false
	}
	goesBack := s.Phase == v1alpha1.PhaseRollingBack && s.ResumePhase == v1alpha1.PhasePromoting
	if goesBack && int32(o.servingStable()) < *o.w.deployment().Spec.Replicas {
		return false
	}
	return o.trusted[hashOf(pod)] == "" && hashOf(pod) != s.Stable.Hash && s.Candidate.Hash == hashOf(pod)
}

// starves: growing back from 0 while held, the native controller makes nothing but candidates, and stable
// serves nobody. So the hold must have ended by then, if the controller has seen N = 0 at all.
func (o *oracle) starves(s *v1alpha1.RolloutStatus) {
	d := o.w.deployment()
	if d == nil || s.Stable.Hash == "" {
		return
	}
	if *d.Spec.Replicas == 0 {
		o.zeros++
		return
	}
	held := d.Annotations[v1alpha1.HoldAnnotation] != "" && o.holds(d, s)
	size := func(version string) int32 {
		if rs, ok := o.w.api.memory[replicaSets][keyOf("shop", "web-"+version)].(*appsv1.ReplicaSet); ok {
			return sizeOf(rs)
		}
		return 0
	}
	if !held || size(s.Stable.Hash) > 0 || size(versionOf(&d.Spec.Template)) == 0 {
		o.zeros, o.starving = 0, 0
		return
	}
	if o.starving++; o.zeros > maxZeroPasses && o.starving > maxStarvingPasses {
		o.violated(StableKeepsPods, "stable has no pods, and %s has %d", versionOf(&d.Spec.Template), size(versionOf(&d.Spec.Template)))
	}
}

// Passes of a controller that sees everything and meets no fault.
const (
	// maxFailPasses: one to take the Fail up. A rollout that begins at this very moment does not hear what is
	// said about the one before, which makes two.
	maxFailPasses = 2
	// maxZeroPasses: one that sees N = 0 and ends the hold. maxStarvingPasses: the native controller comes first,
	// then repair.
	maxZeroPasses, maxStarvingPasses = 2, 4
	// maxUngatedPasses: a pod without a gate is deleted by the pass that sees it.
	maxUngatedPasses = 3
)

// releasedStatus: the user let the version out; what happens to it then is not Headgate's to judge.
func releasedStatus(s *v1alpha1.RolloutStatus) bool {
	return s.Verdict != nil && s.Verdict.Cause == "Released"
}

// rescued: stable serves nobody, so that a candidate that fails is still the better one.
func rescued(s *v1alpha1.RolloutStatus) bool {
	return s.Verdict != nil && s.Verdict.Cause == "StableDown"
}

func (o *oracle) roundIsOver() {
	o.rejectedIsOver()
	o.sizes = slices.DeleteFunc(o.sizes, func(s sizeAt) bool {
		return !s.until.IsZero() && o.w.api.now.Sub(s.until) > time.Minute
	})
}
