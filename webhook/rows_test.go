// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"

	"github.com/headgate/headgate/api/v1alpha1"
)

const (
	closed = v1alpha1.GateClosed
	open   = v1alpha1.GateOpen
)

func TestUnheldWorkloads(t *testing.T) {
	v1 := deployment("v1")
	checkHold(t, map[string]holdCase{
		"a new label on a workload that is not held changes nothing": {
			in:   update(v1, with(v1, note("team", "a"))),
			want: outcome{Row: RowNothing, Action: ActionLeaveAlone, Version: "v1", Fields: defaults()},
		},
		"scaling a workload that is not held changes nothing": {
			in:   update(v1, with(v1, scaledTo(20))),
			want: outcome{Row: RowNothing, Action: ActionLeaveAlone, Version: "v1", Fields: defaults()},
		},
		"a new strategy is the user's while nothing is held": {
			in:   update(v1, with(v1, fields(recreate()))),
			want: outcome{Row: RowNothing, Action: ActionLeaveAlone, Version: "v1", Fields: recreate()},
		},
		"a forged hold is dropped": {
			in:   update(v1, with(v1, note(v1alpha1.HoldAnnotation, `{"k":5,"template":"x","user":{"strategyType":"Recreate"}}`))),
			want: outcome{Row: RowNothing, Action: ActionLeaveAlone, Version: "v1", Fields: defaults()},
		},
		"a forged gate is dropped": {
			in:   update(v1, with(v1, gated(closed))),
			want: outcome{Row: RowNothing, Action: ActionLeaveAlone, Version: "v1", Fields: defaults()},
		},
		"a manifest exported mid-rollout and applied at rest gets its own fields back": {
			in:   update(v1, deployment("v1", heldBy(3, rolling("5", "1", 300)))),
			want: outcome{Row: RowNothing, Action: ActionLeaveAlone, Version: "v1", Fields: rolling("5", "1", 300)},
		},
	})
}

