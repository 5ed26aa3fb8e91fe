// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/headgate/headgate/api/v1alpha1"
)

func TestRow6CannotHold(t *testing.T) {
	goesOut := func(f v1alpha1.UserFields) outcome {
		return outcome{Row: RowCannotHold, Action: ActionLeaveAlone, Version: "v2", Fields: f, Gate: open, Warned: 1}
	}
	v1 := deployment("v1")
	to := func(edits ...func(*appsv1.Deployment)) *appsv1.Deployment {
		return with(with(v1, edits...), setTemplate("v2"))
	}
	checkHold(t, map[string]holdCase{
		"strategy Recreate":                    {in: update(v1, to(fields(recreate()))), want: goesOut(recreate())},
		"N = 0":                                {in: update(v1, to(scaledTo(0))), want: goesOut(defaults())},
		"maxSurge 0":                           {in: update(v1, to(fields(rolling("0", "1", 600)))), want: goesOut(rolling("0", "1", 600))},
		"maxSurge 0 %":                         {in: update(v1, to(fields(rolling("0%", "1", 600)))), want: goesOut(rolling("0%", "1", 600))},
		"requests can't be split":              {in: update(v1, to(), func(in *HoldInput) { in.Split = SplitState{Reason: "no sidecar"} }), want: goesOut(defaults())},
		"no sidecar":                           {in: update(v1, to(), noSidecar), want: goesOut(defaults())},
		"the exported manifest says Recreate":  {in: update(v1, deployment("v2", heldBy(1, recreate()))), want: goesOut(recreate())},
		"a new Deployment without any stable":  {in: update(v1, to(), noRecord, owning(), func(in *HoldInput) { in.Split = SplitFromPods(nil) }), want: goesOut(defaults())},
		"the old object had Recreate, not now": {in: update(with(v1, fields(recreate())), to()), want: outcome{Row: RowCandidate, Action: ActionHold, Version: "v2", Fields: heldFields(1), K: 1, User: defaults(), Gate: closed, Warned: 1}},
	})
}

// TestWayOutWithoutRoom is what a candidate without room says to do: maxSurge 0 is noted while it is in quarantine, comes
// into force with the undo, and later updates go out natively; the very version that was rejected once its back-off is over.
func TestWayOutWithoutRoom(t *testing.T) {
	user := rolling("0", "1", 600)
	until := noon.Add(time.Minute)
	quarantined := withRecord(trying("v2", v1alpha1.PhaseQuarantined), rejected("v2", until))
	idle := withRecord(rejected("v2", until))
	q := deployment("v2", heldBy(1, defaults()))
	noted := DecideHold(update(q, with(q, fields(user)), quarantined)).Deployment
	back := DecideHold(update(noted, with(noted, setTemplate("v1")), quarantined)).Deployment
	if isHeld := back.Annotations[v1alpha1.HoldAnnotation]; isHeld != "" || !equalFields(FieldsOf(back), user) {
		t.Fatalf("after the undo: fields %+v, hold %q", FieldsOf(back), isHeld)
	}
	checkHold(t, map[string]holdCase{
		"a third template while it is held": {
			in:   update(noted, with(noted, setTemplate("v3")), quarantined),
			want: outcome{Row: RowCandidate, Action: ActionHold, Version: "v3", Fields: heldFields(1), K: 1, User: user, Gate: closed, Warned: 2},
		},
		"another update after the undo": {
			in:   update(back, with(back, setTemplate("v3")), idle),
			want: outcome{Row: RowCannotHold, Action: ActionLeaveAlone, Version: "v3", Fields: user, Gate: open, Warned: 1},
		},
		"the same update within its back-off": {
			in:   update(back, with(back, setTemplate("v2")), idle),
			want: outcome{Row: RowRejected, Action: ActionQuarantine, Version: "v2", Fields: heldFields(1), K: 1, User: user, Gate: closed, Warned: 2},
		},
		"the same update after it": {
			in:   update(back, with(back, setTemplate("v2")), idle, func(in *HoldInput) { in.Now = until }),
			want: outcome{Row: RowCannotHold, Action: ActionLeaveAlone, Version: "v2", Fields: user, Gate: open, Warned: 1},
		},
	})
}

