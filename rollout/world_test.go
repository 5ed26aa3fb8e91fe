// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package rollout_test

import (
	"fmt"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/headgate/headgate/api/v1alpha1"
	"github.com/headgate/headgate/rollout"
)

// world is a Deployment named web with everything around it, small enough to be read: the user, the
// webhooks, the Deployment controller (native_test.go), kubelets and sidecars. A version "v2" has the
// pod-template-hash v2 and the template digest #v2. Decide sees it only through observe, and changes it
// only through apply.
type world struct {
	now       time.Time
	policy    *v1alpha1.RolloutPolicySpec
	gone      time.Time // since when there is no policy
	uninstall bool
	status    v1alpha1.RolloutStatus
	wishes    v1alpha1.RolloutSpec
	verdict   v1alpha1.Verdict

	uid        types.UID
	generation int64
	n          int32
	noted      int32 // N as the Deployment controller last noted it
	paused     bool
	template   string
	gate       v1alpha1.Gate // the decision about template
	hold       *v1alpha1.Hold
	fields     v1alpha1.UserFields // the three fields as they stand
	bypass     string
	autoscaled bool
	noSplit    string

	versions  []*version
	stableWas []string // versions that have been stable, for row 5
	downSince time.Time
	unheard   string    // why another replica can't be asked; empty: it can
	seenSince time.Time // since when the controller is there; zero: always
	// leftOutSince is since when no Service leads to stable's pods.
	leftOutSince time.Time

	podWebhookDown, webhookDown, xdsDown bool
	shown                                string // the failure condition's message
	asleep                               bool   // the Deployment controller does nothing
	dropped                              bool   // another webhook removes Headgate's annotations
}

// version is one ReplicaSet, or what will be one.
type version struct {
	name    string
	exists  bool
	size    int32
	gate    v1alpha1.Gate
	pods    []*pod
	made    int
	trouble string // what new pods suffer from; empty: nothing
	quota   time.Time
}

type pod struct {
	rollout.Pod
	trouble   string
	startedAt time.Time // when it was ready first
	injected  bool      // it has a sidecar
	silent    bool
	refuses   string // why it refuses what it is told; empty: it does not
	cut       bool   // its sidecar is not connected
	lags      bool   // its sidecar is told by a replica that still believes that the candidate was rejected
	acked     ack
}

type ack struct {
	candidate string
	weight    int32
	handsOn   bool
}

// start is when all stories begin.
var start = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

func newWorld() *world {
	return &world{now: start, policy: &v1alpha1.RolloutPolicySpec{}, uid: "uid-1"}
}

func userFields() v1alpha1.UserFields {
	quarter, deadline := intstr.FromString("25%"), int32(600)
	return v1alpha1.UserFields{StrategyType: "RollingUpdate", MaxSurge: &quarter, MaxUnavailable: &quarter, ProgressDeadlineSeconds: &deadline}
}

func heldFields(k int32) v1alpha1.UserFields {
	surge, none, never := intstr.FromInt32(k), intstr.FromInt32(0), int32(1<<31-2)
	return v1alpha1.UserFields{StrategyType: "RollingUpdate", MaxSurge: &surge, MaxUnavailable: &none, ProgressDeadlineSeconds: &never}
}

func digest(version string) string { return "#" + version }

// version finds or makes one.
func (w *world) version(name string) *version {
	for _, v := range w.versions {
		if v.name == name {
			return v
		}
	}
	v := &version{name: name}
	w.versions = append(w.versions, v)
	return v
}

// create is the user's first apply, at rest: every pod is there and ready.
func (w *world) create(template string, n int32) {
	w.n, w.noted, w.template, w.fields, w.generation = n, n, template, userFields(), 1
	v := w.version(template)
	v.exists, v.size = true, n
	w.settle()
	w.now = w.now.Add(2 * time.Second)
	w.settle()
}