func TestRow1NoPolicy(t *testing.T) {
	v1, held := deployment("v1"), deployment("v2", heldBy(2, rolling("50%", "1", 300)))
	checkHold(t, map[string]holdCase{
		"no policy: an update goes out at once, with a warning": {
			in:   update(v1, with(v1, setTemplate("v2")), noPolicy),
			want: outcome{Row: RowUnmanaged, Action: ActionLeaveAlone, Version: "v2", Fields: defaults(), Gate: open, Warned: 1},
		},
		"no policy and no record: not even an annotation": {
			in:   update(v1, with(v1, setTemplate("v2")), noPolicy, noRecord),
			want: outcome{Row: RowUnmanaged, Action: ActionLeaveAlone, Version: "v2", Fields: defaults(), Warned: 1},
		},
		"no policy: an older decision about the gate is not copied on to the new version": {
			in:   update(with(v1, gated(closed)), with(v1, gated(closed), setTemplate("v2")), noPolicy, noRecord),
			want: outcome{Row: RowUnmanaged, Action: ActionLeaveAlone, Version: "v2", Fields: defaults(), Gate: open, Warned: 1},
		},
		"no policy: a manifest exported mid-rollout elsewhere goes out with its own fields, without a closed gate": {
			in:   update(v1, deployment("v2", heldBy(3, rolling("5", "1", 300))), noPolicy, noRecord),
			want: outcome{Row: RowUnmanaged, Action: ActionLeaveAlone, Version: "v2", Fields: rolling("5", "1", 300), Warned: 1},
		},
		"suspended: an update goes out at once": {
			in:   update(v1, with(v1, setTemplate("v2")), suspended),
			want: outcome{Row: RowUnmanaged, Action: ActionLeaveAlone, Version: "v2", Fields: defaults(), Gate: open, Warned: 1},
		},
		"policy gone while held: released forward with the user's fields": {
			in:   update(held, with(held, note("a", "b")), noPolicy, withRecord(trying("v2", v1alpha1.PhaseStepping))),
			want: outcome{Row: RowUnmanaged, Action: ActionReleaseForward, Version: "v2", Fields: rolling("50%", "1", 300), Gate: open, Warned: 1},
		},
		"suspended while held: released forward": {
			in:   update(held, with(held, note("a", "b")), suspended, withRecord(trying("v2", v1alpha1.PhaseStarting))),
			want: outcome{Row: RowUnmanaged, Action: ActionReleaseForward, Version: "v2", Fields: rolling("50%", "1", 300), Gate: open, Warned: 1},
		},
		"policy gone while quarantined: released back to the stable template": {
			in:   update(held, with(held, note("a", "b")), noPolicy, withRecord(trying("v2", v1alpha1.PhaseQuarantined), rejected("v2", noon))),
			want: outcome{Row: RowUnmanaged, Action: ActionReleaseBack, Version: "v1", Fields: rolling("50%", "1", 300), Gate: open, Warned: 1},
		},
		"policy gone while rolling back: released back": {
			in:   update(held, held, noPolicy, withRecord(trying("v2", v1alpha1.PhaseRollingBack))),
			want: outcome{Row: RowUnmanaged, Action: ActionReleaseBack, Version: "v1", Fields: rolling("50%", "1", 300), Gate: open, Warned: 1},
		},
		"policy gone after a failing verdict: released back": {
			in: update(held, held, noPolicy, withRecord(trying("v2", v1alpha1.PhaseStepping), func(r *v1alpha1.Rollout) {
				r.Status.Verdict = &v1alpha1.Verdict{Result: v1alpha1.ResultFail}
			})),
			want: outcome{Row: RowUnmanaged, Action: ActionReleaseBack, Version: "v1", Fields: rolling("50%", "1", 300), Gate: open, Warned: 1},
		},
		"policy gone while quarantined, and a new template: evidence against the old one does not count": {
			in:   update(held, with(held, setTemplate("v3")), noPolicy, withRecord(trying("v2", v1alpha1.PhaseQuarantined), rejected("v2", noon))),
			want: outcome{Row: RowUnmanaged, Action: ActionReleaseForward, Version: "v3", Fields: rolling("50%", "1", 300), Gate: open, Warned: 1},
		},
		"policy gone while quarantined, stable's ReplicaSet gone: still held": {
			in:   update(held, held, noPolicy, owning(), withRecord(trying("v2", v1alpha1.PhaseQuarantined))),
			want: outcome{Row: RowUnmanaged, Action: ActionKeep, Version: "v2", Fields: heldFields(2), K: 2, User: rolling("50%", "1", 300), Gate: closed, Warned: 1},
		},
		"policy gone while held and paused: nothing moves, the release waits": {
			in:   update(with(held, paused), with(held, paused), noPolicy, withRecord(trying("v2", v1alpha1.PhaseStepping))),
			want: outcome{Row: RowUnmanaged, Action: ActionReleaseForward, Version: "v2", Fields: heldFields(2), K: 2, User: rolling("50%", "1", 300), Release: v1alpha1.ReleaseForward, Gate: open, Warned: 1},
		},
		"policy gone while quarantined and paused: the template stays and the gate too": {
			in:   update(with(held, paused), with(held, paused), noPolicy, withRecord(trying("v2", v1alpha1.PhaseQuarantined))),
			want: outcome{Row: RowUnmanaged, Action: ActionReleaseBack, Version: "v2", Fields: heldFields(2), K: 2, User: rolling("50%", "1", 300), Release: v1alpha1.ReleaseBack, Gate: closed, Warned: 1},
		},
	})
}

