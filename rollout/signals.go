// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package rollout

import (
	"fmt"
	"strings"
	"time"

	"github.com/headgate/headgate/api/v1alpha1"
)

// Time limits of pod signals. Each is long enough that a registry's hiccup or one unlucky start does
// not reject a good version, and far below the progress deadline.
const (
	imagePullFor = 60 * time.Second
	noRoomFor    = 30 * time.Second
	// crowdedFor: the scheduler sees room that a pod has just left, and the native controller a quota, well before.
	crowdedFor = 5 * time.Second
	// leavesWithin is how long a pod of stable that is on its way out may keep its place, or its part of a quota, from the
	// next: the usual grace period, and as much again.
	leavesWithin = time.Minute
	configFor    = 20 * time.Second
	// readinessLostFor: two failed probes at the usual period are a blip, this is not.
	readinessLostFor = 15 * time.Second
	// restartsToFail: one restart can be bad luck (a dependency not up yet), the second is a pattern.
	restartsToFail = 2
	// sameWindow: what happened to stable within it may have the same reason; what is longer ago has not.
	sameWindow = 10 * time.Minute
)

// candidatesPolicy is the chart's ValidatingAdmissionPolicy, as the API server names it when it refuses a
// candidate's pod that the Pod webhook has not seen.
const candidatesPolicy = "headgate-candidates"

// fail makes the verdict of a signal.
func fail(cause, format string, args ...any) *v1alpha1.Verdict {
	return &v1alpha1.Verdict{Result: v1alpha1.ResultFail, Cause: cause, Message: fmt.Sprintf(format, args...)}
}

// podSignals judges the candidate by its pods alone. Nil: nothing speaks against it. Pods that are
// being deleted, evicted or on a node that is not ready never count. Signals that stable shows in the
// same window do not count either: then it is not the version.
func podSignals(o *Observation, stable, candidate Revision) *v1alpha1.Verdict {
	for _, p := range candidate.Pods {
		if p.Terminating || !p.NodeReady {
			continue
		}
		if v := podSignal(o.Now, p); v != nil && !stableShows(o.Now, stable, v.Cause, p) {
			return v
		}
		// Where nothing of stable is left, late in a promotion, there is nobody to compare with.
		if lost := p.LostReadySince; !lost.IsZero() && o.Now.Sub(lost) >= readinessLostFor && stable.alive() > 0 && !stableShows(o.Now, stable, v1alpha1.CauseReadinessLost, p) {
			return fail(v1alpha1.CauseReadinessLost, "pod %s was ready and is no longer, while stable pods stay ready", p.Name)
		}
	}
	return nil
}

// stableShows: some stable pod has the same trouble, since about the same time as the candidate's. An OOM
// kill and a loss of readiness are moments: one of last week (a pod that is broken by itself) must not
// hide the candidate's of today, but an app that is killed, or ends, every few hours does so in a rollout over night, too. The
// other problems last as long as they are shown. When it began may be unknown: then it is the same.
func stableShows(now time.Time, stable Revision, cause string, of Pod) bool {
	near := func(t, since time.Time) bool { return t.IsZero() || since.IsZero() || t.Sub(since).Abs() < sameWindow }
	return stable.count(func(p Pod) bool {
		switch {
		case p.Terminating:
			return false
		case cause == v1alpha1.CauseReadinessLost:
			return !p.LostReadySince.IsZero() && near(p.LostReadySince, of.LostReadySince)
		case cause == v1alpha1.CauseOOMKilled:
			return p.Problem == ProblemOOMKilled && (near(p.ProblemSince, of.ProblemSince) || restartsAsOften(now, p, of))
		case cause == v1alpha1.CauseCrashLoop && restartsAsOften(now, p, of):
			return true
		}
		return string(p.Problem) == cause
	}) > 0
}

// restartsAsOften: p's containers have restarted as often as those of another pod, for how old they are.
func restartsAsOften(now time.Time, p, other Pod) bool {
	return p.Restarts > 0 && float64(p.Restarts)*float64(now.Sub(other.CreatedAt)) >= float64(max(other.Restarts, 1))*float64(now.Sub(p.CreatedAt))
}