func TestRow6aStableDown(t *testing.T) {
	v1, held := deployment("v1"), deployment("v2", heldBy(2, defaults()))
	checkHold(t, map[string]holdCase{
		"stable is down for long: the fix goes out": {
			in:   update(v1, with(v1, setTemplate("v2")), stableDown(30*time.Second)),
			want: outcome{Row: RowStableDown, Action: ActionLeaveAlone, Version: "v2", Fields: defaults(), Gate: open, Warned: 1},
		},
		"stable is down for a moment: held": {
			in:   update(v1, with(v1, setTemplate("v2")), stableDown(29*time.Second)),
			want: outcome{Row: RowCandidate, Action: ActionHold, Version: "v2", Fields: heldFields(1), K: 1, User: defaults(), Gate: closed, Warned: 1},
		},
		"stable went down mid-rollout: a third version goes out": {
			in:   update(held, with(held, setTemplate("v3")), stableDown(time.Minute)),
			want: outcome{Row: RowStableDown, Action: ActionReleaseForward, Version: "v3", Fields: defaults(), Gate: open, Warned: 1},
		},
		"stable is down and somebody writes a label: the candidate stays the controller's": {
			in:   update(held, with(held, note("a", "b")), stableDown(time.Minute)),
			want: outcome{Row: RowHeld, Action: ActionKeep, Version: "v2", Fields: heldFields(2), K: 2, User: defaults(), Gate: closed},
		},
	})
}

func TestRow7Candidate(t *testing.T) {
	v1, held := deployment("v1"), deployment("v2", heldBy(4, rolling("50%", "1", 300)))
	hold := func(version string, k int32, user v1alpha1.UserFields) outcome {
		return outcome{Row: RowCandidate, Action: ActionHold, Version: version, Fields: heldFields(k), K: k, User: user, Gate: closed, Warned: 1}
	}
	warnedTwice := func(o outcome) outcome { o.Warned = 2; return o } // of what failed before, too
	steps := func(s ...v1alpha1.Step) func(*HoldInput) { return func(in *HoldInput) { in.Policy.Steps = s } }
	checkHold(t, map[string]holdCase{
		"a new template is held with k of the first step": {in: update(v1, with(v1, setTemplate("v2"))), want: hold("v2", 1, defaults())},
		"k follows the weight":                            {in: update(v1, with(v1, setTemplate("v2")), steps(v1alpha1.Step{Weight: 30})), want: hold("v2", 3, defaults())},
		"k follows the new N": {
			in: update(v1, with(v1, setTemplate("v2"), scaledTo(40)), steps(v1alpha1.Step{Weight: 30})), want: hold("v2", 12, defaults()),
		},
		"replicas of a step win over its weight": {
			in: update(v1, with(v1, setTemplate("v2")), steps(v1alpha1.Step{Weight: 1, Replicas: ptr(intstr.FromInt32(4))})), want: hold("v2", 4, defaults()),
		},
		"under an autoscaler k is at most a tenth": {
			in: update(v1, with(v1, setTemplate("v2")), steps(v1alpha1.Step{Weight: 50}), func(in *HoldInput) { in.Autoscaled = true }), want: hold("v2", 1, defaults()),
		},
		"new fields of the same write are the user's": {
			in: update(v1, with(v1, setTemplate("v2"), fields(rolling("3", "0", 30)))), want: hold("v2", 1, rolling("3", "0", 30)),
		},
		"the user's fields are the hold's by chance: they are recorded all the same": {
			in: update(with(v1, fields(rolling("1", "0", 600))), with(v1, setTemplate("v2"), fields(rolling("1", "0", 600)))), want: hold("v2", 1, rolling("1", "0", 600)),
		},
		"a third template mid-rollout starts again, and the user's fields are still those of before": {
			in: update(held, with(held, setTemplate("v3")), withRecord(trying("v2", v1alpha1.PhaseStepping))), want: hold("v3", 1, rolling("50%", "1", 300)),
		},
		"a third template that can't have a sidecar is held all the same: stable's pods stay": {
			in: update(held, with(held, setTemplate("v3")), withRecord(trying("v2", v1alpha1.PhaseStepping)), noSidecar), want: hold("v3", 1, rolling("50%", "1", 300)),
		},
		"a third template while quarantined is tried": {
			in:   update(held, with(held, setTemplate("v3")), withRecord(trying("v2", v1alpha1.PhaseQuarantined), rejected("v2", noon.Add(time.Hour)))),
			want: warnedTwice(hold("v3", 1, rolling("50%", "1", 300))),
		},
		"a third template while promoting gets one pod on top": {
			in: update(deployment("v2", gated(open)), deployment("v3", gated(open)), steps(v1alpha1.Step{Weight: 50}), withRecord(trying("v2", v1alpha1.PhasePromoting))), want: hold("v3", 1, defaults()),
		},
		"an exported manifest of a new version: held, with the fields that its annotation tells": {
			in: update(v1, deployment("v2", heldBy(3, rolling("5", "1", 300)))), want: hold("v2", 1, rolling("5", "1", 300)),
		},
		"an exported manifest applied mid-rollout, exported at another k: nothing of it is a wish": {
			in: update(held, deployment("v3", heldBy(1, rolling("7", "7", 70)))), want: hold("v3", 1, rolling("50%", "1", 300)),
		},
		"paused, then a new template: the fields stay the user's": {
			in:   update(with(v1, paused), with(v1, paused, setTemplate("v2"))),
			want: outcome{Row: RowCandidate, Action: ActionHold, Version: "v2", Fields: defaults(), K: 1, User: defaults(), Gate: closed, Warned: 1},
		},
		"a new template and pause in one write: the fields stay the user's": {
			in:   update(v1, with(v1, paused, setTemplate("v2"))),
			want: outcome{Row: RowCandidate, Action: ActionHold, Version: "v2", Fields: defaults(), K: 1, User: defaults(), Gate: closed, Warned: 1},
		},
		"a new template and resume in one write, not held before: rendered at once": {
			in: update(with(v1, paused), with(v1, setTemplate("v2"))), want: hold("v2", 1, defaults()),
		},
		"held, paused, and a third template: the fields stay as they are": {
			in:   update(with(held, paused), with(held, paused, setTemplate("v3"))),
			want: outcome{Row: RowCandidate, Action: ActionHold, Version: "v3", Fields: heldFields(4), K: 1, User: rolling("50%", "1", 300), Gate: closed, Warned: 1},
		},
		"called again after another webhook dropped our annotations: the rendered fields are no wish": {
			in: update(v1, with(v1, setTemplate("v2"), fields(heldFields(1)))), want: hold("v2", 1, defaults()),
		},
		"the same mid-rollout, with another k": {
			in: update(held, with(held, setTemplate("v3"), fields(heldFields(1)), func(d *appsv1.Deployment) { d.Annotations = nil })), want: hold("v3", 1, rolling("50%", "1", 300)),
		},
		"without a record, the first update after installing": {
			in: update(v1, with(v1, setTemplate("v2")), noRecord), want: hold("v2", 1, defaults()),
		},
	})
}

