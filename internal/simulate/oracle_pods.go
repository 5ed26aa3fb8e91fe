// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package simulate

import (
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/headgate/headgate/api/v1alpha1"
	"github.com/headgate/headgate/webhook"
)

// closed: a version is a candidate (again). Its pods that serve already are not taken away by the hold.
func (o *oracle) closed(version string) {
	if version == o.w.record().Stable.Hash {
		return
	}
	delete(o.trusted, version)
	all, _ := o.podsOf(version)
	for _, pod := range all {
		if !webhook.HasGate(pod) || isTrue(pod, v1alpha1.GateCondition) {
			o.ungated[pod.Name] = true
		}
	}
}

// superseded: where a version was let out, and the decision to hold it again never came to its ReplicaSet, native logic keeps
// its pods as it did before.
func (o *oracle) superseded(version string) {
	rs, ok := o.w.api.memory[replicaSets][keyOf(webKey.Namespace, webKey.Name+"-"+version)].(*appsv1.ReplicaSet)
	if ok && o.wereTrusted[version] && webhook.GateOf(rs.Annotations, webhook.TemplateDigest(rs.Spec.Template)) == v1alpha1.GateOpen {
		o.trust(version, "it was let out, and held again for nobody to see")
	}
}

func (o *oracle) podWritten(by string, before, after *corev1.Pod) {
	switch {
	case before == nil:
		o.podMade(after)
	case after == nil || (after.DeletionTimestamp != nil && before.DeletionTimestamp == nil):
		o.podTaken(by, before)
	case isReady(after) && !isReady(before):
		o.podReady(after)
	case isReady(before) && isTrue(before, v1alpha1.GateCondition) && !isTrue(after, v1alpha1.GateCondition):
		o.servingTaken(by, after)
	}
}

func (o *oracle) podMade(pod *corev1.Pod) {
	version := hashOf(pod)
	switch {
	case !o.w.chain.enabled(), o.w.currentPolicy() == nil && !webhook.HasGate(pod):
		o.trust(version, "a pod was made where Headgate has no say")
	case o.w.chain.handler(webhook.PodsPath) == nil:
		o.ungated[pod.Name] = true
	}
}

func (o *oracle) podReady(pod *corev1.Pod) {
	version := hashOf(pod)
	if o.trusted[version] != "" || version == o.w.record().Stable.Hash {
		return
	}
	if o.ungated[pod.Name] {
		o.exempt[pod.Name] = 0 // the controller must take it away
		return
	}
	o.violated(OnlyJudgedServes, "pod %s is ready (gate: %v)", pod.Name, webhook.HasGate(pod))
}

// podTaken: a ready pod of stable goes because its ReplicaSet became smaller.
func (o *oracle) podTaken(by string, pod *corev1.Pod) {
	d, s := o.w.deployment(), o.w.record()
	if isReady(pod) && pod.DeletionTimestamp == nil {
		o.servingTaken(by, pod)
	}
	if by != o.w.sets.by || !isReady(pod) || pod.DeletionTimestamp != nil || d == nil || hashOf(pod) != s.Stable.Hash {
		return
	}
	if !o.holds(d, s) {
		return
	}
	left := o.readyBeside(pod) + o.thirdServing(d, s)
	if left < o.least()-o.beingShrunk(d, s)-o.cleanedUp() {
		o.violated(StableKeepsPods, "stable pod %s is taken, %d are left of %d", pod.Name, left, o.least())
	}
}

// readyBeside counts the other pods of the revision that say they are ready, also where their node has just failed: nobody
// can know that yet.
func (o *oracle) readyBeside(pod *corev1.Pod) (n int32) {
	all, _ := o.podsOf(hashOf(pod))
	for _, p := range all {
		if p.Name != pod.Name && isReady(p) {
			n++
		}
	}
	return n
}

// servingTaken: Headgate closes or deletes what serves. The native controller has counted such pods, so that stable must
// have all of its own by then.
func (o *oracle) servingTaken(by string, pod *corev1.Pod) {
	s := o.w.record()
	if by != controllerUser || hashOf(pod) == s.Stable.Hash || !o.w.acting.current || o.w.deployment() == nil {
		return
	}
	if n := int32(o.servingStable()); n < o.least() {
		o.violated(StableKeepsPods, "Headgate takes pod %s, which serves, and stable has %d of %d", pod.Name, n, o.least())
	}
}

