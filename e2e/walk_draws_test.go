// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import (
	"fmt"
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/headgate/headgate/api/v1alpha1"
	"github.com/headgate/headgate/e2e/faults"
	"github.com/headgate/headgate/e2e/harness"
)

// user is what the workload's user wants, as far as he got it written.
type user struct {
	// fields are the user's as he set them last, first those that the workload was created with.
	fields, first userFields
	// n is his replicas.
	n       int
	updated bool
	paused  bool
	// policyGone: he has taken the policy away.
	policyGone bool
	// reason is that of the bypass that he has asked for last.
	reason string
}

// draw is something to do, and how often it is drawn in comparison with others (0: as often as most).
type draw struct {
	what  string
	do    func(what string)
	often int
}

func (w *walk) draws() []draw {
	verbs := []draw{
		{"set image v2", w.update(setImage("v2")...), 0}, {"set image v3", w.update(setImage("v3")...), 0},
		// Of all versions it alone gets ready and must not: without it nobody would see a gate that leaks.
		{"set image errors", w.update(setImage("errors")...), 5},
		{"set image crash", w.update(setImage("crash")...), 0}, {"set image never-ready", w.update(setImage("never-ready")...), 0},
		{"restart", w.update("rollout", "restart", "deployment/"+harness.Name), 2},
		{"undo", w.undo, 0},
		{"annotate", w.annotate, 0},
		{"pause or resume", w.pauseOrResume, 0}, {"scale", w.scale, 2}, {"scale to 0", w.scaleToZero, 0},
		{"another maxSurge", w.surge, 0}, {"strategy Recreate", w.recreate, 0},
		{"promote", w.promote, 0}, {"bypass", w.bypass, 0},
		{"delete and create again", w.createAgain, 0}, {"no policy", w.noPolicy, 0},
		{"delete a pod", w.deletePod, 0}, {"evict a pod", w.evictPod, 0},
	}
	return append(verbs, w.faults()...)
}

// update changes the template.
func (w *walk) update(args ...string) func(string) {
	return func(what string) { w.updated = w.try(what, args...) || w.updated }
}

// undo needs an update before it: of one that was taken back while it was held nothing is left to undo.
func (w *walk) undo(what string) {
	if w.updated {
		w.updated = !w.try(what, "rollout", "undo", "deployment/"+harness.Name)
	}
}

func (w *walk) annotate(what string) {
	w.try(what, "annotate", "--overwrite", "deployment", harness.Name, fmt.Sprintf("move=%d", w.moved))
}

func (w *walk) pauseOrResume(string) {
	verb := "pause"
	if w.paused {
		verb = "resume"
	}
	if w.try(verb, "rollout", verb, "deployment/"+harness.Name) {
		w.paused = !w.paused
	}
}

func (w *walk) scale(string) { w.scaleTo(leastPods + w.rand.IntN(mostPods-leastPods+1)) }

func (w *walk) scaleTo(n int) bool {
	done := w.try(fmt.Sprintf("scale to %d", n), "scale", "deployment", harness.Name, fmt.Sprintf("--replicas=%d", n))
	if done {
		w.n = n
	}
	if done && n > 0 {
		w.floor = min(n, w.floor)
	}
	return done
}

// scaleToZero leaves nobody to answer until the user scales back.
func (w *walk) scaleToZero(string) {
	if w.n == 0 {
		return
	}
	w.mayBeEmpty("replicas is 0")
	back := w.n
	if w.scaleTo(0) {
		w.breaks(fault{what: "replicas is 0", part: theUser, mend: func() bool { return w.n > 0 || w.scaleTo(back) }})
	}
}

// surge writes a percentage, which no hold does: who writes what a field is already says nothing, and keeps what he wrote before.
func (w *walk) surge(string) {
	if w.wantsRecreate() {
		return // it has no such field
	}
	surge := intstr.FromString(pick(w.rand, []string{"25%", "50%"}))
	patch := fmt.Sprintf(`{"spec":{"strategy":{"rollingUpdate":{"maxSurge":%q}}}}`, surge.String())
	if w.try("maxSurge "+surge.String(), "patch", "deployment", harness.Name, "-p", patch) {
		strategy := *w.fields.Strategy.RollingUpdate
		strategy.MaxSurge = &surge
		w.fields.Strategy.RollingUpdate = &strategy
	}
}

func (w *walk) wantsRecreate() bool {
	return w.fields.Strategy.Type == appsv1.RecreateDeploymentStrategyType
}

// recreate: a held version goes on as if nothing had been said, the next update takes all pods away before it makes new ones.
func (w *walk) recreate(what string) {
	if w.wantsRecreate() {
		return
	}
	w.mayBeEmpty(what)
	if w.try(what, "patch", "deployment", harness.Name, "-p", `{"spec":{"strategy":{"$retainKeys":["type"],"type":"Recreate"}}}`) {
		w.fields.Strategy = appsv1.DeploymentStrategy{Type: appsv1.RecreateDeploymentStrategyType}
		w.breaks(fault{what: what, part: theUser, mend: w.rollAgain})
	}
}