func TestRow8Held(t *testing.T) {
	user := rolling("50%", "1", 300)
	held := deployment("v2", heldBy(2, user))
	keep := func(u v1alpha1.UserFields, warned int) outcome {
		return outcome{Row: RowHeld, Action: ActionKeep, Version: "v2", Fields: heldFields(2), K: 2, User: u, Gate: closed, Warned: warned}
	}
	onPause := func(user v1alpha1.UserFields, f v1alpha1.UserFields, warned int) outcome {
		return outcome{Row: RowHeld, Action: ActionKeep, Version: "v2", Fields: f, K: 2, User: user, Gate: closed, Warned: warned}
	}
	withCopy := func(r *v1alpha1.Rollout) {
		trying("v2", v1alpha1.PhaseStepping)(r)
		r.Status.Hold = held.Annotations[v1alpha1.HoldAnnotation]
	}
	wiped := with(held, func(d *appsv1.Deployment) { d.Annotations = nil })
	waiting := with(held, paused, func(d *appsv1.Deployment) {
		h := v1alpha1.Hold{K: 2, Template: digestOf("v2"), User: user, UID: testUID, Release: v1alpha1.ReleaseForward}
		annotate(d, v1alpha1.HoldAnnotation, h.String())
		setGate(d, open)
	})
	early := with(deployment("v2", paused), func(d *appsv1.Deployment) {
		renderHold(d, v1alpha1.Hold{K: 2, Template: digestOf("v2"), User: defaults(), UID: testUID}, false)
	})
	checkHold(t, map[string]holdCase{
		"a label goes through":              {in: update(held, with(held, note("a", "b"))), want: keep(user, 0)},
		"scaling goes through":              {in: update(held, with(held, scaledTo(20))), want: keep(user, 0)},
		"the manifest applied again":        {in: update(held, deployment("v2", fields(user))), want: keep(user, 0)},
		"annotations wiped by a replace":    {in: update(held, with(wiped, fields(user))), want: keep(user, 0)},
		"only the annotation wiped":         {in: update(held, wiped), want: keep(user, 0)},
		"a new maxSurge is noted":           {in: update(held, with(held, fields(rolling("7", "0", v1alpha1.HeldProgressDeadlineSeconds)))), want: keep(rolling("7", "1", 300), 1)},
		"all three fields are noted":        {in: update(held, with(held, fields(rolling("7", "3", 60)))), want: keep(rolling("7", "3", 60), 1)},
		"Recreate is noted, not applied":    {in: update(held, with(held, fields(recreate()))), want: keep(recreate(), 1)},
		"Recreate again is no new wish":     {in: update(deployment("v2", heldBy(2, recreate())), deployment("v2", fields(recreate()))), want: keep(recreate(), 1)},
		"to the type of now":                {in: update(deployment("v2", heldBy(2, recreate())), deployment("v2", heldBy(2, recreate()))), want: keep(recreate(), 1)},
		"from Recreate to a rolling one":    {in: update(deployment("v2", heldBy(2, recreate())), deployment("v2", fields(rolling("3", "1", 600)))), want: keep(rolling("3", "1", 600), 1)},
		"maxSurge 0 is noted":               {in: update(held, with(held, fields(rolling("0", "1", 300)))), want: keep(rolling("0", "1", 300), 1)},
		"a forged k is put back":            {in: update(held, with(held, note(v1alpha1.HoldAnnotation, v1alpha1.Hold{K: 9, Template: digestOf("v2"), User: user, UID: testUID}.String()))), want: keep(user, 0)},
		"a forged release is put back":      {in: update(held, with(held, note(v1alpha1.HoldAnnotation, v1alpha1.Hold{K: 2, Template: digestOf("v2"), User: user, Release: "Forward"}.String()))), want: keep(user, 0)},
		"a forged open gate is put back":    {in: update(held, with(held, gated(open))), want: keep(user, 0)},
		"garbage in the annotation":         {in: update(held, with(held, note(v1alpha1.HoldAnnotation, "{"))), want: keep(user, 0)},
		"no record yet, just held":          {in: update(held, with(held, note("a", "b")), noRecord), want: keep(user, 0)},
		"an export at another k, applied":   {in: update(held, with(held, heldBy(1, user))), want: keep(user, 0)},
		"wiped behind the webhook's back":   {in: update(wiped, wiped, withRecord(withCopy)), want: keep(user, 0)},
		"garbage behind the webhook":        {in: update(with(held, note(v1alpha1.HoldAnnotation, "{")), with(held, note(v1alpha1.HoldAnnotation, "{")), withRecord(withCopy)), want: keep(user, 0)},
		"pausing changes nothing":           {in: update(held, with(held, paused)), want: keep(user, 0)},
		"paused: new fields are noted":      {in: update(with(held, paused), with(held, paused, fields(rolling("7", "3", 60)))), want: keep(rolling("7", "3", 60), 1)},
		"to a rolling one, a field as held": {in: update(deployment("v2", heldBy(2, recreate())), deployment("v2", fields(rolling("34%", "0", 600)))), want: keep(rolling("34%", "0", 600), 1)},
		"to a rolling one, k as held":       {in: update(deployment("v2", heldBy(2, recreate())), deployment("v2", fields(rolling("2", "1", 600)))), want: keep(rolling("2", "1", 600), 1)},
		"to one that could not be":          {in: update(deployment("v2", heldBy(2, recreate())), deployment("v2", fields(rolling("0", "0", 600)))), want: keep(func() v1alpha1.UserFields { f := rolling("0", "1", 600); f.MaxUnavailable = nil; return f }(), 1)},
		"paused and Recreate":               {in: update(with(held, paused), with(held, paused, fields(recreate()))), want: keep(recreate(), 1)},
		"resumed with another maxSurge":     {in: update(with(held, paused), with(held, fields(rolling("7", "3", 60)))), want: keep(rolling("7", "3", 60), 1)},
		"paused before held: still his":     {in: update(early, with(early, note("a", "b"))), want: onPause(defaults(), defaults(), 0)},
		"paused before held: new fields":    {in: update(early, with(early, fields(rolling("7", "3", 60)))), want: onPause(rolling("7", "3", 60), rolling("7", "3", 60), 1)},
		"paused before held, then resumed":  {in: update(early, with(early, func(d *appsv1.Deployment) { d.Spec.Paused = false })), want: keep(defaults(), 0)},
		"a release already happened; the record does not know yet": {
			in:   update(deployment("v2", gated(open)), deployment("v2", gated(open), scaledTo(3)), withRecord(withCopy)),
			want: outcome{Row: RowNothing, Action: ActionLeaveAlone, Version: "v2", Fields: defaults(), Gate: open},
		},
		"a release waits: the write that resumes still changes no field": {
			in:   update(waiting, with(waiting, func(d *appsv1.Deployment) { d.Spec.Paused = false })),
			want: outcome{Row: RowHeld, Action: ActionKeep, Version: "v2", Fields: heldFields(2), K: 2, User: user, Release: v1alpha1.ReleaseForward, Gate: open},
		},
		"a release waited: the next write renders it": {
			in: update(with(waiting, func(d *appsv1.Deployment) { d.Spec.Paused = false }),
				with(waiting, note("a", "b"), func(d *appsv1.Deployment) { d.Spec.Paused = false })),
			want: outcome{Row: RowHeld, Action: ActionReleaseForward, Version: "v2", Fields: user, Gate: open},
		},
		"a release waits, and a third template arrives: held": {
			in:   update(waiting, with(waiting, setTemplate("v3"))),
			want: outcome{Row: RowCandidate, Action: ActionHold, Version: "v3", Fields: heldFields(2), K: 1, User: user, Gate: closed, Warned: 1},
		},
	})
}

