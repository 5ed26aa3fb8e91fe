// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package simulate

import (
	"fmt"
	"runtime/debug"
	"slices"
	"strconv"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/headgate/headgate/api/v1alpha1"
)

// Options change how a history is played.
type Options struct {
	// Trace, if set, gets a line for every write and every action.
	Trace func(string)
	// Break, if set, changes the world before the history begins: it builds a known bug in.
	Break func(*world)
}

// Play plays a history, lets the world come to rest, and returns the invariant that did not hold; nil when
// all did. The error is about a line that can't be read.
func Play(h History, o Options) (v *Violation, err error) {
	w := newWorld()
	w.oracle.trace = o.Trace
	if o.Break != nil {
		o.Break(w)
	}
	defer func() {
		if p := recover(); p != nil {
			w.oracle.violated(NoPanic, "%v\n%s", p, debug.Stack())
			v = w.oracle.violation
		}
	}()
	for _, line := range h {
		w.oracle.log("> %s", line)
		if err := w.do(line); err != nil {
			return nil, err
		}
		if w.oracle.violation != nil {
			return w.oracle.violation, nil
		}
	}
	w.rest()
	return w.oracle.violation, nil
}

// rest makes the world quiet, waits until nobody has anything to do any more, and looks at what is left.
func (w *world) rest() {
	if w.deployment() == nil {
		return // deleted, and nothing to come to rest
	}
	w.oracle.log("> the world is quiet")
	w.calm()
	if !w.settle() {
		return
	}
	w.atRest()
	if s := w.record(); w.oracle.violation == nil && s.Phase == v1alpha1.PhaseQuarantined {
		w.undo(s.Stable.Hash)
	}
}

// undo ends a quarantine as users do.
func (w *world) undo(stable string) {
	w.oracle.log("> undo")
	letOut := w.oracle.letOut()
	if err := w.user.undo(); err != nil {
		w.oracle.violated(UndoReachesStable, "undo: %v", err)
		return
	}
	d := w.deployment()
	switch v := versionOf(&d.Spec.Template); {
	case v == stable:
	case v == letOut:
		return // the user had let it out before he tried the next one; native history is right to name it
	case w.oracle.forgotten && d.Annotations[v1alpha1.HoldAnnotation] != "":
		return // a candidate that a deleted record had superseded; it is held, and tried again
	default:
		w.oracle.violated(UndoReachesStable, "undo went to %s, stable is %s", v, stable)
		return
	}
	if w.settle() {
		w.atRest()
	}
	if s := w.record(); w.oracle.violation == nil && (s.Phase != v1alpha1.PhaseIdle || s.Stable.Hash != stable) {
		w.oracle.violated(UndoReachesStable, "after undo: %s, stable %s", s.Phase, s.Stable.Hash)
	}
}

// calm ends all faults. What the user wants stays as it is, but for his pause.
func (w *world) calm() {
	now := w.api.now
	w.asleep, w.nativeFrozen = now, until{}
	w.chain.hooksDown, w.chain.podsTimeOut, w.chain.again = false, false, false
	w.sidecars.cut, w.sidecars.mute = false, map[string]bool{}
	w.kubelets.down = map[string]bool{}
	w.scaler.load = 0
	_ = w.user.enable(true)
	for i, r := range w.replicas {
		r.client.fault, r.frozen = "", until{}
		if r.down {
			r.down = false
			r.start()
		}
		r.leads, r.news = i == 0, true
	}
	if w.deployment().Spec.Paused {
		w.run(3 * time.Second)
		_ = w.user.pause(false)
	}
}

func (w *world) run(d time.Duration) {
	for end := w.api.now.Add(d); w.api.now.Before(end) && w.oracle.violation == nil; {
		w.round()
	}
}

// Limits of the quiet time: rounds until nobody writes any more, and rounds without a write that prove it.
// Between them time makes larger and larger steps, so that every limit of a rollout (the longest is the
// policy's maxDuration) is over in few rounds.
const (
	maxRounds   = 600
	quietRounds = 8
)