// update is the user's new template, admitted by the Deployment webhook (the rows of the design that
// concern a whole update, in their order).
func (w *world) update(template, bypass string) {
	if template == w.template && bypass == "" {
		return
	}
	w.generation++
	rendered := w.fields.ProgressDeadlineSeconds != nil && *w.fields.ProgressDeadlineSeconds != 600
	if h, _ := v1alpha1.ParseHold(w.status.Hold); w.hold == nil && rendered && h != nil && w.status.DeploymentUID == w.uid {
		w.hold = h // the webhook restores a wiped one from the record
	}
	w.template = template
	stable := w.status.Stable.Hash
	if w.status.DeploymentUID != w.uid || stable == "" {
		stable = ""
	}
	switch r := w.status.Rejected; {
	case w.policy == nil || w.policy.Suspend:
		w.release(w.hold != nil)
	case bypass != "":
		w.bypass = bypass
		w.release(w.hold != nil)
	case template == stable:
		w.release(w.hold != nil)
	case r != nil && r.Template == digest(template) && w.now.Before(r.Until.Time):
		w.putHold(1)
	case slices.Contains(w.stableWas, template):
		w.release(w.hold != nil)
	case w.hold == nil && (w.n == 0 || w.fields.StrategyType == "Recreate" || w.noSplit != ""):
		w.release(false)
	default:
		w.putHold(rollout.EffectiveSteps(w.policy, w.n, w.autoscaled)[0].CandidateReplicas(w.n, w.autoscaled))
	}
}

// putHold is the webhook's rows 4 and 7.
func (w *world) putHold(k int32) {
	if w.hold == nil {
		w.hold = &v1alpha1.Hold{User: w.fields}
	}
	h := *w.hold
	h.K, h.Template, h.Release = k, digest(w.template), ""
	w.hold, w.gate = &h, v1alpha1.GateClosed
	w.render()
}

// release gives the user's fields back, if they were held, and opens the gate for the template.
func (w *world) release(held bool) {
	if held && w.paused && w.n > 0 {
		w.hold.Release, w.hold.Template, w.gate = v1alpha1.ReleaseForward, digest(w.template), v1alpha1.GateOpen
		return
	}
	if held {
		w.fields = w.hold.User
	}
	w.hold, w.gate = nil, v1alpha1.GateOpen
}

// render brings the fields in line with the hold, unless the user has paused.
func (w *world) render() {
	if w.hold != nil && !w.paused {
		w.fields = heldFields(w.hold.K)
	}
}

func (w *world) resume() {
	w.paused = false
	w.generation++
	if w.hold != nil && w.hold.Release != "" {
		w.writeHold(*w.hold)
		return
	}
	w.render()
}

// writeHold is the controller's wish, admitted by the webhook.
func (w *world) writeHold(h v1alpha1.Hold) {
	if w.webhookDown || (h.Release == "" && w.hold != nil && w.hold.String() == h.String()) {
		return
	}
	if h.Template != digest(w.template) || (h.Release != "" && w.paused && w.n > 0) {
		return // stale, or put off
	}
	if w.hold == nil || w.hold.K != h.K || h.Release != "" {
		w.generation++ // the rendered fields differ
	}
	if h.Release == "" {
		w.hold, w.gate = &h, v1alpha1.GateClosed
		w.render()
		return
	}
	if h.Release == v1alpha1.ReleaseBack {
		w.template = w.status.Stable.Hash
	}
	w.fields, w.hold, w.gate = h.User, nil, v1alpha1.GateOpen
	if w.dropped {
		w.gate = ""
	}
}

func (w *world) leftOut() string {
	if w.leftOutSince.IsZero() {
		return ""
	}
	return "Service web leads to no pod of the stable version any more"
}