func TestForeignHolds(t *testing.T) {
	elsewhere := func(d *appsv1.Deployment) {
		renderHold(d, v1alpha1.Hold{K: 3, Template: TemplateDigest(d.Spec.Template), User: rolling("5", "1", 300), UID: "uid-0"}, true)
	}
	created := deployment("v1", elsewhere)
	released := outcome{Row: RowForeign, Action: ActionReleaseForward, Version: "v1", Fields: rolling("5", "1", 300), Gate: open, Warned: 1}
	checkHold(t, map[string]holdCase{
		"created from an export: any write releases it": {in: update(created, with(created, note("a", "b"))), want: released},
		"created from an export, by the controller":     {in: update(created, with(created, note("a", "b")), byController), want: released},
		"a restored backup, its record is of the Deployment before": {
			in:   update(created, created, withRecord(func(r *v1alpha1.Rollout) { r.Status.DeploymentUID = "uid-0" })),
			want: released,
		},
		"a hold without a mark and without a record": {
			in: update(deployment("v1", heldBy(3, rolling("5", "1", 300)), unmarked), deployment("v1", heldBy(3, rolling("5", "1", 300)), unmarked), noRecord), want: released,
		},
		"created from an export, then a new version: held, with the user's own fields": {
			in:   update(created, with(created, setTemplate("v2"))),
			want: outcome{Row: RowCandidate, Action: ActionHold, Version: "v2", Fields: heldFields(1), K: 1, User: rolling("5", "1", 300), Gate: closed, Warned: 1},
		},
		"created from an export, then a new version without policy": {
			in:   update(created, with(created, setTemplate("v2")), noPolicy),
			want: outcome{Row: RowUnmanaged, Action: ActionLeaveAlone, Version: "v2", Fields: rolling("5", "1", 300), Gate: open, Warned: 1},
		},
	})
}

