// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package rollout

import (
	"encoding/json"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/headgate/headgate/api/v1alpha1"
)

// Times that Decide keeps. Each is a promise of the design or the smallest that a real cluster allows.
const (
	// policyGoneFor: a chart that is re-created takes its policy away for some seconds.
	policyGoneFor = 30 * time.Second
	// stableDownFor: a stable revision without any pod for so long is a broken service; the fix must get out.
	stableDownFor = 30 * time.Second
	// leftOutFor: who changes a Service and a Deployment does so by two requests.
	leftOutFor = 3 * time.Second
	// unconnectedFor: without most sidecars of stable for so long, requests can't be split. Sidecars are back within
	// a second of a control plane that restarts, and a new leader has heard of all of them within a few.
	unconnectedFor = 30 * time.Second
	// silentUp and silentDown: how long a connected sidecar may leave a weight unacknowledged before it
	// is left out. Down is shorter: nothing but the verdict stands before weight 0.
	silentUp   = 5 * time.Second
	silentDown = 2 * time.Second
	// revertAfter: native tools poll; the failure must have been visible for so long before it is tidied away.
	revertAfter = 30 * time.Second
	// blindFor: after so long without data, onBlind says what happens.
	blindFor = 10 * time.Minute
	// backoffMin and backoffMax bound how soon a rejected template is tried again without being asked.
	backoffMin = 5 * time.Minute
	backoffMax = 6 * time.Hour
	// ungatedLimit: so many candidate pods without a gate mean that the Pod webhook is out of order.
	ungatedLimit = 3
	// tick is how soon an active rollout is looked at again even if nothing changes.
	tick = time.Second
	// maxPasses bounds how many rules may follow each other at one moment; the longest chain that a
	// test has found takes four.
	maxPasses = 8
	// quarantineReplicas: one pod is enough to look at.
	quarantineReplicas = 1
	// smallUnderHPA: with so few replicas one idling candidate distorts the autoscaler's arithmetic.
	smallUnderHPA = 5
)

// Decide says what should be, from the policy (nil when none selects the workload), the record, and
// what was seen. It is total: whatever it is given, it returns a Decision. It is a fixed point: given
// its own status and the same observation, it wants the same and reports no event again.
func Decide(policy *v1alpha1.RolloutPolicySpec, status v1alpha1.RolloutStatus, o Observation) Decision {
	o.Now = o.Now.Truncate(time.Microsecond) // what a record can hold: a restart must not move a limit
	var d Decision
	var events []Event
	for range maxPasses {
		d = onePass(policy, status, o)
		events = append(events, d.Events...)
		if equality.Semantic.DeepEqual(d.Status, status) {
			break
		}
		status = d.Status
	}
	d.Events = events
	return d
}

// onePass applies the first rule that matches, once. What it leads to may call for another at once
// (a roll back whose weight is 0 already is a quarantine), so that Decide repeats it.
func onePass(policy *v1alpha1.RolloutPolicySpec, status v1alpha1.RolloutStatus, o Observation) Decision {
	p := newPass(policy, status, o)
	if p.stale() {
		p.showFailure()
		p.because("the Deployment was read from a stale cache")
		p.d.Requeue = tick
		return p.d
	}
	p.adopt()
	p.noFuture()
	p.noteBypass()
	p.resolve()
	p.observeWeight()
	p.noteServices()
	p.noteUnconnected()
	p.wake()
	for _, r := range rules {
		if r.when(p) {
			r.then(p)
			break
		}
	}
	p.resolve()
	p.finishGates()
	p.finishHold()
	p.spendWishes()
	p.showFailure()
	p.repair()
	p.noteUntried()
	p.tidy()
	p.noteWeight()
	return p.d
}

// pass is one call of Decide.
type pass struct {
	given  *v1alpha1.RolloutPolicySpec // what the policy says now; nil when none selects the workload
	policy *v1alpha1.RolloutPolicySpec // what it said when this rollout began
	gone   bool                        // no policy, or suspended
	o      *Observation
	d      Decision
	s      *v1alpha1.RolloutStatus // &d.Status

	stable, candidate Revision
	// acked: every connected sidecar has acknowledged the wanted weight, one of stable's among them.
	acked bool
	// release is how the hold should end in this pass; empty: it goes on.
	release v1alpha1.Release
	// bypassed: a bypass reason was seen for the first time.
	bypassed bool
	// rescue: the candidate serves because stable can't; its gates stay open until the hold has ended.
	rescue bool
}