func TestRow2Bypass(t *testing.T) {
	v1, held := deployment("v1"), deployment("v2", heldBy(2, defaults()))
	used := func(r *v1alpha1.Rollout) { r.Status.UsedBypasses = []string{BypassDigest("hotfix")} }
	bypass := note(v1alpha1.BypassAnnotation, "hotfix")
	checkHold(t, map[string]holdCase{
		"a new reason lets the update out": {
			in:   update(v1, with(v1, bypass, setTemplate("v2"))),
			want: outcome{Row: RowBypass, Action: ActionLeaveAlone, Version: "v2", Fields: defaults(), Gate: open, Warned: 1},
		},
		"a new reason releases what is held": {
			in:   update(held, with(held, bypass)),
			want: outcome{Row: RowBypass, Action: ActionReleaseForward, Version: "v2", Fields: defaults(), Gate: open, Warned: 1},
		},
		"a new reason with a third template releases that one": {
			in:   update(held, with(held, bypass, setTemplate("v3"))),
			want: outcome{Row: RowBypass, Action: ActionReleaseForward, Version: "v3", Fields: defaults(), Gate: open, Warned: 1},
		},
		"a reason used before does not work again; a second warning says so": {
			in:   update(v1, with(v1, bypass, setTemplate("v2")), withRecord(used)),
			want: outcome{Row: RowCandidate, Action: ActionHold, Version: "v2", Fields: heldFields(1), K: 1, User: defaults(), Gate: closed, Warned: 2},
		},
		"a reason that the manifest carries since its creation does not work": {
			in:   update(with(v1, bypass), with(v1, bypass, setTemplate("v2"))),
			want: outcome{Row: RowCandidate, Action: ActionHold, Version: "v2", Fields: heldFields(1), K: 1, User: defaults(), Gate: closed, Warned: 2},
		},
		"another reason works after one that was used": {
			in:   update(with(v1, bypass), with(v1, note(v1alpha1.BypassAnnotation, "again"), setTemplate("v2")), withRecord(used)),
			want: outcome{Row: RowBypass, Action: ActionLeaveAlone, Version: "v2", Fields: defaults(), Gate: open, Warned: 1},
		},
		"a bypass on a paused held workload waits for resume": {
			in:   update(with(held, paused), with(held, paused, bypass)),
			want: outcome{Row: RowBypass, Action: ActionReleaseForward, Version: "v2", Fields: heldFields(2), K: 2, User: defaults(), Release: v1alpha1.ReleaseForward, Gate: open, Warned: 1},
		},
		"an empty reason is none": {
			in:   update(v1, with(v1, note(v1alpha1.BypassAnnotation, ""), setTemplate("v2"))),
			want: outcome{Row: RowCandidate, Action: ActionHold, Version: "v2", Fields: heldFields(1), K: 1, User: defaults(), Gate: closed, Warned: 1},
		},
	})
}

