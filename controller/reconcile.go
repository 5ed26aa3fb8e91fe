// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"fmt"
	"reflect"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/headgate/headgate/api/v1alpha1"
	"github.com/headgate/headgate/rollout"
	"github.com/headgate/headgate/webhook"
)

// Reconciler keeps one workload at a time what Decide says it should be. It runs on the leader only.
type Reconciler struct {
	// Client reads from the caches and writes; APIReader reads live.
	Client    client.Client
	APIReader client.Reader
	// Events reports what happened.
	Events events.EventRecorder
	// Namespace is Headgate's own, Deployment the control plane's name in it.
	Namespace, Deployment string
	// Deleted are the policies that may be about to come back; nil: what is deleted counts no more.
	Deleted *webhook.DeletedPolicies
	// Now is the clock.
	Now func() time.Time
	// Sidecars tells what sidecars acknowledged.
	Sidecars Sidecars
	// Looks tells what the analysis says; nil: nothing, ever. Then no step with a weight is accepted, and only pods and
	// people end a rollout.
	Looks Analysis

	memory memory
}

// Analysis says what is known of a workload's candidate; *Looks does.
type Analysis interface {
	// Verdict is the last one about the candidate that the status names, with the judge's state as text.
	Verdict(key types.NamespacedName, s *v1alpha1.RolloutStatus) (v1alpha1.Verdict, string)
	// Forget drops what is known about a workload.
	Forget(key types.NamespacedName)
}

func (r *Reconciler) analysis() Analysis {
	if r.Looks == nil {
		return (*Looks)(nil)
	}
	return r.Looks
}

// Reconcile observes, decides, applies.
func (r *Reconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	w, err := r.gather(ctx, req.NamespacedName)
	if err != nil {
		return ctrl.Result{}, err
	}
	if w == nil || !w.concerned() || w.deployment.DeletionTimestamp != nil {
		r.memory.forget(req.NamespacedName)
		r.analysis().Forget(req.NamespacedName)
		return ctrl.Result{}, nil
	}
	status := w.status()
	o := r.completeObservation(ctx, w, req.NamespacedName)
	verdict, judgeState := r.analysis().Verdict(req.NamespacedName, &status)
	o.Verdict = r.explained(ctx, w, verdict)
	d := rollout.Decide(w.policy, status, o)
	sameRollout := d.Status.Candidate.Hash == status.Candidate.Hash && d.Status.StartedAt.Equal(status.StartedAt)
	if judgeState != "" && sameRollout && status.Candidate.Hash != "" && d.Status.Phase != v1alpha1.PhaseIdle {
		d.Status.JudgeState = judgeState
	}
	setConditions(&d.Status, capturedPorts(w.pods[d.Status.Stable.Hash]), metav1.NewTime(o.Now))
	r.logChange(ctx, req.NamespacedName, d)
	if err := r.apply(ctx, w, d); err != nil {
		if conflict(err) {
			return ctrl.Result{RequeueAfter: retrySoon}, nil
		}
		return ctrl.Result{}, err
	}
	return ctrl.Result{RequeueAfter: d.Requeue}, nil
}

// explained adds to a verdict that requests are not split why they are not, where Services tell; and where some are not, nothing
// but a Fail is what the judge says of the others: it would be promoted unseen for those, and lost for them where no port of
// it answers.
func (r *Reconciler) explained(ctx context.Context, w *workload, v v1alpha1.Verdict) v1alpha1.Verdict {
	s := w.status()
	stable, candidate := w.pods[s.Stable.Hash], w.pods[s.Candidate.Hash]
	var services corev1.ServiceList
	if v.Result == v1alpha1.ResultFail || s.WeightInForce == 0 || len(candidate) == 0 ||
		r.Client.List(ctx, &services, client.InNamespace(w.deployment.Namespace), client.UnsafeDisableDeepCopy) != nil {
		return v // the sentence is right without
	}
	if v.Cause == rollout.CauseNoSplit {
		if why := whyNotSplit(stable, candidate, services.Items, anyPort); why != "" {
			v.Message = shorten(v.Message+"; "+why, maxMessage)
		}
		return v
	}
	if why := whyNotSplit(stable, candidate, services.Items, ledTo); why != "" {
		v.Result, v.Cause = v1alpha1.ResultHold, rollout.CauseNoSplit
		v.Message = shorten(fmt.Sprintf("some requests can't go to %s, and are not judged: %s", s.Candidate.Hash, why), maxMessage)
	}
	return v
}

