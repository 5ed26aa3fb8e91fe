// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package simulate

import (
	"fmt"
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/headgate/headgate/api/v1alpha1"
	"github.com/headgate/headgate/webhook"
)

// Invariant names what must never fail.
type Invariant string

// The invariants.
const (
	// StableKeepsPods: stable never loses a ready pod to the hold.
	StableKeepsPods Invariant = "stable keeps its pods"
	// OnlyJudgedServes: nothing of an unjudged revision is ready.
	OnlyJudgedServes Invariant = "only what was judged is ready"
	// WeightNeedsPeers: no weight without a ready peer.
	WeightNeedsPeers Invariant = "no weight without a ready peer"
	// FailMeansZero: a Fail leads to weight 0 in bounded steps, and there it stays.
	FailMeansZero Invariant = "a Fail leads to weight 0"
	// FieldsComeBack: the user's fields come back exactly, and N and the template are his.
	FieldsComeBack Invariant = "the user's fields come back"
	// ComesToRest: every history ends in Idle or Quarantined once the world is quiet, and nobody writes any more.
	ComesToRest Invariant = "comes to rest"
	// UndoReachesStable: `undo` of what is in quarantine reaches stable.
	UndoReachesStable Invariant = "undo reaches stable"
	// NoPanic: production code never panics.
	NoPanic Invariant = "no panic"
)

// Violation is an invariant that did not hold.
type Violation struct {
	Invariant Invariant
	// At is the time in the history, Message what was seen.
	At      time.Duration
	Message string
}

// String is the violation in a line.
func (v *Violation) String() string {
	return fmt.Sprintf("[%s] %s: %s", v.At, v.Invariant, v.Message)
}

// oracle watches every write and knows, independently of Headgate's code, what may happen.
type oracle struct {
	w         *world
	violation *Violation
	uid       types.UID

	// trusted are the versions that may serve, and why; wasStable those that have been stable.
	trusted   map[string]string
	wasStable map[string]bool
	// exempt are pods that were let in while nobody could close their gate, with the number of clean passes
	// of the controller since they are ready.
	exempt map[string]int
	// sizes are the recent values of N: native controllers act on what they saw a moment ago.
	sizes []sizeAt
	// fails are the passes in a row in which the controller was told Fail and did not take it up.
	fails   int
	ungated map[string]bool // pods made while the webhook for pods did not answer
	// versions by the digest of their template: a record may not know a revision's hash yet.
	versions map[string]string
	// zeros and starving count the passes that saw N = 0, and after that stable without any pod.
	zeros, starving int
	// trace, if set, gets a line for every write.
	trace func(string)
}

type sizeAt struct {
	until time.Time // zero: still
	n     int32
}

func newOracle(w *world) *oracle {
	o := &oracle{w: w, versions: map[string]string{}}
	o.reset()
	return o
}

func (o *oracle) reset() {
	o.trusted, o.wasStable = map[string]string{}, map[string]bool{}
	o.exempt, o.ungated, o.sizes, o.fails = map[string]int{}, map[string]bool{}, nil, 0
	o.zeros, o.starving = 0, 0
}

func (o *oracle) violated(i Invariant, format string, args ...any) {
	if o.violation == nil {
		o.violation = &Violation{i, o.w.api.now.Sub(noon), fmt.Sprintf(format, args...)}
		o.log("VIOLATION %s", o.violation)
	}
}

func (o *oracle) log(format string, args ...any) {
	if o.trace != nil {
		o.trace(fmt.Sprintf("[%s] ", o.w.api.now.Sub(noon)) + fmt.Sprintf(format, args...))
	}
}

// created: the first version of a new Deployment simply starts.
func (o *oracle) created(version string) {
	o.reset()
	o.uid = o.w.deployment().UID
	o.trust(version, "the first version")
	o.sizes = []sizeAt{{n: o.w.user.replicas}}
}

func (o *oracle) trust(version, why string) {
	if o.trusted[version] == "" {
		o.log("%s may serve: %s", version, why)
	}
	o.trusted[version] = why
}

// wrote is told every write.
func (o *oracle) wrote(by string, before, after client.Object) {
	if o.trace != nil {
		o.describe(by, before, after)
	}
	switch x := orElse(after, before).(type) {
	case *appsv1.Deployment:
		if b, ok := before.(*appsv1.Deployment); ok && after != nil && client.ObjectKeyFromObject(x) == webKey {
			o.deploymentWritten(by, b, x)
		}
	case *corev1.Pod:
		b, _ := before.(*corev1.Pod)
		a, _ := after.(*corev1.Pod)
		if o.isOurs(x) {
			o.podWritten(by, b, a)
		}
	case *v1alpha1.Rollout:
		if after != nil && before != nil {
			o.recordWritten(&before.(*v1alpha1.Rollout).Status, &x.Status)
		}
	}
}