func newPass(policy *v1alpha1.RolloutPolicySpec, status v1alpha1.RolloutStatus, o Observation) *pass {
	p := &pass{given: policy, policy: policy, o: &o, d: Decision{Status: *status.DeepCopy()}}
	p.s = &p.d.Status
	p.gone = policy == nil || policy.Suspend
	if policy == nil {
		p.policy = &v1alpha1.RolloutPolicySpec{}
	}
	if p.s.Policy != "" && p.s.Phase != v1alpha1.PhaseIdle && p.s.DeploymentUID == o.Deployment.UID {
		var began v1alpha1.RolloutPolicySpec
		if json.Unmarshal([]byte(p.s.Policy), &began) == nil {
			p.policy = &began
		}
	}
	return p
}

// rule is one row of the ordered list below; the first that applies decides.
type rule struct {
	when func(*pass) bool
	then func(*pass)
}

// rules, in order. What users did comes before what the rollout wants.
var rules = []rule{
	// N = 0 while held: nothing can be judged, and growing back must not start with candidates.
	{(*pass).scaledToZero, (*pass).releaseBackAtZero},
	// It went out while nothing of Headgate was there to hold it.
	{(*pass).outNatively, (*pass).followOut},
	// Nothing of stable is left, while another version that was let out serves: that one is what counts.
	{(*pass).stableIsReplaced, (*pass).followServing},
	// A record for a workload at rest: wait for a hold, or follow what goes out natively.
	{(*pass).isIdle, (*pass).idle},
	// The user put the stable template back (undo, apply of the old version), or a roll back did.
	{(*pass).stableIsBack, (*pass).endBack},
	// A third template: the hold is about another one than the record.
	{(*pass).supersededByHold, (*pass).supersede},
	// A third template went out without a hold (bypass, an earlier stable revision, Recreate).
	{(*pass).supersededNatively, (*pass).followNative},
	// What had been let out was taken back and applied again, and the webhook holds it now.
	{(*pass).heldAgain, (*pass).supersede},
	// The webhook released the candidate (bypass, policy gone, stable down).
	{(*pass).releasedByWebhook, (*pass).followRelease},
	// No policy any more, or suspended: forward when nothing speaks against it, else back.
	{(*pass).policyGone, (*pass).releaseByPolicy},
	// Stable serves nobody: a candidate that is ready can only help.
	{(*pass).stableDown, (*pass).releaseToRescue},
	// Candidate pods came in without a gate, again and again.
	{(*pass).podWebhookDown, (*pass).giveUpWithoutGates},
	// Most of stable's sidecars are not there to split requests.
	{(*pass).unconnected, (*pass).releaseUnsplit},
	// Otherwise the phase decides.
	{func(*pass) bool { return true }, (*pass).byPhase},
}

func (p *pass) byPhase() {
	p.deleteUngated()
	switch p.s.Phase {
	case v1alpha1.PhaseStarting:
		p.starting()
	case v1alpha1.PhaseStepping:
		p.stepping()
	case v1alpha1.PhasePaused:
		p.paused()
	case v1alpha1.PhasePromoting:
		p.promoting()
	case v1alpha1.PhaseRollingBack:
		p.rollingBack()
	case v1alpha1.PhaseQuarantined:
		p.quarantined()
	default:
		p.enter(v1alpha1.PhaseIdle)
	}
}

// stale: this Deployment is older than one that was already decided about. Happens for a moment after
// a change of leader, whose caches fill at different times.
func (p *pass) stale() bool {
	return p.s.DeploymentUID == p.o.Deployment.UID && p.o.Deployment.Generation < p.s.DeploymentGeneration
}

// adopt makes sure that the record is about this Deployment: one for another uid counts as none.
func (p *pass) adopt() {
	if p.s.DeploymentUID != p.o.Deployment.UID {
		*p.s = v1alpha1.RolloutStatus{DeploymentUID: p.o.Deployment.UID}
	}
	p.s.DeploymentGeneration = p.o.Deployment.Generation
	if p.s.Phase == "" {
		p.enter(v1alpha1.PhaseIdle)
	}
}

// noteBypass records a bypass value the moment it is seen, at creation too, so that it works once.
func (p *pass) noteBypass() {
	b := p.o.Deployment.Bypass
	if b != "" && !slices.Contains(p.s.UsedBypasses, b) {
		p.bypassed = true
		p.s.UsedBypasses = lastN(append(p.s.UsedBypasses, b), 50)
	}
}