// holds: the hold decides about sizes. Once a gate was open native logic alone does, and the way back from
// a promotion too; a version that the user let out himself replaces stable.
func (o *oracle) holds(d *appsv1.Deployment, s *v1alpha1.RolloutStatus) bool {
	if d.Annotations[v1alpha1.HoldAnnotation] == "" || s.Phase == v1alpha1.PhasePromoting || s.ResumePhase == v1alpha1.PhasePromoting {
		return false
	}
	return o.trusted[versionOf(&d.Spec.Template)] == ""
}

// thirdServing counts ready pods that are not stable's nor came with the hold: a promotion, or a version that the user
// had let out, was under way when the candidate came, which may be that version itself. Native logic alone keeps these
// pods and stable's together (DESIGN.md §5, "once a gate was open"). When N changes it shares it out among all of them, ready
// or not.
func (o *oracle) thirdServing(d *appsv1.Deployment, s *v1alpha1.RolloutStatus) (n int32) {
	for _, x := range o.w.api.all(pods) {
		pod := x.(*corev1.Pod)
		v, sharesN := hashOf(pod), o.trusted[hashOf(pod)] != "" && o.scaled()
		if v != s.Stable.Hash && (v != versionOf(&d.Spec.Template) || o.ungated[pod.Name]) && pod.DeletionTimestamp == nil && (isReady(pod) || sharesN) {
			n++
		}
	}
	return n
}

// scaled: N has just changed.
func (o *oracle) scaled() bool {
	return len(o.sizes) > 1 && o.w.api.now.Sub(o.sizes[len(o.sizes)-2].until) <= 15*time.Second
}

// beingShrunk is by how many pods there are more than the hold's fields allow of versions that nobody let out, while N has
// just changed. While the user has paused, a new k is not in the fields yet, and repair has to wait. When k
// is lowered the annotation comes first, because the native controller would raise the ReplicaSet again; and when a third
// version comes, the second one's pods may outlive pods of stable that are not ready. A change of N in that moment makes
// the native controller share out the smaller total among the sizes that there are, and what rounding leaves over goes at
// the expense of the largest, which is stable. Repair gives the pods back in its next pass.
func (o *oracle) beingShrunk(d *appsv1.Deployment, s *v1alpha1.RolloutStatus) int32 {
	if d.Annotations[v1alpha1.HoldAnnotation] == "" || !o.scaled() {
		return 0
	}
	held := int32(0)
	for _, x := range o.w.api.all(replicaSets) {
		if rs := x.(*appsv1.ReplicaSet); metav1.IsControlledBy(rs, d) && hashOf(rs) != s.Stable.Hash && o.trusted[hashOf(rs)] == "" {
			held += sizeOf(rs)
		}
	}
	allowed, _ := fenceposts(d)
	return max(0, held-allowed)
}

// resized: the native controller makes stable smaller. Where a third version has come and the second one has pods yet, it
// first cleans up what is not available, beginning with the oldest version (DESIGN.md §3). It knows what is available from
// the ReplicaSet's status, and a pod may have got ready a moment ago. Repair gives it back.
func (o *oracle) resized(by string, before, after *appsv1.ReplicaSet) {
	d := o.w.deployment()
	if by != o.w.native.by || before == nil || after == nil || d == nil || hashOf(after) != o.w.record().Stable.Hash {
		return
	}
	unready := sizeOf(before) - before.Status.AvailableReplicas
	if taken := sizeOf(before) - sizeOf(after); taken > 0 && unready > 0 && o.supersededHasPods(d) {
		o.unreadyTaken, o.unreadyTakenAt = min(unready, taken), o.w.api.now
	}
}

// supersededHasPods: of a version that is neither stable nor the template's.
func (o *oracle) supersededHasPods(d *appsv1.Deployment) bool {
	stable, template := o.w.record().Stable.Hash, versionOf(&d.Spec.Template)
	return slices.ContainsFunc(o.w.api.all(replicaSets), func(x client.Object) bool {
		rs := x.(*appsv1.ReplicaSet)
		return metav1.IsControlledBy(rs, d) && hashOf(rs) != stable && hashOf(rs) != template && sizeOf(rs) > 0
	})
}

// cleanedUp is how many of stable's pods go because they were not available a moment ago.
func (o *oracle) cleanedUp() int32 {
	if o.w.api.now.Sub(o.unreadyTakenAt) > 15*time.Second {
		return 0
	}
	return o.unreadyTaken
}

// least is the smallest N that a native controller may still act on.
func (o *oracle) least() int32 {
	least := *o.w.deployment().Spec.Replicas
	for _, s := range o.sizes {
		if o.w.api.now.Sub(s.until) < 15*time.Second {
			least = min(least, s.n)
		}
	}
	return least
}