// rollAgain takes Recreate back. What a hold has can't be told from no change, so one field has a value that no hold has; the other
// has the hold's. Both mean what the workload was created with.
func (w *walk) rollAgain() bool {
	if !w.wantsRecreate() {
		return true // it was created again meanwhile
	}
	surge, unavailable := intstr.FromString("34%"), intstr.FromInt32(0)
	patch := fmt.Sprintf(`{"spec":{"strategy":{"type":"RollingUpdate","rollingUpdate":{"maxSurge":%q,"maxUnavailable":%s}}}}`, surge.String(), unavailable.String())
	if !w.try("strategy RollingUpdate", "patch", "deployment", harness.Name, "-p", patch) {
		return false
	}
	w.fields.Strategy = appsv1.DeploymentStrategy{
		Type:          appsv1.RollingUpdateDeploymentStrategyType,
		RollingUpdate: &appsv1.RollingUpdateDeployment{MaxSurge: &surge, MaxUnavailable: &unavailable},
	}
	return true
}

// status is the Rollout's as it is; empty where there is none.
func (w *walk) status() v1alpha1.RolloutStatus {
	var r v1alpha1.Rollout
	err := w.Client.Get(w.Ctx, client.ObjectKey{Namespace: w.Namespace, Name: harness.Name}, &r)
	if client.IgnoreNotFound(err) != nil {
		w.T.Fatalf("reading the Rollout: %v", err)
	}
	return r.Status
}

func (w *walk) promote(what string) {
	if revision := w.status().Candidate.Hash; revision != "" {
		w.letOut(w.versionOf(revision), time.Now(), "promoted")
		w.try(what+" "+revision, "patch", "rollouts.headgate.dev", harness.Name, "--type=merge", "-p", fmt.Sprintf(`{"spec":{"promote":{"revision":%q}}}`, revision))
	}
}

// bypass lets a version out without a verdict.
func (w *walk) bypass(what string) {
	version := pick(w.rand, []string{"v2", "v3", "errors", "crash"})
	w.reason = fmt.Sprintf("move %d", w.moved)
	w.letOut(version, time.Now(), what)
	w.let = true
	patch := fmt.Sprintf(`{"metadata":{"annotations":{%q:%q}},"spec":{"template":{"spec":{"containers":[{"name":"app","image":%q}]}}}}`,
		v1alpha1.BypassAnnotation, w.reason, harness.AppImage+version)
	w.updated = w.try(what+" "+version, "patch", "deployment", harness.Name, "-p", patch) || w.updated
}

// createAgain: nothing is left of what was asked of the one before.
func (w *walk) createAgain(what string) {
	w.mayBeEmpty(what)
	if !w.try(what, "delete", "deployment", harness.Name) {
		return
	}
	if w.n == 0 {
		w.n = leastPods
		w.floor = min(w.n, w.floor)
	}
	w.Apply(w.manifest(w.n))
	w.fields, w.updated, w.paused = w.first, false, false
}

// noPolicy: the version that is held goes out when nobody has brought the policy back for 30 s, unless it has failed.
func (w *walk) noPolicy(what string) {
	if w.policyGone {
		return
	}
	if phase := w.status().Phase; phase != v1alpha1.PhaseQuarantined && phase != v1alpha1.PhaseRollingBack {
		w.letOut(w.version(), time.Now(), what)
	}
	w.let = true
	if w.try(what, "delete", "rolloutpolicy", harness.Name) {
		w.policyGone = true
		w.breaks(fault{what: what, part: theUser, mend: func() bool {
			w.Policy(w.policy)
			w.policyGone = false
			return true
		}})
	}
}

// pod is one of a revision that has any; nil when there is none that is as asked.
func (w *walk) pod(ok func(*corev1.Pod) bool) *corev1.Pod {
	s := w.status()
	of := slices.DeleteFunc([]string{s.Stable.Hash, s.Candidate.Hash}, func(hash string) bool { return hash == "" || len(w.Pods.Of(hash)) == 0 })
	if len(of) == 0 {
		return nil
	}
	pods := slices.DeleteFunc(w.Pods.Of(pick(w.rand, of)), func(p *corev1.Pod) bool { return !ok(p) })
	if len(pods) == 0 {
		return nil
	}
	return pods[0]
}

func anyPod(*corev1.Pod) bool { return true }

func (w *walk) deletePod(what string) {
	if p := w.pod(anyPod); p != nil {
		w.gone++
		w.try(what+" "+p.Name, "delete", "pod", p.Name, "--wait=false")
	}
}

func (w *walk) evictPod(what string) {
	if p := w.pod(anyPod); p != nil {
		w.gone++
		faults.Evict(w.Case, p)
		w.say("%s: %s", what, p.Name)
	}
}