// letOut is the newest revision but the template's if the user let it out without a verdict, and it is not
// stable yet; empty otherwise.
func (o *oracle) letOut() string {
	before := o.w.previous(o.w.deployment())
	if before == nil || o.trusted[hashOf(before)] == "" || o.wasStable[hashOf(before)] {
		return ""
	}
	return hashOf(before)
}

// isOurs: a pod of the Deployment that is there, not of one that was deleted under the same name.
func (o *oracle) isOurs(pod *corev1.Pod) bool {
	ref := metav1.GetControllerOf(pod)
	rs, ok := o.w.api.memory[replicaSets][keyOf("shop", ref.Name)]
	d := o.w.deployment()
	return ok && d != nil && rs.GetUID() == ref.UID && metav1.IsControlledBy(rs, d)
}

func orElse(a, b client.Object) client.Object {
	if a != nil {
		return a
	}
	return b
}

func (o *oracle) deploymentWritten(by string, before, after *appsv1.Deployment) {
	if *after.Spec.Replicas != *before.Spec.Replicas {
		o.sizes[len(o.sizes)-1].until = o.w.api.now
		o.sizes = append(o.sizes, sizeAt{n: *after.Spec.Replicas})
		if by == controllerUser {
			o.violated(FieldsComeBack, "Headgate changed N from %d to %d", *before.Spec.Replicas, *after.Spec.Replicas)
		}
	}
	version, old := versionOf(&after.Spec.Template), versionOf(&before.Spec.Template)
	if by == controllerUser && version != old && version != o.w.record().Stable.Hash {
		o.violated(FieldsComeBack, "Headgate changed the template from %s to %s, stable is %q", old, version, o.w.record().Stable.Hash)
	}
	held, wasHeld := after.Annotations[v1alpha1.HoldAnnotation] != "", before.Annotations[v1alpha1.HoldAnnotation] != ""
	if by == controllerUser && wasHeld && !held {
		o.fieldsAre(after)
	}
	digest := webhook.TemplateDigest(after.Spec.Template)
	o.versions[digest] = version
	gate, was := webhook.GateOf(after.Annotations, digest), webhook.GateOf(before.Annotations, digest)
	switch {
	case gate == v1alpha1.GateOpen && was != v1alpha1.GateOpen:
		o.opened(by, version, after)
	case gate == v1alpha1.GateClosed && was != v1alpha1.GateClosed:
		o.closed(version)
	case version != old && gate == "" && o.mayGoOut() != "":
		o.trust(version, o.mayGoOut())
	}
}

// mayGoOut is why anything may go out now; empty: it may not.
func (o *oracle) mayGoOut() string {
	switch {
	case !o.w.chain.enabled():
		return "the namespace is not enabled"
	case o.w.currentPolicy() == nil:
		return "no policy"
	case o.w.record().Stable.Hash == "":
		return "nothing is known to be stable"
	}
	return ""
}

// fieldsAre checks that the user's fields are back.
func (o *oracle) fieldsAre(d *appsv1.Deployment) {
	if got := webhook.FieldsOf(d); !apiequality.Semantic.DeepEqual(got, o.w.user.fields) {
		o.violated(FieldsComeBack, "the fields are %s, the user wrote %s", show(got), show(o.w.user.fields))
	}
}

func show(f v1alpha1.UserFields) string {
	s := f.StrategyType
	if f.MaxSurge != nil {
		s += " " + f.MaxSurge.String()
	}
	if f.MaxUnavailable != nil {
		s += " " + f.MaxUnavailable.String()
	}
	if f.ProgressDeadlineSeconds != nil {
		s += fmt.Sprintf(" %d", *f.ProgressDeadlineSeconds)
	}
	return s
}

// opened: the webhook says that pods of this version start without a gate. Each of its rows has a reason
// that is checked here against the world, not against Headgate's memory of it.
func (o *oracle) opened(by, version string, d *appsv1.Deployment) {
	row := o.w.chain.decided["row"]
	reason := o.reasonToOpen(by, row, version, d)
	if reason == "" && o.trusted[version] == "" {
		o.violated(OnlyJudgedServes, "the gate of %s was opened by row %q for no reason", version, row)
		return
	}
	if reason != "" {
		o.trust(version, reason)
	}
}

