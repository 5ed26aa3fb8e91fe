// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/headgate/headgate/api/v1alpha1"
	"github.com/headgate/headgate/e2e/faults"
	"github.com/headgate/headgate/e2e/harness"
)

// known is what the walk knows of what must hold, by what it did.
type known struct {
	// out is since when a failing version may serve without a verdict, because the walk or a rule has let it out.
	out map[string]time.Time
	// let: some version, a good one too, has gone out without a verdict.
	let bool
	// floor is the fewest ready pods that may be seen while nothing is empty: the smallest n, less what is gone, evicted and
	// deleted.
	floor, gone int
	// empty are the times at which the user may have left nobody to serve; requests fail while really nobody is there.
	empty []interval
	// deaf are the times in which sidecars may not hear which weight is wanted.
	deaf []interval
	// spares are failed requests that are nobody's fault.
	spares []spare
}

// spare excuses at most so many unanswered requests of all clients in a time.
type spare struct {
	from, to time.Time
	requests int64
	why      string
}

const (
	// envoyAway is how long it may take until an Envoy that was killed serves again: its supervisor starts it at once, or
	// the kubelet does, when it had lived for less than 10 s. Clients are led elsewhere before that, in unreadyWithin.
	envoyAway, unreadyWithin = 15 * time.Second, 5 * time.Second
	// heardWithin is how long a weight may go on to show in answers after it was changed: the longest request takes 8 s, and a
	// sidecar that lost its stream a moment ago makes another one within 5 s.
	heardWithin = 15 * time.Second
)

// letOut notes that a version may serve without a verdict from some time on.
func (w *walk) letOut(version string, since time.Time, why string) {
	if _, known := w.out[version]; fails(version) && !known {
		w.out[version] = since
		w.say("(%s may serve now: %s)", version, why)
	}
}

// deployment is the workload as it is.
func (w *walk) deployment() *appsv1.Deployment {
	var d appsv1.Deployment
	if err := w.Client.Get(w.Ctx, client.ObjectKey{Namespace: w.Namespace, Name: harness.Name}, &d); err != nil {
		w.T.Fatalf("reading the Deployment: %v", err)
	}
	return &d
}

// version is the one that the user wants now.
func (w *walk) version() string { return image(w.deployment()) }

// replicaSet is a revision's; empty when it is gone.
func (w *walk) replicaSet(revision string) appsv1.ReplicaSet {
	var all appsv1.ReplicaSetList
	of := client.MatchingLabels{appsv1.DefaultDeploymentUniqueLabelKey: revision}
	if err := w.Client.List(w.Ctx, &all, client.InNamespace(w.Namespace), of); err != nil {
		w.T.Fatalf("listing ReplicaSets: %v", err)
	}
	if len(all.Items) == 0 {
		return appsv1.ReplicaSet{}
	}
	return all.Items[0]
}

// versionOf is a revision's; empty when it is gone.
func (w *walk) versionOf(revision string) string {
	rs := w.replicaSet(revision)
	if len(rs.Spec.Template.Spec.Containers) == 0 {
		return ""
	}
	return tag(rs.Spec.Template.Spec.Containers[0].Image)
}

// hear reads the warnings below a command. An update that goes out without a verdict says so, and why; the walk must know a
// reason for that.
func (w *walk) hear(stderr string, since time.Time) {
	w.T.Helper()
	if !strings.Contains(stderr, "goes out") {
		return
	}
	w.let = true
	version := w.version()
	_, wasOut := w.out[version]
	for _, rule := range []struct {
		says  string
		holds bool
	}{
		{"no policy selects", w.policyGone},
		{fmt.Sprintf("bypassed (%s)", w.reason), w.reason != ""},
		{"was stable before", wasOut || !fails(version)},
		{"strategy.type is Recreate", w.wantsRecreate()},
		{"replicas is 0", w.n == 0},
		{"no pod of the stable version was available", w.nobodyFor(25 * time.Second)},
		{"the stable revision has no pods", w.nobodyFor(0)},
		{"sidecar", w.mayLackSidecars()},
	} {
		if !strings.Contains(stderr, rule.says) {
			continue
		}
		if !rule.holds {
			w.T.Errorf("%s goes out without a verdict, and the reason is none: %s", version, stderr)
		}
		w.letOut(version, since, rule.says)
		return
	}
	w.T.Errorf("%s goes out without a verdict, for a reason that the walk does not know: %s", version, stderr)
}