func unmarked(d *appsv1.Deployment) {
	h := *parseHold(d.Annotations[v1alpha1.HoldAnnotation])
	h.UID = ""
	annotate(d, v1alpha1.HoldAnnotation, h.String())
}

func TestControllerWrites(t *testing.T) {
	user := rolling("50%", "1", 300)
	held := deployment("v2", heldBy(2, user))
	wish := func(d *appsv1.Deployment, h v1alpha1.Hold) *appsv1.Deployment {
		return with(d, note(v1alpha1.HoldAnnotation, h.String()))
	}
	h := func(k int32, version string, release v1alpha1.Release) v1alpha1.Hold {
		return v1alpha1.Hold{K: k, Template: digestOf(version), User: user, Release: release, UID: testUID, From: "90"}
	}
	keep := func(k, fieldsK int32, warned int) outcome {
		return outcome{Row: RowController, Action: ActionKeep, Version: "v2", Fields: heldFields(fieldsK), K: k, User: user, Gate: closed, Warned: warned}
	}
	untouched := outcome{Row: RowHeld, Action: ActionKeep, Version: "v2", Fields: heldFields(2), K: 2, User: user, Gate: closed}
	lost := with(held, func(d *appsv1.Deployment) { d.Annotations = nil })
	checkHold(t, map[string]holdCase{
		"a new k is rendered":          {in: update(held, wish(held, h(5, "v2", "")), byController), want: keep(5, 5, 0)},
		"while paused k is only noted": {in: update(with(held, paused), with(wish(held, h(5, "v2", "")), paused), byController), want: keep(5, 2, 0)},
		"paused while the fields were the user's again: not released back": {
			in: update(deployment("v2", gated(open), paused), wish(deployment("v2", gated(open), paused), h(2, "v2", v1alpha1.ReleaseBack)), byController,
				withRecord(trying("v2", v1alpha1.PhaseRollingBack))),
			want: outcome{Row: RowNothing, Action: ActionLeaveAlone, Version: "v2", Fields: defaults(), Gate: open},
		},
		"a stale copy of the user's fields does not win": {
			in: update(held, wish(held, v1alpha1.Hold{K: 5, Template: digestOf("v2"), User: rolling("9", "9", 9)}), byController), want: keep(5, 5, 0),
		},
		"a new k even without policy":             {in: update(held, wish(held, h(5, "v2", "")), byController, noPolicy), want: keep(5, 5, 0)},
		"a k for another template is stale":       {in: update(held, wish(held, h(5, "v0", "")), byController), want: untouched},
		"a release for another template is stale": {in: update(held, wish(held, h(2, "v0", v1alpha1.ReleaseForward)), byController), want: untouched},
		"a label by the controller":               {in: update(held, with(held, note("a", "b")), byController), want: untouched},
		"released forward": {
			in:   update(held, wish(held, h(2, "v2", v1alpha1.ReleaseForward)), byController),
			want: outcome{Row: RowController, Action: ActionReleaseForward, Version: "v2", Fields: user, Gate: open},
		},
		"released back": {
			in:   update(held, wish(held, h(2, "v2", v1alpha1.ReleaseBack)), byController),
			want: outcome{Row: RowController, Action: ActionReleaseBack, Version: "v1", Fields: user, Gate: open},
		},
		"released back after the fields were the user's again": {
			in: update(deployment("v2", gated(open)), wish(deployment("v2", gated(open)), h(2, "v2", v1alpha1.ReleaseBack)), byController,
				withRecord(trying("v2", v1alpha1.PhaseRollingBack))),
			want: outcome{Row: RowController, Action: ActionReleaseBack, Version: "v1", Fields: defaults(), Gate: open},
		},
		"no release while paused":                   {in: update(with(held, paused), with(wish(held, h(2, "v2", v1alpha1.ReleaseForward)), paused), byController), want: untouched},
		"no release back without a stable template": {in: update(held, wish(held, h(2, "v2", v1alpha1.ReleaseBack)), byController, owning()), want: untouched},
		"a hold that was lost comes back with the user's fields": {
			in:   update(lost, wish(lost, h(3, "v2", "")), byController),
			want: outcome{Row: RowController, Action: ActionHold, Version: "v2", Fields: heldFields(3), K: 3, User: user, Gate: closed},
		},
		"an update that slipped past is held, with the fields that are there": {
			in: update(deployment("v2", fields(rolling("7", "3", 60))),
				wish(deployment("v2", fields(rolling("7", "3", 60))), v1alpha1.Hold{K: 3, Template: digestOf("v2"), User: user}), byController),
			want: outcome{Row: RowController, Action: ActionHold, Version: "v2", Fields: heldFields(3), K: 3, User: rolling("7", "3", 60), Gate: closed},
		},
		"somebody else writes the same annotation: nothing happens": {
			in: update(held, wish(held, h(2, "v2", v1alpha1.ReleaseForward))), want: untouched,
		},
	})
}

