// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package simulate

import (
	"fmt"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/headgate/headgate/api/v1alpha1"
	"github.com/headgate/headgate/webhook"
)

// describe prints a write, for whoever wants to understand a history.
func (o *oracle) describe(by string, before, after client.Object) {
	if o.trace == nil {
		return
	}
	if i := strings.LastIndexByte(by, ':'); i >= 0 {
		by = by[i+1:]
	}
	was, is := brief(before), brief(after)
	switch {
	case was == is:
	case was == "":
		o.log("%s: + %s", by, is)
	case is == "":
		o.log("%s: - %s", by, was)
	default:
		o.log("%s: %s", by, is)
	}
}

// brief is an object in a line; empty when there is none.
func brief(o client.Object) string {
	switch x := o.(type) {
	case *appsv1.Deployment:
		return briefDeployment(x)
	case *appsv1.ReplicaSet:
		return fmt.Sprintf("replicaset %s size=%d ready=%d of %d desired=%s revision=%s gate=%s", hashOf(x), *x.Spec.Replicas, x.Status.ReadyReplicas,
			x.Status.Replicas, x.Annotations[desiredAnnotation], x.Annotations[revisionAnnotation], x.Annotations[v1alpha1.GateAnnotation])
	case *corev1.Pod:
		return briefPod(x)
	case *v1alpha1.Rollout:
		s := x.Status
		verdict := ""
		if s.Verdict != nil {
			verdict = string(s.Verdict.Result) + " " + s.Verdict.Cause
		}
		return fmt.Sprintf("rollout %s from=%s %s -> %s step=%d k=%d weight=%d(%d) %s", s.Phase, s.ResumePhase, s.Stable.Hash, s.Candidate.Hash,
			s.Step, s.CandidateReplicas, s.Weight, s.WeightInForce, verdict)
	case nil:
		return ""
	}
	return fmt.Sprintf("%T %s", o, o.GetName())
}

func briefDeployment(d *appsv1.Deployment) string {
	if d == nil || len(d.Spec.Template.Spec.Containers) == 0 {
		return ""
	}
	gate := webhook.GateOf(d.Annotations, webhook.TemplateDigest(d.Spec.Template))
	hold := "-"
	if h, err := v1alpha1.ParseHold(d.Annotations[v1alpha1.HoldAnnotation]); err == nil && h != nil {
		hold = fmt.Sprintf("k=%d %s user=(%s)", h.K, h.Release, show(h.User))
	}
	cond := ""
	if c := progressing(&d.Status); c != nil {
		cond = string(c.Status) + " " + c.Reason
	}
	return fmt.Sprintf("deployment %s n=%d gen=%d/%d paused=%v %s gate=%s hold=%s %s", versionOf(&d.Spec.Template), *d.Spec.Replicas,
		d.Status.ObservedGeneration, d.Generation, d.Spec.Paused, show(webhook.FieldsOf(d)), gate, hold, cond)
}

func briefPod(pod *corev1.Pod) string {
	var state []string
	for _, t := range []corev1.PodConditionType{corev1.ContainersReady, corev1.PodReady, v1alpha1.GateCondition} {
		if isTrue(pod, t) {
			state = append(state, string(t))
		}
	}
	if pod.DeletionTimestamp != nil {
		state = append(state, "ending")
	}
	return fmt.Sprintf("pod %s gated=%v %s", pod.Name, webhook.HasGate(pod), strings.Join(state, " "))
}