// observe is what the controller would see now.
func (w *world) observe() rollout.Observation {
	o := rollout.Observation{
		Now: w.now, SeenSince: w.seenSince, Unheard: w.unheard, Verdict: w.verdict, Wishes: w.wishes, Autoscaled: w.autoscaled, NoSplit: w.noSplit,
		StableDownSince: w.downSince, StableLeftOut: w.leftOut(), StableLeftOutSince: w.leftOutSince,
		Deployment: rollout.Deployment{
			UID: w.uid, Generation: w.generation, Replicas: w.n, Paused: w.paused,
			Current: !w.asleep, Complete: w.complete(), Template: digest(w.template), Gate: w.gate,
			User: w.fields, Bypass: w.bypass, FailureShown: w.shown,
		},
	}
	if w.hold != nil {
		h := *w.hold
		o.Deployment.Hold = &h
	}
	if w.policy == nil && !w.uninstall {
		o.PolicyGoneSince = w.gone
	}
	for _, v := range w.versions {
		if !v.exists {
			continue
		}
		r := rollout.Revision{Hash: v.name, Template: digest(v.name), Replicas: v.size, Desired: w.noted}
		if !v.quota.IsZero() {
			r.CreateFailure, r.CreateFailureSince = "exceeded quota: pods", v.quota
		}
		for _, p := range v.pods {
			r.Pods = append(r.Pods, p.Pod)
			if p.injected {
				o.Sidecars = append(o.Sidecars, rollout.Sidecar{
					Pod: p.Name, Revision: v.name, Connected: !w.xdsDown && !p.cut && !p.startedAt.IsZero(),
					Candidate: p.acked.candidate, Weight: p.acked.weight, HandsOn: p.acked.handsOn, Rejected: p.refuses,
				})
			}
		}
		o.Revisions = append(o.Revisions, r)
	}
	return o
}

// apply makes the world what the Decision says, in the order that the package demands.
func (w *world) apply(d rollout.Decision) {
	w.status = d.Status
	if s := d.Status.Stable.Hash; s != "" && !slices.Contains(w.stableWas, s) {
		w.stableWas = append(w.stableWas, s)
	}
	if d.ClearRetry {
		w.wishes.Retry = nil
	}
	if d.ClearPromote {
		w.wishes.Promote = nil
	}
	if d.ClearApprove {
		w.wishes.Approve = nil
	}
	w.shown = d.Failure
	for _, v := range w.versions {
		for _, p := range v.pods {
			if slices.Contains(d.CloseGates, v.name) {
				p.GateOpen = false
			}
			if slices.Contains(d.OpenGates, v.name) {
				p.GateOpen = true
			}
		}
		v.pods = slices.DeleteFunc(v.pods, func(p *pod) bool { return slices.Contains(d.DeletePods, p.Name) })
		if slices.Contains(d.DeleteRevisions, v.name) {
			*v = version{name: v.name, trouble: v.trouble, made: v.made}
		}
	}
	if d.Hold != nil {
		w.writeHold(*d.Hold)
	}
	for _, s := range d.Sizes {
		w.version(s.Revision).size = s.Replicas
	}
	if len(d.NoteReplicas) > 0 {
		w.noted = w.n
	}
}

// String is the pods that there are, for `show`.
func (w *world) String() string {
	s := ""
	for _, v := range w.versions {
		if !v.exists {
			continue
		}
		ready, gated, other := 0, 0, 0
		for _, p := range v.pods {
			switch {
			case p.Ready:
				ready++
			case p.ReadyButGate:
				gated++
			default:
				other++
			}
		}
		s += fmt.Sprintf("%s: size %d, %d ready, %d ready but for the gate, %d not\n", v.name, v.size, ready, gated, other)
	}
	f := w.fields
	return s + fmt.Sprintf("fields: %s maxSurge %s maxUnavailable %s\n", f.StrategyType, text(f.MaxSurge), text(f.MaxUnavailable))
}

func text(v *intstr.IntOrString) string {
	if v == nil {
		return "-"
	}
	return v.String()
}