// noFuture: after the clock was set back, a limit starts again at most; it does not wait for the
// difference.
func (p *pass) noFuture() {
	now := p.o.Now
	if p.s.StepSince != nil && p.s.StepSince.After(now) {
		p.s.PausedFor = metav1.Duration{}
	}
	for _, t := range []**metav1.MicroTime{&p.s.PhaseSince, &p.s.StepSince, &p.s.WeightSince, &p.s.BlindSince, &p.s.UnconnectedSince} {
		if *t != nil && (*t).After(now) {
			*t = micro(now)
		}
	}
	if r := p.s.Rejected; r != nil && r.Until.Sub(now) > backoffMax {
		r.Until = metav1.NewTime(now.Add(backoffMax).Truncate(time.Second))
	}
}

// resolve finds the ReplicaSets of the recorded revisions: a candidate's appears some time after its
// hold, and one that was deleted by hand may come back under another hash.
func (p *pass) resolve() {
	p.s.Stable, p.s.Candidate = p.o.resolve(p.s.Stable), p.o.resolve(p.s.Candidate)
	p.stable, p.candidate = p.o.revision(p.s.Stable), p.o.revision(p.s.Candidate)
}

// enter starts a phase.
func (p *pass) enter(phase v1alpha1.Phase) {
	p.s.Phase = phase
	p.s.PhaseSince = micro(p.o.Now)
	p.s.ResumePhase = ""
	p.s.AwaitingApproval = false
}

// inPhase is how long the phase (or, while stepping, the step) lasts already.
func (p *pass) inPhase() time.Duration {
	if p.s.PhaseSince == nil {
		return 0
	}
	return p.o.Now.Sub(p.s.PhaseSince.Time)
}

// begins: the rollout began in this moment, by what is seen in it.
func (p *pass) begins() bool {
	return p.s.StartedAt != nil && p.o.Now.Equal(p.s.StartedAt.Time)
}

// setWeight wants a weight; it is in force once acknowledged.
func (p *pass) setWeight(w int32) {
	w = max(0, min(100, w))
	if p.s.Weight == w && p.s.WeightSince != nil {
		return
	}
	p.s.Weight, p.s.WeightSince = w, micro(p.o.Now)
	p.acked = false
}

// observeWeight notes which weight is in force. A connected sidecar that stays silent for too long is
// left out and named; one that isn't connected keeps what it had and can't be waited for.
func (p *pass) observeWeight() {
	if p.s.Candidate.Hash == "" {
		return
	}
	silent, stableAcked := p.acknowledgements()
	limit, falls := silentUp, p.s.Weight < p.s.WeightInForce
	if falls {
		limit = silentDown
	}
	overdue := p.sinceWeight() >= limit
	p.acked = stableAcked && (len(silent) == 0 || overdue)
	// Downwards nobody is waited for longer than the limit, not even if no sidecar answers at all.
	if p.acked || (overdue && falls) {
		out := p.leftOut(silent, falls)
		p.s.WeightInForce, p.s.Unacknowledged = p.s.Weight, firstN(out, maxUnacknowledged)
	}
	p.noteWeight()
}

// maxUnacknowledged is how many sidecars are named (the CRD refuses more).
const maxUnacknowledged = 10

// maxWeights is how many weights are kept of a rollout (the CRD refuses more): three for each of twenty steps (it is in force, waits
// for approval, and then for the next one), and some of a promotion, which may have one for each pod.
const maxWeights = 64

// noteWeight keeps since when what has been in force, and for which step, and what else looks are told of it, for whoever looks
// back. What a pass says of its own moment is replaced by what it leads to, which is all that a look can see. Where there is no
// room the newest takes the place of the one before it: the steps matter most.
func (p *pass) noteWeight() {
	if p.s.Candidate.Hash == "" {
		return
	}
	now := v1alpha1.WeightRecord{
		Since: *micro(p.o.Now), Step: StepInForce(p.s), Weight: p.s.WeightInForce,
		Waiting: p.s.StepSince == nil, Paused: p.s.Phase == v1alpha1.PhasePaused,
	}
	if p.s.JudgedFor.Duration > 0 {
		now.JudgedFor = p.s.JudgedFor.DeepCopy()
	}
	kept := p.s.Weights
	if n := len(kept); n > 0 && kept[n-1].Since.Equal(&now.Since) {
		kept = kept[:n-1]
	}
	if n := len(kept); n == 0 || !sameWeight(kept[n-1], now) {
		kept = append(firstN(kept, maxWeights-1), now)
	}
	p.s.Weights = kept
}