// nobodyFor says whether nobody has served for so long, until now.
func (w *walk) nobodyFor(d time.Duration) bool {
	return slices.ContainsFunc(w.seen.nobody(), func(i interval) bool { return time.Since(i.to) < time.Second && i.to.Sub(i.from) >= d })
}

// mayLackSidecars: a pod that serves has none, or may not have been able to connect it.
func (w *walk) mayLackSidecars() bool {
	var pods corev1.PodList
	if err := w.Client.List(w.Ctx, &pods, client.InNamespace(w.Namespace), client.MatchingLabels{"app": harness.Name}); err != nil {
		w.T.Fatalf("listing pods: %v", err)
	}
	bare := slices.ContainsFunc(pods.Items, func(p corev1.Pod) bool { return p.Labels[v1alpha1.InjectedLabel] != "true" })
	_, deaf := w.deafAt(time.Now())
	return bare || deaf || slices.ContainsFunc(w.spares, func(s spare) bool { return s.to.After(time.Now()) })
}

// mayBeEmpty begins a time in which there may be no pods, because the user wants it so.
func (w *walk) mayBeEmpty(why string) {
	if !w.isEmpty() {
		w.empty = append(w.empty, interval{from: time.Now()})
		w.say("(there may be no pods from now on: %s)", why)
	}
}

func (w *walk) isEmpty() bool { return len(w.empty) > 0 && w.empty[len(w.empty)-1].to.IsZero() }

// deafSince begins a time in which sidecars may not hear.
func (w *walk) deafSince() {
	if n := len(w.deaf); n == 0 || !w.deaf[n-1].to.IsZero() {
		w.deaf = append(w.deaf, interval{from: time.Now()})
	}
}

// deafAt is the time of that kind that a moment is in, or shortly after: it takes sidecars a while to connect again.
func (w *walk) deafAt(at time.Time) (since interval, deaf bool) {
	i := slices.IndexFunc(w.deaf, func(i interval) bool {
		return at.After(i.from) && (i.to.IsZero() || at.Before(i.to.Add(2*heardWithin)))
	})
	if i < 0 {
		return interval{}, false
	}
	return w.deaf[i], true
}

// settle ends these times, when there is no reason for them any more.
func (w *walk) settle() {
	if w.isEmpty() && w.n > 0 && !w.wantsRecreate() {
		// Its own pods: those of one that was deleted may be there for another moment.
		if d := w.deployment(); d.Status.ObservedGeneration == d.Generation && int(d.Status.ReadyReplicas) >= w.n {
			w.empty[len(w.empty)-1].to = time.Now()
			w.say("(all pods are there again)")
		}
	}
	if n := len(w.deaf); n > 0 && w.deaf[n-1].to.IsZero() && !w.suffers(aSidecar) && !w.suffers(faults.ControlPlane) {
		w.deaf[n-1].to = time.Now()
	}
}

// requireNoLeak checks that no pod of a version that fails was ready before anybody had let it out. Where nobody had served
// for long, the controller does: it can only help then. One that has failed already it does not.
func (w *walk) requireNoLeak() {
	w.T.Helper()
	nobody := w.seen.nobody()
	w.seen.mu.Lock()
	defer w.seen.mu.Unlock()
	for _, err := range w.seen.errs {
		w.T.Errorf("the workload was not watched to the end: %v", err)
	}
	for _, p := range w.seen.ready {
		since, out := w.out[p.version]
		helps := slices.ContainsFunc(nobody, func(i interval) bool { return p.at.Sub(i.to).Abs() < time.Second && i.to.Sub(i.from) > 20*time.Second })
		helps = helps && !w.seen.hadFailed(p.version, p.at)
		if !helps && (!out || p.at.Before(since)) {
			w.T.Fatalf("pod %s of version %s was ready at %4.0fs, and nobody has let that version out", p.name, p.version, p.at.Sub(w.start).Seconds())
		}
	}
}

// emptyAt says whether there may have been no pods then.
func (w *walk) emptyAt(at time.Time) bool {
	return slices.ContainsFunc(w.empty, func(i interval) bool { return i.overlaps(interval{at, at}) })
}

// fix updates a version that the user let out and that can't get ready: it must get out, whatever he has at stake.
func (w *walk) fix() {
	d := w.deployment()
	_, out := w.out[image(d)]
	if out && image(d) != "errors" && d.Annotations[v1alpha1.HoldAnnotation] == "" {
		w.update(setImage("v2")...)("the fix: v2")
	}
}