// wake: while Headgate was away, the API server refused the candidate's pods, and its ReplicaSet waits longer and longer
// before it tries again, up to a quarter of an hour. That time is not the version's.
func (p *pass) wake() {
	if !p.gatesClosed() || !p.candidate.refused() {
		return
	}
	p.d.Wake = []string{p.candidate.Hash}
	p.d.Requeue = tick
	if since := p.candidate.CreateFailureSince; p.s.Phase == v1alpha1.PhaseStarting && p.s.PhaseSince != nil && p.s.PhaseSince.Time.Before(since) {
		p.s.PhaseSince = micro(since)
	}
}

// refused: its pods came without their gate, and the API server did not let them in.
func (r Revision) refused() bool { return strings.Contains(r.CreateFailure, candidatesPolicy) }

func podSignal(now time.Time, p Pod) *v1alpha1.Verdict {
	lasted := func(d time.Duration) bool { return !p.ProblemSince.IsZero() && now.Sub(p.ProblemSince) >= d }
	switch {
	case p.Problem == ProblemOOMKilled:
		return fail(v1alpha1.CauseOOMKilled, "pod %s was killed for using more memory than its limit", p.Name)
	case p.Restarts >= restartsToFail:
		return fail(v1alpha1.CauseCrashLoop, "pod %s keeps crashing (restarted at least %d times)%s", p.Name, restartsToFail, because(p.Message))
	case p.Problem == ProblemImagePull && lasted(imagePullFor):
		return fail(v1alpha1.CauseImagePull, "pod %s cannot pull its image%s", p.Name, because(p.Message))
	case p.Problem == ProblemConfiguration && lasted(configFor):
		return fail(v1alpha1.CauseConfiguration, "pod %s cannot be started as its template says%s", p.Name, because(p.Message))
	case p.Problem == ProblemUnschedulable && lasted(noRoomFor):
		return noRoom(p)
	}
	return nil
}

// noRoom: the pod has no node.
func noRoom(p Pod) *v1alpha1.Verdict {
	return fail(v1alpha1.CauseNoRoom, "there is no room for pod %s%s%s%s", p.Name, notTheVersion, because(p.Message), withoutRoom)
}

// notTheVersion ends what a candidate is rejected for and can't help.
const notTheVersion = "; this says nothing about the version"

// crowdedSoon is crowdedOut for a candidate that serves nobody: it goes as soon as it is known to stand in the way. While a pod
// of stable is on its way out it is not, because the place of that one may be the next one's.
func (p *pass) crowdedSoon() string {
	if len(p.stable.Pods) > int(p.stable.alive()) {
		return p.crowdedOut(leavesWithin)
	}
	return p.crowdedOut(crowdedFor)
}

// crowdedOut: a pod of stable has found no room for so long, while the candidate's pods take some. Empty: none has.
func (p *pass) crowdedOut(lasts time.Duration) string {
	if p.candidate.alive() == 0 {
		return ""
	}
	for _, pod := range p.stable.Pods {
		if pod.Problem == ProblemUnschedulable && !pod.Terminating && p.o.Now.Sub(pod.ProblemSince) >= lasts {
			return fmt.Sprintf("stable's pod %s finds no room beside the candidate%s%s", pod.Name, notTheVersion, because(pod.Message))
		}
	}
	if since := p.stable.CreateFailureSince; p.stable.CreateFailure != "" && p.stable.alive() < p.o.Deployment.Replicas && p.o.Now.Sub(since) >= lasts {
		return "stable's pods cannot be created beside the candidate" + notTheVersion + because(p.stable.CreateFailure)
	}
	return ""
}

// withoutRoom is what to do where there is no room beside stable, be it for a while (a full cluster) or always: a host
// port on every node, a volume for one node, a quota of just N pods. At maxSurge 0 a pod goes before another
// comes, and such an update is not held (row 6). An update to a third template while this one is held would be.
const withoutRoom = ". Make room, and it is tried again; where one pod more never fits, undo and set maxSurge: 0: later updates then go out natively"

// overQuota is how the API server says that a ResourceQuota is used up.
const overQuota = "exceeded quota"

// cannotCreate is for pods that the API server refuses. Only of a quota it is known that it is not the version's fault, and
// that pods that go first would help: what is forbidden stays so, and stable would have lost pods for nothing.
func cannotCreate(why string) *v1alpha1.Verdict {
	if strings.Contains(why, overQuota) {
		return fail(v1alpha1.CauseNoRoom, "pods cannot be created%s%s%s", notTheVersion, because(why), withoutRoom)
	}
	return fail(v1alpha1.CauseNoRoom, "pods cannot be created%s", because(why))
}