func (o *oracle) reasonToOpen(by, row, version string, d *appsv1.Deployment) string {
	s := o.w.record()
	switch {
	case o.mayGoOut() != "":
		return o.mayGoOut()
	case by == controllerUser:
		return o.reasonToRelease(version, s)
	case row == string(webhook.RowBypass) && d.Annotations[v1alpha1.BypassAnnotation] != "":
		return "bypassed"
	case row == string(webhook.RowStable) && version == s.Stable.Hash, o.wasStable[version]:
		return "it was stable"
	case row == string(webhook.RowCannotHold) && o.cannotHold(d):
		return "it can't be held"
	case row == string(webhook.RowStableDown) && o.servingStable() == 0:
		return "stable serves nobody"
	case row == string(webhook.RowUnmanaged), row == string(webhook.RowForeign):
		return o.lately(row)
	}
	return ""
}

// lately: a webhook may not have seen yet that a policy is there again.
func (o *oracle) lately(row string) string {
	for _, r := range o.w.replicas {
		if !r.down && !r.fresh() {
			return "row " + row + " by a cache that stands still"
		}
	}
	return ""
}

func (o *oracle) reasonToRelease(version string, s *v1alpha1.RolloutStatus) string {
	switch {
	case s.Stable.Hash == version, s.Phase == v1alpha1.PhasePromoting && s.Candidate.Hash == version:
		return "the controller releases it"
	case s.Verdict != nil && s.Verdict.Cause == "StableDown":
		return "stable serves nobody"
	case s.Phase == v1alpha1.PhaseIdle && o.trusted[version] != "":
		return o.trusted[version]
	}
	return ""
}

// cannotHold is row 6, from the world.
func (o *oracle) cannotHold(d *appsv1.Deployment) bool {
	if o.w.user.fields.StrategyType == string(appsv1.RecreateDeploymentStrategyType) || *d.Spec.Replicas == 0 ||
		d.Spec.Strategy.Type == appsv1.RecreateDeploymentStrategyType {
		return true
	}
	stable, _ := o.podsOf(o.w.record().Stable.Hash)
	return len(stable) == 0 || slices.ContainsFunc(stable, func(p *corev1.Pod) bool {
		return p.Labels[v1alpha1.InjectedLabel] != "true"
	})
}

func (o *oracle) podsOf(version string) (all, ready []*corev1.Pod) {
	for _, x := range o.w.api.all(pods) {
		pod := x.(*corev1.Pod)
		if hashOf(pod) == version && pod.DeletionTimestamp == nil {
			all = append(all, pod)
			if isReady(pod) && !o.w.kubelets.down[pod.Spec.NodeName] {
				ready = append(ready, pod)
			}
		}
	}
	return all, ready
}

func (o *oracle) servingStable() int {
	_, ready := o.podsOf(o.w.record().Stable.Hash)
	return len(ready)
}

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

