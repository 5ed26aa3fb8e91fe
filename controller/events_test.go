// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/headgate/headgate/api/v1alpha1"
	"github.com/headgate/headgate/webhook"
)

func TestWhyUnheld(t *testing.T) {
	tests := map[string]struct {
		change func(*workload, *v1alpha1.RolloutStatus)
		want   string // part of the reason; empty: no event
	}{
		"no policy":          {func(w *workload, _ *v1alpha1.RolloutStatus) { w.policy = nil }, "no policy"},
		"a suspended policy": {func(w *workload, _ *v1alpha1.RolloutStatus) { w.policy.Suspend = true }, "suspended"},
		"a bypass says its reason": {func(w *workload, _ *v1alpha1.RolloutStatus) {
			w.deployment.Annotations[v1alpha1.BypassAnnotation] = "hotfix 7"
		}, "bypassed (hotfix 7)"},
		"Recreate":          {func(w *workload, _ *v1alpha1.RolloutStatus) { w.deployment.Spec.Strategy.Type = "Recreate" }, "Recreate"},
		"no sidecars yet":   {func(*workload, *v1alpha1.RolloutStatus) {}, "no pods"},
		"the first version": {func(_ *workload, s *v1alpha1.RolloutStatus) { s.Stable.Template = "" }, ""},
		"the stable template": {func(w *workload, s *v1alpha1.RolloutStatus) {
			s.Stable.Template = webhook.TemplateDigest(w.deployment.Spec.Template)
		}, ""},
		"an update that was reported":    {func(_ *workload, s *v1alpha1.RolloutStatus) { s.DeploymentGeneration = 2 }, ""},
		"a record of another Deployment": {func(_ *workload, s *v1alpha1.RolloutStatus) { s.DeploymentUID = "other" }, ""},
		"a held update": {func(w *workload, _ *v1alpha1.RolloutStatus) {
			w.deployment.Annotations[v1alpha1.GateAnnotation] = "closed"
		}, ""},
		"in the middle of a rollout": {func(_ *workload, s *v1alpha1.RolloutStatus) { s.Phase = v1alpha1.PhaseStepping }, ""},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			d := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{UID: "d", Generation: 2}}
			d.Annotations = map[string]string{
				v1alpha1.GateAnnotation:         string(v1alpha1.GateOpen),
				v1alpha1.GateTemplateAnnotation: webhook.TemplateDigest(d.Spec.Template),
			}
			w := &workload{deployment: d, policy: &v1alpha1.RolloutPolicySpec{}}
			before := &v1alpha1.RolloutStatus{
				DeploymentUID: "d", DeploymentGeneration: 1, Phase: v1alpha1.PhaseIdle, Stable: v1alpha1.Revision{Template: "old"},
			}
			tc.change(w, before)
			got := whyUnheld(w, before)
			if (got == "") != (tc.want == "") || !strings.Contains(got, tc.want) {
				t.Errorf("got %q, want something with %q", got, tc.want)
			}
		})
	}
}