func because(message string) string {
	if message == "" {
		return ""
	}
	message = strings.TrimSuffix(message, ".") // as a scheduler's; a sentence may follow
	if len(message) > 300 {
		message = strings.ToValidUTF8(message[:300], "") + "…"
	}
	return ": " + message
}

// startSignals are those that matter while pods are being created: what podSignals sees, pods that
// can't be created at all, and the deadline, with the best explanation that the pods give.
func (p *pass) startSignals() *v1alpha1.Verdict {
	o, candidate := p.o, p.candidate
	if v := podSignals(o, p.stable, candidate); v != nil {
		return v
	}
	// Not in the moment in which the rollout begins: a retry must be seen to have begun, or its wish stays.
	if v := candidate.noSidecar(); v != nil && !p.begins() {
		return v
	}
	if crowded := p.crowdedSoon(); crowded != "" {
		return fail(v1alpha1.CauseNoRoom, "%s", crowded)
	}
	// Measured in this phase: a retry must not fail by what was seen before it.
	if candidate.CreateFailure != "" && min(o.Now.Sub(candidate.CreateFailureSince), p.inPhase()) >= noRoomFor {
		if candidate.refused() {
			return fail(v1alpha1.CausePodWebhook, "pods come without their gate and are refused: the Pod webhook is down, or the gate annotation was overwritten; see the Headgate pods, then retry")
		}
		return cannotCreate(candidate.CreateFailure)
	}
	if p.inPhase() < p.policy.EffectiveProgressDeadline() {
		return nil
	}
	return p.notReady()
}

// noSidecar: nobody can split requests to such a candidate, however long it waits. From rest the Deployment webhook does not
// hold it (row 6); where another version is held it does, because to let it out would put stable's pods at stake unjudged.
func (r Revision) noSidecar() *v1alpha1.Verdict {
	for _, pod := range r.Pods {
		if pod.NoSidecar != "" && !pod.Terminating {
			return fail(v1alpha1.CauseNoSidecar, "pod %s has no sidecar, so that requests can't be split%s. To let such a version out without a rollout, "+
				"apply it with a new reason in the annotation %s", pod.Name, because(pod.NoSidecar), v1alpha1.BypassAnnotation)
		}
	}
	return nil
}

// refusal is why a sidecar refuses what it is told; empty: none does.
func (p *pass) refusal() string {
	for _, sc := range p.o.Sidecars {
		if sc.Rejected != "" {
			return fmt.Sprintf("the sidecar of pod %s refuses what Headgate tells it%s", sc.Pod, because(sc.Rejected))
		}
	}
	return ""
}

// whySilent is why sidecars have not acknowledged what they should.
func (p *pass) whySilent() string {
	if why := p.refusal(); why != "" {
		return why
	}
	if pod := p.handingOn(); pod != "" {
		return fmt.Sprintf("the sidecar of pod %s still hands its requests to stable, as it was told when this version was rejected", pod)
	}
	return "their sidecars did not reach Headgate before the progress deadline; a NetworkPolicy in the way is the likely cause"
}

// notReady is why a candidate that has had all its time is none to go on with.
func (p *pass) notReady() *v1alpha1.Verdict {
	r := p.candidate
	for _, pod := range r.Pods {
		if pod.Problem == ProblemUnschedulable && !pod.Terminating {
			return noRoom(pod)
		}
		if pod.Problem != ProblemNone && !pod.Terminating {
			return fail(string(pod.Problem), "pod %s did not start before the progress deadline%s", pod.Name, because(pod.Message))
		}
	}
	if ready := r.readyButGate(); ready > 0 && ready >= r.Replicas {
		return fail(v1alpha1.CauseSidecarSilent, "candidate pods are ready, but %s", p.whySilent())
	}
	why := ""
	for _, pod := range r.Pods {
		if why == "" && !pod.ReadyButGate && !pod.Terminating {
			why = because(pod.Message)
		}
	}
	return fail(v1alpha1.CauseProgressDeadline, "candidate pods did not become ready before the progress deadline%s", why)
}