// requireRest waits until nothing goes on any more, and checks that everything is as the user wants it.
func (w *walk) requireRest() {
	w.AwaitDeployment(rolloutEnd, "the Deployment is complete or has failed", func(d *appsv1.Deployment) bool {
		return failed(d) || harness.Complete(d) && d.Annotations[v1alpha1.HoldAnnotation] == ""
	})
	r := w.AwaitRollout(rolloutEnd, "the Rollout is at rest", func(r *v1alpha1.Rollout) bool {
		return idle(r) || r.Status.Phase == v1alpha1.PhaseQuarantined
	})
	stable := r.Status.Stable.Hash
	version := w.versionOf(stable)
	w.say("at rest: %s, stable %s (%s)", r.Status.Phase, stable, version)
	if _, out := w.out[version]; fails(version) && !out {
		w.T.Errorf("%s is stable, and nobody has let it out", version)
	}
	w.AwaitReady(2*time.Minute, stable, w.n)
	w.settle()
	if idle(r) {
		requireFields(w.T, w.fields, w.AwaitComplete())
	} else {
		w.requireUndone(stable)
	}
}

// idle: nothing goes on.
func idle(r *v1alpha1.Rollout) bool {
	return r.Status.Phase == v1alpha1.PhaseIdle && r.Status.Stable.Hash != ""
}

// requireSidecars makes an update that brings sidecars, where pods came while nobody injected them. It goes out at once, and says
// so.
func (w *walk) requireSidecars() {
	stable := w.status().Stable.Hash
	bare := slices.ContainsFunc(w.Pods.Of(stable), func(p *corev1.Pod) bool { return p.Labels[v1alpha1.InjectedLabel] != "true" })
	if !bare {
		return
	}
	since := time.Now()
	r := w.Do("set", "env", "deployment/"+harness.Name, "WALK=sidecars")
	if !strings.Contains(r.Stderr, "this update brings the sidecar") {
		w.T.Errorf("pods of stable have no sidecar, and no warning says that the update goes out at once: %s", r)
	}
	w.hear(r.Stderr, since)
	other := func(r *v1alpha1.Rollout) bool { return idle(r) && r.Status.Stable.Hash != stable }
	w.AwaitRollout(2*time.Minute, "there is a candidate, or another version is stable", func(r *v1alpha1.Rollout) bool {
		return r.Status.Candidate.Hash != "" || other(r)
	})
	w.promote("promote")
	next := w.AwaitRollout(2*time.Minute, "another version is stable", other)
	w.AwaitReady(time.Minute, next.Status.Stable.Hash, w.n)
	w.say("stable %s has sidecars", next.Status.Stable.Hash)
}

// requireUndo makes an update that nobody has seen before, and takes it back.
func (w *walk) requireUndo() {
	stable := w.status().Stable.Hash
	w.Pods.Mark(stable)
	w.Do("set", "env", "deployment/"+harness.Name, "WALK=end")
	w.AwaitRollout(2*time.Minute, "there is a candidate", func(r *v1alpha1.Rollout) bool { return r.Status.Candidate.Hash != "" })
	w.requireUndone(stable)
	if least := w.Pods.Least(stable); least < w.n {
		w.T.Errorf("only %d stable pods were ready at some moment of the last update, want %d", least, w.n)
	}
}

// requireUndone takes an update back, whatever became of it. What was let out is in the native history like what was stable,
// so that undo may mean that one: then it is told where to.
func (w *walk) requireUndone(stable string) {
	undo := []string{"rollout", "undo", "deployment/" + harness.Name}
	if w.let {
		undo = append(undo, "--to-revision="+strconv.FormatInt(w.number(stable), 10))
	}
	w.Do(undo...)
	w.AwaitDeployment(2*time.Minute, "the Deployment is complete and not held", func(d *appsv1.Deployment) bool {
		return harness.Complete(d) && d.Annotations[v1alpha1.HoldAnnotation] == ""
	})
	r := w.AwaitRollout(2*time.Minute, "the Rollout is Idle", idle)
	if r.Status.Stable.Hash != stable {
		w.T.Errorf("undo made %s stable, want %s", r.Status.Stable.Hash, stable)
	}
	requireFields(w.T, w.fields, w.AwaitComplete())
	w.AwaitReady(time.Minute, stable, w.n)
	w.say("undo reached stable")
}

// number is a revision's in the native history.
func (w *walk) number(revision string) int64 {
	n, err := strconv.ParseInt(w.replicaSet(revision).Annotations["deployment.kubernetes.io/revision"], 10, 64)
	if err != nil {
		w.T.Fatalf("reading the number of revision %s: %v", revision, err)
	}
	return n
}