// settle plays rounds until nothing is written any more.
func (w *world) settle() bool {
	quiet := 0
	for range maxRounds {
		version := w.api.version
		w.decide()
		w.round()
		if w.oracle.violation != nil {
			return false
		}
		if w.api.version != version {
			quiet = 0
			continue
		}
		if quiet++; quiet == quietRounds {
			return true
		}
		w.api.now = w.api.now.Add(time.Duration(quiet*quiet) * 3 * time.Second)
	}
	s := w.record()
	w.oracle.violated(ComesToRest, "after %d rounds somebody still writes: %s, %s -> %s, %s", maxRounds, s.Phase, s.Stable.Hash, s.Candidate.Hash, brief(w.deployment()))
	return false
}

// decide: in a quiet world the analysis comes to an end, and somebody approves.
func (w *world) decide() {
	s := w.record()
	c := s.Candidate.Hash
	if c == "" {
		return
	}
	switch v := w.analysis.verdicts[c]; v.Result {
	case v1alpha1.ResultPass, v1alpha1.ResultFail, v1alpha1.ResultInconclusive:
	default:
		w.analysis.verdicts[c] = verdicts["Pass"]
	}
	if s.AwaitingApproval {
		_ = w.user.wish("approve")
	}
}

// atRest looks at a world in which nobody writes any more.
func (w *world) atRest() {
	d, s := w.deployment(), w.record()
	switch {
	case s.Phase == v1alpha1.PhaseIdle && d.Annotations[v1alpha1.HoldAnnotation] != "":
		w.oracle.violated(ComesToRest, "Idle with a hold: %s", brief(d))
	case s.Phase == v1alpha1.PhaseIdle:
		w.oracle.fieldsAre(d)
		w.idleSizes(d)
	case s.Phase == v1alpha1.PhaseQuarantined:
		w.quarantined(d, s)
	case s.Phase == "" && d.Annotations[v1alpha1.HoldAnnotation] == "":
		w.oracle.fieldsAre(d) // never concerned Headgate
	case w.goesNatively(d, s) && !w.completes(d):
		w.oracle.fieldsAre(d) // his native update does not end, and so the record goes on following it
	default:
		w.oracle.violated(ComesToRest, "%s (%s), %s -> %s, %s", s.Phase, s.ResumePhase, s.Stable.Hash, s.Candidate.Hash, brief(d))
	}
	if n := *d.Spec.Replicas; n != w.user.replicas {
		w.oracle.violated(FieldsComeBack, "N is %d, the user wrote %d", n, w.user.replicas)
	}
}

// goesNatively: the user let out a version, or the stable one is put back after a promotion.
func (w *world) goesNatively(d *appsv1.Deployment, s *v1alpha1.RolloutStatus) bool {
	letOut := s.Phase == v1alpha1.PhasePromoting && releasedStatus(s)
	goesBack := s.Phase == v1alpha1.PhaseRollingBack && s.ResumePhase == v1alpha1.PhasePromoting && versionOf(&d.Spec.Template) == s.Stable.Hash
	return letOut || goesBack
}

// completes says whether a native update to the template ends: its pods can get ready, and the native controller is at it.
func (w *world) completes(d *appsv1.Deployment) bool {
	t := w.kubelets.trouble[versionOf(&d.Spec.Template)]
	return (t == "" || t == healthy) && len(w.kubelets.sick) == 0 && !w.stuckNatively(d)
}

// stuckNatively: with Recreate the native controller does nothing while several versions have pods and N is new. Where no
// policy counts and no gate is left closed, these are the user's own fields and pods that serve, and not Headgate's to free.
func (w *world) stuckNatively(d *appsv1.Deployment) bool {
	sets := active(w.native.owned(d))
	if d.Spec.Strategy.Type != appsv1.RecreateDeploymentStrategyType || len(sets) < 2 || w.currentPolicy() != nil {
		return false
	}
	held := slices.ContainsFunc(sets, func(rs *appsv1.ReplicaSet) bool {
		return rs.Annotations[v1alpha1.GateAnnotation] == string(v1alpha1.GateClosed)
	})
	return !held && slices.ContainsFunc(sets, func(rs *appsv1.ReplicaSet) bool {
		return rs.Annotations[desiredAnnotation] != strconv.Itoa(int(*d.Spec.Replicas))
	})
}