func TestRow3Stable(t *testing.T) {
	v1, held := deployment("v1"), deployment("v2", heldBy(2, rolling("4", "2", 300)))
	// What an undo brings along: the annotations that stable's ReplicaSet has from its own rollout.
	undone := replicaSet("v1", 10)
	undone.Annotations = deployment("v1", heldBy(2, rolling("9", "9", 99))).Annotations
	superseded := replicaSet("v2", 0)
	superseded.Annotations = deployment("v2", heldBy(1, rolling("9", "9", 99))).Annotations
	third := deployment("v3", heldBy(2, rolling("4", "2", 300)))
	all := owning(replicaSet("v1", 10), superseded, replicaSet("v3", 0))
	triedAgain := outcome{Row: RowCandidate, Action: ActionHold, Version: "v2", Fields: heldFields(1), K: 1, User: rolling("4", "2", 300), Gate: closed, Warned: 1}
	checkHold(t, map[string]holdCase{
		"the stable version applied again aborts the rollout": {
			in:   update(held, with(held, setTemplate("v1"))),
			want: outcome{Row: RowStable, Action: ActionReleaseBack, Version: "v1", Fields: rolling("4", "2", 300), Gate: open, Warned: 1},
		},
		"an undo brings old annotations, which count for nothing": {
			in:   update(held, with(held, setTemplateOf(undone)), owning(undone, replicaSet("v2", 0))),
			want: outcome{Row: RowStable, Action: ActionReleaseBack, Version: "v1", Fields: rolling("4", "2", 300), Gate: open, Warned: 1},
		},
		"an undo that names the version that was superseded a moment ago goes to stable": {
			in:   update(third, with(third, setTemplateOf(superseded)), all),
			want: outcome{Row: RowStable, Action: ActionReleaseBack, Version: "v1", Fields: rolling("4", "2", 300), Gate: open, Warned: 1},
		},
		"the version that was superseded a moment ago, by its image": {
			in:   update(third, with(third, setTemplate("v2")), all),
			want: triedAgain,
		},
		"a manifest of the version that was superseded, exported when it was held": {
			in:   update(third, with(third, setTemplateOf(superseded)), owning(replicaSet("v1", 10), replicaSet("v3", 0))),
			want: triedAgain,
		},
		"the stable version with new fields takes those": {
			in:   update(held, with(held, setTemplate("v1"), fields(rolling("1", "0", 60)))),
			want: outcome{Row: RowStable, Action: ActionReleaseBack, Version: "v1", Fields: rolling("1", "2", 60), Gate: open, Warned: 1},
		},
		"an abort at N = 0": {
			in:   update(with(held, scaledTo(0)), with(held, scaledTo(0), setTemplate("v1"))),
			want: outcome{Row: RowStable, Action: ActionReleaseBack, Version: "v1", Fields: rolling("4", "2", 300), Gate: open, Warned: 1},
		},
		"another webhook takes the change back in the same request: so does the hold": {
			in:   update(v1, with(DecideHold(update(v1, with(v1, setTemplate("v2")))).Deployment, setTemplate("v1"))),
			want: outcome{Row: RowNothing, Action: ActionLeaveAlone, Version: "v1", Fields: defaults()},
		},
		"back to stable while it is being replaced natively: no hold, an open gate, no warning": {
			in:   update(deployment("v2", gated(open)), deployment("v1", gated(open)), withRecord(trying("v2", v1alpha1.PhasePromoting))),
			want: outcome{Row: RowStable, Action: ActionLeaveAlone, Version: "v1", Fields: defaults(), Gate: open},
		},
		"without a record the largest available ReplicaSet is stable": {
			in:   update(deployment("v2"), deployment("v1"), noRecord, owning(replicaSet("v2", 1), replicaSet("v1", 8))),
			want: outcome{Row: RowStable, Action: ActionLeaveAlone, Version: "v1", Fields: defaults(), Gate: open},
		},
		"a record of a Deployment that was deleted does not say what is stable": {
			in: update(deployment("v2"), deployment("v1"), owning(replicaSet("v2", 10), replicaSet("v1", 0, rsGate(closed))),
				withRecord(func(r *v1alpha1.Rollout) { r.Status.DeploymentUID = "other" })),
			want: outcome{Row: RowCandidate, Action: ActionHold, Version: "v1", Fields: heldFields(1), K: 1, User: defaults(), Gate: closed, Warned: 1},
		},
		"stable's ReplicaSet is gone: its digest in the record still tells": {
			in:   update(held, with(held, setTemplate("v1")), owning()),
			want: outcome{Row: RowStable, Action: ActionReleaseBack, Version: "v1", Fields: rolling("4", "2", 300), Gate: open, Warned: 1},
		},
		"an abort while paused waits for resume; the new pods are stable's, so their gate is open": {
			in:   update(with(held, paused), with(held, paused, setTemplate("v1"))),
			want: outcome{Row: RowStable, Action: ActionReleaseBack, Version: "v1", Fields: heldFields(2), K: 2, User: rolling("4", "2", 300), Release: v1alpha1.ReleaseBack, Gate: open, Warned: 1},
		},
	})
}

func TestRow4Rejected(t *testing.T) {
	v1, q := deployment("v1"), deployment("v2", heldBy(1, defaults()))
	soon := noon.Add(5 * time.Minute)
	quarantined := outcome{Row: RowRejected, Action: ActionQuarantine, Version: "v2", Fields: heldFields(1), K: 1, User: defaults(), Gate: closed, Warned: 2}
	tried := outcome{Row: RowCandidate, Action: ActionHold, Version: "v2", Fields: heldFields(5), K: 5, User: defaults(), Gate: closed, Warned: 2}
	half := func(in *HoldInput) { in.Policy.Steps = []v1alpha1.Step{{Weight: 50}} }
	checkHold(t, map[string]holdCase{
		"the version that failed, put back by a tool, goes straight into quarantine": {
			in: update(v1, with(v1, setTemplate("v2")), half, withRecord(rejected("v2", soon))), want: quarantined,
		},
		"the back-off is over: tried again": {
			in: update(v1, with(v1, setTemplate("v2")), half, withRecord(rejected("v2", noon))), want: tried,
		},
		"somebody asked to retry: tried again": {
			in: update(v1, with(v1, setTemplate("v2")), half, withRecord(rejected("v2", soon), retry("v2"))), want: tried,
		},
		"a wish to retry another version does not count": {
			in: update(v1, with(v1, setTemplate("v2")), half, withRecord(rejected("v2", soon), retry("v0"))), want: quarantined,
		},
		"another version than the rejected one is tried": {
			in: update(v1, with(v1, setTemplate("v2")), half, withRecord(rejected("v0", soon))), want: tried,
		},
		"quarantine also where a rollout would be impossible": {
			in: update(v1, with(v1, setTemplate("v2")), half, withRecord(rejected("v2", soon)), func(in *HoldInput) { in.Split = SplitState{} }), want: quarantined,
		},
		"an unrelated write to a quarantined version keeps it, silently": {
			in:   update(q, with(q, note("a", "b")), withRecord(trying("v2", v1alpha1.PhaseQuarantined), rejected("v2", soon))),
			want: outcome{Row: RowHeld, Action: ActionKeep, Version: "v2", Fields: heldFields(1), K: 1, User: defaults(), Gate: closed},
		},
		"while the roll back is still going on, an unrelated write does not shrink the candidate": {
			in:   update(deployment("v2", heldBy(5, defaults())), deployment("v2", heldBy(5, defaults()), note("a", "b")), withRecord(trying("v2", v1alpha1.PhaseRollingBack), rejected("v2", soon))),
			want: outcome{Row: RowHeld, Action: ActionKeep, Version: "v2", Fields: heldFields(5), K: 5, User: defaults(), Gate: closed},
		},
	})
}

