// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"

	appsv1 "k8s.io/api/apps/v1"

	"github.com/headgate/headgate/api/v1alpha1"
	"github.com/headgate/headgate/rollout"
)

// maxWarning is the length in bytes beyond which the API server cuts a warning.
const maxWarning = 256

// warnings are what the user reads below his command.
func (r *request) warnings(v verdict) []string {
	var out []string
	if v.warning != "" {
		out = append(out, shorten("headgate: "+v.warning, maxWarning))
	}
	if v.row == RowCandidate && r.bypass() != "" {
		// Whoever wrote the annotation expects something else than a hold.
		out = append(out, shorten(fmt.Sprintf("headgate: %s %q was there before this update and does not count: give a new reason in the same update",
			v1alpha1.BypassAnnotation, shorten(r.bypass(), 60)), maxWarning))
	}
	if v.row == RowCandidate && r.in.Instead {
		out = append(out, "headgate: no pod of the stable version serves: this one is compared with the version that was let out and serves most; a roll back leads there")
	}
	if v.row == RowCandidate && r.in.PolicyTrouble != "" {
		out = append(out, shorten("headgate: "+r.in.PolicyTrouble, maxWarning))
	}
	if v.row == RowCandidate {
		if before := r.failedBefore(); before != "" {
			out = append(out, shorten("headgate: "+before, maxWarning))
		}
	}
	if v.row == RowRejected && r.record.Rejected.Revision != "" {
		out = append(out, shorten(fmt.Sprintf(`headgate: to try it now: kubectl patch rollouts.headgate.dev %s --type=merge -p '{"spec":{"retry":{"revision":%q}}}'`,
			r.in.New.Name, r.record.Rejected.Revision), maxWarning))
	}
	return out
}

// heldWarning says what a hold means, and how long it may take; or that it leads nowhere, because no request can be split
// to a version without sidecars. Stable serves on then: that another version was held is no reason to put its pods at
// stake for one that nobody can judge.
func (r *request) heldWarning() string {
	if why := r.in.Split.NoSidecar; why != "" {
		// Only on top of another hold; else row 6 leaves it alone. The remedy first: a long reason is cut.
		return "held, to be rejected at once (a new reason in " + v1alpha1.BypassAnnotation + " lets it out): " + why + r.whenResumed()
	}
	var steps []string
	var approval string
	for _, s := range r.steps() {
		steps = append(steps, fmt.Sprintf("%d %%", s.Weight))
		if s.Approval {
			approval = ", approvals not counted"
		}
	}
	if len(steps) > 6 {
		steps = slices.Concat(steps[:3], []string{"..."}, steps[len(steps)-2:])
	}
	w := fmt.Sprintf("held as a canary rollout (%s; up to %s%s): kubectl rollout status %s waits for the verdict",
		strings.Join(steps, ", "), formatDuration(r.policy.EffectiveMaxDuration()), approval, r.name())
	return w + r.whenResumed()
}

// steps are those that the rollout will have.
func (r *request) steps() []v1alpha1.Step {
	return rollout.EffectiveSteps(r.policy, replicasOf(r.in.New), r.in.Autoscaled)
}

// notedWarning tells the user what becomes of his strategy; empty when he wants what he wanted before. Recreate is told
// with each of his writes: to take it back he may write the type and the values that the hold has, which the API server
// takes for no change, and the next update would go out with an outage.
func (r *request) notedWarning() string {
	switch {
	case !equalFields(r.user, r.hold.User):
		return "the strategy is noted, and applied when the rollout ends (what equals the values of now can not be told from no change)"
	case r.user.StrategyType == string(appsv1.RecreateDeploymentStrategyType):
		return "strategy Recreate is noted, and applied when the rollout ends: to take it back, write another maxSurge or maxUnavailable than the Deployment has now"
	}
	return ""
}

// whenResumed is added to what is put off because the user has paused.
func (r *request) whenResumed() string {
	if r.in.New.Spec.Paused || r.fieldsStay() {
		return "; begins when the Deployment is resumed"
	}
	return ""
}

func (r *request) name() string { return "deployment/" + r.in.New.Name }

// bypass is the reason that the new object gives; empty: none.
func (r *request) bypass() string { return r.in.New.Annotations[v1alpha1.BypassAnnotation] }

// bypassUsed: the same reason was there before, in the old object or in the record.
func (r *request) bypassUsed() bool {
	reason := r.bypass()
	if reason == r.in.Old.Annotations[v1alpha1.BypassAnnotation] {
		return true
	}
	return r.record != nil && slices.Contains(r.record.UsedBypasses, BypassDigest(reason))
}

// retryWanted: somebody asked to try the rejected revision again.
func (r *request) retryWanted(rejected *v1alpha1.Rejection) bool {
	retry := r.in.Record.Spec.Retry
	if retry == nil {
		return false
	}
	if retry.Revision == rejected.Revision {
		return true
	}
	rs := findRevision(r.in.ReplicaSets, v1alpha1.Revision{Hash: retry.Revision})
	return rs != nil && EqualTemplate(&rs.Spec.Template, &r.in.New.Spec.Template)
}

func failedBecause(rejected *v1alpha1.Rejection) string {
	if rejected.Message == "" {
		return ""
	}
	return " (it failed: " + shorten(rejected.Message, 160) + ")"
}

// failedBefore is why the last version that was tried went back; empty where it did not. Whoever updates may not have seen it.
func (r *request) failedBefore() string {
	if r.record == nil || r.record.Rejected == nil || r.record.Rejected.Message == "" {
		return ""
	}
	which := "the last version"
	if r.record.Rejected.Template == r.digest() {
		which = "this version"
	}
	return which + " was rolled back: " + r.record.Rejected.Message
}

// shorten cuts a text to n bytes at a rune's border and makes it one printable line.
func shorten(s string, n int) string {
	s = strings.Map(func(c rune) rune {
		if !unicode.IsPrint(c) {
			return ' '
		}
		return c
	}, s)
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n-3], "") + "..."
}

// formatDuration writes 4m, not 4m0s.
func formatDuration(d time.Duration) string {
	s := d.Round(time.Second).String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

func joinNonEmpty(sep string, parts ...string) string {
	return strings.Join(slices.DeleteFunc(parts, func(s string) bool { return s == "" }), sep)
}