// idleSizes: what is in the template serves, and nothing else is left.
func (w *world) idleSizes(d *appsv1.Deployment) {
	if !w.completes(d) {
		return // a native rolling update that never ends
	}
	version, n := versionOf(&d.Spec.Template), int(*d.Spec.Replicas)
	if version != w.user.template && version != w.record().Stable.Hash {
		w.oracle.violated(FieldsComeBack, "the template is %s, the user wrote %s, stable is %s", version, w.user.template, w.record().Stable.Hash)
	}
	for _, o := range w.api.all(pods) {
		if hashOf(o) != version {
			w.oracle.violated(ComesToRest, "Idle at %s, and pod %s is still there", version, o.GetName())
			return
		}
	}
	if _, ready := w.oracle.podsOf(version); len(ready) != n {
		w.oracle.violated(ComesToRest, "Idle at %s with %d ready pods of %d", version, len(ready), n)
	}
	if s := w.record(); s.Stable.Hash != version && n > 0 && w.currentPolicy() != nil {
		w.oracle.violated(ComesToRest, "%s is complete, and stable is recorded as %q", version, s.Stable.Hash)
	}
}

// quarantined: stable has N ready pods, the candidate one, which does not serve.
func (w *world) quarantined(d *appsv1.Deployment, s *v1alpha1.RolloutStatus) {
	h, err := v1alpha1.ParseHold(d.Annotations[v1alpha1.HoldAnnotation])
	if err != nil || h == nil {
		w.oracle.violated(ComesToRest, "Quarantined without a hold: %s", brief(d))
		return
	}
	held := d.DeepCopy()
	setFields(held, h.User)
	w.oracle.fieldsAre(held)
	sizes := map[string]int{}
	for _, o := range w.api.all(pods) {
		sizes[hashOf(o)]++
		if pod := o.(*corev1.Pod); hashOf(o) == s.Candidate.Hash && isReady(pod) {
			w.oracle.violated(OnlyJudgedServes, "pod %s is ready in quarantine", pod.Name)
		}
	}
	if n := int(*d.Spec.Replicas); sizes[s.Stable.Hash] != n || sizes[s.Candidate.Hash] != 1 || len(sizes) != 2 {
		w.oracle.violated(ComesToRest, "Quarantined with pods %v, want %d of %s and 1 of %s", sizes, n, s.Stable.Hash, s.Candidate.Hash)
	}
	if c := progressing(&d.Status); c == nil || c.Reason != v1alpha1.ReasonDeadlineExceeded {
		w.oracle.violated(ComesToRest, "Quarantined without the failure condition: %s", brief(d))
	}
}

// Shrink finds a shorter history that violates the same invariant: it leaves out longer and then shorter
// runs of lines, as long as that goes on.
func Shrink(h History, v *Violation, o Options) (History, *Violation) {
	for size := max(1, len(h)/2); size > 0; {
		shorter := false
		for from := 0; from < len(h); {
			part := append(h[:from:from], h[min(len(h), from+size):]...)
			if w, err := Play(part, o); err == nil && w != nil && w.Invariant == v.Invariant {
				h, v, shorter = part, w, true
				continue
			}
			from += size
		}
		if !shorter || size > 1 {
			if size == 1 {
				break
			}
			size /= 2
		}
	}
	return h, v
}

// Script is a history as a file that TestHistories plays.
func Script(h History, v *Violation, seed int64) string {
	return fmt.Sprintf("# Found with seed %d.\n# %s\n%s", seed, v, h)
}