func TestRow5EarlierStable(t *testing.T) {
	v2 := deployment("v2")
	stable2 := func(r *v1alpha1.Rollout) { r.Status.Stable = revision("v2") }
	promoted := v1alpha1.HistoryEntry{Outcome: v1alpha1.OutcomePromoted, From: "h-v1", To: "h-v2"}
	released := outcome{Row: RowEarlierStable, Action: ActionLeaveAlone, Version: "v1", Fields: defaults(), Gate: open, Warned: 1}
	heldV1 := outcome{Row: RowCandidate, Action: ActionHold, Version: "v1", Fields: heldFields(1), K: 1, User: defaults(), Gate: closed, Warned: 1}
	failedV1 := heldV1
	failedV1.Warned = 2 // of the failure, too
	both := owning(replicaSet("v1", 0, rsGate(open)), replicaSet("v2", 10))
	checkHold(t, map[string]holdCase{
		"an undo to the version before goes out at once": {
			in: update(v2, with(v2, setTemplate("v1")), both, withRecord(stable2, remember(promoted))), want: released,
		},
		"policy rollback: Managed makes it a rollout": {
			in: update(v2, with(v2, setTemplate("v1")), both, withRecord(stable2, remember(promoted)),
				func(in *HoldInput) { in.Policy.Rollback = v1alpha1.RollbackManaged }), want: heldV1,
		},
		"a ReplicaSet older than Headgate was stable": {
			in: update(v2, with(v2, setTemplate("v1")), owning(replicaSet("v1", 0), replicaSet("v2", 10)), withRecord(stable2)), want: released,
		},
		"a ReplicaSet that nobody decided about since is not": {
			in: update(v2, with(v2, setTemplate("v1")), owning(replicaSet("v1", 0, born(noon)), replicaSet("v2", 10)),
				withRecord(stable2, recordedAt(noon.Add(-time.Minute)))), want: heldV1,
		},
		"nor is one that was let out, and replaced before it was complete": {
			in: update(v2, with(v2, setTemplate("v1")), owning(replicaSet("v1", 0, born(noon), rsGate(open)), replicaSet("v2", 10)),
				withRecord(stable2, recordedAt(noon.Add(-time.Minute)))), want: heldV1,
		},
		"a candidate that was rolled back was never stable": {
			in: update(v2, with(v2, setTemplate("v1")), both, withRecord(stable2,
				remember(v1alpha1.HistoryEntry{Outcome: v1alpha1.OutcomeRolledBack, From: "h-v2", To: "h-v1"}))), want: heldV1,
		},
		"a candidate that got nowhere still has its gate closed": {
			in: update(v2, with(v2, setTemplate("v1")), owning(replicaSet("v1", 0, rsGate(closed)), replicaSet("v2", 10)), withRecord(stable2)), want: heldV1,
		},
		"a candidate that only the record knows was never stable": {
			in: update(v2, with(v2, setTemplate("v1")), owning(replicaSet("v1", 0), replicaSet("v2", 10)), withRecord(stable2,
				func(r *v1alpha1.Rollout) { r.Status.Candidate.Template = revision("v1").Template })), want: heldV1,
		},
		"a rejected version is not an earlier stable one, even with an open gate": {
			in: update(v2, with(v2, setTemplate("v1")), both, withRecord(stable2, rejected("v1", noon.Add(-time.Hour)))), want: failedV1,
		},
		"its ReplicaSet is gone: a new candidate": {
			in: update(v2, with(v2, setTemplate("v1")), owning(replicaSet("v2", 10)), withRecord(stable2, remember(promoted))), want: heldV1,
		},
		"mid-rollout an undo to before stable releases what is held": {
			in: update(deployment("v3", heldBy(2, defaults())), deployment("v1", heldBy(2, defaults())),
				owning(replicaSet("v1", 0), replicaSet("v2", 10), replicaSet("v3", 0, rsGate(closed))), withRecord(stable2, remember(promoted), trying("v3", v1alpha1.PhaseStepping))),
			want: outcome{Row: RowEarlierStable, Action: ActionReleaseForward, Version: "v1", Fields: defaults(), Gate: open, Warned: 1},
		},
	})
}