func TestWarnings(t *testing.T) {
	v1 := deployment("v1")
	cases := map[string]struct {
		in   HoldInput
		want string
	}{
		"held": {
			in:   update(v1, with(v1, setTemplate("v2"))),
			want: "headgate: held as a canary rollout (10 %, 25 %, 50 %; up to 4m): kubectl rollout status deployment/web waits for the verdict",
		},
		"held after another one failed": {
			in: update(v1, with(v1, setTemplate("v2")), withRecord(rejected("v0", noon))),
			want: "headgate: held as a canary rollout (10 %, 25 %, 50 %; up to 4m): kubectl rollout status deployment/web waits for the verdict\n" +
				"headgate: the last version was rolled back: 5 % errors",
		},
		"held again after it failed": {
			in: update(v1, with(v1, setTemplate("v2")), withRecord(rejected("v2", noon))),
			want: "headgate: held as a canary rollout (10 %, 25 %, 50 %; up to 4m): kubectl rollout status deployment/web waits for the verdict\n" +
				"headgate: this version was rolled back: 5 % errors",
		},
		"held under a policy that can't be used": {
			in: update(v1, with(v1, setTemplate("v2")), troubled("RolloutPolicy p can't be used as it is: it names no host")),
			want: "headgate: held as a canary rollout (10 %, 25 %, 50 %; up to 4m): kubectl rollout status deployment/web waits for the verdict\n" +
				"headgate: RolloutPolicy p can't be used as it is: it names no host",
		},
		"not held, under such a policy": {
			in:   update(v1, with(v1, setTemplate("v2"), fields(recreate())), troubled("RolloutPolicy p can't be used as it is: it names no host")),
			want: "headgate: goes out at once, not as a rollout: strategy.type is Recreate; it needs RollingUpdate",
		},
		"no policy": {in: update(v1, with(v1, setTemplate("v2")), noPolicy), want: "headgate: goes out at once: no policy selects deployment/web"},
		"Recreate": {
			in:   update(v1, with(v1, setTemplate("v2"), fields(recreate()))),
			want: "headgate: goes out at once, not as a rollout: strategy.type is Recreate; it needs RollingUpdate",
		},
		"rejected": {
			in: update(v1, with(v1, setTemplate("v2")), withRecord(rejected("v2", noon.Add(time.Hour)))),
			want: "headgate: this version failed before; one pod, no requests, until 13:00 UTC (it failed: 5 % errors)\n" +
				`headgate: to try it now: kubectl patch rollouts.headgate.dev web --type=merge -p '{"spec":{"retry":{"revision":"h-v2"}}}'`,
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			if got := strings.Join(DecideHold(tc.in).Warnings, "\n"); got != tc.want {
				t.Errorf("warnings:\n got %q\nwant %q", got, tc.want)
			}
		})
	}
	long := with(v1, setTemplate("v2"), note(v1alpha1.BypassAnnotation, strings.Repeat("ü\n", 400)))
	for _, w := range DecideHold(update(v1, long, troubled(strings.Repeat("ü\n", 400)))).Warnings {
		if len(w) > maxWarning || strings.Contains(w, "\n") {
			t.Errorf("warning of %d bytes: %q", len(w), w)
		}
	}
}

