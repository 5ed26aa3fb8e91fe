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
	// JudgedInForce: a step's weight is what sidecars send when its time begins, and a candidate goes out by verdicts only after
	// all of the policy's steps, and the approvals that it asks for.
	JudgedInForce Invariant = "every step is judged at its weight"
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

	// trusted are the versions that may serve, and why; wereTrusted those that could at some time; wasStable those that have
	// been stable.
	trusted                map[string]string
	wereTrusted, wasStable map[string]bool
	// exempt are pods that were let in while nobody could close their gate, with the number of clean passes
	// of the controller since they are ready.
	exempt map[string]int
	// sizes are the recent values of N: native controllers act on what they saw a moment ago.
	sizes []sizeAt
	// fails are the passes in a row in which the controller was told Fail and did not take it up.
	fails int
	// walk is the candidate's way through the steps; unheard are the rounds in a row in which a sidecar could have heard that it is
	// over, and had not.
	walk    walk
	unheard int
	ungated map[string]bool // pods made while the webhook for pods did not answer
	// versions by the digest of their template: a record may not know a revision's hash yet.
	versions map[string]string
	// forgotten: somebody has deleted the record. What only it knew, which candidates were superseded, is lost.
	forgotten bool
	// zeros and starving count the passes that saw N = 0, and after that stable without any pod.
	zeros, starving int
	// unreadyTaken is how many of stable's pods native clean-up took last for not being available, and when.
	unreadyTaken   int32
	unreadyTakenAt time.Time
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
	o.trusted, o.wereTrusted, o.wasStable = map[string]string{}, map[string]bool{}, map[string]bool{}
	o.exempt, o.ungated, o.sizes, o.fails = map[string]int{}, map[string]bool{}, nil, 0
	o.zeros, o.starving, o.forgotten = 0, 0, false
	o.unreadyTaken, o.unreadyTakenAt = 0, time.Time{}
	o.walk, o.unheard = walk{}, 0
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
	o.trusted[version], o.wereTrusted[version] = why, true
}

// wrote is told every write.
func (o *oracle) wrote(by string, before, after client.Object) {
	o.describe(by, before, after)
	o.wished(by, orElse(after, before))
	switch x := orElse(after, before).(type) {
	case *appsv1.Deployment:
		if b, ok := before.(*appsv1.Deployment); ok && after != nil && client.ObjectKeyFromObject(x) == webKey {
			o.deploymentWritten(by, b, x)
		}
	case *appsv1.ReplicaSet:
		b, _ := before.(*appsv1.ReplicaSet)
		a, _ := after.(*appsv1.ReplicaSet)
		o.resized(by, b, a)
	case *corev1.Pod:
		if o.isOurs(x) {
			b, _ := before.(*corev1.Pod)
			a, _ := after.(*corev1.Pod)
			o.podWritten(by, b, a)
		}
	case *v1alpha1.Rollout:
		switch {
		case after == nil:
			o.forgotten = o.forgotten || by == "user"
		case before != nil:
			o.recordWritten(&before.(*v1alpha1.Rollout).Status, &x.Status)
		}
	}
}

// letOut is the newest revision but the template's if the user asked for it after stable, and let it out without a verdict
// or went back to it; empty otherwise.
func (o *oracle) letOut() string {
	before := o.w.previous(o.w.deployment())
	if before == nil || o.trusted[hashOf(before)] == "" || !o.stored(o.w.record().Stable.Hash) {
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
	}
	if by == controllerUser {
		o.headgateWrote(before, after)
	}
	version, old := versionOf(&after.Spec.Template), versionOf(&before.Spec.Template)
	digest := webhook.TemplateDigest(after.Spec.Template)
	o.versions[digest] = version
	if version != old {
		o.superseded(old)
	}
	gate, was := webhook.GateOf(after.Annotations, digest), webhook.GateOf(before.Annotations, digest)
	switch {
	case gate == was && gate != "":
	case gate == v1alpha1.GateOpen:
		o.opened(by, version, after)
	case gate == v1alpha1.GateClosed:
		o.closed(version)
	case version != old && o.mayGoOut() != "":
		o.trust(version, o.mayGoOut())
	}
}

// headgateWrote: N is the user's, the template too, but for the stable one of a release back, and at the end
// of a hold the fields are.
func (o *oracle) headgateWrote(before, after *appsv1.Deployment) {
	if *after.Spec.Replicas != *before.Spec.Replicas {
		o.violated(FieldsComeBack, "Headgate changed N from %d to %d", *before.Spec.Replicas, *after.Spec.Replicas)
	}
	version, old := versionOf(&after.Spec.Template), versionOf(&before.Spec.Template)
	if version != old && version != o.w.record().Stable.Hash {
		o.violated(FieldsComeBack, "Headgate changed the template from %s to %s, stable is %q", old, version, o.w.record().Stable.Hash)
	}
	if before.Annotations[v1alpha1.HoldAnnotation] != "" && after.Annotations[v1alpha1.HoldAnnotation] == "" {
		o.fieldsAre(after)
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
	case by == controllerUser && o.w.acting.client.arriving.mayGoOut != "":
		return o.w.acting.client.arriving.mayGoOut + ", when the write was sent"
	case by == controllerUser:
		return o.reasonToRelease(version, s)
	case version == s.Stable.Hash, o.wasStable[version]:
		return "it was stable"
	}
	return o.reasonOf(webhook.Row(row), version, d)
}

// reasonOf is what a row of the webhook's has for a reason.
func (o *oracle) reasonOf(row webhook.Row, version string, d *appsv1.Deployment) string {
	switch {
	case row == webhook.RowBypass && d.Annotations[v1alpha1.BypassAnnotation] != "":
		return "bypassed"
	case row == webhook.RowEarlierStable && o.forgotten && o.wereTrusted[version]:
		return "it was let out before, and only the record knew how that ended"
	case row == webhook.RowCannotHold && o.cannotHold(d):
		return "it can't be held"
	case row == webhook.RowStableDown && o.servingStable() == 0:
		return "stable serves nobody"
	case row == webhook.RowUnmanaged, row == webhook.RowForeign:
		return o.lately(string(row))
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
	case *o.w.deployment().Spec.Replicas == 0 && !o.stored(s.Stable.Hash):
		return "it is scaled to zero, and stable is in nobody's history any more"
	case s.Phase == v1alpha1.PhaseStarting && o.unconnected(s.Stable.Hash):
		return "stable's sidecars are not connected"
	}
	return ""
}

// stored: there is a ReplicaSet of the version.
func (o *oracle) stored(version string) bool {
	_, ok := o.w.api.memory[replicaSets][keyOf(webKey.Namespace, webKey.Name+"-"+version)]
	return ok
}

// unconnected: most pods of a version have a sidecar that reaches no xDS server.
func (o *oracle) unconnected(version string) bool {
	connected, all := 0, 0
	for _, x := range o.w.api.all(pods) {
		if pod := x.(*corev1.Pod); hashOf(pod) == version {
			all++
			if o.w.sidecars.server(pod) != nil {
				connected++
			}
		}
	}
	return 2*connected < all
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