// Whoever does not see the admission's warning reads the same reason in an Event, which the controller makes of what the
// webhook notes. It stays through other writes, and goes with the next template.
func TestTheReasonIsNoted(t *testing.T) {
	v1, held := deployment("v1"), deployment("v2", heldBy(2, defaults()))
	v2 := with(v1, setTemplate("v2"))
	was := replicaSet("v2", 0, rsGate(open))
	for name, tc := range map[string]struct {
		in   HoldInput
		want string // empty: held
	}{
		"no policy":                        {update(v1, v2, noPolicy), "no policy selects deployment/web"},
		"suspended":                        {update(v1, v2, suspended), "the policy of deployment/web is suspended"},
		"a bypass":                         {update(v1, with(v2, note(v1alpha1.BypassAnnotation, "hotfix 7"))), "bypassed (hotfix 7)"},
		"a bypass while another is held":   {update(held, with(held, setTemplate("v3"), note(v1alpha1.BypassAnnotation, "hotfix 7"))), "bypassed (hotfix 7)"},
		"it was stable before":             {update(v1, v2, owning(replicaSet("v1", 10), was), withRecord(remember(v1alpha1.HistoryEntry{Outcome: v1alpha1.OutcomePromoted, To: "h-v2"}))), "this version was stable before"},
		"Recreate":                         {update(v1, with(v2, fields(recreate()))), "strategy.type is Recreate; it needs RollingUpdate"},
		"it can't have a sidecar":          {update(v1, v2, noSidecar), "can't have a sidecar"},
		"stable is down":                   {update(v1, v2, stableDown(time.Minute)), "no pod of the stable version was available"},
		"stable is down, another was held": {update(held, with(held, setTemplate("v3")), stableDown(time.Minute)), "no pod of the stable version was available"},
		"held":                             {update(v1, v2), ""},
	} {
		t.Run(name, func(t *testing.T) {
			d := DecideHold(tc.in)
			if got := WhyUnheld(d.Deployment); got != tc.want {
				t.Fatalf("row %s notes %q, want %q", d.Row, got, tc.want)
			}
			if tc.want != "" && !strings.Contains(strings.Join(d.Warnings, "\n"), tc.want) {
				t.Errorf("the warnings %q give another reason", d.Warnings)
			}
			stored := with(d.Deployment, func(d *appsv1.Deployment) { d.ResourceVersion = "101" })
			labelled := DecideHold(update(stored, with(stored, note("a", "b"), note(v1alpha1.GateReasonAnnotation, "forged")))).Deployment
			if got := WhyUnheld(labelled); got != tc.want {
				t.Errorf("after another write: %q, want %q", got, tc.want)
			}
			next := DecideHold(update(stored, with(stored, setTemplate("v9"), fields(defaults())))).Deployment
			if got := WhyUnheld(next); got != "" || next.Annotations[v1alpha1.GateReasonAnnotation] != "" {
				t.Errorf("the next version is held, and the reason is still %q", next.Annotations[v1alpha1.GateReasonAnnotation])
			}
		})
	}
}