func TestInvalidFieldsAreLeftToTheAPIServer(t *testing.T) {
	held := deployment("v2", heldBy(2, defaults()))
	cases := map[string]v1alpha1.UserFields{
		"neither surge nor unavailable":    rolling("0", "0%", 600),
		"not a number":                     rolling("many", "1", 600),
		"negative":                         rolling("-1", "1", 600),
		"more than all":                    rolling("1", "101%", 600),
		"a deadline that can't be met":     rolling("1", "1", 0),
		"a strategy that does not exist":   {StrategyType: "Magic", ProgressDeadlineSeconds: ptr[int32](600)},
		"a deadline within the ready time": rolling("3", "1", 20),
	}
	for name, user := range cases {
		t.Run(name, func(t *testing.T) {
			got := DecideHold(update(held, with(held, fields(user), func(d *appsv1.Deployment) { d.Spec.MinReadySeconds = 20 }))).Deployment
			if !equalFields(FieldsOf(got), user) {
				t.Errorf("admitted %v, want what the user wrote, so that the API server refuses it", FieldsOf(got))
			}
			if gateOf(got) != closed {
				t.Error("the gate is not closed")
			}
		})
	}
}

// Paused and scaled to 0: the release back does not wait. Growing again while still paused, the native
// controller would make nothing but candidates, and nobody would serve.
func TestTheReleaseBackDoesNotWaitAtZero(t *testing.T) {
	for name, tc := range map[string]struct {
		replicas int32
		want     string
	}{
		"N is 0":                 {0, "web:v1"},
		"there are pods to cost": {4, "web:v2"},
	} {
		t.Run(name, func(t *testing.T) {
			old := deployment("v2", heldBy(2, defaults()), paused, scaledTo(tc.replicas))
			h := holdOf(t, old)
			h.Release = v1alpha1.ReleaseBack
			in := update(old, with(old, note(v1alpha1.HoldAnnotation, h.String())), byController)
			got := DecideHold(in).Deployment
			if image := got.Spec.Template.Spec.Containers[0].Image; image != tc.want {
				t.Errorf("the template is %s, want %s", image, tc.want)
			}
			_, held := got.Annotations[v1alpha1.HoldAnnotation]
			if back := equalFields(FieldsOf(got), defaults()); held != (tc.replicas > 0) || back == held || !got.Spec.Paused {
				t.Errorf("held %v, fields %+v, paused %v", held, FieldsOf(got), got.Spec.Paused)
			}
			in.New = got
			if diff := cmp.Diff(got, DecideHold(in).Deployment); diff != "" {
				t.Errorf("called again:\n%s", diff)
			}
		})
	}
}

