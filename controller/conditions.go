// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"strconv"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/headgate/headgate/api/v1alpha1"
	"github.com/headgate/headgate/rollout"
)

// setConditions says in the record, in words for people and tools, how the rollout is doing.
// ports are those that the stable revision's sidecars capture.
func setConditions(s *v1alpha1.RolloutStatus, ports []v1alpha1.CapturedPort, now metav1.Time) {
	healthy, judged := healthyCondition(s), judgedCondition(s)
	if judged.Status == metav1.ConditionTrue && noTraffic(s, now) {
		judged.Status, judged.Reason = metav1.ConditionFalse, "NoTraffic"
		judged.Message = "no request was seen at the captured ports (" + portList(ports) + "); they are the containerPorts of the pods"
	}
	healthy.LastTransitionTime, judged.LastTransitionTime = now, now
	meta.SetStatusCondition(&s.Conditions, healthy)
	if judging(s) {
		meta.SetStatusCondition(&s.Conditions, judged)
	} else {
		meta.RemoveStatusCondition(&s.Conditions, v1alpha1.ConditionJudged)
	}
}

// trafficWithin is how long a service may go without any request before that is worth a word.
const trafficWithin = 20 * time.Second

// noTraffic: the step is judged for a while, and neither revision got a request.
func noTraffic(s *v1alpha1.RolloutStatus, now metav1.Time) bool {
	if s.StepSince == nil || now.Sub(s.StepSince.Time) < trafficWithin || s.Verdict == nil || s.Verdict.Evidence == nil {
		return false
	}
	return s.Verdict.Evidence.CandidateRequests == 0 && s.Verdict.Evidence.StableRequests == 0
}

func portList(ports []v1alpha1.CapturedPort) string {
	var out []string
	for _, p := range ports {
		out = append(out, strconv.Itoa(int(p.Port)))
	}
	return strings.Join(out, ", ")
}

func healthyCondition(s *v1alpha1.RolloutStatus) metav1.Condition {
	c := metav1.Condition{
		Type: v1alpha1.ConditionHealthy, Status: metav1.ConditionTrue, Reason: string(s.Phase),
		Message: "nothing speaks against the version that is in the template",
	}
	switch s.Phase {
	case v1alpha1.PhaseRollingBack, v1alpha1.PhaseQuarantined:
		c.Status, c.Reason, c.Message = metav1.ConditionFalse, "Failed", "the version that is in the template failed; stable serves"
		if s.Verdict != nil && s.Verdict.Message != "" {
			c.Message = s.Verdict.Message
		}
	}
	return c
}

// judging: there is, or should be, a verdict about the candidate.
func judging(s *v1alpha1.RolloutStatus) bool {
	switch s.Phase {
	case v1alpha1.PhaseStepping, v1alpha1.PhasePaused, v1alpha1.PhasePromoting:
		return s.Verdict != nil
	}
	return false
}

// judgedCondition is False while the analysis lacks what it needs.
func judgedCondition(s *v1alpha1.RolloutStatus) metav1.Condition {
	c := metav1.Condition{
		Type: v1alpha1.ConditionJudged, Status: metav1.ConditionTrue, Reason: "DataComplete",
		Message: "the analysis has what it needs",
	}
	switch v := s.Verdict; {
	case v == nil:
	case rollout.IsBlind(v.Cause):
		c.Status, c.Reason, c.Message = metav1.ConditionFalse, v.Cause, v.Message
	case v.Result == v1alpha1.ResultInconclusive:
		c.Status, c.Reason, c.Message = metav1.ConditionFalse, string(v.Result), v.Message
	case v.Evidence != nil && v.Evidence.Missing != "":
		c.Status, c.Reason, c.Message = metav1.ConditionFalse, "DataMissing", v.Evidence.Missing
	}
	return c
}