func (o *oracle) podWritten(by string, before, after *corev1.Pod) {
	switch {
	case before == nil:
		o.podMade(after)
	case after == nil || (after.DeletionTimestamp != nil && before.DeletionTimestamp == nil):
		o.podTaken(by, before)
	case isReady(after) && !isReady(before):
		o.podReady(after)
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
	if by != o.w.sets.by || !isReady(pod) || pod.DeletionTimestamp != nil || d == nil || hashOf(pod) != s.Stable.Hash {
		return
	}
	if !o.holds(d, s) {
		return
	}
	_, ready := o.podsOf(s.Stable.Hash)
	left := int32(len(ready)) + o.thirdServing(d, s)
	if slices.ContainsFunc(ready, func(p *corev1.Pod) bool { return p.Name == pod.Name }) {
		left--
	}
	if left < o.least()-o.beingShrunk(d, s) {
		o.violated(StableKeepsPods, "stable pod %s is taken, %d are left of %d", pod.Name, left, o.least())
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

// thirdServing counts ready pods of versions that are neither stable nor held: a promotion, or a version that
// the user had let out, was under way when the candidate came. Native logic alone keeps these pods and stable's
// together (DESIGN.md §5, "once a gate was open").
func (o *oracle) thirdServing(d *appsv1.Deployment, s *v1alpha1.RolloutStatus) (n int32) {
	for _, x := range o.w.api.all(pods) {
		pod := x.(*corev1.Pod)
		if v := hashOf(pod); v != s.Stable.Hash && v != versionOf(&d.Spec.Template) && pod.DeletionTimestamp == nil && isReady(pod) {
			n++
		}
	}
	return n
}

// beingShrunk is by how much the candidate is larger than k while N has just changed. When k is lowered the
// annotation comes first, because the native controller would raise the ReplicaSet again. A change of N in
// the moment between them makes it share out the smaller total among the sizes that there are, and what
// rounding leaves over goes at the expense of the largest, which is stable. Repair gives the pods back in its next pass.
func (o *oracle) beingShrunk(d *appsv1.Deployment, s *v1alpha1.RolloutStatus) int32 {
	h, err := v1alpha1.ParseHold(d.Annotations[v1alpha1.HoldAnnotation])
	if err != nil || h == nil || len(o.sizes) < 2 || o.w.api.now.Sub(o.sizes[len(o.sizes)-2].until) > 15*time.Second {
		return 0
	}
	rs, ok := o.w.api.memory[replicaSets][keyOf("shop", "web-"+s.Candidate.Hash)].(*appsv1.ReplicaSet)
	if !ok {
		return 0
	}
	return max(0, sizeOf(rs)-h.K)
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

func (o *oracle) recordWritten(before, after *v1alpha1.RolloutStatus) {
	d := o.w.deployment()
	if d == nil || after.DeploymentUID != d.UID {
		return
	}
	if s := after.Stable.Hash; s != "" && s != before.Stable.Hash {
		if o.trusted[s] == "" {
			o.violated(OnlyJudgedServes, "%s was recorded as stable, and nobody has judged it", s)
		}
		o.wasStable[s] = true
	}
	if after.Weight > before.Weight {
		o.weightRises(after)
	}
	rejected := after.Phase == v1alpha1.PhaseQuarantined || (after.Phase == v1alpha1.PhaseRollingBack && after.ResumePhase != v1alpha1.PhasePromoting)
	if rejected && after.Weight != 0 {
		o.violated(FailMeansZero, "%s with weight %d", after.Phase, after.Weight)
	}
	if after.Phase == v1alpha1.PhasePromoting && before.Phase != v1alpha1.PhasePromoting {
		o.promoted(after)
	}
	if after.Verdict != nil && after.Verdict.Cause == "StableDown" && o.servingStable() == 0 {
		o.trust(o.versionOf(after.Candidate), "stable serves nobody")
	}
}

func (o *oracle) versionOf(r v1alpha1.Revision) string {
	if r.Hash != "" {
		return r.Hash
	}
	return o.versions[r.Template]
}

func (o *oracle) weightRises(after *v1alpha1.RolloutStatus) {
	m := o.w.acting.view.memory
	for _, x := range m.all(pods) {
		pod := x.(*corev1.Pod)
		if hashOf(pod) == after.Candidate.Hash && pod.DeletionTimestamp == nil && isTrue(pod, corev1.ContainersReady) {
			return
		}
	}
	o.violated(WeightNeedsPeers, "weight goes to %d, and %s has no pod that is ready but for the gate", after.Weight, after.Candidate.Hash)
}

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
	case told.Result == v1alpha1.ResultPass, told.Result == v1alpha1.ResultInconclusive:
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
	told := o.w.analysis.told
	atWork := s.Weight > 0 && (s.Phase == v1alpha1.PhaseStepping || s.Phase == v1alpha1.PhasePaused || (s.Phase == v1alpha1.PhasePromoting && !releasedStatus(s)))
	o.starves(s)
	o.fails++
	if told.Result != v1alpha1.ResultFail || s.Candidate.Hash != o.w.analysis.toldFor || !atWork || rescued(s) {
		o.fails = 0
	}
	if o.fails > maxFailPasses {
		o.violated(FailMeansZero, "told Fail in %d passes, and %s is %s with weight %d", o.fails, s.Candidate.Hash, s.Phase, s.Weight)
	}
	for name, passes := range o.exempt {
		pod, ok := o.w.api.memory[pods][keyOf("shop", name)].(*corev1.Pod)
		if !ok || pod.DeletionTimestamp != nil || !isReady(pod) || o.trusted[hashOf(pod)] != "" || hashOf(pod) == s.Stable.Hash || s.Candidate.Hash != hashOf(pod) {
			delete(o.exempt, name)
			continue
		}
		if o.exempt[name] = passes + 1; passes > maxUngatedPasses {
			o.violated(OnlyJudgedServes, "pod %s came without a gate and still serves after %d passes", name, passes)
		}
	}
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
	o.sizes = slices.DeleteFunc(o.sizes, func(s sizeAt) bool {
		return !s.until.IsZero() && o.w.api.now.Sub(s.until) > time.Minute
	})
}