// completeObservation adds what the caches don't know: acknowledgements, and since when things are so.
func (r *Reconciler) completeObservation(ctx context.Context, w *workload, key types.NamespacedName) rollout.Observation {
	now := r.Now().Truncate(time.Microsecond)
	o := w.observe(now)
	o.Sidecars = r.sidecars(w, key)
	o.Unheard = r.Sidecars.Unheard()
	o.SeenSince = r.memory.since(key, "seen", now)
	if s := w.splitState(); !s.Possible {
		o.NoSplit = s.Reason
	} else {
		o.NoSplit = webhook.NoRoomToHold(w.deployment)
	}
	o.PolicyGoneSince = r.memory.while(w.policy == nil, key, "policyGone", now)
	if w.policy == nil && r.releasing(ctx) {
		o.PolicyGoneSince = time.Time{} // at once
	}
	o.StableDownSince = w.stableDownSince()
	if gone := r.memory.while(w.stableGone(), key, "stableGone", now); !gone.IsZero() {
		o.StableDownSince = gone
	}
	r.observeServices(ctx, w, &o)
	o.StableLeftOutSince = r.memory.while(o.StableLeftOut != "", key, "stableLeftOut", now)
	for i := range o.Revisions {
		rev := &o.Revisions[i]
		if seen := r.memory.while(rev.CreateFailure != "", key, "createFailure "+rev.Hash, now); seen.After(rev.CreateFailureSince) {
			rev.CreateFailureSince = seen
		}
	}
	return o
}

// logChange prints the Decision once for each change of it.
func (r *Reconciler) logChange(ctx context.Context, key types.NamespacedName, d rollout.Decision) {
	brief := [...]any{d.Status.Phase, d.Status.Step, d.Status.Weight, d.Status.CandidateReplicas, d.Reason}
	if r.memory.changed(key, brief) {
		log.FromContext(ctx).Info("Decided", "phase", d.Status.Phase, "step", d.Status.Step, "weight", d.Status.Weight,
			"inForce", d.Status.WeightInForce, "k", d.Status.CandidateReplicas, "candidate", d.Status.Candidate.Hash,
			"stable", d.Status.Stable.Hash, "reason", d.Reason, "hold", d.Hold, "failure", d.Failure)
	}
}

// memory is what only this process knows; losing it costs time, never correctness.
type memory struct {
	mu    sync.Mutex
	times map[types.NamespacedName]map[string]time.Time
	last  map[types.NamespacedName]any
	// templates are those that a workload had in the last pass.
	templates map[types.NamespacedName]string
}

// newTemplate says whether the workload had another template in the last pass, or none is known.
func (m *memory) newTemplate(key types.NamespacedName, digest string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.templates == nil {
		m.templates = map[types.NamespacedName]string{}
	}
	before := m.templates[key]
	m.templates[key] = digest
	return before != digest
}

// since is when this was first said, now if it is the first time.
func (m *memory) since(key types.NamespacedName, what string, now time.Time) time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.times == nil {
		m.times = map[types.NamespacedName]map[string]time.Time{}
	}
	if m.times[key] == nil {
		m.times[key] = map[string]time.Time{}
	}
	if _, known := m.times[key][what]; !known {
		m.times[key][what] = now
	}
	return m.times[key][what]
}

// while is since when this is so; the zero time while it is not.
func (m *memory) while(is bool, key types.NamespacedName, what string, now time.Time) time.Time {
	if !is {
		m.clear(key, what)
		return time.Time{}
	}
	return m.since(key, what, now)
}

// every says whether this was last true for so long, or never.
func (m *memory) every(d time.Duration, key types.NamespacedName, what string, now time.Time) bool {
	if now.Sub(m.since(key, what, now.Add(-d))) < d {
		return false
	}
	m.clear(key, what)
	m.since(key, what, now)
	return true
}

func (m *memory) clear(key types.NamespacedName, what string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.times[key], what)
}

func (m *memory) forget(key types.NamespacedName) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.times, key)
	delete(m.last, key)
	delete(m.templates, key)
}

func (m *memory) changed(key types.NamespacedName, v any) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.last == nil {
		m.last = map[types.NamespacedName]any{}
	}
	if reflect.DeepEqual(m.last[key], v) {
		return false
	}
	m.last[key] = v
	return true
}