// k was lowered a moment ago, the candidate's pods are still there, and the user pauses: while paused, the Deployment
// controller shares out N + maxSurge among all versions, and what is too little would be taken from stable too.
func TestPausingLeavesRoomForThePodsThereAre(t *testing.T) {
	of := func(version string, n int32) *appsv1.ReplicaSet {
		return replicaSet(version, 0, func(rs *appsv1.ReplicaSet) { rs.Spec.Replicas = ptr(n) })
	}
	old := deployment("v2", heldBy(1, defaults()), scaledTo(10))
	for name, tc := range map[string]struct {
		old, obj *appsv1.Deployment
		owned    []*appsv1.ReplicaSet
		want     int32
	}{
		"as many as k":              {old, with(old, paused), []*appsv1.ReplicaSet{of("v1", 10), of("v2", 1)}, 1},
		"more than k":               {old, with(old, paused), []*appsv1.ReplicaSet{of("v1", 10), of("v2", 3)}, 3},
		"one that was superseded":   {old, with(old, paused), []*appsv1.ReplicaSet{of("v0", 2), of("v1", 10), of("v2", 1)}, 3},
		"stable is to shrink":       {old, with(old, paused), []*appsv1.ReplicaSet{of("v1", 16), of("v2", 1)}, 1},
		"a third one was going out": {old, with(old, paused), []*appsv1.ReplicaSet{of("v0", 6), of("v1", 4), of("v2", 1)}, 1},
		"a release waits":           {old, with(old, paused, note(v1alpha1.BypassAnnotation, "incident")), []*appsv1.ReplicaSet{of("v1", 10), of("v2", 3)}, 3},
		"paused before":             {with(old, paused), with(old, paused), []*appsv1.ReplicaSet{of("v1", 10), of("v2", 3)}, 1},
		"resumed":                   {with(old, paused), old, []*appsv1.ReplicaSet{of("v1", 10), of("v2", 3)}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			in := update(tc.old, tc.obj, owning(tc.owned...))
			got := DecideHold(in).Deployment
			if diff := cmp.Diff(heldFields(tc.want), FieldsOf(got)); diff != "" {
				t.Errorf("fields (-want +got):\n%s", diff)
			}
			if h := holdOf(t, got); h.K != tc.want || !equalFields(h.User, defaults()) {
				t.Errorf("the hold became %s", h)
			}
			in.New = got
			if diff := cmp.Diff(got, DecideHold(in).Deployment); diff != "" {
				t.Errorf("called again:\n%s", diff)
			}
		})
	}
}