// sameWeight says that two records say the same, but for since when.
func sameWeight(a, b v1alpha1.WeightRecord) bool {
	a.Since = b.Since
	return equality.Semantic.DeepEqual(a, b)
}

// maxServices is how many Services and ports are kept of stable (the CRD refuses more).
const maxServices = 64

// noteServices keeps what has led to stable's pods, also when it leads elsewhere now: a Service may be changed before the
// Deployment, as Helm does it.
func (p *pass) noteServices() {
	all := slices.Concat(p.s.StableServices, p.o.revision(p.s.Stable).Services)
	slices.Sort(all)
	p.s.StableServices = firstN(slices.Compact(all), maxServices)
}

// setStable makes another revision the stable one; nothing is known of Services that have led to it.
func (p *pass) setStable(r v1alpha1.Revision) {
	if r.Template != p.s.Stable.Template {
		p.s.StableServices = nil
	}
	p.s.Stable = r
}

// acknowledgements names the pods whose connected sidecar has not acknowledged the wanted weight, and says
// whether one of stable's has.
func (p *pass) acknowledgements() (silent []string, stableAcked bool) {
	for _, sc := range p.o.Sidecars {
		if !sc.Connected || (sc.Revision != p.s.Stable.Hash && sc.Revision != p.s.Candidate.Hash) {
			continue
		}
		if !p.hasAcknowledged(sc) {
			silent = append(silent, sc.Pod)
			continue
		}
		stableAcked = stableAcked || sc.Revision == p.s.Stable.Hash
	}
	return silent, stableAcked
}

// hasAcknowledged: the connected sidecar has what it should have.
func (p *pass) hasAcknowledged(sc Sidecar) bool {
	return sc.Candidate == p.s.Candidate.Hash && sc.Weight == p.s.Weight &&
		(sc.Revision != p.s.Candidate.Hash || sc.HandsOn == Over(p.s))
}

// leftOut names who may go on with another than the wanted weight: who is silent, and stable's pods whose sidecars are not
// connected when it falls, or have not been since. Where more are than the record names, each counts of which that is not known
// to be otherwise. (That a sidecar is not connected at another time means nothing: it has
// what it was told. Nor does it in a quarantine that one is silent for a moment, because it has just come back.)
func (p *pass) leftOut(silent []string, falls bool) (names []string) {
	for _, pod := range silent {
		if p.s.Phase != v1alpha1.PhaseQuarantined || p.sinceWeight() < 2*silentUp || p.mayBeNamed(pod) {
			names = append(names, pod)
		}
	}
	falls = falls || p.s.Phase == v1alpha1.PhaseRollingBack
	for _, sc := range p.o.Sidecars {
		serves := func(pod Pod) bool { return pod.Name == sc.Pod && pod.Ready }
		if !sc.Connected && slices.ContainsFunc(p.stable.Pods, serves) && (falls || p.mayBeNamed(sc.Pod)) {
			names = append(names, sc.Pod)
		}
	}
	slices.Sort(names)
	return names
}

// mayBeNamed: the record names the pod, or has no room to name all.
func (p *pass) mayBeNamed(pod string) bool {
	return slices.Contains(p.s.Unacknowledged, pod) || len(p.s.Unacknowledged) >= maxUnacknowledged
}

func (p *pass) sinceWeight() time.Duration {
	if p.s.WeightSince == nil {
		return 0
	}
	return p.o.Now.Sub(p.s.WeightSince.Time)
}

// noWeight says that the candidate gets nothing and all who listen know it, or had their time to. That
// none was ever in force is not enough: a weight on its way up has reached some sidecars already.
func (p *pass) noWeight() bool {
	return p.s.Weight == 0 && p.s.WeightInForce == 0 && (p.acked || p.sinceWeight() >= silentDown)
}

func (p *pass) event(warning bool, reason, message string) {
	p.d.Events = append(p.d.Events, Event{Warning: warning, Reason: reason, Message: message})
}

func (p *pass) because(reason string) {
	p.d.Reason = reason
}

func micro(t time.Time) *metav1.MicroTime {
	m := metav1.NewMicroTime(t.Truncate(time.Microsecond))
	return &m
}

func lastN[T any](s []T, n int) []T {
	return s[max(0, len(s)-n):]
}

func firstN[T any](s []T, n int) []T {
	return s[:min(n, len(s))]
}
